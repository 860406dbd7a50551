"""Whole rows against plain arithmetic on the raw records, written without any of the product's code."""

import csv
import tomllib
from pathlib import Path

import by_hand
import pytest
from made_run import LADDER, write_run

from results.report import write_report

ROOT = Path(__file__).parents[2]
TARIFF = ROOT / "results" / "tariffs" / "example-us.toml"
STEPS = ("clinical_qa_en@c1", "note_summary_en@c1", "note_summary_en@c4")
BOOTSTRAPPED = {"accuracy_lo", "accuracy_hi"}
"""Of graded scores."""
COUNTS_OF_FLAGS = {"loops", "think_unclosed", "think_empty", "steady_energy_per_output_token_j"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("run"), "one", LADDER[1:2])
    write_report([run], run, TARIFF, "en")
    return run


@pytest.mark.parametrize("step", STEPS)
def test_every_figure_of_a_row_is_what_plain_arithmetic_gives(run: Path, step: str) -> None:
    raw = by_hand.read(run, "smollm2-135m-q8_0-abc123", step)
    by_column = {f.column: f.value for f in by_hand.figures(raw, tomllib.loads(TARIFF.read_text(encoding="utf-8")))}
    (row,) = [r for r in rows_of(run) if r["step"] == step]
    assert {c: by_hand.SHOWN.format(float(row[c])) for c in by_column} == {
        c: by_hand.SHOWN.format(v) for c, v in by_column.items()
    }
    left = {c for c, text in row.items() if is_number(text) and c not in by_column}
    assert left - by_hand.COPIED - by_hand.DRAWN - COUNTS_OF_FLAGS <= (set() if step == STEPS[0] else BOOTSTRAPPED)


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "rows.csv").read_text(encoding="utf-8").splitlines()))


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_the_page_is_made_only_of_figures_that_agree(run: Path) -> None:
    page = by_hand.page(run, "smollm2-135m-q8_0-abc123", STEPS[0], TARIFF)
    assert "| `cost_per_correct` |" in page
    rows = run / "rows.csv"
    text = rows.read_text(encoding="utf-8")
    (row,) = [r for r in csv.DictReader(text.splitlines()) if r["step"] == STEPS[0]]
    rows.write_text(text.replace(row["energy_j"], "123.5"), encoding="utf-8")
    try:
        with pytest.raises(SystemExit, match=r"energy_j: .* by hand, 123.5 in rows.csv"):
            by_hand.page(run, "smollm2-135m-q8_0-abc123", STEPS[0], TARIFF)
    finally:
        rows.write_text(text, encoding="utf-8")


def test_the_shipped_page_has_every_column_that_the_program_makes(run: Path) -> None:
    shipped = (ROOT / "docs" / "worked-example.md").read_text(encoding="utf-8")
    made = by_hand.page(run, "smollm2-135m-q8_0-abc123", STEPS[0], TARIFF)
    assert set(columns(made)) <= set(columns(shipped))


def columns(page: str) -> list[str]:
    return [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
