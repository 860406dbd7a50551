"""What a night leaves behind: nightly.md, nightly.html (the history as one page), JUnit XML and a line of JSON."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
from msgspec import Struct

from results.export.junit import clean
from results.nightly.judge import METRICS
from results.nightly.night import Night, Series
from results.store import write_atomically

WIDTH, HEIGHT, EDGE = 560, 110, 8
RUNS = "../../runs"
"""From a night's folder to its runs."""
URGENCY = ("regression", "candidate", "improvement", "steady", "too_short")
"""Order of the drawings."""


class Drawing(Struct, frozen=True, kw_only=True):
    """One series as coordinates: `lines` are epochs, broken where one ends."""

    name: str
    lines: tuple[str, ...]
    dots: tuple[tuple[float, float, str, str], ...]
    """Each with its words and the address of its first run."""
    steps: tuple[float, ...]
    """Where a new epoch begins."""
    change: float | None
    """Where the change that was found begins."""
    band: tuple[float, float]
    """Top and height of the range within the floor around the median of the epoch."""
    words: str
    verdict: str
    top: str
    bottom: str
    """What the upper and the lower edge stand for, against the middle of the epoch."""
    first: str
    last: str


def write_night(judged: Night, folder: Path) -> Path:
    """Write the four files into a folder; returns the page."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / "nightly.md", markdown(judged).encode())
    write_atomically(folder / "junit.xml", junit(judged))
    write_atomically(folder / "nightly.json", one_line(judged))
    write_atomically(folder / "nightly.html", page(judged).encode())
    return folder / "nightly.html"


def one_line(judged: Night) -> bytes:
    """The verdict as one JSON object without the series."""
    return msgspec.json.encode(
        {
            "suite": judged.suite,
            "night": judged.night,
            "verdict": judged.verdict,
            "regressions": judged.regressions,
            "improvements": judged.improvements,
            "events": judged.events,
            "probe": judged.unprobed or {p.deployment: p.words for p in judged.probes},
            "series": len(judged.series),
            "blind": [str(s.key) for s in judged.series if s.finding.blind],
        }
    )


def markdown(judged: Night) -> str:
    parts = [f"# {judged.suite}, {judged.night}: {judged.verdict}", ""]
    for title, sentences in (
        ("Regressions", judged.regressions),
        ("Improvements", judged.improvements),
        ("Events", judged.events),
    ):
        if sentences:
            parts += [f"## {title}", "", *(f"- {s}" for s in sentences), ""]
    parts += [
        "## Series",
        "",
        "| Series | Nights | Verdict | Smallest change that would show | Noise |",
        "|---|---|---|---|---|",
    ]
    parts += [
        f"| {s.key} | {len(s.current)} | {verdict_words(s)} | {percent(s.finding.mde)} | {percent(s.finding.noise)} |"
        for s in judged.series
    ]
    parts += [
        "",
        "## Accuracy",
        "",
        "| Deployment | Task | Items | Lost | Gained | Evidence (alarm at 3,650) |",
        "|---|---|---|---|---|---|",
    ]
    for a in judged.accuracy:
        e = a.evidence
        parts.append(f"| {a.deployment} | {a.task} | {e.items} | {e.losses} | {e.gains} | {e.e_value:.1f} |")
    parts += ["", "## Determinism probe", "", *([judged.unprobed] if judged.unprobed else [])]
    parts += [f"- {p.deployment}: {p.words}" for p in judged.probes]
    return "\n".join(parts) + "\n"


def verdict_words(one: Series) -> str:
    words = one.finding.verdict.replace("_", " ")
    return words + (", blind" if one.finding.blind else "") + (f" ({one.finding.reason})" if one.finding.reason else "")


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def junit(judged: Night) -> bytes:
    """A case for each series and each accuracy; those named in a regression fail, a blind series is skipped with the reason."""
    cases: list[tuple[str, str, str | None, str | None]] = []
    for one in judged.series:
        failure = next((r for r in judged.regressions if r.startswith(f"{one.key}:")), None)
        blind = "blind: its noise hides a change of the floor's size" if one.finding.blind else None
        cases.append((one.key.deployment, f"{one.key.task} {one.key.load} {one.key.metric}", failure, blind))
    for a in judged.accuracy:
        failure = next((r for r in judged.regressions if r.startswith(f"{a.deployment}, {a.task}, accuracy")), None)
        cases.append((a.deployment, f"{a.task} accuracy", failure, None))
    for sentence in judged.failures:
        cases.append(("cells", sentence.split(" ")[0], sentence, None))
    suite = ElementTree.Element("testsuite", name=f"{judged.suite} {judged.night}")
    for group, name, failure, skipped in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=clean(group), name=clean(name))
        if failure:
            ElementTree.SubElement(case, "failure", message=clean(failure))
        elif skipped:
            ElementTree.SubElement(case, "skipped", message=skipped)
    failed = sum(1 for case in cases if case[2])
    left = sum(1 for case in cases if case[3] and not case[2])
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(failed))
    suite.set("skipped", str(left))
    suite.set("errors", "0")
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def page(judged: Night) -> str:
    """The history on one page: no script, no request, every figure with its words beside it."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    template = environment.get_template("nightly.html.j2")
    drawn: Any = [draw(s) for s in sorted(judged.series, key=lambda s: (URGENCY.index(s.finding.verdict), s.key))]
    return template.render(
        night=judged, drawn=drawn, width=WIDTH, height=HEIGHT, words=verdict_words, percent=percent, runs=RUNS
    )


