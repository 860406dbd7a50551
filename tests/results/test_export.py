"""A run in the formats of others, read back by their own readers where they are here."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from junitparser import JUnitXml
from made_run import FORMULA, LADDER, SCRIPT, TROUBLED, Made, steps, write_run
from msgspec import structs

from results.export import export_run, import_rows
from results.export.benchmarks import stats
from results.export.harness import sanitised
from results.export.junit import clean
from results.export.parquet import columns
from results.report import write_report
from results.rows import Row
from results.store import StoreError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), "one", (*LADDER[:2], *TROUBLED), steps(items=20))


def test_the_table_is_the_reports(run: Path, tmp_path: Path) -> None:
    write_report([run], tmp_path, None, "en")
    assert export_run(run, "csv")[""] == (tmp_path / "rows.csv").read_bytes()


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_tables_read_back_are_the_rows_that_were_written(run: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(export_run(run, "csv" if name.endswith("csv") else "parquet")[""])
    rows = import_rows(path)
    again = tmp_path / "again.parquet"
    from results.export.parquet import to_parquet

    again.write_bytes(to_parquet(rows))
    assert len(rows) == 18
    assert import_rows(again) == rows
    assert {r.outcome for r in rows} == {"ok", "oom", "crashed", "skipped", "interrupted"}


def test_csv_and_parquet_hold_the_same_rows(run: Path, tmp_path: Path) -> None:
    for to, name in (("csv", "rows.csv"), ("parquet", "rows.parquet")):
        (tmp_path / name).write_bytes(export_run(run, to)[""])  # type: ignore[arg-type]
    assert import_rows(tmp_path / "rows.csv") == import_rows(tmp_path / "rows.parquet")


def test_parquet_keeps_text_as_it_is_and_knows_nothing_from_zero(tmp_path: Path) -> None:
    from results.export.parquet import from_parquet, to_parquet

    row = Row(
        run=FORMULA, cell="c | d", outcome="ok", model=SCRIPT, task="t", language="zh", scoring="letters", load="c1", metric="acc",
        accuracy=0.1, samples=0, valid=True, reasons=("a | b", ""), step="s", deployment="甲", backend="scripted", profile="smoke",
    )  # fmt: skip
    path = tmp_path / "rows.parquet"
    path.write_bytes(to_parquet([row]))
    assert from_parquet(path) == (row,)
    path.write_bytes(to_parquet([]))
    assert from_parquet(path) == ()
    assert columns()["reasons"] == "VARCHAR[]"


@pytest.mark.parametrize(("name", "message"), [("x.parquet", "not a table"), ("x.xlsx", "only .csv and .parquet")])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    path.write_text("no")
    with pytest.raises(StoreError, match=message):
        import_rows(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        import_rows(tmp_path / "x.parquet")


def test_pytest_benchmark_compares_two_runs(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path, "two", LADDER[:2], steps(items=20))
    files = [tmp_path / "0001_one.json", tmp_path / "0002_two.json"]
    for path, source in zip(files, (run, other), strict=True):
        path.write_bytes(export_run(source, "pytest-benchmark")[""])
    program = Path(sys.executable).parent / "pytest-benchmark"
    done = subprocess.run(
        [str(program), "compare", *map(str, files), "--group-by=name", f"--csv={tmp_path / 'out.csv'}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clinical_qa_en@c1[smollm2-135m-f16]") == 3  # the group's heading and a line for each run
    assert "note_summary_en@c4[smollm2-135m-q8_0]" in done.stdout
    assert (tmp_path / "out.csv").exists()


def test_rounds_are_the_requests_and_quartiles_are_interpolated() -> None:
    found = stats([4.0, 1.0, 2.0, 3.0, 100.0])
    assert (found["rounds"], found["min"], found["max"], found["median"], found["mean"]) == (5, 1.0, 100.0, 3.0, 22.0)
    assert (found["q1"], found["q3"], found["iqr_outliers"], found["hd15iqr"]) == (2.0, 4.0, 1, 4.0)
    assert found["data"] == [4.0, 1.0, 2.0, 3.0, 100.0]
    assert stats([2.0])["stddev"] == 0.0


def test_the_harness_layout_holds_a_file_for_each_scored_model(run: Path) -> None:
    files = export_run(run, "lm-eval")
    assert {name.split("/")[0] for name in files} >= {"smollm2-135m-f16", "smollm2-135m-q8_0"}
    assert "r1-32b-q4" not in {name.split("/")[0] for name in files}
    whole = json.loads(next(data for name, data in files.items() if name.startswith("smollm2-135m-f16/")))
    tasks = {"clinical_qa_en", "note_summary_en@c1", "note_summary_en@c4"}
    for part in ("results", "versions", "n-shot", "configs", "higher_is_better", "n-samples", "group_subtasks"):
        assert set(whole[part]) == tasks, part
    found = whole["results"]["clinical_qa_en"]
    (row,) = [r for r in _rows(run) if r.deployment == "smollm2-135m-f16" and r.task == "clinical_qa_en"]
    assert found["acc_norm,none"] == row.accuracy
    p, n = found["acc_norm,none"], 20
    assert found["acc_norm_stderr,none"] == pytest.approx((p * (1 - p) / (n - 1)) ** 0.5)
    assert whole["n-samples"]["clinical_qa_en"] == {"original": 20, "effective": 20}
    assert whole["config"]["model_args"]["pretrained"] == row.model


def _rows(run: Path) -> tuple[Row, ...]:
    from results.export import priced_rows
    from results.store import RunDir

    return priced_rows(RunDir(run), None)


def test_names_become_folders_as_the_harness_makes_them() -> None:
    assert sanitised("deepseek-ai/DeepSeek-R1: a|b") == "deepseek-ai__DeepSeek-R1__ a__b"


def test_a_run_without_scores_has_nothing_for_the_harness(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing was scored"):
        export_run(write_run(tmp_path, "one", (Made(name="a", scored=False),)), "lm-eval")


def test_junit_says_what_ended_how(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.xml"
    path.write_bytes(export_run(run, "junit")[""])
    read = JUnitXml.fromfile(str(path))
    by_name = {suite.name: suite for suite in read}
    assert (read.tests, by_name["r1-32b-q4"].errors, by_name["r1-7b-q4"].errors) == (18, 3, 2)
    assert (by_name["r1-70b"].skipped, by_name["smollm2-135m-f16"].errors) == (3, 0)
    first = next(iter(by_name["r1-32b-q4"]))
    assert first.result[0].type == "oom"


def test_junit_fails_a_step_that_may_not_be_ranked(tmp_path: Path) -> None:
    run = write_run(tmp_path, "one", (structs.replace(LADDER[0], metered=False, outcome="crashed"),), steps(items=8))
    root = ElementTree.fromstring(export_run(run, "junit")[""])
    messages = [f.get("message") or "" for f in root.iter("failure")]
    assert messages
    assert all("A9: the cell ended later as crashed" in m for m in messages)


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert clean("a\x1b\x00b\ud800\U0001f600") == "a\ufffd\ufffdb\ufffd\U0001f600"
