"""What a judge's verdicts are worth and what they come to. Pure but for `records`.

Agreement is with the labelled statements that ship: accuracy, and Cohen's kappa (Cohen 1960), which takes out what chance alone would agree
on. A third of the labels is of each kind, so chance agreement is a third whatever the judge prefers (less where it stays undecided), kappa
is a straight line in accuracy, and its limits are those of accuracy on that line: kappa = (accuracy - chance) / (1 - chance).

Worked example: 60 of 72 right, 12 wrong: accuracy 0.833, kappa (0.833 - 0.333) / 0.667 = 0.75.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from results.records import Judged, LabelJudged
from results.stats import Interval, items_of, score_interval, unknown, wilson_clustered
from results.store import RunDir

KAPPA_FLOOR = 0.6
"""Least lower 95 % limit of kappa at which a judge's figures are shown: "substantial" begins there (Landis and Koch 1977)."""

LINEAGES = (
    "deepseek", "qwen", "qwq", "llama", "mistral", "mixtral", "gemma", "phi", "glm", "smollm", "granite", "internlm", "baichuan", "yi",
    "falcon", "gpt", "kimi", "minimax", "hunyuan", "ernie", "olmo", "nemotron",
)  # fmt: skip
"""Words by which models are named after what they were made from."""


class Agreement(Struct, frozen=True, kw_only=True):
    """Of a judge with the labels of one language."""

    language: str
    accuracy: Interval
    """Share of labels that it hit; clustered by note."""
    kappa: Interval
    labels: int
    undecided: int
    errors: int


class Figures(Struct, frozen=True, kw_only=True):
    """What a judge said of one step: shares of a summary's statements, mean over notes. Empty where nothing may be shown."""

    supported: Interval
    contradicted: Interval
    statements: int
    undecided: int
    errors: int
    silent: int
    """Summaries that state nothing."""


def agreement(judged: Judged) -> Agreement | None:
    """None where the judge was not heard."""
    labels = judged.labels
    if not labels:
        return None
    accuracy = wilson_clustered([float(x.label == x.verdict) for x in labels], [x.note for x in labels])
    chance = _chance(labels)
    return Agreement(
        language=judged.language,
        accuracy=accuracy,
        kappa=Interval(
            value=_kappa(accuracy.value, chance),
            lo=_kappa(accuracy.lo, chance),
            hi=_kappa(accuracy.hi, chance),
            n=accuracy.n,
            method="kappa of " + accuracy.method,
        ),
        labels=len(labels),
        undecided=sum(x.verdict == "undecided" for x in labels),
        errors=sum(x.verdict == "error" for x in labels),
    )


def _chance(labels: Sequence[LabelJudged]) -> float:
    """Share on which labels and verdicts would agree if they had nothing to do with each other."""
    truth, said = Counter(x.label for x in labels), Counter(x.verdict for x in labels)
    return sum(truth[name] * said[name] for name in truth) / len(labels) ** 2


def _kappa(accuracy: float | None, chance: float) -> float | None:
    return None if accuracy is None or chance == 1 else (accuracy - chance) / (1 - chance)


def lineages(names: Iterable[str]) -> frozenset[str]:
    """The families that names speak of: `hf:bartowski/DeepSeek-R1-Distill-Qwen-7B-GGUF` is deepseek's and qwen's."""
    text = " ".join(name.rpartition(":")[2].rpartition("/")[2] for name in names).lower()
    tokens = frozenset(re.findall("[a-z]+", text))
    found = {word for word in LINEAGES for token in tokens if word == token or (len(word) > 4 and word in token)}
    return frozenset(found | ({"deepseek"} if "r1-distill" in text else set()))


def kin(judged: Judged) -> tuple[str, ...] | None:
    """Families that the judge shares with a deployment of the run; None where one side's names tell nothing."""
    ours, theirs = lineages(judged.names), lineages(judged.candidates)
    return tuple(sorted(ours & theirs)) if ours and theirs else None


def withheld(judged: Judged) -> str:
    """Why the judge's figures are not shown, or ""."""
    found = agreement(judged)
    if judged.reason or found is None:
        return judged.reason or "the judge was not heard"
    if shared := kin(judged):
        return f"judge and judged are of one family ({', '.join(shared)})"
    if found.kappa.lo is None or found.kappa.lo < KAPPA_FLOOR:
        return (
            f"the judge does not agree with the labels well enough: {said(found)}; needed: lower limit {KAPPA_FLOOR:g}"
        )
    return ""


def said(found: Agreement) -> str:
    """Agreement in words, for every place that shows a figure of the judge."""
    return (
        f"kappa {_words(found.kappa)}, accuracy {_words(found.accuracy)} on {found.labels} labelled statements ({found.language})"
        + (f", {found.undecided} undecided" if found.undecided else "")
        + (f", {found.errors} without an answer" if found.errors else "")
    )


def _words(interval: Interval) -> str:
    if interval.value is None or interval.lo is None or interval.hi is None:
        return "unknown"
    return f"{interval.value:.2f} ({interval.lo:.2f} to {interval.hi:.2f})"


def figures(judged: Judged) -> Figures | None:
    """None where they are withheld."""
    if withheld(judged):
        return None
    good = [s for s in judged.statements if s.verdict != "error"]
    told = {(s.sample, s.repeat) for s in judged.statements}
    return Figures(
        supported=_share(judged, "supported"),
        contradicted=_share(judged, "contradicted"),
        statements=len(good),
        undecided=sum(s.verdict == "undecided" for s in good),
        errors=len(judged.statements) - len(good),
        silent=judged.summaries - len(told),
    )


def _share(judged: Judged, verdict: str) -> Interval:
    """Mean over notes of the share of a summary's statements with this verdict."""
    by_summary: dict[tuple[str, int], list[bool]] = {}
    for s in judged.statements:
        if s.verdict != "error":
            by_summary.setdefault((s.sample, s.repeat), []).append(s.verdict == verdict)
    shares = [(sample, sample, sum(v) / len(v)) for (sample, _), v in by_summary.items()]
    return score_interval(items_of(shares)) if shares else unknown("none")


def records(run: RunDir) -> tuple[Judged, ...]:
    """The last of every step of a run."""
    last: dict[tuple[str, str], Judged] = {}
    for cell in run.manifest().cells:
        for event in run.cell(cell.id).events():
            if isinstance(event, Judged):
                last[cell.id, event.step] = event
    return tuple(last.values())


def unheard(run: RunDir) -> tuple[str, ...]:
    """Why summaries of a run were not judged, each reason once."""
    return tuple(dict.fromkeys(record.reason for record in records(run) if record.reason))


def heard(run: RunDir) -> tuple[str, ...]:
    """Sentences for `verify`: how well the judge agrees with the labels, in each language, and why its figures are withheld."""
    sentences = []
    for record in records(run):
        found, why = agreement(record), withheld(record)
        agrees = f"Judge `{record.judge}`: {said(found)}, synthetic, not reviewed by a clinician." if found else ""
        sentences += [agrees, f"Judge `{record.judge}`: figures withheld, {why}." if why else ""]
    return tuple(dict.fromkeys(s for s in sentences if s))
