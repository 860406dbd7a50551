"""What was not measured, where, and why: every empty figure of the table has its reason here."""

from collections import defaultdict

from msgspec import Struct

from results.report.build import Report, memory_bytes
from results.report.entries import Entry
from results.report.saying import Speak, task_name
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
    """Figures with the same reason in the same rows are told together."""
    places: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in report.entries:
        for figure in LOOKED_AT:
            value = memory_bytes(entry.row) if figure == "memory" else getattr(entry.row, figure)
            if value is None:
                places[figure, why_empty(entry, figure, t)].append(entry)
        if (why := _no_smallest(entry)) is not None:
            places["smallest", why].append(entry)
    together: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (figure, why), entries in places.items():
        together[why, _where(entries, report, t)].append(t("w_" + figure))
    found = [Lack(what=t("list").join(f), where=where, why=why) for (why, where), f in together.items()]
    if not any((r.energy_boundary or "").startswith("node") for r in report.rows):
        found.append(Lack(what=t("missing_node"), where=t("missing_everywhere"), why=t("missing_node_why")))
    found.append(Lack(what=t("missing_clinical"), where=t("missing_everywhere"), why=t("missing_clinical_why")))
    return found


def _where(entries: list[Entry], report: Report, t: Speak) -> str:
    """Whole tasks by name, other rows one by one, a dozen at most."""
    if len(entries) == len(report.entries) > 1:
        return t("missing_everywhere")
    left = {e.name: e for e in entries}
    parts = []
    for group in report.groups:
        if len(group.entries) > 1 and all(e.name in left for e in group.entries):
            parts.append(t("missing_task", task=task_name(group.task, t)))
            for e in group.entries:
                del left[e.name]
    rest = [f"{e.label} ({task_name(e.row.task, t)})" for e in left.values()]
    parts += rest[:12] + ([f"… +{len(rest) - 12}"] if len(rest) > 12 else [])
    return t("list").join(parts)


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
            return _warning(row, ("memory",), but="smallest memory:") or t("y_unknown")
        case _:
            quantile = "p95" if "p95" in figure else "p50"
            return next((w for w in row.warnings if w.startswith(quantile)), None) or t("y_unknown")


def _no_smallest(entry: Entry) -> str | None:
    """Why the search for the smallest memory found none; None where it did, or where nobody asked for one."""
    searched = entry.cell.smallest
    if searched is None or searched.step != entry.row.step or searched.smallest_bytes is not None:
        return None
    return searched.reason


def _warning(row: Row, words: tuple[str, ...], but: str = "\n") -> str | None:
    """The first warning with one of the words that does not begin with `but`."""
    fitting = (w for w in row.warnings if not w.startswith(but))
    return next((w for w in fitting if any(word in w.lower() for word in words)), None)
