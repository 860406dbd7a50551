"""The speed task: exact shapes, never scored."""

from pathlib import Path

import pytest

from tasks import TASKS, Answer, DataError, Generate

SPEED = TASKS["speed"]


def test_every_shape_comes_four_times_and_a_limit_keeps_the_mixture() -> None:
    samples = SPEED.load(None)
    assert len(samples) == len({s.id for s in samples}) == 16
    assert [s.id for s in samples[:5]] == [
        "speed-300x8-1",
        "speed-300x900-1",
        "speed-1500x350-1",
        "speed-512x128-1",
        "speed-300x8-2",
    ]


def test_a_request_is_two_numbers_and_no_text() -> None:
    sample = SPEED.load(None)[2]
    assert SPEED.prompt(sample, "generate") == Generate(messages=(), max_tokens=350, prompt_tokens=1500)


def test_speed_is_never_scored_and_takes_no_data() -> None:
    with pytest.raises(TypeError, match="speed steps are not scored"):
        SPEED.score(SPEED.load(None)[0], "generate", Answer(text="A"))
    with pytest.raises(DataError, match="takes no data"):
        SPEED.load(Path("speed.jsonl"))
