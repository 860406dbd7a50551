"""From tasks to requests: order, limits, rules of a family, options that rotate, prefixes that are shared."""

from pathlib import Path

import msgspec
import pytest

from bench.catalogue import Recipe
from bench.config import ConfigError, Load, SamplingOptions, TaskOptions
from bench.render import Asking, common_prefix, load_tasks, render_step, shift_of, warmup_of
from tasks import TASKS, Answer, Generate, Message, Prompt, Rank, Sample, Score, Scoring, Task

PLAIN = Asking(recipe=Recipe(), sampling=SamplingOptions())
R1 = Asking(
    recipe=Recipe(
        reasoning=True,
        system_prompt=False,
        temperature=0.6,
        top_p=0.95,
        prefill="<think>\n",
        samples_per_item=4,
        max_tokens=900,
    ),
    sampling=SamplingOptions(),
)


def load(path: Path | None) -> tuple[Sample, ...]:
    return tuple(Sample(id=f"q{i}", input=f"question {i}", options=("w", "x", "y", "z"), target="1") for i in range(8))


def prompt(sample: Sample, scoring: Scoring) -> Prompt:
    if scoring == "likelihood":
        return Rank(context=f"Guide\nQ: {sample.input}\nA:", continuations=tuple(f" {o}" for o in sample.options))
    messages = (Message("system", "Be brief."), Message("user", sample.input + " " + " ".join(sample.options)))
    return Generate(messages=messages, max_tokens=50)


def judge(sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    return Score(value=1.0, verdict="correct")


TOY = Task(
    name="toy",
    version=1,
    title="a toy",
    language="en",
    kind="choice",
    metric="acc",
    scorings=("likelihood", "generate"),
    max_tokens=50,
    source="",
    licence="",
    load=load,
    prompt=prompt,
    score=judge,
)


def toy(limit: int | None = None, **options: object) -> object:
    wanted = {"toy": msgspec.convert(options, TaskOptions)}
    return load_tasks(wanted, {"toy": TOY}, limit, 3, Path())["toy"]


def test_a_limit_takes_the_same_fair_sample_every_time() -> None:
    whole, part = toy(), toy(limit=3)
    assert [s.id for s in part.samples] == [s.id for s in whole.samples][:3]  # type: ignore[attr-defined]
    assert [s.id for s in whole.samples] != [f"q{i}" for i in range(8)]  # type: ignore[attr-defined]
    assert part.sha256 == whole.sha256  # type: ignore[attr-defined]


def test_an_offset_goes_round_the_pool() -> None:
    whole = [s.id for s in toy().samples]  # type: ignore[attr-defined]
    assert [s.id for s in toy(limit=4, offset=6).samples] == whole[6:] + whole[:2]  # type: ignore[attr-defined]


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown task `tyo`; did you mean `toy`\?"):
        load_tasks({"tyo": TaskOptions()}, {"toy": TOY}, None, 0, Path())


def test_a_plain_model_is_ranked_and_a_reasoning_model_writes() -> None:
    assert render_step(toy(), PLAIN, Load(concurrency=1), 0, 3)[0].scoring == "likelihood"  # type: ignore[arg-type]
    assert render_step(toy(), R1, Load(concurrency=1), 0, 3)[0].scoring == "generate"  # type: ignore[arg-type]


def test_a_scoring_that_the_task_has_not_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot be scored by `letters`"):
        render_step(toy(scoring="letters"), PLAIN, Load(concurrency=1), 0, 3)  # type: ignore[arg-type]


def test_an_r1_model_is_asked_by_its_own_rules() -> None:
    _, job = render_step(toy(limit=1), R1, Load(concurrency=2), 0, 3)  # type: ignore[arg-type]
    assert len(job.requests) == 4
    first = job.requests[0]
    assert [t.role for t in first.turns] == ["user"]
    assert first.turns[0].text.startswith("Be brief.\n\nquestion")
    assert (first.prefill, first.sampling.temperature, first.sampling.top_p) == ("<think>\n", 0.6, 0.95)
    assert first.sampling.max_tokens == 900
    assert len({r.sampling.seed for r in job.requests}) == 4


def test_a_greedy_wish_asks_each_item_once() -> None:
    greedy = Asking(recipe=R1.recipe, sampling=SamplingOptions(temperature=0.0))
    assert len(render_step(toy(limit=1), greedy, Load(concurrency=1), 0, 3)[1].requests) == 1  # type: ignore[arg-type]


def test_rotated_options_stand_in_every_position_once_over_the_repeats() -> None:
    assert sorted(shift_of("q1", k, 3) % 4 for k in range(4)) == [0, 1, 2, 3]


def test_the_shared_prefix_ends_at_a_line() -> None:
    assert common_prefix(["Guide\nQ: a", "Guide\nQ: b"]) == "Guide\n"
    assert common_prefix(["Guide\nQ: a"]) == ""
    assert common_prefix(["x", "y"]) == ""


def test_a_warm_up_is_short_and_bears_another_seed() -> None:
    step = render_step(toy(scoring="generate"), PLAIN, Load(concurrency=2), 0, 3)[1]  # type: ignore[arg-type]
    warm = warmup_of(step, 2, 0.0)
    assert warm.name == f"warmup:{step.name}"
    assert [r.id for r in warm.requests] == [r.id for r in step.requests[-2:]]
    assert {r.sampling.max_tokens for r in warm.requests} == {16}
    assert warmup_of(step, 0, 0.0).requests == ()


def test_a_style_is_asked_as_it_says_and_has_a_headline_of_its_own() -> None:
    def step(style: str | None) -> tuple[str, str | None, str]:
        data = load_tasks({"note_summary_en": TaskOptions(style=style)}, TASKS, 1, 7, Path())["note_summary_en"]
        facts, job = render_step(data, PLAIN, Load(concurrency=1), 0, 7)
        return facts.metric, facts.style, job.requests[0].turns[-1].text[-60:]

    assert step(None)[:2] == ("key_fact_recall", None)
    metric, style, text = step("one_sentence")
    assert (metric, style) == ("key_fact_recall_of_one_sentence", "one_sentence")
    assert text.endswith("Use only what the note says.")
    with pytest.raises(ConfigError, match="no style `one_sentense`; did you mean `one_sentence`"):
        step("one_sentense")
    with pytest.raises(ConfigError, match="task `toy` has no style `x`; it has none"):
        toy(style="x")


def test_the_same_suite_renders_the_same_requests() -> None:
    data = load_tasks({"clinical_qa_en": TaskOptions()}, TASKS, 5, 7, Path())["clinical_qa_en"]
    first, again = (render_step(data, PLAIN, Load(concurrency=1), 0, 7) for _ in range(2))
    assert first == again


def test_speed_repeats_its_requests_only_where_the_suite_asks() -> None:
    def step(**options: int) -> tuple[int, int]:
        data = load_tasks({"speed": TaskOptions(**options)}, TASKS, None, 0, Path())["speed"]
        facts, job = render_step(data, R1, Load(concurrency=1), 0, 0)
        return facts.samples, len({(r.id, r.sampling.seed) for r in job.requests})

    assert step() == (16, 16)
    assert step(samples_per_item=5) == (80, 80)
