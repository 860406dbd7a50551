"""Command line: read arguments, call one function, print. Exit status: 0 all well, 1 a cell did not end `ok`, 2 the user can
mend it, 3 a regression or a gate not passed, 130 interrupted (the run can be resumed)."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import typer

from bench.config import ConfigError

if TYPE_CHECKING:
    from results.store import RunDir

OK, CELL_FAILED, USER_ERROR, GATE_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
RUNS = Path("results/runs")
SUITES = Path(__file__).parent / "suites"

app = typer.Typer(
    help="Which DeepSeek variant to run on which machine, and what a correct answer costs. With no command: the demo suite.",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder for runs.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]
Meters = Annotated[
    Path | None, typer.Option("--meters", help="What else to read (TOML): GPUs by UUID, redfish, ipmi, declared watts.")
]
RunPath = Annotated[Path, typer.Argument(help="A run's folder.")]


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns the exit status. Only what is our own fault leaves a traceback."""
    from hardware import HardwareError
    from results.store import StoreError

    try:
        result = app(args=sys.argv[1:] if argv is None else argv, prog_name="run_bench.py", standalone_mode=False)
        return int(result or OK)
    except (ConfigError, HardwareError, StoreError) as error:
        return complain(str(error))
    except typer.Exit as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except MemoryError:
        return complain("out of memory; what was measured so far is kept, resume with --resume when there is more")
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            return complain(
                f"{error.filename or 'the disk'}: {error.strerror}; what was measured so far is kept, resume with "
                "--resume (a night: with the same command)"
            )
        raise
    except Exception as error:
        if usage := _usage_message(error):
            return complain(usage)
        raise


_DISK_ERRORS = {28, 30, 13, 122, 27}  # no space, read-only, permission, quota, file too large


