"""Charts of one kind of thing in a row each: intervals side by side, lines over time, bars of what drives a cost."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from results.report import formats
from results.report.figures import PALETTE, Scale
from results.report.series import Line, Mark
from results.report.svg import area, element, line, path, text, title, width_of


class Whisker(Struct, frozen=True, kw_only=True):
    """One interval in a row of a chart."""

    anchor: str
    note: str
    value: float
    lo: float | None
    hi: float | None
    colour: int = 0


class Strip(Struct, frozen=True, kw_only=True):
    """A named row with its intervals, one below the other."""

    name: str
    whiskers: tuple[Whisker, ...]


def forest(
    name: str,
    strips: Sequence[Strip],
    show: Callable[[float], str],
    limits: tuple[float, float] | None = None,
    lines_at: Sequence[tuple[float, str]] = (),
    shaded: tuple[float, float] | None = None,
) -> str:
    """Intervals in rows. `lines_at`: upright lines with their class; `shaded`: a range laid under all."""
    if not strips:
        return ""
    wide = 640.0
    left = min(250.0, 18 + max(width_of(s.name) for s in strips))
    heights = [max(20.0, 9.0 * len(s.whiskers) + 8) for s in strips]
    bottom = 8 + sum(heights)
    values = [v for s in strips for w in s.whiskers for v in (w.value, w.lo, w.hi) if v is not None]
    low, high = limits or (min([*values, *(v for v, _ in lines_at)]), max([*values, *(v for v, _ in lines_at)]))
    room = 0.0 if limits else 0.06 * ((high - low) or 1.0)
    x = Scale(low - room, high + room, left, wide - 16)
    body = []
    if shaded is not None:
        a, b = x(max(shaded[0], x.low)), x(min(shaded[1], x.high))
        body.append(element("rect", x=a, y=4, width=max(0.0, b - a), height=bottom - 4, class_="margin"))
    for value in x.ticks():
        body.append(line(x(value), 4, x(value), bottom, "grid"))
        body.append(text(show(value), x(value), bottom + 16, "t", "middle"))
    body += [line(x(v), 4, x(v), bottom, kind) for v, kind in lines_at]
    top = 8.0
    for strip, height in zip(strips, heights, strict=True):
        body.append(text(strip.name, left - 8, top + height / 2 + 2, "t", "end"))
        first = top + (height - 8) / 2 - 4.5 * (len(strip.whiskers) - 1)
        body += [_whisker(w, x, first + 9 * i) for i, w in enumerate(strip.whiskers)]
        top += height
    return element(
        "svg",
        title(name),
        *body,
        viewBox=f"0 0 {wide:.0f} {bottom + 24:.0f}",
        class_="chart wide",
        role="group",
        aria_label=name,
    )


def _whisker(w: Whisker, x: Scale, y: float) -> str:
    parts = [title(w.note)]
    if w.lo is not None and w.hi is not None:
        parts.append(line(x(max(w.lo, x.low)), y, x(min(w.hi, x.high)), y, "bar"))
    parts.append(element("circle", cx=x(w.value), cy=y, r=3.6, class_="mark"))
    return element("g", *parts, class_=f"dot measured c{w.colour % PALETTE}", data_row=w.anchor)


def over_time(
    name: str,
    lines: Sequence[Line],
    marks: Sequence[Mark],
    seconds: float,
    show: Callable[[float], str],
    unit: str,
    names: Callable[[Mark], str],
) -> str:
    """Lines over the time of a cell, steps and idle windows marked beneath."""
    known = [v for s in lines for v in (*s.values, *s.high) if v is not None]
    if not known:
        return ""
    wide, high, left, floor = 720.0, 210.0, 62.0, 168.0
    x = Scale(0.0, seconds, left, wide - 12)
    y = Scale(0.0, 1.08 * max(known) or 1.0, floor, 26.0)
    body = [_marks(marks, x, names)]
    for value in y.ticks():
        body.append(line(left, y(value), wide - 12, y(value), "grid"))
        body.append(text(show(value), left - 6, y(value) + 4, "t", "end"))
    for value in x.ticks():
        body.append(text(formats.trimmed_seconds(value), x(value), floor + 16, "t", "middle"))
    body.append(line(left, floor, wide - 12, floor, "axis"))
    at = left
    for number, one in enumerate(lines):
        body.append(_line(one, number, x, y))
        body.append(
            line(at, high - 10, at + 18, high - 10, f"line c{number % PALETTE}" + (" guess" if one.estimated else ""))
        )
        body.append(text(one.name, at + 23, high - 6, "t"))
        at += 40 + width_of(one.name)
    body.append(text(unit, 4, 14, "label"))
    return element(
        "svg",
        title(name),
        *body,
        viewBox=f"0 0 {wide:.0f} {high:.0f}",
        class_="chart wide",
        role="img",
        aria_label=name,
    )


def _marks(marks: Sequence[Mark], x: Scale, names: Callable[[Mark], str]) -> str:
    body, free = [], 0.0
    for mark in marks:
        a, b = x(min(mark.start_s, x.high)), x(min(mark.end_s, x.high))
        label = names(mark)
        body.append(
            element(
                "g",
                title(f"{label}: {formats.seconds(mark.start_s)} – {formats.seconds(mark.end_s)}"),
                element("rect", x=a, y=20, width=max(0.8, b - a), height=148, class_=f"mark-{mark.kind}"),
            )
        )
        if mark.kind in ("step", "idle") and a >= free and width_of(label, 10) <= max(b - a, 26):
            body.append(text(label, a + 1, 15, "tiny"))
            free = a + width_of(label, 10) + 6
    return "".join(body)


def _line(one: Line, number: int, x: Scale, y: Scale) -> str:
    points = [None if v is None else (x(t), y(v)) for t, v in zip(one.times_s, one.values, strict=True)]
    kind = f"line c{number % PALETTE}" + (" guess" if one.estimated else "")
    if not one.low or not one.high:
        return path(points, kind)
    ranged = [
        (x(t), y(lo), y(hi))
        for t, lo, hi in zip(one.times_s, one.low, one.high, strict=True)
        if lo is not None and hi is not None
    ]
    under = area([(a, hi) for a, _, hi in ranged], [(a, lo) for a, lo, _ in ranged], f"range c{number % PALETTE}")
    return under + path(points, kind)


def swings(name: str, bars: Sequence[tuple[str, float, float]], middle: float, show: Callable[[float], str]) -> str:
    """What each input does to a cost when it goes from low to high, largest first; `middle` is the cost itself."""
    if not bars:
        return ""
    wide, left = 640.0, 14 + max(width_of(n) for n, _, _ in bars)
    bottom = 8 + 20.0 * len(bars)
    values = [v for _, a, b in bars for v in (a, b)]
    x = Scale(min([*values, middle]) * 0.98, max([*values, middle]) * 1.02, left, wide - 16)
    body = []
    for value in x.ticks():
        body.append(line(x(value), 4, x(value), bottom, "grid"))
        body.append(text(show(value), x(value), bottom + 16, "t", "middle"))
    for i, (label, a, b) in enumerate(bars):
        y = 10 + 20.0 * i
        note = f"{label}: {show(a)} – {show(b)}"
        bar = element("rect", x=x(min(a, b)), y=y, width=max(1.0, abs(x(b) - x(a))), height=13, class_="swing")
        body.append(element("g", title(note), bar))
        body.append(text(label, left - 8, y + 11, "t", "end"))
    body.append(line(x(middle), 4, x(middle), bottom, "zero"))
    return element(
        "svg",
        title(name),
        *body,
        viewBox=f"0 0 {wide:.0f} {bottom + 24:.0f}",
        class_="chart wide",
        role="img",
        aria_label=name,
    )


class Way(Struct, frozen=True, kw_only=True):
    """A line through known places, in one variant's colour."""

    anchor: str
    name: str
    colour: int
    points: tuple[tuple[float, float], ...]
    mark: tuple[float, float] | None = None
    """A place on it that is shown by a dot."""


