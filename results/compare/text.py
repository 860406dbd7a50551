"""A comparison in words: the same tables for the terminal and for Markdown. Names and answers are text to show, never markup."""

from collections.abc import Sequence

from msgspec import Struct

from results.compare.gate import Gated
from results.compare.judge import Accuracy, CellPair, Compared, Flip, Said, StepPair
from results.compare.metrics import Ratio
from results.paired import Comparison
from results.report import formats
from results.report.markdown import escaped

MOST_FLIPS = 20
LONGEST_TEXT = 160
LONGEST_CELL = 2000
MCNEMAR = "mcnemar_mid_p"

VERDICTS = {
    "same": "the same records",
    "better": "better",
    "worse": "worse",
    "inconclusive": "inconclusive",
    "no_interval": "one measurement each, no interval",
    "withheld": "not judged",
    "unknown": "unknown",
}


SHORT = {
    "same": "the same",
    "no_difference": "without a difference",
    "no_interval": "without an interval",
    "withheld": "not judged",
}


class Table(Struct, frozen=True, kw_only=True):
    """A heading, columns, lines and what stands below them."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    below: tuple[str, ...] = ()


def tables(compared: Compared, gated: Gated | None = None) -> tuple[Table, ...]:
    """Everything that is shown, in order: the gate, accuracy, figures, flips, what differs, what is left out."""
    shown = [_gate(gated)] if gated else []
    shown.append(_accuracy(compared))
    for cell in compared.cells:
        shown += [t for step in cell.steps for t in (_figures(cell, step), _flips(cell, step)) if t.lines]
        shown.append(_differences(cell))
    left = _left_out(compared)
    return tuple(t for t in [*shown, left] if t.lines or t.below)


def headline(compared: Compared) -> str:
    """One sentence that says no more than the verdicts do."""
    steps = [(c, s) for c in compared.cells for s in c.steps]
    if steps and all(s.same for _, s in steps):
        return "No difference: both sides are the same records."
    accuracies = [s.accuracy.verdict for _, s in steps if s.accuracy]
    figures = [r.verdict for _, s in steps for r in s.ratios]
    said = [f"accuracy {_counted(accuracies)}"] if accuracies else []
    said += [f"figures {_counted(figures)}"] if figures else []
    return f"{compared.candidate} against {compared.base}: " + "; ".join(said or ["nothing to compare"]) + "."


def _counted(verdicts: Sequence[str]) -> str:
    return ", ".join(f"{list(verdicts).count(v)} {SHORT.get(v, v)}" for v in dict.fromkeys(verdicts))


def _gate(gated: Gated) -> Table:
    lines = tuple((c.where, c.threshold, c.verdict, c.sentence) for c in gated.checks)
    below = ("The gate is passed." if gated.passed else "The gate is NOT passed.",)
    return Table(title="Gate", columns=("where", "threshold", "verdict", "found"), lines=lines, below=below)


def _accuracy(compared: Compared) -> Table:
    lines = [_accuracy_line(c, s, s.accuracy) for c in compared.cells for s in c.steps if s.accuracy]
    points = f"{100 * compared.level.margin:.3g}"
    below = [
        f"Difference: candidate less base, in points, on the same items, with its 95 % interval. p: Holm over {len(compared.family)} "
        f"declared test(s). Not worse: margin {points} points, one-sided {compared.level.confidence:.0%}.",
        "Flips: answers whose score fell and rose from base to candidate. Detectable: the smallest true difference, in points, that these "
        "items show with 80 % power.",
    ]
    if any(s.accuracy and _takes_clusters_for_single(s.accuracy.comparison) for c in compared.cells for s in c.steps):
        below.append(
            f"Where items share clusters {MCNEMAR} takes them for independent and is too small; the test by clusters decides."
        )
    if compared.adjusted.verdict == "fail":
        below.append(f"{compared.adjusted.rule}: {compared.adjusted.sentence}")
    below += [
        f"{s.base_step}: {s.accuracy.reason}"
        for c in compared.cells
        for s in c.steps
        if s.accuracy and s.accuracy.reason
    ]
    below += [
        f"{s.base_step}: compared in spite of: {', '.join(s.allowed)}"
        for c in compared.cells
        for s in c.steps
        if s.allowed
    ]
    early = [sentence for c in compared.cells for s in c.steps for sentence in s.early]
    if early:
        below += [*early, "Their intervals and sequential p hold at whatever item a step is ended (docs/stopping.md)."]
    columns = (
        "deployments",
        "task",
        "base",
        "candidate",
        "difference",
        "test and p",
        "p, Holm",
        "items",
        "flips",
        "detectable",
        "verdict",
        "not worse",
    )
    return Table(
        title="Accuracy", columns=columns, lines=tuple(lines), below=tuple(dict.fromkeys(below)) if lines else ()
    )


def _takes_clusters_for_single(found: Comparison) -> bool:
    return found.mcnemar_p is not None and found.test != MCNEMAR


def _accuracy_line(cell: CellPair, step: StepPair, found: Accuracy | None) -> tuple[str, ...]:
    assert found is not None
    difference = found.comparison.difference
    limits = (
        f" ({formats.points(difference.lo)} to {formats.points(difference.hi)})" if difference.lo is not None else ""
    )
    return (
        _names(cell),
        step.base_step,
        formats.percent(found.base),
        formats.percent(found.candidate),
        formats.points(difference.value) + limits,
        f"{_tests(found.comparison)}, interval {difference.method}",
        formats.p_value(found.adjusted_p),
        str(found.items),
        _turned(step.flips),
        formats.points(found.comparison.detectable).lstrip("+"),
        accuracy_verdict(found),
        formats.DASH if step.same else found.non_inferiority.sentence,
    )


def _tests(found: Comparison) -> str:
    """The test that decides with its p; McNemar's beside it where another one decides."""
    said = f"{found.test} {formats.p_value(found.p_value)}"
    return said + (f"; {MCNEMAR} {formats.p_value(found.mcnemar_p)}" if _takes_clusters_for_single(found) else "")


