"""The page's charts, drawn on the server as SVG: they need no script, print sharply, and weigh a few kilobytes each.

Every chart has a table beside it in the page, so nothing is told by a drawing alone.
"""

import math
from collections.abc import Callable

from msgspec import Struct

from results.report import formats
from results.report.svg import Box, area, element, line, path, place_labels, text, title, width_of

PALETTE = 8
"""Colours in report.css; further variants begin again, and are told apart by label."""
MOST_LABELS = 24


class Scale(Struct, frozen=True):
    """Values to places on one axis; logarithmic where they spread widely."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = self.low, self.high, value
        if self.log:
            a, b, v = math.log(a), math.log(b), math.log(v)
        return self.start + (self.end - self.start) * (v - a) / (b - a)

    def ticks(self) -> list[float]:
        return formats.log_ticks(self.low, self.high) if self.log else formats.ticks(self.low, self.high)


class Dot(Struct, frozen=True, kw_only=True):
    """One variant on a chart. `kind` is measured, estimated, predicted, published, or invalid; bars are `None` where not known."""

    anchor: str
    label: str
    note: str
    """What the pointer and the screen reader are told."""
    x: float
    y: float
    x_lo: float | None = None
    x_hi: float | None = None
    y_lo: float | None = None
    y_hi: float | None = None
    kind: str = "measured"
    colour: int = 0
    on_frontier: bool = False


class Scatter(Struct, frozen=True, kw_only=True):
    """A chart of variants on two axes."""

    title: str
    x_label: str
    y_label: str
    x_format: Callable[[float], str]
    y_format: Callable[[float], str]
    dots: tuple[Dot, ...]
    frontier: tuple[tuple[float, float], ...] = ()
    band: tuple[tuple[float, float, float], ...] = ()
    """x, lower and upper limit of what can be reached at that x."""
    bracket: tuple[float, float] | None = None
    """Factors by which all points may move together."""
    bracket_label: str = ""
    bracket_note: str = ""
    y_unit: bool = True
    """Whether the upright axis is a share, at most 1."""
    x_better_low: bool = True


WIDTH, HEIGHT = 480.0, 310.0
FRAME = Box(58, 20, 412, 240)


def scatter(chart: Scatter) -> str:
    """The chart as an SVG element; an empty text where there is no point."""
    if not chart.dots:
        return ""
    x, y = _x_scale(chart), _y_scale(chart)
    body = [_grid(chart, x, y), _band(chart, x, y), _frontier(chart, x, y), _bracket(chart, x)]
    markers = [Box(x(d.x) - 5, y(d.y) - 5, 10, 10) for d in chart.dots]
    bars = [
        Box(x(d.x) - 1, y(d.y_hi), 2, y(d.y_lo) - y(d.y_hi))
        for d in chart.dots
        if d.y_lo is not None and d.y_hi is not None
    ]
    order = sorted(range(len(chart.dots)), key=lambda i: not chart.dots[i].on_frontier)
    named = [i for i in order if len(chart.dots) <= MOST_LABELS or chart.dots[i].on_frontier]
    spots = [(x(chart.dots[i].x), y(chart.dots[i].y), chart.dots[i].label) for i in named]
    places = dict(zip(named, place_labels(spots, FRAME, markers, bars), strict=True))
    # What is on the frontier is drawn last, so that it lies on top; all bars lie under all names.
    body += [_bars(chart.dots[i], x, y) for i in reversed(order)]
    body += [_dot(chart.dots[i], x, y, places.get(i)) for i in reversed(order)]
    return element(
        "svg",
        title(chart.title),
        *body,
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        class_="chart",
        role="group",
        aria_label=chart.title,
    )


def _x_scale(chart: Scatter) -> Scale:
    values = [v for d in chart.dots for v in (d.x, d.x_lo, d.x_hi) if v is not None]
    low, high = min(values), max(values)
    if low > 0 and high / low > 4:
        return Scale(low / 1.25, high * 1.45, FRAME.x, FRAME.x + FRAME.width, True)
    room = max(high - low, 0.1 * abs(high)) or 1.0
    start = max(0.0, low - 0.12 * room) if low >= 0 else low - 0.12 * room
    return Scale(start, high + 0.22 * room, FRAME.x, FRAME.x + FRAME.width)


def _y_scale(chart: Scatter) -> Scale:
    values = [v for d in chart.dots for v in (d.y, d.y_lo, d.y_hi) if v is not None]
    low, high = min(values), max(values)
    room = max(high - low, 0.05 if chart.y_unit else 0.1 * abs(high) or 1.0)
    bottom, top = max(0.0, low - 0.10 * room), high + 0.12 * room
    return Scale(bottom, min(1.0, top) if chart.y_unit and high <= 1 else top, FRAME.y + FRAME.height, FRAME.y)


def _grid(chart: Scatter, x: Scale, y: Scale) -> str:
    right, bottom = FRAME.x + FRAME.width, FRAME.y + FRAME.height
    parts = []
    for value in y.ticks():
        parts.append(line(FRAME.x, y(value), right, y(value), "grid"))
        parts.append(text(chart.y_format(value), FRAME.x - 6, y(value) + 4, "t", "end"))
    taken = -1e9
    for value in x.ticks():
        shown = chart.x_format(value)
        half = width_of(shown) / 2
        if x(value) - half > taken + 4 and x(value) + half < WIDTH:
            parts.append(line(x(value), bottom, x(value), bottom + 4, "axis"))
            parts.append(text(shown, x(value), bottom + 17, "t", "middle"))
            taken = x(value) + half
    parts.append(line(FRAME.x, bottom, right, bottom, "axis"))
    parts.append(text(chart.x_label, FRAME.x + FRAME.width / 2, HEIGHT - 8, "label", "middle"))
    parts.append(text(chart.y_label, 13, FRAME.y + FRAME.height / 2, "label", "middle", turned=True))
    return "".join(parts)


def _band(chart: Scatter, x: Scale, y: Scale) -> str:
    inside = [(a, lo, hi) for a, lo, hi in chart.band if x.low <= a <= x.high]

    def inside_y(value: float) -> float:
        return y(min(max(value, y.low), y.high))

    return area([(x(a), inside_y(hi)) for a, _, hi in inside], [(x(a), inside_y(lo)) for a, lo, _ in inside], "band")


def _frontier(chart: Scatter, x: Scale, y: Scale) -> str:
    """A staircase: what is between two variants cannot be bought. It runs on to the dear end."""
    if not chart.frontier:
        return ""
    steps: list[tuple[float, float] | None] = []
    ordered = sorted(chart.frontier)
    if chart.x_better_low:
        for i, (a, b) in enumerate(ordered):
            if i:
                steps.append((x(a), y(ordered[i - 1][1])))
            steps.append((x(a), y(b)))
        steps.append((FRAME.x + FRAME.width, y(ordered[-1][1])))
    else:
        steps.append((FRAME.x, y(ordered[0][1])))
        for i, (a, b) in enumerate(ordered):
            steps.append((x(a), y(b)))
            if i + 1 < len(ordered):
                steps.append((x(a), y(ordered[i + 1][1])))
    return path(steps, "frontier")


def _bracket(chart: Scatter, x: Scale) -> str:
    """By how much all points may be off together, around the middle of the chart."""
    if chart.bracket is None:
        return ""
    values = sorted(d.x for d in chart.dots)
    middle, at = values[len(values) // 2], FRAME.y + 4
    left, right = (min(max(x(max(middle * f, x.low)), FRAME.x), FRAME.x + FRAME.width) for f in chart.bracket)
    ends = [line(left, at - 4, left, at + 4, "bracket")] if middle * chart.bracket[0] >= x.low else []
    ends += [line(right, at - 4, right, at + 4, "bracket")] if middle * chart.bracket[1] <= x.high else []
    return element(
        "g",
        title(chart.bracket_note),
        line(left, at, right, at, "bracket"),
        *ends,
        text(chart.bracket_label, (left + right) / 2, at - 4, "tiny", "middle"),
        class_="shared",
    )


FAR = 11.0
"""Pixels between a dot and its label from which on a line joins them."""


def _bars(dot: Dot, x: Scale, y: Scale) -> str:
    """Intervals, upright and level; one that may not be ranked has no level one, since nothing is told by its cost."""
    a, b = x(dot.x), y(dot.y)
    parts = []
    if dot.y_lo is not None and dot.y_hi is not None:
        top, bottom = y(dot.y_hi), y(dot.y_lo)
        parts += [
            line(a, top, a, bottom, "bar"),
            line(a - 4, top, a + 4, top, "bar"),
            line(a - 4, bottom, a + 4, bottom, "bar"),
        ]
    if dot.kind != "invalid" and dot.x_lo is not None and dot.x_hi is not None and x(dot.x_hi) - x(dot.x_lo) > 10:
        left, right = x(dot.x_lo), x(dot.x_hi)
        parts += [
            line(left, b, right, b, "bar"),
            line(left, b - 4, left, b + 4, "bar"),
            line(right, b - 4, right, b + 4, "bar"),
        ]
    return element("g", *parts, class_=_class(dot), data_row=dot.anchor) if parts else ""


def _class(dot: Dot) -> str:
    return f"dot {dot.kind} c{dot.colour % PALETTE}" + (" front" if dot.on_frontier else "")


def _dot(dot: Dot, x: Scale, y: Scale, label: Box | None) -> str:
    a, b = x(dot.x), y(dot.y)
    parts = [title(dot.note), _marker(dot.kind, a, b)]
    if label is not None:
        parts.append(_leader(a, b, label))
        parts.append(text(dot.label, label.x + 2, label.y + 11, "name" if dot.on_frontier else "t"))
    return element("a", *parts, href=f"#{dot.anchor}", class_=_class(dot), data_row=dot.anchor, aria_label=dot.note)


def _marker(kind: str, x: float, y: float) -> str:
    match kind:
        case "published":
            return element("rect", x=x - 5, y=y - 5, width=10, height=10, class_="mark")
        case "predicted":
            return element(
                "path", d=f"M{x:.1f} {y - 6:.1f}L{x + 6:.1f} {y + 5:.1f}L{x - 6:.1f} {y + 5:.1f}Z", class_="mark"
            )
        case _:
            return element("circle", cx=x, cy=y, r=5.5, class_="mark")


def _leader(px: float, py: float, label: Box) -> str:
    """A thin line from a dot to a label that found no room beside it."""
    tx = min(max(px, label.x), label.x + label.width)
    ty = min(max(py, label.y), label.y + label.height)
    return line(px, py, tx, ty, "leader") if math.hypot(tx - px, ty - py) > FAR else ""
