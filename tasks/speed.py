"""Speed alone: exact numbers of tokens in and out, no accuracy.

Four shapes that clinical use has, in tokens in / out: a question with a one-word answer (300/8), the same question to a
reasoning model (300/900), a note to be summarised (1,500/350), and the 512/128 that other benchmarks report. The tokens
are meaningless, generation does not stop early, and nothing is scored, so that two deployments are timed on the same
work whatever they would have said.

Worked example: sample `speed-1500x350-2` is the second of four requests with exactly 1,500 prompt tokens and exactly
350 output tokens.
"""

from pathlib import Path

from tasks.base import Answer, DataError, Generate, Prompt, Sample, Score, Scoring, Task

SHAPES = ((300, 8), (300, 900), (1500, 350), (512, 128))
REPEATS = 4


def load(path: Path | None) -> tuple[Sample, ...]:
    """Each shape once, then again, so that a `limit` keeps the mixture. Raises `DataError` for a data file: there is
    none.
    """
    if path is not None:
        raise DataError(f"the speed task makes its own requests and takes no data; remove `data` ({path})")
    return tuple(
        Sample(
            id=f"speed-{tokens_in}x{tokens_out}-{k}",
            input="",
            target="",
            tags={"shape": f"{tokens_in}x{tokens_out}"},
            extra={"prompt_tokens": tokens_in, "output_tokens": tokens_out},
        )
        for k in range(1, REPEATS + 1)
        for tokens_in, tokens_out in SHAPES
    )


def prompt(sample: Sample, scoring: Scoring) -> Prompt:
    """No text: the engine makes exactly this many tokens."""
    return Generate(messages=(), max_tokens=sample.extra["output_tokens"], prompt_tokens=sample.extra["prompt_tokens"])


def score(sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    """There is no right answer to meaningless tokens: raises `TypeError`, because a speed step must never be scored."""
    raise TypeError("speed steps are not scored")


SPEED = Task(
    name="speed",
    version=1,
    title="Speed: fixed numbers of tokens in and out",
    language="en",
    kind="speed",
    metric="",
    scorings=("generate",),
    max_tokens=max(tokens_out for _, tokens_out in SHAPES),
    source="made by the task",
    licence="Apache-2.0",
    synthetic=True,
    load=load,
    prompt=prompt,
    score=score,
)
