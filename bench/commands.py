"""What `compare`, `accept` and `export` do: call one function of `results`, print or write, return the exit status."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.cli import GATE_FAILED, OK, emit
from bench.config import ConfigError
from results.store import write_atomically


def compare(
    base: Path,
    candidate: Path,
    options: msgspec.Struct,
    gate: Path | None,
    json: bool,
    out: Path | None,
) -> int:
    """Compare two runs and apply the gate, if there is one."""
    from results.compare import Options, compare_runs
    from results.compare.gate import apply_gate, load_gate
    from results.compare.text import headline, markdown, tables

    assert isinstance(options, Options)
    thresholds = load_gate(gate) if gate else None
    if thresholds:
        level = msgspec.structs.replace(options.level, confidence=thresholds.confidence)
        options = msgspec.structs.replace(options, level=level)
    compared = compare_runs(base, candidate, options)
    gated = apply_gate(compared, thresholds) if thresholds else None
    if out:
        write_text(out, markdown(compared, gated), (base, candidate))
    if json:
        emit({"comparison": compared, "gate": gated})
    else:
        print(headline(compared))
        print_tables(tables(compared, gated))
    if gated and not gated.passed:
        for reason in gated.reasons:
            print(f"gate: {reason}", file=sys.stderr)
        return GATE_FAILED
    return OK


def print_tables(shown: Sequence[msgspec.Struct]) -> None:
    """Tables on stdout; as wide as the terminal, or as they need to be where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from results.compare.text import Table as Words
    from results.compare.text import plain

    out = Console() if sys.stdout.isatty() else Console(width=240)
    for table in shown:
        assert isinstance(table, Words)
        if table.lines:
            drawn = Table(title=table.title, title_justify="left", highlight=False)
            for column in table.columns:
                drawn.add_column(column, overflow="fold")
            for line in table.lines:
                drawn.add_row(*(Text(plain(cell, 400)) for cell in line))
            out.print(drawn)
        elif table.below:
            out.print(plain(table.title), markup=False, highlight=False)
        for sentence in table.below:
            out.print(plain(sentence, 2000), markup=False, highlight=False)
        out.print()


def write_text(path: Path, text: str, runs: Sequence[Path] = ()) -> None:
    write_bytes(path, text.encode(), runs)


def write_bytes(path: Path, data: bytes, runs: Sequence[Path] = ()) -> None:
    """Write a file of ours; never into a run, whose seal it would break."""
    for run in runs:
        if path.resolve().is_relative_to(run.resolve()):
            raise ConfigError(
                f"--out {path}: lies inside a run, and a file added there breaks its seal; give another place"
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror}); give another place") from error


def accept(spec: Path, run: Path, json: bool, out: Path | None) -> int:
    """Judge a run by a specification and write the page to sign; what cannot be decided is no acceptance."""
    from results.accept import accept as judge
    from results.accept.page import html

    accepted = judge(spec, run)
    page = out or Path(f"acceptance_{accepted.run}.html")
    write_bytes(page, html(accepted).encode(), (run,))
    if json:
        emit(accepted)
    else:
        for clause in accepted.clauses:
            decides = f"; would decide it: {clause.decides.en}" if clause.decides.en else ""
            verdict = clause.verdict.replace("_", " ").replace("undecided", "cannot be decided")
            where = ", ".join(filter(None, (clause.deployment, clause.load)))
            subject = f" [{where}]" if where else ""
            print(f"{clause.number}. {verdict}: {clause.asked.en}{subject}: {clause.found.en}{decides}")
        print(f"page: {page}")
    return OK if accepted.verdict == "met" else GATE_FAILED


def recommend(runs: list[Path], demand: Path, tariff: Path | None, out: Path, lang: str, json: bool) -> int:
    """Fit every measured deployment to a demand; a demand that nothing meets is status 3."""
    from results.recommend import recommend as fit
    from results.recommend.page import html, markdown

    if lang not in ("en", "zh"):
        raise ConfigError(f"--lang {lang}: only en and zh are there")
    found = fit(demand, runs, tariff)
    text = markdown(found, lang)
    write_text(out / "recommendation.html", html(found, lang), runs)
    write_text(out / "recommendation.md", text, runs)
    if json:
        emit(found)
    else:
        print(text)
    return OK if found.best else GATE_FAILED


def export(run: Path, to: str, out: Path | None, tariff: Path | None) -> int:
    """Write a run in another format; a single file, or a folder where the format has one file for each model."""
    from results.export import FORMATS, SUFFIX, export_run

    chosen = next((f for f in FORMATS if f == to), None)
    if chosen is None:
        raise ConfigError(f"--to {to}: unknown; one of {', '.join(FORMATS)}")
    files = export_run(run, chosen, tariff)
    target = out or Path(f"{run.resolve().name}_{chosen}{SUFFIX[chosen]}")
    for name, data in files.items():
        write_bytes(target / name if name else target, data, (run,))
    print(target)
    return OK


def egress(json: bool) -> int:
    """Show that measuring reaches no other machine; status 3 when it tried to, or could not do without."""
    from bench.egress import prove, sentences

    found = prove()
    if json:
        emit({"clean": found.clean, "egress": found})
    else:
        for sentence in sentences(found):
            print(sentence)
    return OK if found.clean else GATE_FAILED
