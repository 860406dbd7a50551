"""What a user may ask of the meters: by file, by suite, checked before anything runs."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from hardware import HardwareError, MeterOptions, WatchedProcess, load_options, open_meters, options_from, sensors
from hardware.declared import DeclaredOptions

WATTS = """
[declared]
power_w = 350
boundary = "node_ac"
source = "the rack's meter, read by hand"
[calibrated]
rapl = 2026-10-01
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("watts = 3", "Object contains unknown field `watts`"),
        ("[calibrated]\nnvmll = 2026-10-01", "Invalid enum value"),
        ('[redfish]\nurl = "https://a:b@bmc"', "`redfish.url` holds a name or password; put them into BEDSIDE_REDFISH"),
        ("ipmi = ", "not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(HardwareError) as raised:
        load_options(tmp_path / "m.toml")
    assert str(raised.value).startswith(str(tmp_path / "m.toml"))
    assert says in str(raised.value)


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host", "--meters", "/none/m.toml"]) == 2
    assert capsys.readouterr().err.startswith("error: /none/m.toml: cannot be read")


def test_a_suites_meters_are_checked_before_anything_runs(
    write_suite: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(head="meters = { ipm = true }", good={})
    assert main(["run", str(suite), "--out", str(tmp_path / "runs")]) == 2
    assert "[meters]: Object contains unknown field `ipm`" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_was_declared_is_in_the_run_and_in_the_hosts_description(
    write_suite: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.toml").write_text(WATTS)
    suite = write_suite(head="limit = 2", good={})
    assert main(["run", str(suite), "--out", str(tmp_path / "runs"), "--meters", str(tmp_path / "m.toml")]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "manifest.json").read_text())["suite"]["meters"]["declared"]["power_w"] == 350
    (cell,) = (run / "cells").iterdir()
    lines = [json.loads(line) for line in (cell / "telemetry.jsonl").read_text().splitlines()]
    assert {t["power_w"] for t in lines if t["type"] == "Tick" and t["meter"] == "declared"} == {350.0}
    capsys.readouterr()
    assert main(["host", "--json", "--meters", str(tmp_path / "m.toml")]) == 0
    told = json.loads(capsys.readouterr().out)["sensors"][-1]
    assert (told["interface"], told["evidence"]) == ("declared", "E3")


def test_a_calibrated_meter_says_when_and_reads_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    for name, text in {"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "65532610"}.items():
        (folder / name).write_text(text)
    options = MeterOptions(calibrated={"rapl": datetime.date(2026, 10, 1)})
    meter = next(m for m in open_meters(WatchedProcess(), options, tmp_path) if m.describe().meter == "rapl")
    assert meter.describe().note.endswith("; calibrated 2026-10-01 against a wall meter")
    assert [r.energy_j for r in meter.read()] == [1.0]
    meter.close()


def test_options_survive_the_manifest() -> None:
    raw = {"calibrated": {"nvml": "2026-10-01"}, "gpus": ["GPU-1"]}
    assert options_from(raw, "x") == MeterOptions(gpus=("GPU-1",), calibrated={"nvml": datetime.date(2026, 10, 1)})


def test_the_sensors_list_what_was_declared() -> None:
    declared = DeclaredOptions(power_w=5.0, boundary="node_ac", source="test")
    assert [s.note for s in sensors(MeterOptions(declared=declared))][-1] == "declared, not measured: test"
