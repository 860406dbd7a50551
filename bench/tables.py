"""Tables for people on stdout: what `plan`, `host`, `models`, `tasks` and `verify` print. Each imports only what it shows."""

import importlib.util
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bench.config import Nightly
from results.store import RunDir

if TYPE_CHECKING:
    from bench.plan import CellPlan
    from bench.session import Prepared
    from hardware import Measurable
    from results.manifest import CellFacts

ENGINES = {
    "llama_cpp": ("llama_cpp", "pip install -e '.[llama-cpp]'"),
    "transformers": (
        "transformers",
        "pip install -e '.[transformers]', or name an environment that has it with `python =`",
    ),
    "vllm": ("vllm", "install vllm in an environment of its own and name it with `python =`"),
    "openai_server": ("httpx", ""),
    "recorded": ("msgspec", ""),
    "scripted": ("msgspec", ""),
}


ARITHMETIC = ("avx", "fma", "f16c", "amx", "asimd", "sve", "i8mm", "bf16", "vsx", "rvv")
"""Beginnings of the processor's flags that an engine's speed hangs on; `--json` has all flags."""
EMPTY: tuple[Any, ...] = (None, "", [], {}, ())


class EngineState(msgspec.Struct, frozen=True):
    name: str
    usable: bool
    how: str


def console() -> Console:
    """Without markup: `pip install '.[vllm]'` is no style, and a model named `a:b:c` no picture."""
    return Console(
        file=sys.stdout, highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 180
    )


def show(out: Console, table: Table) -> None:
    """As a table where no word must be cut for it, else a paragraph a row: eight columns of two letters tell nothing."""
    unbounded = out.options.update(width=10_000)
    if Measurement.get(out, unbounded, table).minimum <= out.width:
        out.print(table)
        return
    out.print(str(table.title or ""), style="bold")
    names = [str(column.header) for column in table.columns]
    for first, *rest in zip(*(column.cells for column in table.columns), strict=True):
        told = "; ".join(f"{name} {cell}".strip() for name, cell in zip(names[1:], rest, strict=True) if cell)
        out.print(f"{first}: {told}")


def engines() -> tuple[EngineState, ...]:
    """Which engines this interpreter could start; found without importing them."""
    return tuple(
        EngineState(name, importlib.util.find_spec(module) is not None, how) for name, (module, how) in ENGINES.items()
    )


def gib(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 2**30:.2f} GiB"


def print_plan(prepared: "Prepared") -> None:
    from bench.judge import expected_seconds
    from bench.plan import planned_seconds
    from bench.similarity import where

    table = Table(title=f"{prepared.suite.name}: {len(prepared.cells)} cells, profile {prepared.suite.profile}")
    for column in ("cell", "engine", "steps", "samples", "memory (predicted)", "fits", "decode at best", "time, about"):
        table.add_column(column)
    judging = (prepared.judge,) if prepared.judge else ()
    for cell in (*prepared.cells, *judging):
        facts, expected = cell.facts, cell.facts.prediction
        seconds = expected_seconds(cell, prepared.cells) if cell in judging else expected.seconds
        ceiling = expected.decode_tokens_per_s_ceiling
        table.add_row(
            f"{facts.deployment} (judge)" if cell in judging else facts.deployment,
            facts.backend,
            str(len(cell.steps)),
            str(sum(s.facts.samples for s in cell.steps)),
            gib(expected.total_bytes),
            _verdict(facts),
            "unknown" if ceiling is None else f"{ceiling:.0f} tok/s",
            "unknown" if seconds is None else f"{seconds / 60:.1f} min",
        )
    out = console()
    show(out, table)
    for sentence, cells in _sentences((*prepared.cells, *judging)).items():
        out.print(f"{', '.join(cells)}: {sentence}")
    if prepared.suite.stopping:
        out.print(_stopping(prepared))
    searched = ", the search for the smallest memory included" if prepared.suite.smallest_memory else ""
    total = _about(planned_seconds(prepared.cells))
    out.print(f"Whole run: {total}{searched}. Predictions are not measurements.")
    if prepared.suite.similarity:
        out.print(f"Similarity: {where(prepared)}.", markup=False)
    if prepared.judge:
        out.print(
            "The judge comes after it and is not counted in it; its samples are the labelled statements, its time is a guess that "
            "counts those of the summaries too."
        )
    if prepared.suite.profile == "nightly" or prepared.suite.nightly != Nightly():
        out.print(_night(prepared))


def _verdict(facts: "CellFacts") -> str:
    """Whether it fits; one that would and is not run all the same lacks its weights, and the sentence below says so."""
    told = {True: "yes", False: "no", None: "unknown"}[facts.prediction.fits]
    return f"{told}, skipped" if facts.skipped and told != "no" else told


