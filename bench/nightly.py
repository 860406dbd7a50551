"""One night: every deployment several times in random order, judged against the history, doubtful figures confirmed at once.

A block is an ordinary run of the whole suite with the deployments in an order drawn from the night and the block; so a block that was
cut is resumed like any run, and nothing here measures by itself.
"""

import math
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import session
from bench.cli import GATE_FAILED, OK
from bench.config import ConfigError, Suite, load_suite
from bench.probe import probe_suite
from bench.runner import Watcher
from results.export import export_run
from results.nightly import history
from results.nightly.night import Blocks, Key, Night, judge_again, judge_night, quiet_blocks, ratios
from results.nightly.page import one_line, write_night
from results.store import RunDir, StoreError, write_atomically

NAME = re.compile(r"\w[\w .+-]*")


def tonight(suite: Path, base: Path, folder: Path, label: str | None, download: bool) -> int:
    """Run and judge one night; prints one line of JSON, says the reasons on stderr, returns the exit status."""
    judged = run_night(load_suite(suite), base, folder, label, session.Wishes(download=download), Watcher())
    written = write_night(judged, folder / "nights" / judged.night)
    write_benchmarks(judged, folder)
    sys.stdout.write(one_line(judged).decode() + "\n")
    for words in judged.regressions:
        print(f"regression: {words}", file=sys.stderr)
    print(f"night: {written}", file=sys.stderr)
    return GATE_FAILED if judged.verdict == "regression" else OK


def write_benchmarks(judged: Night, folder: Path) -> None:
    """The night's first block as pytest-benchmark JSON, for `pytest-benchmark compare` between nights."""
    runs = sorted((folder / "runs").glob(f"*_{judged.suite}-night-{judged.night}-b1"))
    (data,) = export_run(runs[-1], "pytest-benchmark").values()
    write_atomically(folder / "nights" / judged.night / "benchmark.json", data)


def run_night(
    suite: Suite, base: Path, folder: Path, label: str | None, wishes: session.Wishes, watcher: Watcher
) -> Night:
    """Run tonight's blocks (those that are missing), judge them, confirm what one night put in doubt."""
    # A night is about change: nobody reads a second opinion, or a search for the smallest memory, of each block.
    suite = msgspec.structs.replace(suite, judge=None, similarity=None, smallest_memory=False)
    options = suite.nightly
    names = [d.name for d in suite.deployments]
    if options.control is not None and options.control not in names:
        raise ConfigError(
            f"{suite.name}: [nightly] control `{options.control}` is no deployment; there are {', '.join(names)}"
        )
    night = label or datetime.now(UTC).strftime("%Y-%m-%d")
    for what, name in (("--night", night), ("a suite's `name`", suite.name)):
        if not NAME.fullmatch(name) or "-night-" in name:
            raise ConfigError(
                f"{what} {name!r}: runs of a night are named after it; begin with a letter or a digit, then use these, "
                "blanks and `._+-`, but not `-night-`"
            )
    try:
        (folder / "runs").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); give another folder with --history"
        ) from error
    with session.Lock(RunDir(folder)):
        before, _ = entries_of(folder)
        turned = in_turn(suite, len({e.night for e in before if e.suite == suite.name and e.night < night}))
        for block in range(1, options.blocks + 1):
            run_block(turned, base, folder, f"{suite.name}-night-{night}-b{block}", wishes, watcher)
        for block in range(options.blocks + 1, options.blocks + 1 + options.spare_blocks):
            if quiet_tonight(folder, suite.name, night) >= options.blocks:
                break
            run_block(turned, base, folder, f"{suite.name}-night-{night}-b{block}", wishes, watcher)
        unprobed = run_probe(suite, base, folder, f"{suite.name}-night-{night}-p1", wishes, watcher)
        found, broken = entries_of(folder)
        judged = judge_night(found, suite.name, night, options.control, broken, unprobed)
        if judged.candidates:
            judged = _confirmed(judged, turned, base, folder, wishes, watcher)
        history.write(folder / "history.parquet", entries_of(folder)[0])
    return judged