def draw(one: Series) -> Drawing:
    """Coordinates of one series; the scale runs from the lowest to the highest night, the floor's band at least."""
    metric = METRICS[one.key.metric]
    values = [p.value for p in one.points]
    current = [p.value for p in one.current]
    middle = sorted(current)[len(current) // 2]
    low = min(*values, middle - 1.5 * metric.floor)
    high = max(*values, middle + 1.5 * metric.floor)
    xs = [EDGE + (WIDTH - 2 * EDGE) * i / max(1, len(values) - 1) for i in range(len(values))]

    def y(value: float) -> float:
        return round(EDGE + (HEIGHT - 2 * EDGE) * (high - value) / (high - low), 1)

    starts = [i for i in range(1, len(values)) if one.epochs[i] != one.epochs[i - 1]]
    since = next((x for x, p in zip(xs, one.points, strict=True) if p.night == one.finding.since), None)
    return Drawing(
        name=str(one.key),
        lines=tuple(_line(xs, [y(v) for v in values], a, b) for a, b in _spans(starts, len(values))),
        dots=tuple(
            (round(x, 1), y(p.value), f"{p.night}: {math.exp(p.value):.4g}, {p.blocks} blocks", f"{RUNS}/{p.run}/")
            for x, p in zip(xs, one.points, strict=True)
        ),
        steps=tuple(round((xs[i] + xs[i - 1]) / 2, 1) for i in starts),
        change=round(since, 1) if since is not None and one.finding.verdict != "steady" else None,
        band=(y(middle + metric.floor), round(y(middle - metric.floor) - y(middle + metric.floor), 1)),
        words=verdict_words(one),
        verdict=one.finding.verdict,
        top=f"{math.expm1(high - middle):+.1%}",
        bottom=f"{math.expm1(low - middle):+.1%}",
        first=one.points[0].night,
        last=one.points[-1].night,
    )


def _spans(starts: Sequence[int], length: int) -> list[tuple[int, int]]:
    edges = [0, *starts, length]
    return list(pairwise(edges))


def _line(xs: Sequence[float], ys: Sequence[float], first: int, last: int) -> str:
    return " ".join(f"{xs[i]:.1f},{ys[i]}" for i in range(first, last))