def ways(
    name: str,
    lines: Sequence[Way],
    labels: tuple[str, str],
    show: tuple[Callable[[float], str], Callable[[float], str]],
    at: float,
) -> str:
    """Lines on two logarithmic axes, each named at its left end; a dotted upright line stands at `at`."""
    places = [p for one in lines for p in one.points]
    if not places:
        return ""
    wide, high, left, floor = 480.0, 310.0, 66.0, 260.0
    x = Scale(min(a for a, _ in places), max(a for a, _ in places), left, wide - 12, True)
    y = Scale(min(b for _, b in places) / 1.2, max(b for _, b in places) * 1.2, floor, 14.0, True)
    body = []
    for value in y.ticks():
        body.append(line(left, y(value), wide - 12, y(value), "grid"))
        body.append(text(show[1](value), left - 6, y(value) + 4, "t", "end"))
    for value in x.ticks():
        body.append(text(show[0](value), x(value), floor + 17, "t", "middle"))
    body += [line(left, floor, wide - 12, floor, "axis"), line(x(at), 14, x(at), floor, "limit")]
    for one in lines:
        drawn = path([(x(a), y(b)) for a, b in one.points], f"line c{one.colour % PALETTE}")
        dot = (
            element("circle", cx=x(one.mark[0]), cy=y(one.mark[1]), r=4, class_=f"spot c{one.colour % PALETTE}")
            if one.mark
            else ""
        )
        body.append(element("g", title(one.name), drawn, dot, data_row=one.anchor))
    body += _ends(lines, x, y)
    body.append(text(labels[0], (left + wide - 12) / 2, high - 8, "label", "middle"))
    body.append(text(labels[1], 13, (14 + floor) / 2, "label", "middle", turned=True))
    return element(
        "svg", title(name), *body, viewBox=f"0 0 {wide:.0f} {high:.0f}", class_="chart", role="img", aria_label=name
    )


def _ends(lines: Sequence[Way], x: Scale, y: Scale) -> list[str]:
    """Names beside the upper ends of the lines, from the top down and never on one another."""
    found, free = [], 0.0
    for one in sorted(lines, key=lambda w: -w.points[0][1]):
        start = one.points[0]
        at = max(y(start[1]) - 2, free)
        found.append(
            element(
                "g",
                text(one.name, x(start[0]) + 30, at, "name"),
                class_=f"c{one.colour % PALETTE}",
                data_row=one.anchor,
            )
        )
        free = at + 14
    return found
