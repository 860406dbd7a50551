"""The scorer against published answers of DeepSeek-R1 and -V3 (gersteinlab/medagents-benchmark), where that data is at hand."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tasks import Answer, Sample, choice

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BEDSIDE_DATA", ROOT.parent / "shared" / "data"))
QUESTIONS = DATA / "mmlu_medical" / "test.jsonl"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.skipif(
    not QUESTIONS.exists(), reason=f"no public test data at {DATA}; set BEDSIDE_DATA to have this tested"
)
@pytest.mark.parametrize(("model", "right"), [("DeepSeek-R1", 1035), ("DeepSeek-V3", 977)])
@pytest.mark.parametrize("wording", ["{}", "<think>Not {} at first.</think>The answer is ({}).", "答案：{}"])
def test_published_answers_are_judged_as_published(model: str, right: int, wording: str) -> None:
    samples = {
        row["id"]: Sample(
            id=row["id"],
            input=row["question"],
            options=tuple(row["options"].values()),
            target=str(list(row["options"]).index(row["answer"])),
        )
        for row in rows(QUESTIONS)
    }
    predicted = rows(DATA / "reference_predictions" / f"mmlu_{model}.jsonl")
    scores = [
        choice.score(
            "en", samples[row["our_id"]], "generate", Answer(text=wording.replace("{}", row["predicted"] or ""))
        )
        for row in predicted
    ]
    assert len(scores) == len(samples) == 1089
    assert sum(score.verdict == "correct" for score in scores) == right
    assert sum(score.value or 0 for score in scores) == right
