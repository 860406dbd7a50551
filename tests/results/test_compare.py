"""Two runs side by side: what is paired, what is refused, what may be said of a difference."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from made_run import LADDER, Made, steps, write_run
from msgspec import structs

from results.compare import Level, Options, compare_runs
from results.compare.gate import Gate, apply_gate, load_gate
from results.compare.judge import Compared
from results.compare.metrics import Limits, verdict_of, welch
from results.compare.pairing import Differs, match_cells
from results.compare.text import headline, markdown, plain, tables
from results.manifest import CellFacts, StepFacts
from results.records import Scored
from results.report.formats import p_value
from results.store import RunDir, StoreError

F16 = Made(name="big", quantisation="F16", bits=16.0, right=0.75)
Q2 = Made(name="small", quantisation="Q2_K", bits=4.6, right=0.25, speed=2.0)


def made(tmp_path: Path, name: str, *cells: Made, facts: tuple[StepFacts, ...] | None = None, **other: Any) -> Path:
    return write_run(tmp_path, name, cells, facts if facts is not None else steps(items=120, notes=0), **other)


def within(run: Path, base: str, candidate: str, **options: Any) -> Compared:
    return compare_runs(run, run, Options(base_deployment=base, candidate_deployment=candidate, **options))


def cell(deployment: str, **other: Any) -> CellFacts:
    return CellFacts(**({"id": deployment, "deployment": deployment, "backend": "llama_cpp", "model": "m"} | other))


def test_a_run_with_itself_differs_in_nothing(tmp_path: Path) -> None:
    run = made(tmp_path, "one", *LADDER[:2], facts=steps())
    compared = compare_runs(run, run, Options())
    found = [s for c in compared.cells for s in c.steps]
    assert len(found) == 6
    assert {r.verdict for s in found for r in s.ratios if r.base is not None} == {"same"}
    assert {s.accuracy.verdict for s in found if s.accuracy} == {"same"}
    assert [s.flips for s in found] == [()] * 6
    assert [c.differences for c in compared.cells] == [(), ()]
    assert headline(compared) == "No difference: both sides are the same records."


def test_the_same_answers_from_another_seed_give_no_verdict_of_a_difference(tmp_path: Path) -> None:
    """A seed changes the order of items and with it the hash of all prompts; where texts are kept they decide."""
    one = made(tmp_path / "a", "one", *LADDER[:2])
    reseeded = tuple(structs.replace(s, prompt_sha256="other order") for s in steps(items=120, notes=0))
    two = made(tmp_path / "b", "two", *LADDER[:2], facts=reseeded)
    compared = compare_runs(one, two, Options())
    verdicts = {s.accuracy.verdict for c in compared.cells for s in c.steps if s.accuracy}
    verdicts |= {r.verdict for c in compared.cells for s in c.steps for r in s.ratios}
    assert not verdicts & {"better", "worse"}


def test_a_quantisation_that_costs_accuracy_is_worse_with_interval_and_flips(tmp_path: Path) -> None:
    run = made(tmp_path, "one", F16, Q2)
    compared = within(run, "big", "small")
    (step,) = compared.cells[0].steps
    accuracy = step.accuracy
    assert accuracy is not None
    found = accuracy.comparison.difference
    assert (accuracy.verdict, found.method, accuracy.items) == ("worse", "tango", 120)
    assert accuracy.base is not None
    assert accuracy.candidate is not None
    assert found.value == pytest.approx(accuracy.candidate - accuracy.base)
    assert found.lo is not None
    assert found.hi is not None
    assert found.lo < found.value < found.hi < 0
    assert accuracy.non_inferiority.verdict == "inferior"
    counts = accuracy.comparison.discordance
    assert counts is not None
    assert len(step.flips) == counts.only_first + counts.only_second
    assert {(f.base.verdict, f.candidate.verdict) for f in step.flips} <= {("correct", "wrong"), ("wrong", "correct")}
    assert Differs("quantisation", "F16", "Q2_K") in compared.cells[0].differences


def test_texts_of_both_sides_stand_beside_a_flip(tmp_path: Path) -> None:
    notes = steps(items=4, notes=12)[1:2]
    run = made(tmp_path, "one", F16, Q2, facts=notes)
    (step,) = within(run, "big", "small").cells[0].steps
    assert step.flips
    assert all(f.base.text and f.base.text.startswith("Summary of note") for f in step.flips)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data_sha256": "other"}, "data"),
        ({"sampling": {"temperature": 0.7}}, "sampling"),
        ({"max_tokens": 16}, "sampling"),
    ],
)
def test_what_was_asked_otherwise_is_refused_by_name_and_compared_when_allowed(
    tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    facts = steps(items=20, notes=0)
    one = made(tmp_path / "a", "one", LADDER[0], facts=facts)
    two = made(tmp_path / "b", "two", LADDER[0], facts=tuple(structs.replace(s, **change) for s in facts))
    with pytest.raises(StoreError, match=rf"clinical_qa_en@c1 of .*: {name} differ.*--allow {name}$"):
        compare_runs(one, two, Options())
    (step,) = compare_runs(one, two, Options(allow=(name,))).cells[0].steps
    assert step.allowed == (name,)


def test_other_prompts_are_refused_where_texts_tell(tmp_path: Path) -> None:
    facts = steps(items=20, notes=0)
    one = made(tmp_path / "a", "one", LADDER[0], facts=facts)
    two = made(tmp_path / "b", "two", LADDER[0], facts=tuple(structs.replace(s, prompt_sha256="other") for s in facts))
    compare_runs(one, two, Options())
    (job,) = two.glob("cells/*/job.json")
    asked = json.loads(job.read_bytes())
    for rank in asked["steps"][1]["ranks"][:3]:
        rank["context"] = "Answer briefly."
    job.write_text(json.dumps(asked))
    with pytest.raises(StoreError, match=r"prompts differ \(3 of 20\).*--allow prompts$"):
        compare_runs(one, two, Options())


def test_another_way_of_scoring_is_refused_by_name(tmp_path: Path) -> None:
    facts = steps(items=20, notes=0)
    one = made(tmp_path / "a", "one", LADDER[0], facts=facts)
    two = made(tmp_path / "b", "two", LADDER[0], facts=tuple(structs.replace(s, scoring="letters") for s in facts))
    with pytest.raises(StoreError, match=r"scoring differs \(likelihood, letters\).*--allow scoring"):
        compare_runs(one, two, Options())


def test_another_version_of_the_scorer_is_refused_by_name(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", "one", LADDER[0]), made(tmp_path / "b", "two", LADDER[0])
    rescore(two, scorer="clinical_qa_en/2")
    with pytest.raises(StoreError, match=r"scorer differs \(clinical_qa_en/1; clinical_qa_en/2\); .* --allow scorer"):
        compare_runs(one, two, Options())


def rescore(run: Path, **change: Any) -> None:
    folder = RunDir(run)
    for facts in folder.manifest().cells:
        here = folder.cell(facts.id)
        scores: list[Scored] = [structs.replace(s, **change) for s in here.scores()]
        here.write_scores(scores)
    folder.seal()


def test_a_name_that_cannot_be_allowed_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    run = made(tmp_path, "one", LADDER[0])
    with pytest.raises(StoreError, match="--allow speed: unknown; one of data, prompts, scorer, sampling, scoring"):
        compare_runs(run, run, Options(allow=("speed",)))


def test_runs_without_a_common_step_are_not_compared(tmp_path: Path) -> None:
    one = made(tmp_path / "a", "one", LADDER[0])
    two = made(tmp_path / "b", "two", LADDER[0], facts=steps(items=4, notes=12)[2:])
    with pytest.raises(StoreError, match="nothing to compare"):
        compare_runs(one, two, Options())


def test_deployments_are_matched_by_name_then_by_likeness() -> None:
    base = (cell("a"), cell("old-q4", quantisation="Q4"), cell("old-q8", quantisation="Q8"), cell("x", model="other"))
    candidate = (cell("a"), cell("new-q8", quantisation="Q8"), cell("new-q4", quantisation="Q4", backend="vllm"))
    match = match_cells(base, candidate)
    pairs = [(b.deployment, c.deployment) for b, c in match.pairs]
    assert pairs == [("a", "a"), ("old-q8", "new-q8"), ("old-q4", "new-q4")]
    assert [c.deployment for c in match.only_base] == ["x"]
    assert match.only_candidate == ()


def test_a_single_deployment_on_each_side_belongs_together_whatever_its_name() -> None:
    match = match_cells((cell("here", model=""),), (cell("there", model=""),))
    assert [(b.deployment, c.deployment) for b, c in match.pairs] == [("here", "there")]


def test_welch_gives_the_ratio_of_geometric_means_with_a_t_interval_on_logarithms() -> None:
    found = welch([1.0, math.e], [math.e, math.e**2])
    # Logarithms 0, 1 and 1, 2: means 0.5 and 1.5, variances 0.5; standard error sqrt(0.25 + 0.25), 2 degrees of freedom.
    half = 4.302652729911275 * math.sqrt(0.5)
    assert found == Limits(pytest.approx(math.e), pytest.approx(math.exp(1 - half)), pytest.approx(math.exp(1 + half)))
    assert welch([2.0, 2.0], [4.0, 4.0]) == Limits(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("lo", "hi", "better", "verdict"),
    [
        (0.96, 1.04, "higher", "no_difference"),
        (1.02, 1.04, "higher", "no_difference"),
        (1.02, 1.30, "higher", "better"),
        (1.02, 1.30, "lower", "worse"),
        (0.70, 0.90, "higher", "worse"),
        (0.70, 0.90, "lower", "better"),
        (0.90, 1.02, "higher", "inconclusive"),
    ],
)
def test_a_verdict_needs_an_interval_that_excludes_one_and_leaves_the_floor(
    lo: float, hi: float, better: Any, verdict: str
) -> None:
    assert verdict_of(lo, hi, 0.05, better) == verdict


def test_one_measurement_each_gives_a_ratio_and_no_verdict(tmp_path: Path) -> None:
    run = made(tmp_path, "one", F16, Q2)
    by_name = {r.metric: r for r in within(run, "big", "small").cells[0].steps[0].ratios}
    assert (by_name["samples_per_s"].verdict, by_name["samples_per_s"].lo) == ("no_interval", None)
    assert by_name["samples_per_s"].ratio == pytest.approx(2.0, rel=0.05)


def test_repeats_give_an_interval_and_a_verdict(tmp_path: Path) -> None:
    (once,) = steps(items=40, notes=0)[:1]
    repeated = tuple(structs.replace(once, name=f"{once.name}{'#2' * r}", repeat=r) for r in range(2))
    run = made(tmp_path, "one", F16, structs.replace(Q2, speed=4.0), facts=repeated)
    (step,) = within(run, "big", "small").cells[0].steps
    by_name = {r.metric: r for r in step.ratios}
    assert step.repeats == (2, 2)
    assert (by_name["samples_per_s"].source, by_name["samples_per_s"].verdict) == ("repeats", "better")
    assert step.accuracy is not None
    assert step.accuracy.items == 40


def test_energy_of_different_evidence_is_never_divided(tmp_path: Path) -> None:
    from made_run import GPU_METERS

    one = made(tmp_path / "a", "one", LADDER[0])
    two = made(tmp_path / "b", "two", LADDER[0], meters=GPU_METERS)
    (step,) = compare_runs(one, two, Options()).cells[0].steps
    energy = [r for r in step.ratios if r.metric.startswith("energy")]
    assert all(r.ratio is None and r.verdict in ("withheld", "unknown") for r in energy)


def test_holm_is_over_the_accuracy_of_every_step_pair(tmp_path: Path) -> None:
    one = made(tmp_path / "a", "one", *LADDER[:2])
    two = made(tmp_path / "b", "two", *LADDER[:2])
    compared = compare_runs(one, two, Options())
    assert compared.family == (
        "smollm2-135m-f16 / smollm2-135m-f16: clinical_qa_en@c1",
        "smollm2-135m-q8_0 / smollm2-135m-q8_0: clinical_qa_en@c1",
    )
    assert (compared.adjusted.rule, compared.adjusted.verdict) == ("F7", "pass")


def test_the_gate_passes_what_is_the_same_and_breaches_what_is_worse(tmp_path: Path) -> None:
    run = made(tmp_path, "one", F16, Q2)
    gate = Gate(max_accuracy_drop=0.05)
    assert apply_gate(compare_runs(run, run, Options()), gate).passed
    gated = apply_gate(within(run, "big", "small"), gate)
    assert not gated.passed
    (check,) = gated.checks
    assert (check.verdict, check.threshold) == ("breached", "accuracy drop at most 5 points")


def test_what_the_gate_cannot_decide_fails_unless_told_otherwise(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", "one", LADDER[0]), made(tmp_path / "b", "two", LADDER[0])
    compared = compare_runs(one, two, Options(level=Level(margin=0.001)))
    gate = Gate(max_accuracy_drop=0.001)
    gated = apply_gate(compared, gate)
    assert [c.verdict for c in gated.checks] == ["inconclusive"]
    assert (gated.passed, apply_gate(compared, structs.replace(gate, fail_on_inconclusive=False)).passed) == (
        False,
        True,
    )
    assert gated.reasons[0].startswith("smollm2-135m-f16 clinical_qa_en@c1: inconclusive: +0.0 points")


def test_a_candidate_that_no_longer_ends_is_a_breach(tmp_path: Path) -> None:
    one = made(tmp_path / "a", "one", LADDER[0])
    two = made(tmp_path / "b", "two", structs.replace(LADDER[0], outcome="oom", finished_steps=0))
    compared = compare_runs(one, two, Options())
    (ended,) = compared.cells[0].not_compared
    assert (ended.base, ended.candidate.split(" ")[0]) == ("ok", "oom")
    assert [c.verdict for c in apply_gate(compared, Gate(max_slowdown=0.1)).checks] == ["breached"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_acuracy_drop = 0.1", "unknown field `max_acuracy_drop`"),
        ("max_accuracy_drop = 2.0", "max_accuracy_drop"),
        ("fail_on_inconclusive = true", "no threshold"),
        ("max_slowdown = ", "not valid TOML"),
    ],
)
def test_a_gate_file_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        load_gate(path)


def test_the_shipped_gate_can_be_read() -> None:
    assert load_gate(Path(__file__).parents[2] / "docs" / "examples" / "gate.toml").max_accuracy_drop == 0.02


def test_text_of_a_model_cannot_steer_a_terminal_or_become_markup(tmp_path: Path) -> None:
    assert plain("a\x1b[31mb\nc\x07") == "a\ufffd[31mb c\ufffd"
    evil = "<script>alert(1)</script> | [x](http://e) `c` \x1b[2J"
    run = made(tmp_path, "one", F16, Q2, facts=steps(items=4, notes=12)[1:2], answer=evil)
    text = markdown(within(run, "big", "small"))
    assert "\x1b" not in text
    assert "<script>" not in text
    assert "&lt;script>alert(1)&lt;/script> \\|" in text


def test_tests_with_their_p_flips_and_what_could_be_seen_are_printed(tmp_path: Path) -> None:
    run = made(tmp_path, "one", F16, Q2)
    compared = within(run, "big", "small")
    (step,) = compared.cells[0].steps
    assert step.accuracy is not None
    found, counts = step.accuracy.comparison, step.accuracy.comparison.discordance
    assert counts is not None
    line = accuracy_line(compared)
    assert line["test and p"] == f"mcnemar_mid_p {p_value(found.p_value)}, interval tango"
    assert line["flips"] == f"{counts.only_second} down, {counts.only_first} up"
    assert found.detectable is not None
    assert line["detectable"] == f"{100 * found.detectable:.1f}"


def test_mcnemars_p_stands_beside_the_test_by_clusters(tmp_path: Path) -> None:
    run = made(tmp_path, "one", F16, Q2)
    folder = RunDir(run)
    for facts in folder.manifest().cells:
        here = folder.cell(facts.id)
        here.write_scores([structs.replace(s, cluster=f"c{i // 2}") for i, s in enumerate(here.scores())])
    compared = within(run, "big", "small")
    (step,) = compared.cells[0].steps
    assert step.accuracy is not None
    found = step.accuracy.comparison
    assert found.test == "t_clustered"
    said = f"t_clustered {p_value(found.p_value)}; mcnemar_mid_p {p_value(found.mcnemar_p)}, interval t_clustered"
    assert accuracy_line(compared)["test and p"] == said
    assert "the test by clusters decides" in markdown(compared)


def accuracy_line(compared: Compared) -> dict[str, str]:
    table = next(t for t in tables(compared) if t.title == "Accuracy")
    return dict(zip(table.columns, table.lines[0], strict=True))


def test_every_table_has_as_many_cells_as_columns(tmp_path: Path) -> None:
    run = made(tmp_path, "one", F16, Q2, facts=steps())
    for table in tables(within(run, "big", "small")):
        assert {len(line) for line in table.lines} <= {len(table.columns)}, table.title
