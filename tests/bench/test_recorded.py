"""Answers from a file."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.backends import BackendError, Chunk, RankRequest, Request, Sampling, Turn, Usage
from bench.backends.recorded import RecordedBackend
from bench.config import RecordedSettings
from tasks import TASKS


def backend(tmp_path: Path, *lines: object) -> RecordedBackend:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return RecordedBackend(RecordedSettings(path=str(path)))


def ask(engine: RecordedBackend, name: str = "a", repeat: int = 0) -> list[Chunk]:
    return list(
        engine.stream(Request(id=name, repeat=repeat, turns=(Turn("user", "?"),), sampling=Sampling(max_tokens=4)))
    )


def test_a_text_with_its_counts_and_seconds(tmp_path: Path) -> None:
    engine = backend(tmp_path, {"id": "a", "text": "It is B.", "prompt_tokens": 9, "output_tokens": 4, "seconds": 1.5})
    assert ask(engine) == [
        Chunk(text="It is B.", tokens=1, counted=False),
        Chunk(finish="stop", usage=Usage(prompt_tokens=9, output_tokens=4, source="usage", decode_ms=1500.0)),
    ]


def test_a_choice_becomes_an_answer_and_none_stays_silent(tmp_path: Path) -> None:
    engine = backend(tmp_path, {"id": "a", "choice": "B"}, {"id": "b", "choice": None})
    assert ask(engine)[0].text == "Answer: B"
    assert ask(engine, "b") == [Chunk(finish="stop", usage=Usage(source="usage"))]


def test_published_predictions_are_read_as_they_are(tmp_path: Path) -> None:
    line = {
        "our_id": "a",
        "gold": "A",
        "predicted": "C",
        "prompt_tokens": 149,
        "completion_tokens": 648,
        "api_seconds": 2.0,
    }
    text, last = ask(backend(tmp_path, line))
    assert text.text == "Answer: C"
    assert last.usage == Usage(prompt_tokens=149, output_tokens=648, source="usage", decode_ms=2000.0)


def test_repeats_reasoning_and_cut_answers(tmp_path: Path) -> None:
    engine = backend(
        tmp_path,
        {"id": "a", "text": "one"},
        {"id": "a", "repeat": 1, "text": "two\u2028lines", "reasoning": "hm", "finish": "length"},
    )
    assert [(c.channel, c.text, c.finish) for c in ask(engine, repeat=1)] == [
        ("reasoning", "hm", None),
        ("answer", "two\u2028lines", None),
        ("answer", "", "length"),
    ]


def test_an_answer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    engine = backend(tmp_path, {"id": "a", "text": "x"})
    with pytest.raises(BackendError, match=r"answers.jsonl has no answer to `b`$"):
        ask(engine, "b")
    with pytest.raises(BackendError, match="no answer to `a`, repeat 1"):
        ask(engine, repeat=1)
    with pytest.raises(BackendError, match="cannot be ranked"):
        engine.rank(RankRequest(id="a", context="c", continuations=("x",)))


def test_speed_requests_are_refused(tmp_path: Path) -> None:
    asked = Request(id="a", turns=(), sampling=Sampling(max_tokens=4), exact_prompt_tokens=8)
    with pytest.raises(BackendError, match="no speed"):
        list(backend(tmp_path, {"id": "a", "text": "x"}).stream(asked))


def test_the_record_says_that_nothing_was_measured(tmp_path: Path) -> None:
    info = backend(tmp_path, {"id": "a", "text": "x"}).describe()
    assert (info.engine, info.device, info.model, info.weights_sha256) == ("recorded", "recorded", "answers", None)
    assert info.settings["answers"] == 1
    assert "recorded elsewhere" in info.notes[0]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"id": "a", "text": "x"}', "{oh"], "line 2: JSON is malformed"),
        (['{"text": "x"}'], "line 1: Object missing required field `id`"),
        (['{"id": "a"}'], "line 1: give either `text` or `choice`"),
        (['{"id": "a", "text": "x", "choice": "B"}'], "line 1: give either `text` or `choice`"),
        (['{"id": "a", "text": "x", "seconds": -1}'], "line 1: Expected `float` >= 0"),
        (['{"id": "a", "text": "x"}', "", '{"id": "a", "text": "y"}'], "line 3: `a` is there twice"),
        (["", " "], "no answers in this file"),
    ],
)
def test_bad_files_are_named_by_line(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        backend(tmp_path, *lines)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"none\.jsonl: cannot be read"):
        RecordedBackend(RecordedSettings(path=str(tmp_path / "none.jsonl")))


def test_recorded_answers_of_a_reasoning_model_are_whole(
    tmp_path: Path, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """R1's replies are opened with `<think>`; put before a recorded answer it would turn all of them into thinking."""
    samples = TASKS["clinical_qa_en"].load(None)[:4]
    lines = [{"id": s.id, "repeat": r, "choice": "ABCDE"[int(s.target)]} for s in samples for r in range(4)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "suite.toml").write_text(
        'name = "t"\nidle_s = 0.0\n[tasks.clinical_qa_en]\n[[deployments]]\nname = "d"\nbackend = "recorded"\n'
        'family = "deepseek-r1"\nsettings = { path = "answers.jsonl" }\n'
    )
    done = program("run", "suite.toml", "--out", "runs")
    (scores,) = (tmp_path / "runs").glob("*/cells/*/scores.jsonl")
    values = [json.loads(line) for line in scores.read_text().splitlines()]
    known = {s.id for s in samples}
    assert [v["verdict"] for v in values if v["sample"] in known] == ["correct"] * 16, done.stderr
