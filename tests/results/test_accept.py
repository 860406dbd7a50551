"""A delivered machine against a written specification: every kind of clause, every verdict, and the page to sign."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from made_run import GPU_METERS, Made, steps, write_run
from msgspec import structs

from bench.cli import main
from results.accept import accept, judge
from results.accept import spec as ask
from results.accept.judge import Finding, between, share_of
from results.accept.page import html
from results.accept.words import WORDS, reasons_said, say
from results.report.formats import percent
from results.stats import Interval, exact
from results.store import DERIVED, RunDir, StoreError
from results.validity import RULES

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "acceptance.toml"
HEAD = 'title = "T"\ndeployment = "big"\n'
BIG = Made(name="big", quantisation="F16", bits=16.0, right=0.75)
SMALL = Made(name="small", quantisation="Q2_K", bits=4.6, right=0.25)


def clause(kind: str, **values: Any) -> str:
    return "\n".join(["[[clauses]]", f'kind = "{kind}"', *(f"{k} = {json.dumps(v)}" for k, v in values.items())]) + "\n"


def judged(
    tmp_path: Path, *clauses: str, cells: tuple[Made, ...] = (BIG,), head: str = HEAD, **other: Any
) -> list[Any]:
    facts = other.pop("facts", steps(items=120))
    run = write_run(tmp_path, "one", cells, facts, **other)
    spec = tmp_path / "spec.toml"
    spec.write_text(head + "".join(clauses), encoding="utf-8")
    return list(accept(spec, run).clauses)


def verdicts(tmp_path: Path, *clauses: str, **other: Any) -> list[str]:
    return [c.verdict for c in judged(tmp_path, *clauses, **other)]


def test_the_shipped_example_has_every_verdict_against_a_run_like_the_demos(tmp_path: Path) -> None:
    accepted = accept(EXAMPLE, write_run(tmp_path), datetime(2026, 11, 23, tzinfo=UTC))
    assert {c.verdict for c in accepted.clauses} == {"met", "not_met", "undecided"}
    assert {c.kind for c in accepted.clauses} == {t.__struct_config__.tag for t in ask.Clause.__args__}
    assert accepted.verdict == "not_met"
    assert all(bool(c.decides.en) == (c.verdict == "undecided") for c in accepted.clauses)


def test_accuracy_is_decided_by_its_limits_and_never_by_its_value(tmp_path: Path) -> None:
    limits = (0.10, 0.99, 0.80)
    found = judged(tmp_path, *(clause("accuracy", task="clinical_qa_en", at_least=x) for x in limits))
    assert [c.verdict for c in found] == ["met", "not_met", "undecided"]
    assert re.fullmatch(r"about [\d,]+ more items", found[2].decides.en)


def test_non_inferiority_is_paired_with_a_deployment_of_the_same_run(tmp_path: Path) -> None:
    ask_small = clause("non_inferior", task="clinical_qa_en", deployment="small", reference="big", margin=0.05)
    ask_big = clause("non_inferior", task="clinical_qa_en", reference="small")
    assert verdicts(tmp_path, ask_big, ask_small, cells=(BIG, SMALL)) == ["met", "not_met"]


def test_a_reference_of_another_run_must_have_been_asked_the_same(tmp_path: Path) -> None:
    write_run(tmp_path / "other", "two", (SMALL,), steps(items=60))
    reference = "other/20261122T000000Z_two"
    text = clause("non_inferior", task="clinical_qa_en", reference="small", reference_run=reference)
    (found,) = judged(tmp_path, text)
    assert (found.verdict, found.decides) == ("undecided", WORDS["decide_same"])
    assert found.found.en.startswith("not comparable: data differ")


def test_the_share_of_requests_is_decided_by_the_exact_interval() -> None:
    kept = share_of([True] * 100, 0.95, 0.95)
    assert kept.verdict == "met"  # 0.025 ** (1 / 100) = 0.964
    few = share_of([True] * 40, 0.95, 0.95)
    assert few == Finding(
        verdict="undecided",
        found=say("found_share", share=percent(1.0), n=40, lo=percent(0.912), hi=percent(1.0)),
        decides=say("decide_requests", n=f"{72 - 40}"),
    )
    assert (exact(72, 72).lo or 0) >= 0.95 > (exact(71, 71).lo or 0)
    assert share_of([True, False] * 20, 0.95, 0.95).verdict == "not_met"
    assert share_of([], 0.95, 0.95).verdict == "undecided"


@pytest.mark.parametrize(
    ("lo", "hi", "limit", "good", "verdict"),
    [
        (0.6, 0.8, 0.5, "above", "met"),
        (0.6, 0.8, 0.9, "above", "not_met"),
        (0.6, 0.8, 0.7, "above", "undecided"),
        (2.0, 3.0, 4.0, "below", "met"),
        (2.0, 3.0, 1.0, "below", "not_met"),
        (2.0, 3.0, 2.5, "below", "undecided"),
    ],
)
def test_an_interval_against_a_limit(lo: float, hi: float, limit: float, good: Any, verdict: str) -> None:
    assert between(lo, hi, limit, good) == verdict


def test_times_speeds_memory_and_cost_of_a_load(tmp_path: Path) -> None:
    notes = {"task": "note_summary_en", "load": "c4"}
    found = verdicts(
        tmp_path,
        clause("first_token", **notes, percentile=50, at_most_ms=5000),
        clause("first_token", **notes, percentile=50, at_most_ms=1),
        clause("user_speed", **notes, at_least_tokens_per_s=1, for_share=0.5),
        clause("user_speed", **notes, at_least_tokens_per_s=9000, for_share=0.5),
        clause("throughput", **notes, at_least_tokens_per_s=1),
        clause("throughput", **notes, at_least_tokens_per_s=9000),
        clause("memory", of="host", at_most_gib=64),
        clause("memory", of="host", at_most_gib=0.001),
        clause("memory", of="device", at_most_gib=64),
        clause("cost", task="clinical_qa_en", at_most=1000, currency="USD"),
        clause("cost", task="clinical_qa_en", at_most=0.000001, currency="USD"),
    )
    assert found == ["met", "not_met"] * 4 + ["undecided", "met", "not_met"]


def test_estimated_power_decides_no_cap_and_measured_power_does(tmp_path: Path) -> None:
    caps = (clause("power", at_most_w=100_000), clause("evidence", at_least="M3"))
    assert verdicts(tmp_path / "estimated", *caps) == ["undecided", "not_met"]
    assert verdicts(tmp_path / "unread", *caps, cells=(structs.replace(BIG, metered=False),)) == ["undecided"] * 2


def test_a_profile_that_the_run_did_not_have_is_judged_from_the_records(tmp_path: Path) -> None:
    (found,) = judged(tmp_path, clause("validity", profile="procurement"))
    assert found.verdict == "not_met"
    assert "C1: the steady state is" in found.found.en


def test_a_model_that_ended_for_lack_of_memory_is_not_met(tmp_path: Path) -> None:
    cells = (structs.replace(BIG, outcome="oom", finished_steps=0),)
    (found,) = judged(tmp_path, clause("accuracy", task="clinical_qa_en", at_least=0.1), cells=cells)
    assert found.verdict == "not_met"
    assert "oom" in found.found.en


def test_a_model_that_was_never_tried_cannot_be_decided(tmp_path: Path) -> None:
    cells = (structs.replace(BIG, outcome="skipped", skipped="needs 43 GiB"),)
    (found,) = judged(tmp_path, clause("accuracy", task="clinical_qa_en", at_least=0.1), cells=cells)
    assert (found.verdict, found.decides) == ("undecided", WORDS["decide_finish"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (clause("accuracy", task="clinical_qa_en", at_lest=0.5), "unknown field `at_lest`"),
        (clause("speed", task="clinical_qa_en"), "Invalid value 'speed'"),
        (clause("accuracy", task="no_such_task", at_least=0.5), r"clause 1: big was not asked `no_such_task`"),
        (clause("throughput", task="note_summary_en", at_least_tokens_per_s=1), "name one of them with `load`"),
        (
            clause("throughput", task="note_summary_en", load="c9", at_least_tokens_per_s=1),
            "not measured under load `c9`",
        ),
        (clause("cost", task="clinical_qa_en", at_most=1, currency="CNY"), "give a tariff in CNY"),
        (clause("non_inferior", task="clinical_qa_en", reference="nobody"), "no deployment `nobody`"),
        ("", "clauses"),
    ],
)
def test_a_specification_that_does_not_fit_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        judged(tmp_path, text)


def test_an_edited_run_is_refused_by_the_file_that_was_edited(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "cells" / "smollm2-135m-q8_0-abc123" / "scores.jsonl").write_text("")
    with pytest.raises(StoreError, match=r"scores.jsonl was edited; a run that is not whole cannot be accepted"):
        accept(EXAMPLE, run)


def test_the_page_names_the_seal_runs_nothing_and_shows_text_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    run = write_run(tmp_path, "one", (BIG,), steps(items=20, notes=0))
    spec = tmp_path / "spec.toml"
    text = clause("accuracy", task="clinical_qa_en", at_least=0.1)
    spec.write_text(f'title = "{evil}"\nsupplier = "{evil}"\ndeployment = "big"\n{text}')
    accepted = accept(spec, run)
    page = html(accepted)
    assert accepted.measurement_sha256 == RunDir(run).measurement_sha256()
    assert accepted.measurement_sha256 in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r"(src|href)=", page)
    assert "验收记录" in page


def test_a_signed_page_names_what_a_later_report_does_not_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path)
    whole = RunDir(run).seal_sha256()
    signed = accept(EXAMPLE, run).measurement_sha256
    assert main(["report", str(run), "--lang", "zh"]) == 0
    assert RunDir(run).seal_sha256() != whole
    capsys.readouterr()
    assert main(["verify", str(run)]) == 0
    assert f"Measurement seal: {signed}" in capsys.readouterr().out.splitlines()
    assert signed[:16] in (run / "report.html").read_text(encoding="utf-8")


def test_the_seal_of_the_measurement_changes_with_every_record(tmp_path: Path) -> None:
    folder = RunDir(write_run(tmp_path))
    signed = folder.measurement_sha256()
    names = [p for p in folder.path.rglob("*") if p.is_file() and p.name not in ("seal.json", *DERIVED)]
    for path in names:
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        folder.seal()
        assert folder.measurement_sha256() != signed, path
        path.write_bytes(before)
    folder.seal()
    assert folder.measurement_sha256() == signed


def test_reasons_of_rules_are_chinese_on_the_chinese_half() -> None:
    for rule in RULES:
        said = reasons_said([f"{rule.id}: a sentence of the future"])
        assert said.en == f"{rule.id}: a sentence of the future"
        assert re.search(r"[\u4e00-\u9fff]", said.zh), rule.id
        assert "future" not in said.zh, rule.id
    known = "C8: 253.2 tokens/s is more than memory bandwidth allows (180.0): a count is wrong"
    assert reasons_said([known, "F3"]).zh == "C8：253.2 token/s 超过内存带宽所允许的 180.0：计数有误；F3：未找到答案"


def test_every_sentence_has_both_languages_with_the_same_blanks() -> None:
    for key, words in WORDS.items():
        blanks = [set(re.findall(r"{(\w+)}", text)) for text in (words.en, words.zh)]
        assert blanks[1] <= blanks[0], key
        assert words.en, key
        assert re.search(r"[\u4e00-\u9fff]", words.zh) or key == "found_memory", key


def test_more_items_shrink_the_interval_with_the_root_of_their_number() -> None:
    found = Interval(value=0.625, lo=0.5, hi=0.75, n=100, method="wilson")
    assert judge._more_items(found, 0.5625) == say("decide_items", n="300")
    assert judge._more_items(found, 0.625) == WORDS["decide_never"]


def test_gpu_memory_is_judged_where_a_device_is_read(tmp_path: Path) -> None:
    cells = (structs.replace(BIG, engine="vllm"),)
    (found,) = judged(tmp_path, clause("memory", of="host", at_most_gib=64), cells=cells, meters=GPU_METERS)
    assert found.verdict == "met"