def _turned(flips: Sequence[Flip]) -> str:
    """`12 down, 5 up`: answers whose score fell, and rose, from base to candidate."""
    down = sum(f.candidate.value < f.base.value for f in flips)
    return f"{down} down, {len(flips) - down} up"


def accuracy_verdict(found: Accuracy) -> str:
    if found.verdict == "no_difference":
        return f"no difference larger than {100 * found.non_inferiority.margin:.3g} points"
    if found.verdict == "inconclusive" and found.comparison.detectable is not None:
        return f"inconclusive (these items show {100 * found.comparison.detectable:.1f} points or more)"
    return VERDICTS[found.verdict]


def _figures(cell: CellPair, step: StepPair) -> Table:
    lines = tuple(_figure_line(r) for r in step.ratios)
    reasons = dict.fromkeys(r.reason for r in step.ratios if r.verdict == "withheld" and r.reason)
    below = tuple(f"not judged: {reason}" for reason in reasons) + tuple(f"note: {n}" for n in step.notes)
    columns = ("figure", "base", "candidate", "ratio", "95 % interval", "interval from", "verdict")
    return Table(title=f"{_names(cell)}, {step.base_step}: figures", columns=columns, lines=lines, below=below)


SOURCES = {
    "repeats": "repeats (Welch)",
    "steady": "steady state, and 5 % between loads",
    "draws": "draws of prices, speed and items",
    "counted": "counted",
}


def _figure_line(ratio: Ratio) -> tuple[str, ...]:
    limits = "" if ratio.lo is None or ratio.hi is None else f"{ratio.lo:.3f} to {ratio.hi:.3f}"
    return (
        ratio.metric,
        _value(ratio.base, ratio.unit),
        _value(ratio.candidate, ratio.unit),
        formats.DASH if ratio.ratio is None else f"{ratio.ratio:.3f}",
        limits,
        SOURCES[ratio.source] if ratio.source else "",
        ratio_verdict(ratio),
    )


