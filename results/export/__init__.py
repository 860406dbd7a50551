"""A run in the formats of others: tables (CSV, Parquet) that can be read back, pytest-benchmark, lm-evaluation-harness, JUnit."""

from pathlib import Path
from typing import Literal, get_args

from results.load import load, tariff_for, variants
from results.montecarlo import Variant, draws_of_page, simulate, with_ranges
from results.rows import Row, read_rows, to_csv
from results.store import RunDir, StoreError

Format = Literal["csv", "parquet", "pytest-benchmark", "lm-eval", "junit"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIX: dict[Format, str] = {
    "csv": ".csv",
    "parquet": ".parquet",
    "pytest-benchmark": ".json",
    "lm-eval": "",
    "junit": ".xml",
}
"""lm-evaluation-harness has one file for each model, so that its export is a folder."""


def export_run(path: Path, to: Format, tariff: Path | None = None) -> dict[str, bytes]:
    """The files of an export by their names, relative to where they are written; a single file has the empty name.

    Raises `StoreError` for a folder that is no run, or a run that has nothing which the format can hold.
    """
    run = RunDir(path)
    match to:
        case "csv":
            return {"": to_csv(priced_rows(run, tariff)).encode()}
        case "parquet":
            from results.export.parquet import to_parquet

            return {"": to_parquet(priced_rows(run, tariff))}
        case "pytest-benchmark":
            from results.export.benchmarks import benchmarks_json

            manifest = run.manifest()
            return {"": benchmarks_json(manifest, load(run, manifest))}
        case "lm-eval":
            from results.export.harness import results_files

            manifest = run.manifest()
            return results_files(manifest, load(run, manifest))
        case "junit":
            from results.export.junit import junit_xml

            manifest = run.manifest()
            return {"": junit_xml(manifest, load(run, manifest))}


def import_rows(path: Path) -> tuple[Row, ...]:
    """Rows from an exported CSV or Parquet file; the same that were exported. Raises `StoreError`."""
    match path.suffix:
        case ".csv":
            return read_rows(path)
        case ".parquet":
            from results.export.parquet import from_parquet

            return from_parquet(path)
        case _:
            raise StoreError(f"{path}: only .csv and .parquet can be read back")


def priced_rows(run: RunDir, tariff: Path | None) -> tuple[Row, ...]:
    """The rows of the run with their costs and intervals, as the report has them."""
    manifest = run.manifest()
    prices = tariff_for(manifest, tariff)
    found: list[Variant] = [v for cell in load(run, manifest) for v in variants(cell, prices)]
    if not found:
        return ()
    draws = simulate(found, draws=draws_of_page(len(found)))
    return tuple(with_ranges(v.row, draws, v.name) for v in found)