def _sentences(cells: "Sequence[CellPlan]") -> dict[str, list[str]]:
    """What is said of the cells, each sentence once with those that it holds for."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        said = (cell.facts.skipped, cell.facts.prediction.advice, *cell.facts.warnings)
        for sentence in dict.fromkeys(filter(None, said)):
            found.setdefault(sentence, []).append(cell.facts.deployment)
    return found


def _stopping(prepared: "Prepared") -> str:
    """Which steps a rule holds for; times and samples above are those of whole steps."""
    rules = [step.facts.stopping for cell in prepared.cells for step in cell.steps]
    held = [rule for rule in rules if rule]
    if not held:
        return "No step has one yes/no answer to each item that the baseline gives too: all are run whole."
    return f"{len(held)} of {len(rules)} steps may end early: {held[0].sentence}."


def _night(prepared: "Prepared") -> str:
    """How long `nightly` would take with this suite; a doubtful figure takes longer, since it is confirmed at once."""
    from bench.plan import planned_seconds
    from bench.probe import probe_seconds

    blocks, block, probe = prepared.suite.nightly.blocks, planned_seconds(prepared.cells), probe_seconds(prepared)
    total = None if block is None or probe is None else blocks * block + probe
    parts = f"{blocks} blocks of {_about(block)}, and the probe, {_about(probe)}"
    left = "blocks that make up for disturbed ones or confirm a doubtful figure are not counted"
    return f"As a night: {_about(total)}, an estimate ({parts}); {left}."


def _about(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"about {seconds / 60:.0f} min"


def print_host(host: Any, sensors: Any, found: tuple[EngineState, ...]) -> None:
    out = console()
    machine = Table(title="Machine", show_header=False)
    for name, value in msgspec.to_builtins(host).items():
        if value not in EMPTY:
            machine.add_row(name.removesuffix("_bytes").replace("_", " "), _words(name, value))
    show(out, machine)
    table = Table(title="Sensors")
    for column in ("interface", "usable", "evidence", "boundary", "note"):
        table.add_column(column)
    for report in sensors:
        table.add_row(report.interface, "yes" if report.usable else "no", report.evidence, report.boundary, report.note)
    show(out, table)
    table = Table(title="Engines")
    for column in ("engine", "usable here", "how to get it"):
        table.add_column(column)
    for engine in found:
        table.add_row(engine.name, "yes" if engine.usable else "no", "" if engine.usable else engine.how)
    show(out, table)


def _words(name: str, value: Any) -> str:
    """A fact of the machine as a person would write it; bytes by the name that they have."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_bytes"):
            return gib(value)
        case float():
            return f"{value:g}"
        case dict():
            told = ((k, v) for k, v in value.items() if v not in EMPTY)
            return "; ".join(f"{k.removesuffix('_bytes').replace('_', ' ')} {_words(k, v)}" for k, v in told)
        case list() | tuple() if name == "flags":
            return ", ".join(f for f in value if f.startswith(ARITHMETIC)) or "none that matter here"
        case list() | tuple():
            return ", ".join(_words(name, v) for v in value)
    return str(value)


def print_measurable(found: "Sequence[Measurable]") -> None:
    print("\nWhat can be measured here")
    for part in found:
        print(f"- {part.quantity}: {part.sentence}")


def print_models() -> None:
    from bench.catalogue import CATALOGUE

    table = Table(title="DeepSeek variants")
    for column in ("name", "parameters", "active", "native", "context", "cache per token", "licence", "repository"):
        table.add_column(column)
    for entry in CATALOGUE:
        table.add_row(*entry.row())
    show(console(), table)


def print_tasks(json: bool) -> None:
    from tasks import TASKS

    if json:
        listed = [
            {
                "name": t.name,
                "title": t.title,
                "language": t.language,
                "kind": t.kind,
                "metric": t.metric,
                "scorings": t.scorings,
                "version": t.version,
                "licence": t.licence,
                "source": t.source,
                "synthetic": t.synthetic,
                "public": t.public,
                "citation": t.citation,
            }
            for t in TASKS.values()
        ]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(listed), indent=2).decode() + "\n")
        return
    table = Table(title="Tasks")
    for column in ("name", "language", "what", "headline", "scoring", "data"):
        table.add_column(column)
    for t in TASKS.values():
        data = "embedded, synthetic, not clinician-reviewed" if t.synthetic else t.licence
        table.add_row(t.name, t.language, t.title, t.metric, ", ".join(t.scorings), data)
    show(console(), table)


def print_power(margin: float, json: bool) -> None:
    """Items that a non-inferiority claim and a difference need, by share of discordant answers."""
    from results.stats import required_items

    rows = [
        {"discordance": psi, "non_inferiority_items": required_items(margin, psi)}
        for psi in (0.02, 0.05, 0.1, 0.2, 0.3)
    ]
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        return
    table = Table()
    table.add_column("answers that differ")
    table.add_column("items")
    for row in rows:
        table.add_row(f"{row['discordance']:.0%}", f"{row['non_inferiority_items']:,}")
    out = console()
    out.print(f"Items for the claim `not worse by more than {100 * margin:g} points` (one-sided 5 %, power 80 %)")
    show(out, table)


def print_verify(run: RunDir, json: bool) -> int:
    """Verdicts and integrity; status 3 when a file was edited since the run was sealed."""
    from results.judging import heard
    from results.validity import judge

    manifest, edits = run.manifest(), run.edits()
    findings = {
        cell.id: judge(
            manifest, cell, run.cell(cell.id).events(), run.cell(cell.id).telemetry(), run.cell(cell.id).scores()
        )
        for cell in manifest.cells
    }
    if json:
        seal = run.measurement_sha256()
        found = {"edits": edits, "measurement_sha256": seal, "findings": findings, "judge": heard(run)}
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _print_findings(edits, run.measurement_sha256(), findings)
        for sentence in heard(run):
            console().print(sentence, markup=False)
    return 3 if edits else 0


def _print_findings(edits: list[str], seal: str | None, findings: dict[str, Any]) -> None:
    out = console()
    out.print("Files: whole, as sealed." if not edits else "Files: NOT as sealed:")
    for sentence in edits:
        out.print(f"  {sentence}")
    if seal:
        out.print(f"Measurement seal{', as sealed' if edits else ''}: {seal}")
    table = Table(title="Validity")
    for column in ("cell", "step", "rule", "severity", "verdict", "observed", "threshold", "meaning"):
        table.add_column(column)
    for cell, found in findings.items():
        for f in found:
            if f.verdict in ("fail", "unknown"):
                table.add_row(
                    cell, f.step or "", f.rule, f.severity, f.verdict, str(f.observed), str(f.threshold), f.sentence
                )
    show(out, table)