def complain(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return USER_ERROR


def _usage_message(error: Exception) -> str | None:
    """Typer reports a wrong command line by exceptions of its parser, which all format themselves."""
    formatted = getattr(error, "format_message", None)
    if not callable(formatted):
        return None
    said = str(formatted())
    if found := re.fullmatch(r"No such command '(.+\.toml)'\.", said):
        said = f"No such command '{found[1]}'; to run a suite: run {found[1]}"
    return f"{said} (see --help)"


def emit(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def stop(code: int) -> NoReturn:
    raise typer.Exit(code)


def suite_path(name: str) -> tuple[Path, Path]:
    """The suite's file and the folder from which its relative paths are meant."""
    given = Path(name)
    if given.suffix == ".toml" or given.exists():
        return given, given.parent
    built_in = SUITES / f"{name}.toml"
    if built_in.exists():
        return built_in, Path.cwd()
    known = ", ".join(sorted(p.stem for p in SUITES.glob("*.toml")))
    raise ConfigError(f"{name}: no such suite; built in are {known}; or give a TOML file")


@app.callback(invoke_without_command=True)
def root(context: typer.Context) -> int:
    if context.invoked_subcommand is None:
        return run()
    return OK


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite's name or a TOML file.")] = "demo",
    out: Out = RUNS,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; else the suite's.")] = None,
    only: Annotated[str, typer.Option("--only", help="Only deployments whose name fits this pattern.")] = "*",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many samples of each task.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with this run: only what is missing.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of item order, sampling and arrivals.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Permit fetching models and data.")] = False,
    tariff: Annotated[Path | None, typer.Option("--tariff", help="Prices for the report.")] = None,
    meters: Meters = None,
) -> int:
    """Run a suite: every deployment in a process of its own, then the report."""
    from bench import session
    from bench.config import load_suite
    from hardware import describe_host, load_options, with_memory_bandwidth
    from results.store import RunDir

    more = load_options(meters) if meters else None
    wishes = session.Wishes(only=only, limit=limit, seed=seed, download=download, meters=more)
    if resume:
        folder = RunDir(resume)
        if wishes != session.Wishes(download=download) or name or suite != "demo" or out != RUNS:
            raise ConfigError(
                "--resume goes on with a run as it was planned; leave out everything but --download and --tariff"
            )
        wishes = session.Wishes(download=download)
        prepared = session.reopen(folder, wishes)
    else:
        path, base = suite_path(suite)
        asked = load_suite(path)
        machine = with_memory_bandwidth(describe_host()) if "speed" in asked.task_options() else None
        prepared = session.prepare(asked, base, wishes, machine)
        folder = session.start(prepared, out, name)
    print(f"run: {folder.path}", file=sys.stderr)
    watcher = _watcher(prepared)
    try:
        outcomes = session.execute(prepared, folder, wishes, watcher)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with: run --resume {folder.path}", file=sys.stderr)
        return INTERRUPTED
    finally:
        getattr(watcher, "close", lambda: None)()
    written = _write_report([folder.path], folder.path, tariff or _tariff_of(prepared), "en")
    _say_end(folder, outcomes, written)
    silent = prepared.judge is not None and _say_unheard(folder)
    return OK if all(o == "ok" for o in outcomes.values()) and not silent else CELL_FAILED


@app.command()
def plan(
    suite: Annotated[str, typer.Argument(help="A built-in suite's name or a TOML file.")],
    json: Json = False,
    host: Annotated[Path | None, typer.Option("--host", help="A described machine (TOML) instead of this one.")] = None,
    only: Annotated[str, typer.Option("--only", help="Only deployments whose name fits this pattern.")] = "*",
    limit: Annotated[int | None, typer.Option("--limit", min=1)] = None,
) -> int:
    """Say what would run, what will not fit and why, and about how long it takes. Loads nothing."""
    from bench import session, tables
    from bench.config import load_suite
    from hardware import load_host

    path, base = suite_path(suite)
    machine = load_host(host) if host else None
    wishes = session.Wishes(only=only, limit=limit, weights_elsewhere=machine is not None)
    prepared = session.prepare(load_suite(path), base, wishes, machine)
    if json:
        emit([c.facts for c in prepared.cells])
    else:
        tables.print_plan(prepared)
    return OK


@app.command()
def host(
    json: Json = False,
    egress: Annotated[
        bool, typer.Option("--egress", help="Run a small suite and show that nothing leaves this machine.")
    ] = False,
    meters: Meters = None,
) -> int:
    """Describe this machine: parts, sensors with their evidence class, engines, and what is missing."""
    if egress:
        from bench import commands

        return commands.egress(json)
    from bench import tables
    from hardware import describe_host, load_options, measurable, options_from, sensors

    options = options_from(load_options(meters), str(meters)) if meters else None
    described, found = describe_host(), sensors(options)
    engines = tables.engines()
    if json:
        emit({"host": described, "sensors": found, "measurable": measurable(found), "engines": engines})
    else:
        tables.print_host(described, found, engines)
        tables.print_measurable(measurable(found))
    return OK


@app.command()
def models(json: Json = False) -> int:
    """The catalogue of DeepSeek variants: size, shape, licence, rules of use, with sources."""
    from bench import tables
    from bench.catalogue import CATALOGUE

    if json:
        emit(CATALOGUE)
    else:
        tables.print_models()
    return OK


@app.command()
def tasks(
    json: Json = False,
    power: Annotated[bool, typer.Option("--power", help="How many items a comparison needs.")] = False,
    margin: Annotated[
        float, typer.Option("--margin", min=0.001, max=0.5, help="Non-inferiority margin, as a share.")
    ] = 0.02,
) -> int:
    """The clinical suite; with --power the sample sizes that a claim needs."""
    from bench import tables

    if power:
        tables.print_power(margin, json)
    else:
        tables.print_tasks(json)
    return OK


@app.command()
def score(run: RunPath) -> int:
    """Judge the raw answers again, with the scorers of this version."""
    from bench import judge, session
    from bench.score import score_cell
    from results.store import RunDir

    folder = RunDir(run)
    manifest = folder.manifest()
    if not manifest.store_text or manifest.suite.get("redact"):
        raise ConfigError(f"{run}: this run did not keep its texts whole, so its answers cannot be judged again")
    if edits := folder.edits():
        raise ConfigError(f"{run}: {edits[0]}; a run that is not whole is not scored again")
    prepared = session.reopen(folder, session.Wishes())
    with session.Lock(folder):
        for cell in prepared.cells:
            cell_dir = folder.cell(cell.facts.id)
            if cell_dir.path.exists():
                cell_dir.write_scores(score_cell(cell, prepared.data, cell_dir.events(), prepared.suite.seed))
        judge.judge_again(prepared, folder)
        folder.seal()
    if (run / "rows.csv").exists():  # it tells the scores of before
        _write_report([run], run, _tariff_of(prepared), "en")
    print(f"scored again: {run}", file=sys.stderr)
    return OK


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several make one page.")],
    tariff: Annotated[Path | None, typer.Option("--tariff", help="Prices (TOML); else the shipped example.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; else into the (first) run.")] = None,
    lang: Annotated[str, typer.Option("--lang", help="en or zh.")] = "en",
) -> int:
    """Write rows.csv, report.html, report.md, curve.svg and curve.png."""
    print(_write_report(runs, out or runs[0], tariff, lang))
    return OK


@app.command()
def verify(run: RunPath, json: Json = False) -> int:
    """Integrity of the files and validity of every cell, rule by rule."""
    from bench import tables
    from results.store import RunDir

    return tables.print_verify(RunDir(run), json)


