"""Reads a run, one cell at a time, into what comparing, accepting and exporting need; nothing is kept between calls."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct, structs

from results.cost import Tariff, example_tariff, load_tariff, price_row, with_price
from results.manifest import CellFacts, Manifest
from results.montecarlo import Variant, simulate, variant_of, with_ranges
from results.rows import Row
from results.stats import Item, items_of
from results.store import RunDir, StoreError
from results.summary import row_of
from results.validity import step_views
from results.validity.base import StepView
from results.views import CellRecords, read_cell


class LoadedCell(Struct, frozen=True, kw_only=True):
    """One cell with all of its records; `views` and `rows` stand in the order of the plan, warm-ups left out."""

    path: Path
    manifest: Manifest
    records: CellRecords
    views: tuple[StepView, ...]
    rows: tuple[Row, ...]

    @property
    def facts(self) -> CellFacts:
        return self.records.facts

    @property
    def job(self) -> Path:
        """Holds the prompts, where text was kept."""
        return self.path / "job.json"


def load(run: RunDir, manifest: Manifest, cells: Sequence[CellFacts] | None = None) -> Iterator[LoadedCell]:
    """The cells of a run, all of them or those asked for; one is let go before the next is read. Raises `StoreError`."""
    for facts in manifest.cells if cells is None else cells:
        folder = run.cell(facts.id)
        records = read_cell(manifest, facts, folder.events(), folder.telemetry(), folder.scores())
        views = step_views(records)
        yield LoadedCell(
            path=folder.path,
            manifest=manifest,
            records=records,
            views=views,
            rows=tuple(row_of(view) for view in views),
        )


def find_deployment(manifest: Manifest, name: str) -> CellFacts:
    """The cell of a deployment; raises `StoreError` that lists the names there are."""
    found = next((c for c in manifest.cells if c.deployment == name), None)
    if found is None:
        known = ", ".join(c.deployment for c in manifest.cells)
        raise StoreError(f"{manifest.run}: no deployment `{name}`; it has {known}")
    return found


def tariff_for(manifest: Manifest, path: Path | None) -> Tariff:
    """The tariff (without a path: the shipped example) with the machine entry that bears the host's name, else the one that it chooses."""
    tariff = load_tariff(path) if path else example_tariff()
    host = str(manifest.host.get("name") or "")
    if host not in tariff.machines or host == tariff.machine:
        return tariff
    return load_tariff(path, host) if path else example_tariff(machine=host)


def variants(cell: LoadedCell, tariff: Tariff) -> tuple[Variant, ...]:
    """Each row with its point costs, the tariff and the scores of its items."""
    return tuple(
        variant_of(with_price(row, price_row(row, tariff)), tariff, view.step.scores)
        for row, view in zip(cell.rows, cell.views, strict=True)
    )


def ranged_variants(cell: LoadedCell, tariff: Tariff) -> tuple[Variant, ...]:
    """The same with the intervals of the costs, all rows of the cell drawn together."""
    found = variants(cell, tariff)
    draws = simulate(found) if found else None
    return tuple(structs.replace(v, row=with_ranges(v.row, draws, v.name)) for v in found) if draws else ()


def items(views: Sequence[StepView]) -> tuple[Item, ...]:
    """Mean score of each item over its answers and over the repeats of a step."""
    scores = [(s.sample, s.cluster, s.value) for v in views for s in v.step.scores if s.value is not None]
    return items_of(scores, early=any(v.step.sequential for v in views))
