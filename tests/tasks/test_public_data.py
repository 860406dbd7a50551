"""The public sets themselves, where they are at hand (`BEDSIDE_DATA`): counts, clusters, and the published answers to one of them."""

import json
import os
from pathlib import Path

import pytest

from results.paired import compare, pair
from results.stats import Item, score_interval
from tasks import TASKS, Answer

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BEDSIDE_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(
    not DATA.exists(), reason=f"no public data at {DATA}; set BEDSIDE_DATA to have this tested"
)

SETS = [
    ("mmlu_medical", "mmlu_medical/test.jsonl", 1089, 1011),
    ("mmlu_medical", "mmlu_medical/dev.jsonl", 25, 25),
    ("pubmedqa", "pubmedqa/pqal_dev500.jsonl", 500, 500),
    ("k_qa", "k_qa/answered201.jsonl", 201, 201),
    ("medcalc", "medcalc_bench/test1047_noexpl.jsonl", 1047, 979),
    ("medec", "medec/ms_test.jsonl", 597, 597),
    ("mts_dialog", "mts_dialog/valid.jsonl", 100, 100),
    ("aci_bench", "aci_bench/valid.jsonl", 20, 20),
    ("cmb_clin", "cmb_clin/all74_cases.jsonl", 208, 74),
]


@pytest.mark.parametrize(("name", "file", "items", "distinct"), SETS)
def test_a_real_set_is_read_whole(name: str, file: str, items: int, distinct: int) -> None:
    samples = TASKS[name].load(DATA / file)
    assert len(samples) == items
    assert len({sample.cluster or sample.id for sample in samples}) == distinct
    for sample in samples[:3]:
        assert TASKS[name].prompt(sample, TASKS[name].scorings[0])


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name, file, _, _ in SETS if name not in ("mmlu_medical", "pubmedqa")]
)
def test_a_reference_scores_full_marks_against_itself(name: str, file: str) -> None:
    for sample in TASKS[name].load(DATA / file)[:20]:
        told = "Answer: CORRECT" if sample.target == "-1" else f"Answer: {sample.target}"
        text = told if name in ("medec", "medcalc") else sample.target
        assert TASKS[name].score(sample, "generate", Answer(text=text)).value == pytest.approx(1.0), sample.id


def published(model: str) -> list[Item]:
    samples = {sample.id: sample for sample in TASKS["mmlu_medical"].load(DATA / "mmlu_medical/test.jsonl")}
    lines = (DATA / "reference_predictions" / f"mmlu_{model}.jsonl").read_text(encoding="utf-8").split("\n")
    items = []
    for row in map(json.loads, filter(None, lines)):
        sample = samples[row["our_id"]]
        value = TASKS["mmlu_medical"].score(sample, "generate", Answer(text=f"Answer: {row['predicted']}")).value
        items.append(Item(row["our_id"], sample.cluster, float(value or 0), 1))
    return items


def test_published_answers_of_two_models_are_compared_on_distinct_questions() -> None:
    r1, v3 = published("DeepSeek-R1"), published("DeepSeek-V3")
    assert (sum(i.value for i in r1), sum(i.value for i in v3)) == (1035, 977)
    assert [score_interval(items).n for items in (r1, v3)] == [1011, 1011]
    found = compare(pair(r1, v3))
    assert found.difference.value == pytest.approx(58 / 1089)
    assert (found.difference.lo, found.difference.hi) == (
        pytest.approx(0.0357, abs=1e-3),
        pytest.approx(0.0708, abs=1e-3),
    )
    assert found.discordance is not None
    assert (found.discordance.only_first, found.discordance.only_second) == (72, 14)
    assert found.mcnemar_p == pytest.approx(1.1e-10, rel=0.9)
