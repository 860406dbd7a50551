"""Rules of two steps, and the page of all rules."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_records import GPU_METER, GUESS, STEP, Run, S, answer, score, ticks
from msgspec import structs

from results.validity import RULES, tables
from results.validity.base import Finding
from results.validity.pairs import PAIR_RULES, judge_pair
from results.validity.table import rules_table
from results.validity.tables import judge_table


def verdict(rule: str, change: Callable[[Run], None]) -> Finding:
    first, second = Run(), Run()
    change(second)
    return next(f for f in judge_pair(first.view(), second.view()) if f.rule == rule)


def other_weights(run: Run) -> None:
    run.engine = structs.replace(run.engine, weights_sha256="x" * 64)


def longer(run: Run) -> None:
    run.records = [answer(f"q{i}", int((10 + 2.2 * i) * S), output_tokens=22) for i in range(4)]


def by_another_meter(run: Run) -> None:
    run.telemetry += ticks(structs.replace(GUESS, meter="rapl", evidence="M3"), 0, 26, power_w=20.0)


def other_items(run: Run) -> None:
    run.step = structs.replace(STEP, data_sha256="e")
    run.scores = [*run.scores[:3], score("q9")]


def silent(run: Run) -> None:
    run.scores = [score("q0"), score("q1"), score("q2"), score("q3", 0.0, verdict="no_answer")]


def other_scorer(run: Run) -> None:
    run.scores = [structs.replace(s, scorer="qa/2") for s in run.scores]


@pytest.mark.parametrize(
    ("rule", "change", "sentence"),
    [
        ("A2", other_weights, "one deployment, and different weights"),
        ("B3", longer, "answers are 11 and 22 tokens long: compare requests, not tokens"),
        (
            "D12",
            by_another_meter,
            "energy of different classes or boundaries (E2 of cpu_package and M4 of cpu_package) is not ranked",
        ),
        ("F1", other_items, "not the same questions: data_sha256, answered items (2 in one only)"),
        ("F3", silent, "no answer was found in 0.0% and 25.0%: part of the difference may be the format's"),
        ("F4", other_scorer, "judged by qa/1 and by qa/2"),
    ],
)
def test_a_pair_rule_finds_its_fault(rule: str, change: Callable[[Run], None], sentence: str) -> None:
    found = verdict(rule, change)
    assert (found.verdict, found.sentence) == ("fail", sentence)


def with_gpu(scope: str | None, temperature_c: float) -> Run:
    run = Run()
    run.engine = structs.replace(run.engine, device="cuda:0")
    meter = structs.replace(GPU_METER, scope=scope)
    run.telemetry += ticks(meter, 0, 26, power_w=300.0, temperature_c=temperature_c)
    return run


def test_temperature_and_scope_of_accelerators_are_compared() -> None:
    cold, warm = with_gpu("GPU", 40.0), with_gpu("MODULE", 48.0)
    found = {f.rule: f.sentence for f in judge_pair(cold.view(), warm.view()) if f.verdict == "fail"}
    assert found == {
        "D8": "the steps began at 40 and 48 C: warm silicon draws more",
        "D14": "power of different scope (GPU and MODULE) is not compared",
    }


def test_a_step_may_be_compared_with_itself() -> None:
    for run in (Run(), with_gpu("GPU", 40.0)):
        assert {f.verdict for f in judge_pair(run.view(), run.view())} <= {"pass", "not_applicable"}


def test_every_p_of_a_table_is_adjusted_over_the_declared_family() -> None:
    """F7"""
    tests: dict[str, tuple[float, float | None]] = {"a": (0.01, 0.03), "b": (0.02, 0.04), "c": (0.5, 0.5)}
    found = judge_table("one / two", tests, ("a", "b", "c"))
    assert (found.rule, found.verdict, found.observed) == ("F7", "pass", "Holm over 3")
    outside = judge_table("one / two", tests, ("a", "b"))
    assert (outside.verdict, outside.observed) == ("fail", "c")
    bare = judge_table("one / two", tests | {"b": (0.02, None)}, ("a", "b", "c"))
    assert bare.sentence == "1 of 3 p-values are not adjusted, first `b`"
    assert judge_table("one / two", {"a": (0.01, 0.01)}, ("a",)).verdict == "not_applicable"


def test_the_page_of_rules_is_up_to_date() -> None:
    assert (Path(__file__).parents[2] / "docs/validity.md").read_text() == rules_table()


def test_every_rule_of_the_method_is_decided_or_said_not_to_be() -> None:
    wanted = {f"A{i}" for i in range(1, 11)} | {f"B{i}" for i in range(1, 13)} | {f"C{i}" for i in range(1, 13)}
    wanted |= {f"D{i}" for i in range(1, 15)} | {f"E{i}" for i in range(1, 7)} | {f"F{i}" for i in range(1, 14)}
    assert {r.id for r in RULES} | {r.id for r in PAIR_RULES} | {tables.ID} == wanted


def test_every_rule_names_itself_in_its_docstring() -> None:
    for rule in (*RULES, *PAIR_RULES):
        assert rule.check.__doc__ == rule.id
