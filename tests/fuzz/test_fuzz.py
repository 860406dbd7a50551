"""Made-up input of every kind that comes from outside: good, or refused in one sentence, never anything else.

Examples are drawn the same way every time; what once failed is kept in `corpus/` and read first.
"""

import json
import math
import shutil
import struct
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.backends.sse import EventStream, SseError
from bench.config import ConfigError, Suite, suite_from
from bench.gguf import GgufError, read_header
from bench.safetensors import SafetensorsError, read_folder
from results.cost import EXAMPLES, load_tariff
from results.nightly.history import read_run
from results.nightly.night import judge_night
from results.nightly.page import junit, page
from results.records import Answered, CellEnded, Event, Ranked, Scored
from results.store import CellDir, Lines, RunDir, StoreError
from tasks.answers import YES_NO_MAYBE, find_choice, find_label, read_reply
from tasks.base import Answer, DataError
from tasks.clinical_qa import CLINICAL_QA_EN
from tasks.note_summary import NOTE_SUMMARY_EN
from tasks.numbers import find_date, find_number

CORPUS = Path(__file__).parent / "corpus"
STEADY = settings(
    derandomize=True, database=None, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck)
)

plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12))
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
SUITE: dict[str, Any] = {
    "name": "s",
    "tasks": {"clinical_qa_en": {"limit": 3}},
    "load": [{"concurrency": 1}],
    "idle_s": 1.0,
    "redact": ["a+"],
    "deployments": [
        {"name": "d", "backend": "scripted", "settings": {"reply": "x", "slots": 2}, "matrix": {"quantise": ["F16"]}}
    ],
}


def attempt(read: Callable[[], Any], kind: type[Exception]) -> tuple[Any, str]:
    """What was read and no words, or nothing and the refusal; another exception is a failure of the test."""
    try:
        return read(), ""
    except kind as error:
        return None, str(error)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a nested document."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def changed(value: Any, path: tuple[Any, ...], put: Any) -> Any:
    if not path:
        return put
    head, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[head] = changed(value[head], tuple(rest), put)
    return copy


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@STEADY
@given(st.sampled_from([p for p in places(SUITE) if p]), anything)
@example(("idle_s",), math.inf)
@example(("idle_s",), math.nan)
@example(("redact",), ["("])
@example(("deployments", 0, "matrix", "quantise"), [{}])
@example(("deployments", 0, "settings"), [1])
def test_a_suite_is_good_or_refused_in_one_sentence(path: tuple[Any, ...], put: Any) -> None:
    suite, refusal = attempt(lambda: suite_from(changed(SUITE, path, put), "suite.toml"), ConfigError)
    assert refusal.startswith("suite.toml: ") == (suite is None)
    if suite is None:
        return
    assert isinstance(suite, Suite)
    assert finite(msgspec.to_builtins(suite))
    assert suite_from(msgspec.json.decode(msgspec.json.encode(suite)), "again") == suite  # as from a manifest


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
@STEADY
@given(data=st.data())
def test_a_tariff_is_good_or_refused_in_one_sentence(
    path: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    at = data.draw(st.sampled_from([i for i, line in enumerate(lines) if "=" in line]))
    value = data.draw(
        st.sampled_from(["nan", "inf", "-1", "1e308", "''", "[]", "{}", "true", "0", "-0.0", "9" * 30, "\\", "=", ""])
    )
    lines[at] = f"{lines[at].split('=')[0]}= {value}"
    file = tmp_path_factory.getbasetemp() / "tariff.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    tariff, refusal = attempt(lambda: load_tariff(file), StoreError)
    assert refusal.startswith(str(file)) == (tariff is None)
    assert finite(msgspec.to_builtins(tariff))


texts = st.text(max_size=200) | st.sampled_from(
    ["<think>", "</think>", "\\boxed{A}", "答案", "\ud7ff", "\x00", "\u2028"]
)
finite_floats = st.floats(allow_nan=False, allow_infinity=False)
RECORDS = st.builds(
    Answered, step=texts, sample=texts, sched_ns=st.integers(0, 2**62), start_ns=st.integers(0, 2**62), end_ns=st.integers(0, 2**62),
    text=texts | st.none(), reasoning=texts | st.none(), error=texts | st.none(),
) | st.builds(Ranked, step=texts, sample=texts, start_ns=st.integers(0, 2**62), end_ns=st.integers(0, 2**62)) | st.builds(
    CellEnded, time_ns=st.integers(0, 2**62), outcome=st.sampled_from(["ok", "oom"]), detail=texts, log_tail=texts
)  # fmt: skip


@STEADY
@given(st.lists(RECORDS, max_size=4), st.data())
def test_records_come_back_as_written_and_half_a_line_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], data: st.DataObject
) -> None:
    cell = CellDir(tmp_path_factory.getbasetemp() / "cell").make()
    path = cell.path / "events.jsonl"
    path.unlink(missing_ok=True)
    with Lines(path) as lines:
        for event in events:
            lines.append(event)
    assert list(cell.events()) == events
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert list(cell.events()) == events[:kept]
    with Lines(path) as lines:
        lines.append(CellEnded(time_ns=1, outcome="ok"))
    assert list(cell.events()) == [*events[:kept], CellEnded(time_ns=1, outcome="ok")]


