"""`bedside_cell` for pytest: one cell of a suite, run like any, for tests to assert on its rows (docs/nightly.md)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from bench.config import Suite
    from results.load import LoadedCell
    from results.records import Outcome
    from results.rows import Row
    from results.validity import Finding

TOLD = ("step", "model", "quantisation", "engine", "engine_version", "device", "accuracy", "accuracy_lo", "accuracy_hi",
        "output_tokens_per_s", "energy_per_sample_j", "power_class", "valid")  # fmt: skip
"""Of the first row, in pytest-benchmark's `extra_info`."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that was run: its steps as rows, in the order of the suite's loads."""

    outcome: "Outcome"
    rows: "tuple[Row, ...]"
    verdicts: "tuple[Finding, ...]"
    """Of every validity rule on every step that ended."""
    folder: Path
    """The sealed run; `report`, `verify` and `compare` work on it."""


class Bedside:
    """Runs cells for one test. Called as `bedside_cell("my.toml", deployment="q4", task="clinical_qa_en", limit=20)`."""

    def __init__(self, here: Path, out: Path, benchmark: Any) -> None:
        self._here, self._out, self._benchmark = here, out, benchmark

    def __call__(self, suite: str | Path, *, deployment: str, task: str, limit: int | None = None) -> Cell:
        """Run one deployment on one task; a mistake in the suite fails the test with its one sentence.

        A path is meant from the test's file; a name that is no file there is a built-in suite. The first cell of a test that
        asks for `benchmark` too hands it the seconds of the requests of its first step.
        """
        from bench.config import ConfigError
        from results.store import StoreError

        try:
            loaded, outcome = _run(self._path(suite), self._out, deployment, task, limit)
        except (ConfigError, StoreError) as error:
            pytest.fail(str(error), pytrace=False)
        if self._benchmark is not None:
            _hand_over(self._benchmark, loaded)
            self._benchmark = None
        return _cell(loaded, outcome)

    def _path(self, suite: str | Path) -> str:
        beside = self._here / suite
        return str(beside if beside.exists() else suite)


@pytest.fixture
def bedside_cell(request: pytest.FixtureRequest, tmp_path: Path) -> Bedside:
    """Runs one cell of a suite and gives its rows, verdicts and folder."""
    benchmark = request.getfixturevalue("benchmark") if "benchmark" in request.fixturenames else None
    return Bedside(request.path.parent, tmp_path / "bedside", benchmark)


def _run(suite: str, out: Path, deployment: str, task: str, limit: int | None) -> "tuple[LoadedCell, Outcome]":
    from bench import session
    from bench.cli import suite_path
    from bench.config import load_suite
    from bench.runner import Watcher
    from results.load import load

    path, base = suite_path(suite)
    wishes = session.Wishes(limit=limit)
    prepared = session.prepare(_only(load_suite(path), deployment, task), base, wishes)
    run = session.start(prepared, out, None)
    (outcome,) = session.execute(prepared, run, wishes, Watcher()).values()
    (loaded,) = load(run, run.manifest())
    return loaded, outcome


def _only(suite: "Suite", deployment: str, task: str) -> "Suite":
    """The suite with one deployment and one task left. Raises `ConfigError` that names what there is."""
    from bench.config import ConfigError

    options = suite.task_options()
    chosen = tuple(d for d in suite.deployments if d.name == deployment)
    if not chosen:
        raise ConfigError(f"{suite.name}: no deployment `{deployment}`; it has {_names(suite.deployments)}")
    if task not in options:
        raise ConfigError(f"{suite.name}: no task `{task}`; it has {', '.join(options)}")
    return msgspec.structs.replace(suite, deployments=chosen, tasks={task: options[task]})


def _names(deployments: Sequence[Any]) -> str:
    return ", ".join(d.name for d in deployments)


def _cell(loaded: "LoadedCell", outcome: "Outcome") -> Cell:
    from results.validity import judge_step

    return Cell(
        outcome=outcome,
        rows=loaded.rows,
        verdicts=tuple(finding for view in loaded.views for finding in judge_step(view)),
        folder=loaded.path.parents[1],
    )


def _hand_over(benchmark: Any, loaded: "LoadedCell") -> None:
    """Into pytest-benchmark's own statistics; it has no public way to take times that were measured elsewhere."""
    from results.export.benchmarks import durations

    benchmark.extra_info |= {name: getattr(loaded.rows[0], name) for name in TOLD}
    benchmark._mode = "bedside_cell(...)"  # else it warns that it was not used
    seconds = durations(loaded.views[0])
    if benchmark.enabled and seconds:
        stats = benchmark._make_stats(iterations=1)
        for value in seconds:
            stats.update(value)
