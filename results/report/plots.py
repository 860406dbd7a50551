"""Which values go on which chart, and what is said of them."""

from collections.abc import Callable, Sequence

from msgspec import structs

from results.frontier import Point
from results.report import charts, formats
from results.report.build import Axis, Curve, Group, Report, estimated
from results.report.charts import Strip, Whisker
from results.report.differences import MARGIN, Difference
from results.report.drivers import Usage
from results.report.entries import Entry
from results.report.figures import Dot, Scatter, scatter
from results.report.gather import CellPage
from results.report.saying import Speak, task_name
from results.report.series import Line, Mark

SHOW_X: dict[Axis, Callable[[float], str]] = {
    "cost_per_1k_samples": formats.trimmed,
    "cost_per_correct": formats.trimmed,
    "energy_per_sample_j": formats.trimmed,
    "memory_bytes": formats.trimmed,
    "e2e_p50_ms": formats.trimmed,
    "user_tokens_per_s": formats.trimmed,
}
UNIT: dict[Axis, float] = {"memory_bytes": 2**-30, "cost_per_correct": 1000.0}
"""What a value is multiplied by to be shown; costs of a correct answer are told for a thousand."""
MOST_STRIPED = 12
"""Variants that a row of a chart can hold and still be read."""


def curve_chart(group: Group, curve: Curve, t: Speak, currency: str) -> str:
    """One curve as SVG; empty where no variant has a point on it."""
    by_speed = curve.axis == "user_tokens_per_s"
    x_name = t("x_" + curve.axis, cur=currency)
    y_name = t("y_throughput") if by_speed else t("y_accuracy")
    show_y = formats.trimmed if by_speed else (lambda v: formats.percent(v, 0))
    entries = {e.name: e for e in group.entries}
    dots = tuple(
        _dot(p, curve, entries[p.name], t, (x_name, y_name))
        for p in curve.points
        if p.x is not None and p.y is not None
    )
    unit = UNIT.get(curve.axis, 1.0)
    places = {p.name: (unit * p.x if p.x is not None else None, p.y) for p in curve.points}
    spread = curve.spread
    bracket = (spread.low, spread.high) if spread and spread.low is not None and spread.high is not None else None
    return scatter(
        Scatter(
            title=f"{t('c_' + curve.axis)}: {task_name(group.task, t)}",
            x_label=x_name,
            y_label=y_name,
            x_format=SHOW_X[curve.axis],
            y_format=show_y,
            dots=dots,
            frontier=tuple((x, y) for x, y in (places[n] for n in curve.frontier) if x is not None and y is not None),
            band=tuple((unit * x, lo, hi) for x, lo, hi in curve.band),
            bracket=bracket,
            bracket_label=_shared("bracket", bracket, t) if bracket else "",
            bracket_note=_shared("key_shared", bracket, t) if bracket else "",
            y_unit=not by_speed,
            x_better_low=not by_speed,
        )
    )


def _shared(key: str, bracket: tuple[float, float], t: Speak) -> str:
    return t(key, lo=formats.significant(bracket[0], 2), hi=formats.significant(bracket[1], 2))


def _dot(p: Point, curve: Curve, entry: Entry, t: Speak, names: tuple[str, str]) -> Dot:
    x, y = (p.x or 0.0) * UNIT.get(curve.axis, 1.0), p.y or 0.0
    own = curve.spread.own.get(p.name) if curve.spread else None
    chance = curve.probability.get(p.name)
    extra = t("note_frontier", p=formats.probability(chance)) if chance is not None else ""
    extra += t("note_estimated") if p.kind == "estimated" else ""
    extra += t("note_invalid", why=p.reason) if not p.valid and p.reason else ""
    show_y = formats.significant if curve.axis == "user_tokens_per_s" else formats.percent
    ranged = t("note_range", lo=show_y(p.y_lo), hi=show_y(p.y_hi)) if p.y_lo is not None and p.y_hi is not None else ""
    note = t(
        "note_dot", label=entry.label, y_name=names[1], y=show_y(y), y_range=ranged, x_name=names[0],
        x=SHOW_X[curve.axis](x), x_range="", extra=extra,
    )  # fmt: skip
    return Dot(
        anchor=entry.anchor,
        label=entry.short,
        note=note,
        x=x,
        y=y,
        x_lo=x * own[0] if own else None,
        x_hi=x * own[1] if own else None,
        y_lo=p.y_lo,
        y_hi=p.y_hi,
        kind=_kind(p, curve, entry),
        colour=entry.colour,
        on_frontier=p.name in curve.frontier,
    )


def _kind(p: Point, curve: Curve, entry: Entry) -> str:
    """How the marker looks: what rests on estimated power is hollow, also where that part is small enough to be ranked."""
    if not entry.row.valid or (p.kind != "estimated" and not p.valid):
        return "invalid"
    rests = curve.axis in ("cost_per_1k_samples", "cost_per_correct", "energy_per_sample_j") and estimated(entry.row)
    return "estimated" if rests and p.kind == "measured" else p.kind