def ratio_verdict(ratio: Ratio) -> str:
    if ratio.verdict == "no_difference":
        return f"no difference larger than {ratio.floor:.0%}"
    if ratio.verdict == "unknown":
        return ratio.reason or "unknown"
    return VERDICTS[ratio.verdict]


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return formats.DASH
    return formats.gib(value) if unit == "B" else f"{formats.significant(value)} {unit}".strip()


def _flips(cell: CellPair, step: StepPair) -> Table:
    shown = step.flips[:MOST_FLIPS]
    more = len(step.flips) - len(shown)
    below = (f"and {more} more; all of them with --json",) if more > 0 else ()
    columns = ("item", "right", "base", "candidate")
    title = f"{_names(cell)}, {step.base_step}: answers that flipped, {len(step.flips)}"
    return Table(title=title, columns=columns, lines=tuple(_flip_line(f) for f in shown), below=below)


def _flip_line(flip: Flip) -> tuple[str, ...]:
    repeat = f" #{flip.repeat + 1}" if flip.repeat else ""
    return f"{flip.sample}{repeat}", _target(flip), _said(flip.base), _said(flip.candidate)


def _target(flip: Flip) -> str:
    """The letter of an option where the answers are letters and the target is an index."""
    letters = all(s.answer is None or (len(s.answer) == 1 and s.answer.isalpha()) for s in (flip.base, flip.candidate))
    if flip.target and flip.target.isdigit() and letters and int(flip.target) < 26:
        return chr(ord("A") + int(flip.target))
    return flip.target or formats.DASH


def _said(said: Said) -> str:
    text = "" if said.text is None else f": {plain(said.text)}"
    score = "" if said.value in (0.0, 1.0) else f" {said.value:.3f}"
    return f"{said.verdict}{score} [{said.answer if said.answer is not None else formats.DASH}]{text}"


def plain(text: str, longest: int = LONGEST_TEXT) -> str:
    """On one line, without control characters (a terminal obeys some of them), cut to a readable length."""
    line = " ".join(text.split())
    safe = "".join(c if c.isprintable() else "\ufffd" for c in line)
    return safe if len(safe) <= longest else safe[: longest - 1] + "…"


def _differences(cell: CellPair) -> Table:
    lines = tuple((d.what, plain(d.base), plain(d.candidate)) for d in cell.differences)
    below = () if lines or not cell.steps else ("nothing that is on record",)
    return Table(title=f"{_names(cell)}: what differs", columns=("what", "base", "candidate"), lines=lines, below=below)


def _left_out(compared: Compared) -> Table:
    lines = [(name, "deployment only in base") for name in compared.only_base]
    lines += [(name, "deployment only in candidate") for name in compared.only_candidate]
    for cell in compared.cells:
        lines += [
            (f"{_names(cell)}: {e.task}@{e.load}", f"base {e.base}; candidate {e.candidate}") for e in cell.not_compared
        ]
        lines += [(f"{_names(cell)}: {name}", "step only in base") for name in cell.only_base]
        lines += [(f"{_names(cell)}: {name}", "step only in candidate") for name in cell.only_candidate]
    below = (f"Costs by tariff {compared.tariff}.", *(f"Edited since it ended: {n}" for n in compared.notes))
    return Table(title="Not compared", columns=("what", "why"), lines=tuple(lines), below=below)


def _names(cell: CellPair) -> str:
    return cell.base if cell.base == cell.candidate else f"{cell.base} -> {cell.candidate}"


def markdown(compared: Compared, gated: Gated | None = None) -> str:
    """The whole comparison as a Markdown file."""
    lines = [f"# {escaped(compared.base)} and {escaped(compared.candidate)}", "", escaped(headline(compared)), ""]
    for table in tables(compared, gated):
        lines += [f"## {escaped(table.title)}", ""]
        if table.lines:
            lines += ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
            lines += [
                "| " + " | ".join(escaped(plain(c, LONGEST_CELL)) for c in line) + " |" for line in table.lines
            ] + [""]
        lines += [f"- {escaped(sentence)}" for sentence in table.below] + [""] * bool(table.below)
    return "\n".join(lines).rstrip() + "\n"
