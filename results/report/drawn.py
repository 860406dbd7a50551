"""curve.svg and curve.png: accuracy against cost, a panel for each task. English only: no CJK font is assumed."""

import io
import math
from typing import Any

from results.report import formats
from results.report.build import Group, Report
from results.report.plots import SHOW_X

COLOURS = ("#0b5cad", "#b3541e", "#1b7f5c", "#7b3fa0", "#a0305a", "#5b6b00", "#0f7c8a", "#6b4f3a")
MOST_PANELS = 6


def curves(report: Report) -> tuple[bytes, bytes]:
    """The picture as SVG and as PNG. The same report gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [g for g in report.groups if not g.speed][:MOST_PANELS] or list(report.groups)[:1]
    columns = min(2, max(1, len(groups)))
    lines = math.ceil(len(groups) / columns) or 1
    with mpl.rc_context(
        {"svg.hashsalt": "bedside", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9}
    ):
        figure = Figure(figsize=(5.6 * columns, 4.2 * lines), layout="constrained")
        FigureCanvasAgg(figure)
        for i, group in enumerate(groups):
            _panel(figure.add_subplot(lines, columns, i + 1), group, report)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.set_layout_engine("none")  # what was laid out once stays where it is
        figure.savefig(png, format="png", dpi=160, metadata={"Software": "Bedside"})
    return svg.getvalue(), png.getvalue()


def _panel(axes: Any, group: Group, report: Report) -> None:
    curve = group.main
    entries = {e.name: e for e in group.entries}
    shown = [p for p in curve.points if p.x is not None and p.y is not None]
    axes.set_title(group.task, loc="left", fontweight="bold")
    axes.set_xlabel(
        f"cost of 1,000 answers, {report.tariff.currency}" + (" (example prices)" if report.tariff.example else "")
    )
    axes.set_ylabel("accuracy, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e3e7ec")
    axes.set_axisbelow(True)
    if not shown:
        axes.text(0.5, 0.5, "nothing that can be drawn", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for p in shown:
        x, y = p.x or 0.0, p.y or 0.0
        colour = COLOURS[entries[p.name].colour % len(COLOURS)] if p.valid else "#8a929c"
        if p.y_lo is not None and p.y_hi is not None:
            axes.vlines(x, p.y_lo, p.y_hi, color=colour, linewidth=1.2)
        hollow = p.kind == "estimated" or not p.valid or (entries[p.name].row.power_class or "").startswith("E")
        axes.plot(x, y, "o", color=colour, markerfacecolor="white" if hollow else colour, markersize=6)
        if len(shown) <= 24 or p.name in curve.frontier:
            axes.annotate(_ascii(entries[p.name].short), (x, y), textcoords="offset points", xytext=(6, 3), fontsize=8)
    _frontier(axes, group)
    axes.yaxis.set_major_formatter(lambda v, _: formats.percent(v, 0))
    axes.xaxis.set_major_formatter(lambda v, _: SHOW_X["cost_per_1k_samples"](v))
    axes.margins(x=0.18)


def _frontier(axes: Any, group: Group) -> None:
    places = {p.name: (p.x, p.y) for p in group.main.points}
    found = sorted((x, y) for x, y in (places[n] for n in group.main.frontier) if x is not None and y is not None)
    if found:
        axes.step([x for x, _ in found], [y for _, y in found], where="post", color="#1a2230", linewidth=1.4, zorder=1)


def _ascii(text: str) -> str:
    """What the font surely has."""
    return "".join(c if ord(c) < 0x2E80 else "?" for c in text)