def tag_chart(group: Group, tag: str, t: Speak) -> str:
    """Accuracy by the values of one tag, a line for each variant."""
    shown = once_each(group)[:MOST_STRIPED]
    values = tag_values(group, tag)
    strips = []
    for value in values:
        found = [(e, s.interval) for e in shown for s in e.step.tags if s.tag == tag and s.value == value]
        whiskers = tuple(
            Whisker(
                anchor=e.anchor,
                note=f"{e.label}, {value}: {formats.percent(i.value)} ({formats.percent(i.lo)} – {formats.percent(i.hi)})",
                value=i.value,
                lo=i.lo,
                hi=i.hi,
                colour=e.colour,
            )
            for e, i in found
            if i.value is not None
        )
        strips.append(Strip(name=value.replace("_", " "), whiskers=whiskers))
    name = t("tags_text", tag=tag_name(tag, t)).partition(".")[0]
    return charts.forest(name, strips, lambda v: formats.percent(v, 0), limits=(0.0, 1.0))


def once_each(group: Group) -> list[Entry]:
    """The first row with scores of each deployment: other loads ask the same items."""
    found: dict[tuple[str, str], Entry] = {}
    for e in group.entries:
        if e.step.values:
            found.setdefault((e.row.run, e.row.cell), e)
    return list(found.values())


def tag_values(group: Group, tag: str) -> list[str]:
    """In a natural order where there is one."""
    found = dict.fromkeys(s.value for e in group.entries for s in e.step.tags if s.tag == tag)
    return sorted(found, key=lambda v: (LEVELS.index(v) if v in LEVELS else len(LEVELS), v))


LEVELS = ("easy", "medium", "hard")


def tag_name(tag: str, t: Speak) -> str:
    """A tag's name in the language, or as it stands in the data."""
    try:
        return t("tag_" + tag)
    except KeyError:
        return tag


def difference_chart(differences: Sequence[Difference], entries: dict[str, Entry], t: Speak) -> str:
    """Every difference with its interval; the margin is shaded from -margin on."""
    strips = []
    for d in differences[:40]:
        i, e = d.comparison.difference, entries[d.name]
        if i.value is not None:
            note = f"{e.label}: {formats.points(i.value)} ({formats.points(i.lo)} – {formats.points(i.hi)})"
            whisker = Whisker(anchor=e.anchor, note=note, value=i.value, lo=i.lo, hi=i.hi, colour=e.colour)
            strips.append(Strip(name=e.label, whiskers=(whisker,)))
    return charts.forest(
        t("d_chart"), strips, formats.points, lines_at=((0.0, "zero"), (-MARGIN, "limit")), shaded=(-MARGIN, 1.0)
    )


def power_chart(cell: CellPage, t: Speak) -> str:
    """Watts of every power meter; empty where none was read."""
    return _over_time(cell, cell.timeline.power, t("cell_power"), t("watts"), t) if cell.timeline else ""


def memory_chart(cell: CellPage, t: Speak) -> str:
    """Memory of the process tree and of the accelerators, and as a level line the smallest that works; empty where none was read."""
    if cell.timeline is None:
        return ""
    shown = list(cell.timeline.memory)
    if shown and cell.smallest is not None and cell.smallest.smallest_bytes is not None:
        level = (float(cell.smallest.smallest_bytes),) * 2
        shown.append(Line(name=t("line_smallest"), times_s=(0.0, cell.timeline.seconds), values=level))
    largest = max((v for line in shown for v in line.values if v is not None), default=0.0)
    name, unit = ("GiB", 2.0**-30) if largest >= 2**30 else ("MiB", 2.0**-20)
    lines = [
        structs.replace(line, values=tuple(unit * v if v is not None else None for v in line.values)) for line in shown
    ]
    return _over_time(cell, lines, t("cell_memory"), name, t)


def _over_time(cell: CellPage, lines: Sequence[Line], name: str, unit: str, t: Speak) -> str:
    time = cell.timeline
    if time is None:
        return ""
    title = f"{name}: {cell.facts.deployment}"
    return charts.over_time(title, lines, time.marks, time.seconds, formats.trimmed, unit, lambda m: mark_name(m, t))


def mark_name(mark: Mark, t: Speak) -> str:
    """Steps have names of their own."""
    match mark.kind:
        case "step":
            return mark.name
        case "warmup" | "load":
            return t("m_" + mark.kind)
        case "idle":
            return t("m_" + mark.name)


def usage_chart(group: Group, report: Report, t: Speak) -> str:
    """Cost of 1,000 answers against the share of hours in which the machine works, for the variants on the frontier."""
    lines = [
        charts.Way(
            anchor=u.entry.anchor, name=u.entry.short, colour=u.entry.colour, points=u.points, mark=_break_even(u)
        )
        for u in report.usage[group.anchor]
    ]
    labels = (t("x_utilisation"), t("x_cost_per_1k_samples", cur=report.tariff.currency))
    name = f"{t('utilisation')}: {task_name(group.task, t)}"
    return charts.ways(
        name, lines, labels, (lambda v: formats.percent(v, 0), formats.trimmed), report.tariff.utilisation.value
    )


def _break_even(usage: Usage) -> tuple[float, float] | None:
    """Where the line meets the API's price; `None` where it does not within the chart."""
    found = usage.break_even
    if found is None or found.utilisation is None or found.utilisation < usage.points[0][0]:
        return None
    return found.utilisation, found.asked.value
