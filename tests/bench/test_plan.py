"""How often an engine is asked before it is measured: by profile, by what it has served already, and anew after a resume."""

from pathlib import Path

from bench.config import suite_from
from bench.plan import CellPlan
from bench.session import Wishes, prepare

SUITE = {
    "name": "s",
    "limit": 6,
    "tasks": {
        "clinical_qa_en": {"scoring": "likelihood"},
        "note_summary_en": {"load": [{"concurrency": 1}, {"concurrency": 4}, {"concurrency": 16}]},
    },
    "deployments": [{"name": "a", "backend": "scripted"}],
}
QUESTIONS, ONE, FOUR, SIXTEEN = "clinical_qa_en@c1", *(f"note_summary_en@c{n}" for n in (1, 4, 16))


def planned(profile: str) -> CellPlan:
    return prepare(suite_from({**SUITE, "profile": profile}, "s.toml"), Path(), Wishes()).cells[0]


def warmups(cell: CellPlan, *done: str) -> dict[str, int]:
    """Requests of each warm-up, in the order in which the worker is told."""
    steps = cell.job(frozenset(done)).steps
    return {s.name.removeprefix("warmup:"): len(s.requests) + len(s.ranks) for s in steps if s.name.startswith("warm")}


def test_a_run_that_counts_warms_up_every_step_by_itself() -> None:
    assert warmups(planned("nightly")) == {QUESTIONS: 2, ONE: 2, FOUR: 6, SIXTEEN: 6}


def test_an_indicative_run_counts_what_the_engine_has_served_but_a_first_kind_of_request_is_always_tried() -> None:
    # 2 + 6 questions, 1 + 6 notes, 6 notes: 21 before the last step, which asks for 32
    assert warmups(planned("smoke")) == {QUESTIONS: 2, ONE: 1, SIXTEEN: 6}


def test_a_warm_up_of_no_request_stands_in_the_manifest_since_a_resume_may_fill_it() -> None:
    facts = planned("smoke").facts.steps
    assert [step.name for step in facts if not step.warmup] == [QUESTIONS, ONE, FOUR, SIXTEEN]
    found = {step.name.removeprefix("warmup:"): step.items for step in facts if step.warmup}
    assert found == {QUESTIONS: 2, ONE: 1, FOUR: 0, SIXTEEN: 6}


def test_after_a_resume_the_engine_is_new_and_warmed_up_whole() -> None:
    assert warmups(planned("smoke"), QUESTIONS, ONE) == {FOUR: 6, SIXTEEN: 6}
    assert list(warmups(planned("smoke"), QUESTIONS, ONE, FOUR)) == [SIXTEEN]
