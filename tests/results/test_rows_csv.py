"""rows.csv."""

import csv
from pathlib import Path

import pytest
from made_records import Run, manifest
from msgspec import structs

from results.rows import CONTRACT, Row, read_rows, to_csv, write_rows
from results.store import StoreError
from results.summary import fold

CONTRACT_COLUMNS = (
    "run, cell, outcome, model, family, parameters_b, quantisation, bits_per_weight, engine, engine_version, device, task, language, "
    "scoring, load, samples, scored, correct, accuracy, accuracy_lo, accuracy_hi, metric, no_answer, truncated, errors, prompt_tokens, "
    "output_tokens, think_tokens, seconds, prompt_tokens_per_s, output_tokens_per_s, ttft_p50_ms, ttft_p95_ms, tpot_p50_ms, "
    "tpot_p95_ms, e2e_p50_ms, e2e_p95_ms, load_seconds, weight_bytes, vram_reserved_bytes, vram_needed_bytes, host_memory_bytes, "
    "energy_j, mean_power_w, idle_power_w, power_class, energy_per_output_token_j, energy_per_sample_j, energy_per_correct_j, "
    "cost_per_1k_samples, cost_per_correct, currency, valid, reasons"
)


def made() -> Row:
    run = Run()
    (row,) = fold(
        manifest("smoke", run.cell_facts(), run.host), run.cell_facts(), run.events(), run.telemetry, run.scores
    )
    return row


def test_the_contract_columns_come_first_in_their_order() -> None:
    assert ", ".join(CONTRACT) == CONTRACT_COLUMNS
    header = next(csv.reader([to_csv([])]))
    assert tuple(header[: len(CONTRACT)]) == CONTRACT


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = (made(), structs.replace(made(), outcome="oom", accuracy=None, reasons=("a: b", "c; d"), valid=False))
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows


def test_unknown_is_an_empty_cell() -> None:
    cells = next(csv.DictReader(to_csv([structs.replace(made(), energy_j=None)]).splitlines()))
    assert (cells["energy_j"], cells["valid"], cells["currency"]) == ("", "true", "")


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1+cmd", "@SUM(A1)", "\t=1", "'quoted"])
def test_no_text_is_taken_for_a_formula_and_it_comes_back_whole(text: str, tmp_path: Path) -> None:
    row = structs.replace(made(), model=text, reasons=(text,))
    write_rows(tmp_path / "rows.csv", [row])
    cells = next(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines(keepends=True)))
    assert cells["model"].startswith("'")
    assert cells["reasons"].startswith("'")
    assert read_rows(tmp_path / "rows.csv") == (row,)


def test_columns_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    header, line = to_csv([made()]).splitlines()
    path.write_text(f"{header},from_the_future\n{line},1\n")
    assert read_rows(path) == (made(),)


def test_what_is_no_rows_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.csv: cannot be read"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StoreError, match=r"other\.csv, line 2: not a row of Bedside"):
        read_rows(tmp_path / "other.csv")