@STEADY
@given(st.binary(max_size=300) | st.sampled_from([p.read_bytes() for p in sorted(CORPUS.glob("*.jsonl"))]))
@example(b"\xff\xfe\n")
@example(b"[" * 5000 + b"\n")
@example(b'{"type":"CellEnded","time_ns":1e999,"outcome":"ok"}\n')
def test_a_damaged_line_is_named(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    cell = CellDir(tmp_path_factory.getbasetemp() / "cell").make()
    for name, read in (
        ("events.jsonl", cell.events),
        ("telemetry.jsonl", cell.telemetry),
        ("scores.jsonl", cell.scores),
    ):
        (cell.path / name).write_bytes(data)
        found, refusal = attempt(lambda read=read: list(read()), StoreError)
        assert (f"{name}, line " in refusal) == (found is None)
        (cell.path / name).unlink()


@STEADY
@given(texts | st.lists(texts, max_size=20).map("".join), texts | st.none())
def test_whatever_a_model_says_is_read(text: str, reasoning: str | None) -> None:
    for language in ("en", "zh"):
        reply = read_reply(Answer(text=text, reasoning=reasoning), language)  # type: ignore[arg-type]
        for multiple in (False, True):
            found = find_choice(reply.final, ["Aspirin", "Warfarin", "无", "肝素"], multiple=multiple)
            assert found is None or set(found) <= set("ABCD")
        find_label(text, YES_NO_MAYBE[language])
    find_number(text)
    find_date(text)


ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "question": (
        CLINICAL_QA_EN,
        {"id": "q", "question": "Which?", "options": ["a", "b", "c", "d"], "answer": 1, "specialty": "x", 
            "difficulty": "easy", "rationale": "r"},
    ),
    "note": (
        NOTE_SUMMARY_EN,
        {
            "id": "n", "kind": "discharge", "note": "Pain.", "reference": "Pain.", "drugs": ["aspirin"],
            "facts": [{"id": "f", "label": "l", "category": "diagnosis", "accept": [["pain"]], "contradict": [["re:no pa+in"]]}] * 5,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
@STEADY
@given(data=st.data())
def test_a_data_file_is_good_or_refused_in_one_sentence(
    kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    task, row = ROWS[kind]
    put = changed(row, data.draw(st.sampled_from([p for p in places(row) if p])), data.draw(anything | st.just("re:(")))
    line = json.dumps(put).encode()
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(line) - 1))
        line = line[:at] + data.draw(st.binary(min_size=1, max_size=3)) + line[at + 1 :]
    file = tmp_path_factory.getbasetemp() / f"{kind}.jsonl"
    file.write_bytes(line + b"\n")
    samples, refusal = attempt(lambda: task.load(file), DataError)
    assert refusal.startswith(str(file)) == (samples is None)
    assert all(sample.id for sample in samples or ())


@STEADY
@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"data: {}\n\n", b"data:", b"\r", b"\n", b": x\n", b"\xe4\xbd"]),
        max_size=12,
    )
)
def test_a_stream_of_events_is_read_the_same_however_it_is_cut(pieces: list[bytes]) -> None:
    def read(parts: list[bytes]) -> list[str] | str:
        stream = EventStream(max_line_bytes=200, max_event_bytes=300)
        events: list[str] = []
        try:
            for part in parts:
                events += stream.feed(part)
            stream.close()
        except SseError as error:
            return str(error)
        return events

    joined = b"".join(pieces)
    whole, bytewise = read([joined]), read([joined[i : i + 1] for i in range(len(joined))])
    assert isinstance(whole, str) == isinstance(bytewise, str)
    assert whole == bytewise == read(pieces) or isinstance(whole, str)


