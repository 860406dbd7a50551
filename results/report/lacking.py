"""What was not measured, where, and why: every empty figure of the table has its reason here."""

from collections import defaultdict

from msgspec import Struct

from results.report.build import Report, memory_bytes
from results.report.entries import Entry
from results.report.saying import Speak
from results.rows import Row

LOOKED_AT = (
    "accuracy", "cost_per_1k_samples", "cost_per_correct", "output_tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms",
    "e2e_p50_ms", "e2e_p95_ms", "energy_j", "memory",
)  # fmt: skip
"""Figures of the table whose absence is explained."""


class Lack(Struct, frozen=True, kw_only=True):
    """One or several figures that are empty in some rows for one reason."""

    what: str
    where: str
    why: str


def lacking(report: Report, t: Speak) -> list[Lack]:
    """Figures and rows with the same reason are told together."""
    by_reason: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in report.entries:
        for figure in LOOKED_AT:
            value = memory_bytes(entry.row) if figure == "memory" else getattr(entry.row, figure)
            if value is None:
                places[figure, why_empty(entry, figure, t)].append(f"{entry.label} ({entry.row.task})")
    for (figure, why), rows in places.items():
        by_reason[why, tuple(rows)].append(t("w_" + figure))
    found = [
        Lack(what=t("list").join(figures), where=_where(rows, len(report.entries), t), why=why)
        for (why, rows), figures in by_reason.items()
    ]
    if not any((r.energy_boundary or "").startswith("node") for r in report.rows):
        found.append(Lack(what=t("missing_node"), where=t("missing_everywhere"), why=t("missing_node_why")))
    found.append(Lack(what=t("missing_clinical"), where=t("missing_everywhere"), why=t("missing_clinical_why")))
    return found


def _where(rows: tuple[str, ...], all_rows: int, t: Speak) -> str:
    if len(rows) == all_rows and all_rows > 1:
        return t("missing_everywhere")
    shown = t("list").join(rows[:8])
    return shown + (f" … (+{len(rows) - 8})" if len(rows) > 8 else "")


def why_empty(entry: Entry, figure: str, t: Speak) -> str:
    """The reason that the row itself gives for an empty figure."""
    row, facts = entry.row, entry.step.facts
    if row.outcome != "ok":
        return "; ".join(row.reasons) or t("outcome_" + row.outcome)
    match figure:
        case "accuracy" if facts.kind == "speed":
            return t("y_speed")
        case "accuracy":
            return "; ".join(row.reasons) or t("s_unscored")
        case "cost_per_1k_samples" | "cost_per_correct":
            return row.cost_reason or t("y_speed" if facts.kind == "speed" else "y_unknown")
        case "output_tokens_per_s" | "ttft_p50_ms" | "ttft_p95_ms" | "tpot_p50_ms" if row.output_tokens is None:
            return t("y_ranking" if facts.scoring != "generate" and facts.kind != "speed" else "y_unknown")
        case "energy_j":
            return _warning(row, ("energy", "power", "meter", "counter")) or t("y_unknown")
        case "memory":
            return _warning(row, ("memory",)) or t("y_unknown")
        case _:
            quantile = "p95" if "p95" in figure else "p50"
            return next((w for w in row.warnings if w.startswith(quantile)), None) or t("y_unknown")


def _warning(row: Row, words: tuple[str, ...]) -> str | None:
    return next((w for w in row.warnings if any(word in w.lower() for word in words)), None)
