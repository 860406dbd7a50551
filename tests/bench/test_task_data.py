"""Which data a task reads: pinned files, tags, solved examples, and splits of the Hugging Face hub."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.catalogue import Recipe
from bench.config import ConfigError, Load, SamplingOptions, TaskOptions
from bench.datasets_source import Split, digest_of, fetched, named_data, split_of
from bench.render import Asking, TaskData, load_tasks, render_step
from tasks import TASKS

PLAIN = Asking(recipe=Recipe(), sampling=SamplingOptions())


def question(item: str, subject: str, answer: str = "B") -> dict[str, Any]:
    options = {"A": "w", "B": "x", "C": "y", "D": "z"}
    return {"id": item, "question": f"Which {item}?", "options": options, "answer": answer, "subject": subject}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [question("t1", "anatomy"), question("t2", "genetics"), question("t3", "anatomy", "D")]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = [question("d0", "genetics", "C"), question("d1", "anatomy", "A"), question("d2", "anatomy", "C")]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    return tmp_path


def mmlu(folder: Path, **options: object) -> TaskData:
    wanted = {"mmlu_medical": msgspec.convert({"data": "test.jsonl", **options}, TaskOptions)}
    return load_tasks(wanted, TASKS, None, 0, folder)["mmlu_medical"]


def test_only_items_with_the_tag_are_asked(folder: Path) -> None:
    assert sorted(s.id for s in mmlu(folder, where={"subject": "anatomy"}).samples) == ["t1", "t3"]
    with pytest.raises(ConfigError, match="no item has subject = 'heart' in `where`; there are anatomy, genetics"):
        mmlu(folder, where={"subject": "heart"})


def test_examples_stand_once_in_the_text_that_all_questions_share(folder: Path) -> None:
    data = mmlu(folder, where={"subject": "anatomy"}, shots=2, shots_data="dev.jsonl")
    facts, job = render_step(data, PLAIN, Load(concurrency=1), 0, 0)
    shown = "Question: Which d1?\nAnswer: w\n\nQuestion: Which d2?\nAnswer: y\n\n"
    assert {rank.prefix for rank in job.ranks} == {shown}
    assert {rank.context for rank in job.ranks} == {f"{shown}Question: Which {i}?\nAnswer:" for i in ("t1", "t3")}
    assert facts.shots == 2


def test_examples_of_letters_end_in_a_letter(folder: Path) -> None:
    data = mmlu(folder, shots=1, shots_data="dev.jsonl", scoring="letters")
    rank = render_step(data, PLAIN, Load(concurrency=1), 0, 0)[1].ranks[0]
    assert rank.context.startswith("Which d0?\nA. w\nB. x\nC. y\nD. z\nAnswer: C\n\nWhich t")
    assert rank.continuations == (" A", " B", " C", " D")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 2}, "`shots` needs `shots_data`"),
        ({"shots": 9, "shots_data": "dev.jsonl"}, r"dev\.jsonl has 3 examples, not 9"),
        ({"shots": 1, "shots_data": "none.jsonl"}, r"none\.jsonl cannot be read"),
        ({"sha256": "00"}, r"test\.jsonl has SHA-256 [0-9a-f]{64}, not the pinned 00"),
        ({"data": "none.jsonl"}, r"none\.jsonl cannot be read"),
        ({"data": None}, "mmlu_medical is not shipped with Bedside"),
        ({"data": None, "sha256": "00"}, "`sha256` pins a data file, but no `data` is named"),
    ],
)
def test_what_cannot_be_had_is_told(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mmlu(folder, **options)


def test_examples_are_not_for_written_answers(folder: Path) -> None:
    data = mmlu(folder, shots=1, shots_data="dev.jsonl", scoring="generate")
    with pytest.raises(ConfigError, match="`shots` are for ranked questions, not for `generate`"):
        render_step(data, PLAIN, Load(concurrency=1), 0, 0)


def test_the_hash_of_what_was_read_is_recorded(folder: Path) -> None:
    digest = hashlib.sha256((folder / "test.jsonl").read_bytes()).hexdigest()
    data = mmlu(folder, sha256=digest.upper())
    assert render_step(data, PLAIN, Load(concurrency=1), 0, 0)[0].data_file_sha256 == digest
    assert digest_of(folder) != digest_of(folder / "test.jsonl")
    assert digest_of(folder / "none") is None
    (folder / "dev.jsonl").rename(folder / "other.jsonl")
    assert named_data("t", ".", None, folder, False) == (folder, digest_of(folder))


REVISION = "0123abc"


def test_a_split_is_named_with_its_revision() -> None:
    assert split_of(f"hf:owner/name@{REVISION}:test") == Split(
        repo="owner/name", revision=REVISION, config=None, split="test"
    )
    assert split_of(f"hf:owner/name@{REVISION}:labelled/train").config == "labelled"
    for bad in (
        "hf:owner/name",
        "hf:owner/name:test",
        "hf:name@0123abc:test",
        "hf:../x@0123abc:test",
        "hf:owner/name@main:test",
    ):
        with pytest.raises(ConfigError, match="write hf:OWNER/NAME@REVISION:SPLIT"):
            split_of(bad)


def rows(split: Split) -> Iterable[Mapping[str, Any]]:
    yield question("h1", "anatomy")


def test_a_split_is_fetched_once_and_only_when_permitted(folder: Path) -> None:
    data = f"hf:owner/fetched-once@{REVISION}:test"
    split = split_of(data)
    with pytest.raises(
        ConfigError, match=r"is not on this disk; put its rows as JSON Lines at .*test\.jsonl, or run with --download"
    ):
        mmlu(folder, data=data)
    file = fetched(split, True, rows)
    assert fetched(split, False, lambda _: pytest.fail("fetched twice")) == file
    assert [s.id for s in mmlu(folder, data=data).samples] == ["h1"]


def test_a_fetch_that_fails_leaves_no_half_file() -> None:
    split = split_of(f"hf:owner/fails@{REVISION}:test")

    def broken(_: Split) -> Iterable[Mapping[str, Any]]:
        yield question("h1", "anatomy")
        raise ConfigError("cannot be fetched")

    with pytest.raises(ConfigError, match="cannot be fetched"):
        fetched(split, True, broken)
    assert not split.file.exists()