def turned(data: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for at, put in changes:
        at %= len(data) + 1
        data = data[:at] + put + data[at + len(put) :]
    return data


numbers = st.sampled_from([struct.pack("<Q", n) for n in (0, 1, 8, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1)])
mutations = st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4) | numbers), max_size=4)


@settings(STEADY, max_examples=500)
@given(changes=mutations, cut=st.integers(0, 4000))
def test_a_gguf_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], cut: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "model.gguf"
    for seed in sorted(CORPUS.glob("*.gguf")):
        data = turned(seed.read_bytes(), changes)
        file.write_bytes(data[:cut] if cut < len(data) and cut % 3 == 0 else data)
        header, refusal = attempt(lambda: read_header(file), GgufError)
        assert len(refusal.splitlines()) == (header is None)


@STEADY
@given(changes=mutations)
def test_a_safetensors_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "safetensors"
    folder.mkdir(exist_ok=True)
    head = json.dumps(
        {"t": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}, "__metadata__": {"a": "b"}}
    ).encode()
    (folder / "model.safetensors").write_bytes(turned(struct.pack("<Q", len(head)) + head + bytes(12), changes))
    facts, refusal = attempt(lambda: read_folder(folder), SafetensorsError)
    assert len(refusal.splitlines()) == (facts is None)


def test_the_corpus_is_small_and_read() -> None:
    files = [p for p in CORPUS.iterdir() if p.is_file()]
    assert files
    assert sum(p.stat().st_size for p in files) < 100_000
    for path in CORPUS.glob("*.toml"):
        with pytest.raises(ConfigError):
            suite_from(tomllib.loads(path.read_text()), path.name)


def test_scores_come_back_as_written(tmp_path: Path) -> None:
    score = Scored(step="s", sample="x", value=0.5, verdict="correct", cluster="x", scorer="t/1", metrics={"a": 1e-300})
    cell = CellDir(tmp_path)
    cell.write_scores([score, score])
    assert list(cell.scores()) == [score, score]


NIGHT = Path(__file__).parents[1] / "data" / "run_v1"
RECORDED = sorted(p.relative_to(NIGHT) for p in NIGHT.rglob("*.json*") if p.name not in ("seal.json", "job.json"))


@settings(STEADY, max_examples=60)
@given(data=st.data())
def test_a_damaged_run_is_judged_or_named(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One wrong value anywhere in a run must not stop every night after it."""
    run = tmp_path_factory.getbasetemp() / "20260101T000000Z_s-night-n-b1"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(NIGHT, run)
    file = run / data.draw(st.sampled_from(RECORDED))
    lines = file.read_bytes().split(b"\n") if file.suffix == ".jsonl" else [file.read_bytes()]
    at = data.draw(st.integers(0, len(lines) - 1))
    document = json.loads(lines[at] or b"{}")
    put = changed(document, data.draw(st.sampled_from(list(places(document)))), data.draw(anything.filter(finite)))
    lines[at] = json.dumps(put).encode()
    file.write_bytes(b"\n".join(lines))
    judged_or_named(run)


@pytest.mark.parametrize("put", ["x", 1, [1], [[]], None])
def test_a_manifest_whose_deployments_are_none_is_judged_or_named(tmp_path: Path, put: object) -> None:
    run = tmp_path / "20260101T000000Z_s-night-n-b1"
    shutil.copytree(NIGHT, run)
    manifest = json.loads((run / "manifest.json").read_bytes())
    (run / "manifest.json").write_text(json.dumps(changed(manifest, ("suite", "deployments"), put)))
    judged_or_named(run)


@pytest.mark.parametrize(("line", "path", "put"), [(1, ("devices",), []), (21, ("time_ns",), 2**64)])
def test_telemetry_that_makes_no_sense_is_judged_or_named(
    tmp_path: Path, line: int, path: tuple[str, ...], put: object
) -> None:
    """What a search by random changes found."""
    run = tmp_path / "20260101T000000Z_s-night-n-b1"
    shutil.copytree(NIGHT, run)
    (file,) = run.rglob("telemetry.jsonl")
    lines = file.read_text().splitlines()
    lines[line] = json.dumps(changed(json.loads(lines[line]), path, put))
    file.write_text("\n".join(lines) + "\n")
    judged_or_named(run)


def judged_or_named(run: Path) -> None:
    entries, refusal = attempt(lambda: read_run(RunDir(run)), StoreError)
    assert (str(run) in refusal) == (entries is None)
    if entries is not None:
        night = judge_night(entries, "s", "n", None)
        assert page(night)
        assert junit(night)