def _watcher(prepared: Any) -> Any:
    from bench.show import LiveWatcher, PlainWatcher

    kind = LiveWatcher if sys.stderr.isatty() else PlainWatcher
    return kind(prepared.cells)


def _tariff_of(prepared: Any) -> Path | None:
    return prepared.base / prepared.suite.tariff if prepared.suite.tariff else None


def _write_report(runs: list[Path], out: Path, tariff: Path | None, lang: str) -> Path:
    from results.report import write_report
    from results.store import DERIVED, RunDir

    if lang not in ("en", "zh"):
        raise ConfigError(f"--lang {lang}: only en and zh are there")
    written = write_report(runs, out, tariff, lang)
    if out.resolve() in {r.resolve() for r in runs}:
        RunDir(out).reseal(DERIVED)
    return written


def _say_end(run: "RunDir", outcomes: Mapping[str, str], written: Path) -> None:
    for cell, outcome in outcomes.items():
        if outcome != "ok":
            ended = run.cell(cell).ended()
            why = ended.detail.partition("\n")[0] if ended else ""
            print(f"{cell}: {outcome}{f', {why}' if why else ''}", file=sys.stderr)
    print(f"report: {written}")


def _say_unheard(run: "RunDir") -> bool:
    """Whether summaries were left without the judge that the suite asks for."""
    from results.judging import unheard

    reasons = unheard(run)
    for reason in reasons:
        print(f"judge: {reason}", file=sys.stderr)
    return bool(reasons)


@app.command()
def compare(
    base: RunPath,
    candidate: RunPath,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Compare although this differs: data, prompts, scorer, sampling, scoring."),
    ] = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0.001, max=0.5, help="Non-inferiority margin, as a share.")
    ] = 0.02,
    gate: Annotated[
        Path | None, typer.Option("--gate", help="Thresholds (TOML); status 3 when one is not kept.")
    ] = None,
    base_deployment: Annotated[str | None, typer.Option("--base-deployment", help="Only this one of the base.")] = None,
    candidate_deployment: Annotated[
        str | None, typer.Option("--candidate-deployment", help="Only this one of the candidate.")
    ] = None,
    tariff: Annotated[Path | None, typer.Option("--tariff", help="Prices (TOML); else the shipped example.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the comparison to this Markdown file too.")] = None,
    json: Json = False,
) -> int:
    """Compare two runs, or two deployments of one run, item by item."""
    from bench import commands
    from results.compare import Level, Options

    options = Options(
        level=Level(margin=margin),
        allow=tuple(allow or ()),
        base_deployment=base_deployment,
        candidate_deployment=candidate_deployment,
        tariff=tariff,
    )
    return commands.compare(base, candidate, options, gate, json, out)


@app.command()
def accept(
    spec: Annotated[Path, typer.Argument(help="A specification (TOML).")],
    run: RunPath,
    out: Annotated[Path | None, typer.Option("--out", help="The page to sign; else acceptance_RUN.html here.")] = None,
    json: Json = False,
) -> int:
    """Judge a delivered machine against a written specification, clause by clause."""
    from bench import commands

    return commands.accept(spec, run, json, out)


@app.command()
def recommend(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    demand: Annotated[Path, typer.Option("--demand", help="Load, times and accuracy that are needed (TOML).")],
    tariff: Annotated[
        Path | None, typer.Option("--tariff", help="Prices (TOML); else the demand's, else the example.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for recommendation.html and .md; else here.")
    ] = None,
    lang: Annotated[str, typer.Option("--lang", help="en or zh.")] = "en",
    json: Json = False,
) -> int:
    """What to run, and how many of it, for a given load and accuracy; status 3 when nothing that was measured will do."""
    from bench import commands

    return commands.recommend(runs, demand, tariff, out or Path(), lang, json)


@app.command()
def export(
    run: RunPath,
    to: Annotated[str, typer.Option("--to", help="csv, parquet, pytest-benchmark, lm-eval or junit.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File (lm-eval: folder) to write; else named after the run."),
    ] = None,
    tariff: Annotated[
        Path | None, typer.Option("--tariff", help="Prices (TOML) for csv and parquet; else the shipped example.")
    ] = None,
) -> int:
    """Write a run in a format of others."""
    from bench import commands

    return commands.export(run, to, out, tariff)


@app.command()
def nightly(
    suite: Annotated[str, typer.Argument(help="A built-in suite's name or a TOML file.")],
    history: Annotated[Path, typer.Option("--history", help="Folder of the nights so far.")],
    night: Annotated[
        str | None,
        typer.Option("--night", help="Its name, nights follow in the order of their names; else today's date (UTC)."),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Permit fetching models and data.")] = False,
) -> int:
    """Run the suite as tonight's blocks, judge them against the history; status 3 on a regression."""
    from bench.nightly import tonight

    return tonight(*suite_path(suite), history, night, download)
