"""The report in plain words: only what the statistics allow.

"Answers best" needs a paired test against each other variant, "cheapest" 97.5 % of the draws, "beaten on both" 90 % of the draws and a
paired test of the same strength; else it is a tie.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import Struct

from results.report import formats
from results.report.build import Group, Report, estimated
from results.report.differences import MARGIN, Difference
from results.report.entries import Entry
from results.report.phrases import sentence

SIGNIFICANT = 0.05
"""Largest p of the paired test against each other variant at which one is called the most accurate."""
LEAST_CHANCE = 0.005
SURE_CHEAPEST = 0.975
"""Of two variants that cost the same each would pass by chance in 2.5 % of runs: 5 % together."""

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
        found.append(Badge(t("badge_power", classes=classes), t("badge_power_why", classes=classes)))
    if report.tariff.example:
        tariff = report.tariff
        about = tariff.description.removeprefix("EXAMPLE, not a quote: ")
        found.append(Badge(t("badge_tariff"), t("badge_tariff_why", name=tariff.name, description=about)))
    if any(r.profile == "smoke" for r in rows):
        found.append(Badge(t("badge_smoke"), t("badge_smoke_why")))
    if not all(run.manifest.store_text for run in report.runs):
        found.append(Badge(t("badge_text"), t("badge_text_why")))
    return found


class Said(Struct, frozen=True):
    """A line of the summary: what it is about, and the sentence."""

    lead: str
    text: str


def of_task(group: Group, t: Speak) -> list[Said]:
    """What can be said of one task: accuracy, cost, both together, and whether a smaller variant will do."""
    if group.speed:
        return [Said(t("lead_accuracy"), t("s_speed", task=group.task))]
    entries = {e.name: e for e in group.entries}
    able = [entries[name] for name in group.best_accuracy]
    if not able:
        return [Said(t("lead_accuracy"), t("s_none", why=_commonest(group, t)))]
    if len(able) == 1:
        one = able[0]
        return [
            Said(t("lead_accuracy"), t("s_one", a=one.short, **_accuracy(one))),
            Said(t("lead_cost"), t("s_cost", a=one.short, **_cost(one, t))),
        ]
    return [
        Said(t("lead_short"), _in_short(group, able, entries, t)),
        Said(t("lead_accuracy"), _best(group, able, t)),
        Said(t("lead_cost"), _cheapest(group, able, t)),
        Said(t("lead_both"), _both(group, entries, t)),
        *_on_frontier(group, entries, t),
        *_as_good(group, entries, t),
    ]


def _commonest(group: Group, t: Speak) -> str:
    """The reason that most rows give for not being ranked."""
    found = Counter(reason for e in group.entries for reason in e.row.reasons[:1])
    return sentence(found.most_common(1)[0][0], t("lang")) if found else t("y_unknown")


def of_all(report: Report, t: Speak) -> list[Said]:
    """How it was measured, what failed and what may not be ranked."""
    said = [*_compared(report, t), *_loads(report, t), Said(t("lead_how"), _how(report, t))]
    cells = [cell for run in report.runs for cell in run.cells]
    bad = [f"{c.facts.deployment} ({t('outcome_' + c.outcome)})" for c in cells if c.outcome != "ok"]
    if bad:
        said.append(Said(t("lead_failed"), t("s_failed", n=len(bad), all=len(cells), names=_names(bad, t))))
    invalid = [r for r in report.rows if r.outcome == "ok" and not r.valid]
    if invalid:
        said.append(Said(t("lead_invalid"), t("s_invalid", n=len(invalid), all=len(report.rows))))
    return said


def _compared(report: Report, t: Speak) -> list[Said]:
    """What the short names stand for, where they are one model at several numbers of bits."""
    bits = {e.row.quantisation: e.row.bits_per_weight for e in report.entries if e.row.bits_per_weight}
    if len({e.row.model for e in report.entries}) != 1 or len(bits) < 2:
        return []
    in_order = sorted(bits.items(), key=lambda b: -(b[1] or 0.0))
    listed = t("list").join(f"{name} {value:.3g}" for name, value in in_order)
    return [Said(t("lead_what"), t("s_what", model=report.entries[0].row.model.rpartition("/")[2], bits=listed))]


def _loads(report: Report, t: Speak) -> list[Said]:
    """What `c4` stands for, where one task was run under several."""
    by_task: dict[str, set[int]] = {}
    for load, task in ((e.row.load, e.row.task) for e in report.entries):
        if load.startswith("c"):
            by_task.setdefault(task, set()).add(int(load[1:]))
    most: set[int] = max(by_task.values(), key=len, default=set())
    if len(most) < 2:
        return []
    return [Said(t("list").join(f"c{n}" for n in sorted(most)), t("s_loads"))]


def _how(report: Report, t: Speak) -> str:
    classes = sorted({r.power_class for r in report.rows if r.power_class})
    kind = "s_how_unknown" if not classes else "s_how_estimated" if classes[-1] < "M" else "s_how_measured"
    tariff = report.tariff
    return t(
        "s_how",
        machine=t("list").join(dict.fromkeys(e.machine for e in report.entries)),
        power=t(kind, classes=", ".join(classes)),
        tariff=t("s_how_example", name=tariff.name) if tariff.example else tariff.name,
    )


def _in_short(group: Group, able: Sequence[Entry], entries: dict[str, Entry], t: Speak) -> str:
    """The one sentence for who reads no further: which variant, and what keeps it from being a clear choice."""
    top = max(able, key=lambda e: e.row.accuracy or 0.0)
    low = min(able, key=lambda e: e.row.cost_per_1k_samples or 0.0)
    best, cheap = (
        _tied(able, group.best_accuracy, top, SIGNIFICANT),
        _tied(able, group.cheapest, low, 1 - SURE_CHEAPEST),
    )
    if len(cheap) > 1:
        return t("short_tied", names=_names([e.short for e in cheap], t), best=_variants(best, t))
    if low.variant not in {e.variant for e in best}:
        return t(
            "short_two" if len({e.variant for e in best}) == 1 else "short_trade", a=_variants(best, t), b=low.short
        )
    if len({e.variant for e in best}) == 1:
        return t("short_clear", a=low.short)
    return t("short_cheap", a=low.short) + _how_good(low, group, entries, t)


def _how_good(entry: Entry, group: Group, entries: dict[str, Entry], t: Speak) -> str:
    """Whether the cheapest one is shown to be as good as its reference, and how much worse it may be where it is not."""
    found = next((d for d in group.differences if d.name == entry.name), None)
    if found is None or found.verdict.lower is None:
        return ""
    reference = entries[found.reference].short
    if found.verdict.verdict == "non-inferior":
        return t("short_good", ref=reference, margin=f"{100 * MARGIN:g}")
    return t("short_open", ref=reference, worst=formats.bare(-found.verdict.lower), n=f"{found.pairs:,}")


def _best(group: Group, able: Sequence[Entry], t: Speak) -> str:
    top = max(able, key=lambda e: e.row.accuracy or 0.0)
    tied = _tied(able, group.best_accuracy, top, SIGNIFICANT)
    if len(tied) == 1:
        worst = formats.p_value(max(group.best_accuracy[e.name] for e in able if e is not top))
        return t("s_best", a=top.short, p=worst, **_accuracy(top))
    return t("s_best_tied", names=_variants(tied, t), a=top.short, **_accuracy(top))


def _cheapest(group: Group, able: Sequence[Entry], t: Speak) -> str:
    top = min(able, key=lambda e: e.row.cost_per_1k_samples or 0.0)
    tied = _tied(able, group.cheapest, top, 1 - SURE_CHEAPEST)
    if len(tied) == 1:
        return t("s_cheapest", a=top.short, right=_for_right_ones(top, t), **_cost(top, t))
    return t("s_cheapest_tied", names=_names([e.short for e in tied], t), **_cost(top, t))


def _tied(able: Sequence[Entry], shares: dict[str, float], top: Entry, limit: float) -> list[Entry]:
    """The first, and all that cannot be told from it, the likeliest first."""
    others = sorted((e for e in able if e is not top), key=lambda e: -shares[e.name])
    return [top, *(e for e in others if shares[e.name] > limit)]


def _both(group: Group, entries: dict[str, Entry], t: Speak) -> str:
    if group.beaten is None:
        return t("s_too_many")
    beaten: dict[str, list[str]] = {}
    for winner, loser in group.beaten:
        beaten.setdefault(loser, []).append(entries[winner].short)
    if not beaten:
        return t("s_no_dominance")
    together: dict[tuple[str, ...], list[str]] = {}
    for loser, w in beaten.items():
        together.setdefault(tuple(w), []).append(entries[loser].short)
    pairs = [
        t("s_beaten_by", losers=_names(losers, t), winners=_names(w, t) if len(w) < 4 else t("s_others", n=len(w)))
        for w, losers in together.items()
    ]
    return t("s_beaten", pairs=t("list").join(pairs))


def _on_frontier(group: Group, entries: dict[str, Entry], t: Speak) -> list[Said]:
    """The chances, the likeliest first; beyond six they stand in the table alone."""
    known = {name: p for name, p in group.main.probability.items() if p is not None and p >= LEAST_CHANCE}
    first = sorted(known.items(), key=lambda c: -c[1])[:6]
    if len(first) < 2:
        return []
    chances = t("list").join(f"{entries[name].short} {formats.probability(p)}" for name, p in first)
    return [Said(t("lead_frontier"), t("s_frontier", chances=chances))]


def _for_right_ones(entry: Entry, t: Speak) -> str:
    cost = entry.row.cost_per_correct
    return t("s_right", cost=formats.significant(1000 * cost), cur=entry.row.currency or "") if cost else ""


def _as_good(group: Group, entries: dict[str, Entry], t: Speak) -> list[Said]:
    """A line for each reference, two at most; a further load at which all verdicts are the same is not told again."""
    said: dict[tuple[tuple[str, str], ...], Said] = {}
    for reference in dict.fromkeys(d.reference for d in group.differences):
        mine = [d for d in group.differences if d.reference == reference]
        verdicts = tuple((entries[d.name].row.deployment, d.verdict.verdict) for d in mine)
        said.setdefault(verdicts, Said(t("lead_good", ref=entries[reference].short), _verdicts(mine, entries, t)))
    return list(said.values())[:2]


def _verdicts(differences: Sequence[Difference], entries: dict[str, Entry], t: Speak) -> str:
    margin = f"{100 * MARGIN:g}"
    good, still_open, worse = (
        [entries[d.name].short for d in differences if d.verdict.verdict == v]
        for v in ("non-inferior", "inconclusive", "inferior")
    )
    parts = [t("s_good", margin=margin, names=_names(good, t)) if good else t("s_none_good", margin=margin)]
    parts += [t("s_open", names=_names(still_open, t))] if still_open else []
    parts += [t("s_worse", names=_names(worse, t))] if worse else []
    needed = min((d.verdict.more_items for d in differences if d.verdict.more_items), default=None)
    parts += [t("s_more", n=f"{needed:,}")] if needed and not good else []
    return " ".join(parts)


def _names(names: Sequence[str], t: Speak) -> str:
    """Names in a sentence; beyond six the rest are counted."""
    if len(names) > 6:
        return t("list").join(names[:5]) + t("and") + t("s_others", n=len(names) - 5)
    return t("and").join([t("list").join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _variants(entries: Sequence[Entry], t: Speak) -> str:
    """Names without the load, each once: more requests at a time do not change what a variant knows."""
    return _names(list(dict.fromkeys(e.variant for e in entries)), t)


def _accuracy(entry: Entry) -> dict[str, str]:
    row = entry.row
    return {
        "acc": formats.percent(row.accuracy),
        "lo": formats.percent(row.accuracy_lo),
        "hi": formats.percent(row.accuracy_hi),
    }


def _cost(entry: Entry, t: Speak) -> dict[str, str]:
    row = entry.row
    lo, hi = row.cost_per_1k_samples_lo, row.cost_per_1k_samples_hi
    limits = (
        t("s_range", lo=formats.significant(lo), hi=formats.significant(hi))
        if lo is not None and hi is not None
        else ""
    )
    return {"cost": formats.significant(row.cost_per_1k_samples), "cur": row.currency or "", "range": limits}


def task_name(task: str, t: Speak) -> str:
    """A task that ships has a title in the language; another keeps its name."""
    try:
        return t("task_" + task)
    except KeyError:
        return task


def metric_name(metric: str, t: Speak) -> str:
    """What the headline score is, in words where they are known."""
    try:
        return t("metric_" + metric)
    except KeyError:
        return metric
