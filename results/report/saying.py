"""The report in plain words: only what the statistics allow. "Best" needs 97.5 % of the draws, "beats on both" 90 %, else it is a tie."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from results.report import formats
from results.report.build import Group, Report, estimated
from results.report.differences import MARGIN
from results.report.entries import Entry

SURE_BEST = 0.975
"""Of two variants that are truly tied each would pass by chance in 2.5 % of runs: 5 % together."""
IN_THE_RUNNING = 0.05

Speak = Callable[..., str]


class Badge(Struct, frozen=True):
    """A caveat: short, and why."""

    name: str
    why: str


def badges(report: Report, t: Speak) -> list[Badge]:
    """What a reader must know before reading a number."""
    rows = report.rows
    found = []
    if any("smollm" in text.lower() for r in rows for text in (r.model, r.deployment, r.family or "")):
        found.append(Badge(t("badge_standin"), t("badge_standin_why")))
    if any(r.synthetic_weights for r in rows):
        found.append(Badge(t("badge_random"), t("badge_random_why")))
    if any(r.synthetic_data for r in rows):
        found.append(Badge(t("badge_synthetic"), t("badge_synthetic_why")))
    if any(r.public_data for r in rows):
        found.append(Badge(t("badge_public"), t("badge_public_why")))
    if any(estimated(r) for r in rows):
        classes = ", ".join(sorted({r.power_class or "" for r in rows if estimated(r)}))
        found.append(Badge(t("badge_power"), t("badge_power_why", classes=classes)))
    if report.tariff.example:
        tariff = report.tariff
        about = tariff.description.removeprefix("EXAMPLE, not a quote: ")
        found.append(Badge(t("badge_tariff"), t("badge_tariff_why", name=tariff.name, description=about)))
    if any(r.profile == "smoke" for r in rows):
        found.append(Badge(t("badge_smoke"), t("badge_smoke_why")))
    if not all(run.manifest.store_text for run in report.runs):
        found.append(Badge(t("badge_text"), t("badge_text_why")))
    return found


def summary(report: Report, t: Speak) -> list[list[str]]:
    """A paragraph for each task, then what failed and what may not be ranked."""
    paragraphs = [_task(group, report, t) for group in report.groups]
    cells = [cell for run in report.runs for cell in run.cells]
    bad = [c for c in cells if c.outcome != "ok"]
    last = []
    if bad:
        names = [f"{c.facts.deployment} ({t('outcome_' + c.outcome)})" for c in bad]
        last.append(t("s_failed", n=len(bad), all=len(cells), names=_names(names, t)))
    invalid = [r for r in report.rows if r.outcome == "ok" and not r.valid]
    if invalid:
        last.append(t("s_invalid", n=len(invalid), all=len(report.rows)))
    return [p for p in (*paragraphs, last) if p]


def _task(group: Group, report: Report, t: Speak) -> list[str]:
    if group.speed:
        return [t("s_speed", task=group.task)]
    entries = {e.name: e for e in group.entries}
    able = [entries[name] for name in group.best_accuracy]
    if not able:
        return [t("s_none", task=group.task)]
    if len(able) == 1:
        return [t("s_one", task=group.task, a=able[0].label, **_accuracy(able[0]), **_cost(able[0]))]
    said = [_best(group, able, report, t), _cheapest(group, able, t), _both(group, entries, t)]
    return [s for s in (*said, *_as_good(group, entries, t)) if s]


def _best(group: Group, able: Sequence[Entry], report: Report, t: Speak) -> str:
    shares = group.best_accuracy
    top = max(able, key=lambda e: e.row.accuracy or 0.0)
    if shares[top.name] >= SURE_BEST:
        share = formats.probability(shares[top.name])
        return t("s_best", task=group.task, a=top.label, p=share, draws=f"{report.draws:,}", **_accuracy(top))
    tied = [e for e in able if shares[e.name] >= IN_THE_RUNNING or e is top] or list(able)
    if len(tied) == 1:
        tied = list(able)
    return t("s_best_tied", task=group.task, names=_names([e.label for e in tied], t), a=top.label, **_accuracy(top))


def _cheapest(group: Group, able: Sequence[Entry], t: Speak) -> str:
    shares = group.cheapest
    top = min(able, key=lambda e: e.row.cost_per_1k_samples or 0.0)
    if shares.get(top.name, 0.0) >= SURE_BEST:
        row = top.row
        lo, hi = row.cost_per_1k_samples_lo, row.cost_per_1k_samples_hi
        limits = t("s_range", lo=formats.significant(lo), hi=formats.significant(hi)) if lo and hi else ""
        return t("s_cheapest", a=top.label, range=limits, **_cost(top))
    tied = [e for e in able if shares.get(e.name, 0.0) >= IN_THE_RUNNING or e is top]
    tied = tied if len(tied) > 1 else list(able)
    return t("s_cheapest_tied", names=_names([e.label for e in tied], t), **_cost(top))


def _both(group: Group, entries: dict[str, Entry], t: Speak) -> str:
    if not group.standings:
        return t("s_too_many")
    beaten: dict[str, list[str]] = {}
    losers = {s.second if s.verdict == "first" else s.first for s in group.standings if s.verdict != "tied"}
    for s in group.standings:
        if s.verdict != "tied":
            winner, loser = (s.first, s.second) if s.verdict == "first" else (s.second, s.first)
            if winner not in losers:
                beaten.setdefault(winner, []).append(entries[loser].label)
    if not beaten:
        return t("s_no_dominance")
    return " ".join(t("s_dominates", a=entries[w].label, others=_names(names, t)) for w, names in beaten.items())


def _as_good(group: Group, entries: dict[str, Entry], t: Speak) -> list[str]:
    """One sentence for each reference."""
    said = []
    for reference in dict.fromkeys(d.reference for d in group.differences):
        mine = [d for d in group.differences if d.reference == reference]
        good = [entries[d.name].label for d in mine if d.verdict.verdict == "non-inferior"]
        worse = [entries[d.name].label for d in mine if d.verdict.verdict == "inferior"]
        ref, margin = entries[reference].label, formats.significant(100 * MARGIN)
        if good:
            said.append(t("s_noninferior", ref=ref, margin=margin, names=_names(good, t)))
            continue
        needed = min((d.verdict.more_items for d in mine if d.verdict.more_items), default=None)
        said.append(
            t(
                "s_no_noninferior",
                ref=ref,
                margin=margin,
                n=len(mine) - len(worse),
                worse=t("s_worse", names=_names(worse, t)) if worse else "",
                more=t("s_more", n=f"{needed:,}") if needed else "",
            )
        )
    return said[:2]


def _names(names: Sequence[str], t: Speak) -> str:
    """Names in a sentence; beyond six the rest are counted."""
    if len(names) > 6:
        return t("list").join(names[:5]) + t("and") + f"{len(names) - 5} …"
    return t("and").join([t("list").join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _accuracy(entry: Entry) -> dict[str, str]:
    row = entry.row
    return {
        "acc": formats.percent(row.accuracy),
        "lo": formats.percent(row.accuracy_lo),
        "hi": formats.percent(row.accuracy_hi),
    }


def _cost(entry: Entry) -> dict[str, str]:
    return {"cost": formats.significant(entry.row.cost_per_1k_samples), "cur": entry.row.currency or ""}
