"""Drawing by hand: elements of SVG as text, every value escaped. No style attribute anywhere, so that a strict policy can stand."""

import math
from collections.abc import Sequence
from html import escape

from msgspec import Struct

Value = str | float | int


def element(name: str, *children: str, **attributes: Value | None) -> str:
    """One element. `class_` is `class`, underscores become hyphens, `None` is left out. Children are markup; text goes through `text`."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.5g}" if isinstance(value, float) else str(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    opening = " ".join(parts)
    return f"<{opening}>{''.join(children)}</{name}>" if children else f"<{opening}/>"


def text(content: str, x: float, y: float, class_: str = "t", anchor: str | None = None, turned: bool = False) -> str:
    """A line of text; `turned` reads upwards."""
    return element(
        "text",
        escape(content, quote=False),
        x=x,
        y=y,
        class_=class_,
        text_anchor=anchor,
        transform=f"rotate(-90 {x:.4g} {y:.4g})" if turned else None,
    )


def title(content: str) -> str:
    """What a pointer shows and a screen reader says."""
    return element("title", escape(content, quote=False))


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float] | None], class_: str) -> str:
    """A line through points, broken at `None`."""
    parts, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        parts.append(f"{pen}{_short(point[0])} {_short(point[1])}")
        pen = "L"
    return element("path", d="".join(parts), class_=class_) if parts else ""


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], class_: str) -> str:
    """What lies between two lines."""
    outline = [*upper, *reversed(lower)]
    if len(outline) < 3:
        return ""
    return element("path", d="M" + "L".join(f"{_short(x)} {_short(y)}" for x, y in outline) + "Z", class_=class_)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class Box(Struct, frozen=True):
    """A rectangle on the drawing."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: "Box") -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2

    def distance(self, point: tuple[float, float]) -> float:
        """From the nearest edge; 0 inside."""
        return math.hypot(
            max(self.x - point[0], 0.0, point[0] - self.x - self.width),
            max(self.y - point[1], 0.0, point[1] - self.y - self.height),
        )

    def inside(self, other: "Box") -> bool:
        return (
            self.x >= other.x
            and self.y >= other.y
            and self.x + self.width <= other.x + other.width
            and self.y + self.height <= other.y + other.height
        )


def width_of(content: str, size: float = 12.0) -> float:
    """About how wide a text will be; Chinese characters are square."""
    return sum(size if ord(c) > 0x2E7F else size * 0.6 for c in content)


def place_labels(
    spots: Sequence[tuple[float, float, str]], frame: Box, marks: Sequence[Box], bars: Sequence[Box]
) -> list[Box | None]:
    """A place beside each spot where its label meets no marker and no other label; else `None`.

    Where that can be had, no other marker is as near to it as its own, and it meets no bar.
    """
    used: list[Box] = [*marks]
    found: list[Box | None] = []
    for x, y, content in spots:
        candidates = [c for c in _around(x, y, width_of(content) + 4) if c.inside(frame)]
        free = [c for c in candidates if not any(c.meets(b) for b in used)]
        others = [m for m in marks if m.distance((x, y)) > 0]
        chosen = min(free, key=lambda c: (_strangers(c, (x, y), others), any(c.meets(b) for b in bars)), default=None)
        if chosen is not None:
            used.append(chosen)
        found.append(chosen)
    return found


def _strangers(label: Box, own: tuple[float, float], others: Sequence[Box]) -> int:
    """How many other markers are as near to a label as its own."""
    limit = label.distance(own) + 3
    return sum(label.distance(other.middle) <= limit for other in others)


def _around(x: float, y: float, wide: float, high: float = 14.0) -> list[Box]:
    """Places for a label, the best first: above to the right, where a frontier's staircase leaves room."""
    beside = [
        (9, -10),
        (-9, -10),
        (9, 10),
        (-9, 10),
        (9, 0),
        (-9, 0),
        (9, -24),
        (-9, -24),
        (9, 24),
        (-9, 24),
        (9, 38),
        (-9, 38),
    ]
    places = [Box(x + dx if dx > 0 else x + dx - wide, y + dy - high / 2, wide, high) for dx, dy in beside]
    return [*places, Box(x - wide / 2, y - 26, wide, high), Box(x - wide / 2, y + 12, wide, high)]
