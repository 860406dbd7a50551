"""ROUGE-1, -2 and -L (F-measure) through `rouge-score`, with a tokenizer that knows Chinese.

The default tokenizer of that library keeps only `a-z0-9`, so that two identical Chinese texts score 0 (known from
google/adk-python PR 6444 and huggingface/evaluate issue 256). Here a Chinese character is a token, and a run of Latin
letters or digits is one; English is words without stemming. ROUGE is a tripwire for regressions beside the key facts:
it barely tells a 2-bit model from its original, so nothing is ranked by it.

Worked example: "right leg pain" against "pain in right leg" shares 3 words of 3 and 4: precision 1, recall 0.75,
ROUGE-1 = 0.857.
"""

import re
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

_ENGLISH = re.compile(r"[a-z0-9]+")
_CHINESE = re.compile(r"[\u3400-\u9fff]|[a-z0-9]+")

NAMES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l"}


class CharacterTokenizer:
    """Chinese by character, the rest by word."""

    def tokenize(self, text: str) -> list[str]:
        return _CHINESE.findall(text.lower())


class WordTokenizer:
    """Lower-case words of letters and digits, not stemmed."""

    def tokenize(self, text: str) -> list[str]:
        return _ENGLISH.findall(text.lower())


@lru_cache(maxsize=2)
def _scorer(language: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(NAMES), tokenizer=CharacterTokenizer() if language == "zh" else WordTokenizer())


def rouge(reference: str, summary: str, language: str) -> dict[str, float]:
    """F-measures rouge1, rouge2, rouge_l in [0, 1]; none of them, because unknown, where `rouge-score` is not
    installed.
    """
    if find_spec("rouge_score") is None:
        return {}
    scores = _scorer(language).score(reference, summary)
    return {name: float(scores[key].fmeasure) for key, name in NAMES.items()}


@lru_cache(maxsize=4096)
def self_overlap(reference: str, language: str) -> float | None:
    """ROUGE-L of a reference with itself: 1, or less where the tokenizer does not know the language. `None` without
    words or without `rouge-score`.
    """
    return rouge(reference, reference, language).get("rouge_l") if reference.strip() else None


def length(text: str, language: str) -> int:
    """Tokens as ROUGE counts them, at least 1 so that it can be divided by."""
    return max(1, len((_CHINESE if language == "zh" else _ENGLISH).findall(text.lower())))
