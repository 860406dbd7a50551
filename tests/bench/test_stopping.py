"""Steps that end before their last question, by the rule of their plan."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from bench.catalogue import Recipe
from bench.cli import OK, main
from bench.config import ConfigError, Load, SamplingOptions, Stopping, TaskOptions, suite_from
from bench.plan import rule_of
from bench.render import Asking, StepPlan, TaskData, load_tasks, render_step, warmup_of
from bench.stopping import Stopper
from results.load import load
from results.manifest import StoppingRule
from results.records import Answered, CellStarted, StepEnded, StepStarted
from results.store import CellDir, RunDir
from tasks import TASKS

Suite = Callable[..., Path]
S = 1_000_000_000
QUESTIONS = '[tasks.clinical_qa_en]\nscoring = "generate"\n'
STOPPING = '[stopping]\nagainst = "whole"\nwindow_s = 0\n'
RULE = StoppingRule(baseline="whole", baseline_cell="whole-000000")
NOTHING = "I cannot say."


def run(suite: Path, out: Path, *more: str) -> tuple[int, RunDir]:
    status = main(["run", str(suite), "--out", str(out), *more])
    return status, RunDir(max(out.iterdir()))


def cells(folder: RunDir) -> dict[str, CellDir]:
    return {cell.deployment: folder.cell(cell.id) for cell in folder.manifest().cells}


def ends(cell: CellDir) -> dict[str, StepEnded]:
    return {e.step: e for e in cell.events() if isinstance(e, StepEnded) and not e.step.startswith("warmup")}


def planned(limit: int = 200, concurrency: int = 1) -> tuple[StepPlan, TaskData]:
    wanted = {"clinical_qa_en": TaskOptions(scoring="generate")}
    data = load_tasks(wanted, TASKS, limit, 0, Path())["clinical_qa_en"]
    asking = Asking(recipe=Recipe(), sampling=SamplingOptions())
    facts, job = render_step(data, asking, Load(concurrency=concurrency), 0, 0)
    return StepPlan(facts=facts, job=job, warmup=warmup_of(job, 1, 0.0)), data


def answer(step: StepPlan, place: int, at_s: float, text: str = NOTHING) -> Answered:
    """One that took half a second."""
    start_ns, end_ns = round((at_s - 0.5) * S), round(at_s * S)
    name = step.job.requests[place].id
    return Answered(
        step=step.facts.name, sample=name, sched_ns=start_ns, start_ns=start_ns, first_ns=start_ns, last_ns=end_ns, end_ns=end_ns,
        text=text, finish="stop",
    )  # fmt: skip


def stopper(step: StepPlan, data: TaskData, rule: StoppingRule = RULE, right: float = 1.0) -> Stopper:
    """Against a baseline that has every item right, or wrong."""
    made = Stopper(step, data, rule, {r.id: right for r in step.job.requests}, seed=0)
    assert made.take(StepStarted(step.facts.name, 0)) is None
    return made


def first_end(made: Stopper, answers: list[Answered]) -> tuple[int, StepEnded] | None:
    for count, record in enumerate(answers, 1):
        if ended := made.take(record):
            return count, ended
    return None


def test_a_worse_model_ends_at_the_first_look_that_says_so() -> None:
    step, data = planned()
    found = first_end(stopper(step, data), [answer(step, i, i + 1.0) for i in range(200)])
    assert found is not None
    count, ended = found
    assert ended.stopped is not None
    assert (count, ended.stopped.items, ended.stopped.answered, ended.stopped.decision) == (50, 50, 50, "different")
    assert (ended.stopped.only_candidate, ended.stopped.only_baseline, ended.stopped.pairs) == (0, 50, 50)
    assert ended.time_ns == 50 * S  # with the answer that decided it


def test_the_performance_window_is_measured_first() -> None:
    step, data = planned()
    answers = [answer(step, i, i + 1.0) for i in range(200)]
    long = first_end(stopper(step, data, structs.replace(RULE, window_s=120.0)), answers)
    many = first_end(stopper(step, data, structs.replace(RULE, window_requests=130)), answers)
    each = first_end(stopper(step, data, structs.replace(RULE, window_requests_per_slot=90)), answers)
    assert [found and found[0] for found in (long, many, each)] == [125, 150, 100]


def test_a_step_whose_window_is_not_reached_runs_whole() -> None:
    step, data = planned()
    assert (
        first_end(
            stopper(step, data, structs.replace(RULE, window_s=600.0)), [answer(step, i, i + 1.0) for i in range(200)]
        )
        is None
    )


def test_an_early_answer_waits_for_those_before_it_and_is_ahead_of_the_end() -> None:
    step, data = planned(concurrency=4)
    order = [0, *range(2, 60), 1, *range(60, 200)]
    found = first_end(stopper(step, data), [answer(step, place, i + 1.0) for i, place in enumerate(order)])
    assert found is not None
    count, ended = found
    assert count == 60
    assert ended.stopped is not None
    assert (ended.stopped.items, ended.stopped.answered) == (50, 60)


def test_alike_models_end_only_where_futility_is_asked_for() -> None:
    step, data = planned()
    answers = [answer(step, i, i + 1.0) for i in range(200)]
    assert first_end(stopper(step, data, right=0.0), answers) is None
    found = first_end(stopper(step, data, structs.replace(RULE, futility_margin=0.05), right=0.0), answers)
    assert found is not None
    assert found[1].stopped is not None
    assert (found[0], found[1].stopped.decision) == (150, "futile")


def test_failed_answers_and_items_without_a_baseline_are_no_evidence() -> None:
    step, data = planned()
    failed = [structs.replace(answer(step, i, i + 1.0), error="refused", finish="error") for i in range(200)]
    assert first_end(stopper(step, data), failed) is None
    made = Stopper(step, data, RULE, {}, seed=0)
    assert first_end(made, [answer(step, i, i + 1.0) for i in range(200)]) is None


def test_a_step_that_is_run_again_is_looked_at_anew() -> None:
    step, data = planned()
    made = stopper(step, data)
    assert first_end(made, [answer(step, i, i + 1.0) for i in range(49)]) is None
    made.take(StepStarted(step.facts.name, 100 * S))
    found = first_end(made, [answer(step, i, i + 101.0) for i in range(200)])
    assert found is not None
    assert found[0] == 50


def test_nothing_is_ended_that_is_all_on_its_way() -> None:
    step, data = planned(limit=52, concurrency=4)
    assert first_end(stopper(step, data), [answer(step, i, i + 1.0) for i in range(52)]) is None


def test_the_rule_takes_its_window_from_the_profile() -> None:
    assert rule_of(Stopping(against="whole"), "whole-0", "procurement") == StoppingRule(
        baseline="whole", baseline_cell="whole-0", window_s=600, window_requests=662, window_requests_per_slot=10
    )
    own = rule_of(Stopping(against="whole", window_s=5.0), "whole-0", "procurement")
    assert (own.window_s, own.window_requests, own.window_requests_per_slot) == (5.0, 0, 0)


def test_a_run_ends_steps_early_and_goes_on_with_the_others(
    write_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = QUESTIONS + '[tasks.clinical_qa_zh]\nscoring = "generate"\n[tasks.note_summary_en]\nlimit = 4\n' + STOPPING
    suite = write_suite(tasks=tasks, worse={"reply": NOTHING}, whole={"reply": "Answer: A"})
    status, folder = run(suite, tmp_path / "runs")
    assert status == OK
    assert capsys.readouterr().err.count("ended early: different") == 2
    assert [c.deployment for c in folder.manifest().cells] == ["whole", "worse"]  # the baseline first
    worse = ends(cells(folder)["worse"])
    assert {name: e.stopped.decision if e.stopped else None for name, e in worse.items()} == {
        "clinical_qa_en@c1": "different",
        "clinical_qa_zh@c1": "different",
        "note_summary_en@c1": None,
    }
    assert not any(e.stopped for e in ends(cells(folder)["whole"]).values())
    assert cells(folder)["worse"].ended() is not None
    assert folder.edits() == []
    rows = {row.step: row for cell in load(folder, folder.manifest()) for row in cell.rows if row.deployment == "worse"}
    assert not [w for found in rows.values() for w in found.warnings if w.startswith("C3")]  # each engine was warmed up
    row = rows["clinical_qa_en@c1"]
    assert (row.outcome, row.items, row.samples, row.accuracy_method) == (
        "ok",
        row.stopped_items,
        row.scored,
        "anytime",
    )
    assert (
        row.stopping_rule == "against whole, ends when different at alpha 0.05; a look after every 25 items from 50 on"
    )
    job = json.loads((cells(folder)["worse"].path / "job.json").read_bytes())
    assert {s["name"] for s in job["steps"] if not s["name"].startswith("warmup")} == set(worse)  # all that was asked


def test_a_parent_killed_after_an_early_end_goes_on_with_the_rest(write_suite: Suite, tmp_path: Path) -> None:
    tasks = QUESTIONS + "[tasks.note_summary_en]\nlimit = 4\n" + STOPPING
    _, folder = run(write_suite(tasks=tasks, worse={"reply": NOTHING}, whole={"reply": "Answer: A"}), tmp_path / "runs")
    cell = cells(folder)["worse"]
    first, scores, events = ends(cell), list(cell.scores()), list(cell.events())
    assert first["clinical_qa_en@c1"].stopped is not None
    assert sum(isinstance(e, CellStarted) for e in events) == 2
    lines = (cell.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    killed = 1 + events.index(first["clinical_qa_en@c1"])
    (cell.path / "events.jsonl").write_bytes(b"".join(lines[:killed]))
    (cell.path / "scores.jsonl").unlink()
    (folder.path / "seal.json").unlink()
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert ends(cell)["clinical_qa_en@c1"] == first["clinical_qa_en@c1"]
    assert ends(cell).keys() == first.keys()
    assert list(cell.scores()) == scores


def test_scoring_again_keeps_the_end_and_the_order(write_suite: Suite, tmp_path: Path) -> None:
    tasks = QUESTIONS + "load = [{ concurrency = 8 }]\n" + STOPPING
    settings: dict[str, object] = {"reply": NOTHING, "delay_s": 0.001}
    _, folder = run(write_suite(tasks=tasks, worse=settings, whole={"reply": "Answer: A"}), tmp_path / "runs")
    cell = cells(folder)["worse"]
    scores = list(cell.scores())
    assert main(["score", str(folder.path)]) == OK
    assert list(cell.scores()) == scores
    job = json.loads((cell.path / "job.json").read_bytes())
    asked = next([r["id"] for r in s["requests"]] for s in job["steps"] if s["name"] == "clinical_qa_en@c8")
    assert [s.sample for s in scores[:50]] == asked[:50]


def test_text_that_may_not_be_kept_changes_no_decision(write_suite: Suite, tmp_path: Path) -> None:
    tasks = QUESTIONS + STOPPING
    kept = write_suite(tasks=tasks, worse={"reply": NOTHING}, whole={"reply": "Answer: A"})
    _, one = run(kept, tmp_path / "kept")
    bare = write_suite(head="store_text = false", tasks=tasks, worse={"reply": NOTHING}, whole={"reply": "Answer: A"})
    _, two = run(bare, tmp_path / "bare")
    found = [ends(cells(folder)["worse"])["clinical_qa_en@c1"].stopped for folder in (one, two)]
    assert found[0] is not None
    assert found[0] == found[1]
    assert len(list(cells(two)["worse"].scores())) == found[0].answered


def test_without_its_baseline_a_step_is_run_whole(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(
        tasks=QUESTIONS + STOPPING, worse={"reply": NOTHING}, whole={"reply": "Answer: A", "die_after": 9}
    )
    _, folder = run(suite, tmp_path / "dead")
    assert ends(cells(folder)["worse"])["clinical_qa_en@c1"].stopped is None
    _, alone = run(suite, tmp_path / "alone", "--only", "worse")
    assert alone.manifest().cells[0].steps[-1].stopping is None
    assert len(list(cells(alone)["worse"].scores())) == 200


def test_only_what_is_right_or_wrong_once_may_end_early(write_suite: Suite, tmp_path: Path) -> None:
    tasks = QUESTIONS + "samples_per_item = 2\n[tasks.note_summary_en]\nlimit = 4\n[tasks.clinical_qa_zh]\n" + STOPPING
    _, folder = run(write_suite(tasks=tasks, worse={}, whole={}), tmp_path / "runs")
    steps = {
        s.name: s.stopping is not None for c in folder.manifest().cells if c.deployment == "worse" for s in c.steps
    }
    assert steps == {name: name == "clinical_qa_zh@c1" for name in steps}


def test_a_baseline_that_is_no_deployment_is_named() -> None:
    raw = {"name": "t", "tasks": ["clinical_qa_en"], "deployments": [{"name": "a", "backend": "scripted"}]}
    with pytest.raises(ConfigError, match=r"\[stopping\] against `b` is no deployment; there are a"):
        suite_from({**raw, "stopping": {"against": "b"}}, "t.toml")