def entries_of(folder: Path) -> tuple[list[history.Entry], list[str]]:
    """What the history holds: the Parquet file, and the runs that it does not hold yet; made anew where it cannot be read."""
    import duckdb

    known: list[history.Entry] = []
    try:
        known = history.read(folder / "history.parquet")
    except (duckdb.Error, TypeError):
        known = []
    have = {e.run for e in known if e.outcome == "ok"}
    known = [e for e in known if e.run in have]
    broken: list[str] = []
    for path in sorted((folder / "runs").iterdir()):
        if path.name in have or not history.RUN_NAME.fullmatch(path.name):
            continue
        try:
            known += history.read_run(RunDir(path))
        except StoreError as error:
            broken.append(str(error))
    return known, broken


def quiet_tonight(folder: Path, suite: str, night: str) -> int:
    """Blocks of the night in which nobody else disturbed the machine."""
    entries, _ = entries_of(folder)
    return len(quiet_blocks(e for e in entries if e.suite == suite and e.night == night).get(night, ()))


def in_turn(suite: Suite, nights_before: int) -> Suite:
    """Each night asks the next part of every task's pool: `limit` items further on in the shuffled order, going round."""
    tasks = {}
    for name, options in suite.task_options().items():
        step = options.limit or suite.limit or 0
        tasks[name] = msgspec.structs.replace(options, offset=options.offset + nights_before * step)
    return msgspec.structs.replace(suite, tasks=tasks)


def run_probe(suite: Suite, base: Path, folder: Path, name: str, wishes: session.Wishes, watcher: Watcher) -> str:
    """Run the determinism probe, or go on with it; returns why there is none, else nothing."""
    probe = probe_suite(session.prepare(suite, base, wishes))
    if isinstance(probe, str):
        return probe
    run_block(probe, base, folder, name, wishes, watcher)
    return ""


def _begun(runs: Path, name: str) -> list[Path]:
    """The block's runs that have a plan. A folder that was cut before its manifest stood holds nothing that was measured, and goes."""
    there = sorted(runs.glob(f"*_{name}"))
    for path in there:
        if not (path / "manifest.json").exists():
            shutil.rmtree(path)
    return [path for path in there if path.exists()]


def run_block(suite: Suite, base: Path, folder: Path, name: str, wishes: session.Wishes, watcher: Watcher) -> None:
    """Run one block, or go on with it where it was cut. The order of the deployments comes from its name."""
    together = suite.nightly.together
    there = _begun(folder / "runs", name)
    if there:
        run = RunDir(there[-1])
        if run.seal_sha256() is None:
            session.execute(session.reopen(run, session.Wishes()), run, wishes, watcher, together)
        return
    deployments = list(suite.deployments)
    random.Random(name).shuffle(deployments)
    shuffled = msgspec.structs.replace(suite, deployments=tuple(deployments))
    prepared = session.prepare(shuffled, base, wishes)
    run = session.start(prepared, folder / "runs", name)
    session.execute(prepared, run, wishes, watcher, together)


def _confirmed(
    judged: Night, suite: Suite, base: Path, folder: Path, wishes: session.Wishes, watcher: Watcher
) -> Night:
    """Re-run only what is in doubt, interleaved with the control, and judge it again."""
    wanted = {key.deployment for key in judged.candidates} | (
        {suite.nightly.control} if suite.nightly.control else set()
    )
    part = msgspec.structs.replace(suite, deployments=tuple(d for d in suite.deployments if d.name in wanted))
    for block in range(1, (suite.nightly.confirm_blocks or 2 * suite.nightly.blocks) + 1):
        run_block(part, base, folder, f"{suite.name}-night-{judged.night}-c{block}", wishes, watcher)
    entries, _ = entries_of(folder)
    return judge_again(judged, {key: reruns(entries, judged, key, suite.nightly.control) for key in judged.candidates})


def reruns(entries: Sequence[history.Entry], judged: Night, key: Key, control: str | None) -> list[float]:
    """Log ratios of the confirmation blocks of tonight."""
    values: dict[str, Blocks] = defaultdict(lambda: defaultdict(dict))
    for e in entries:
        same = (e.task, e.load, e.metric) == (key.task, key.load, key.metric)
        if e.suite == judged.suite and e.night == judged.night and e.arm == "c" and same and e.value:
            values[e.deployment][e.block][e.repeat] = math.log(e.value)
    return ratios(values[key.deployment], values[control] if control is not None else None)
