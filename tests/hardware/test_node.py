"""Whole-node sensors: a Redfish controller played by a local server in both forms, and ipmitool's output."""

import base64
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hardware import ipmi
from hardware.redfish import RedfishError, RedfishMeter, RedfishOptions, power_of, report

# Shapes and values of DMTF/Redfish-Mockup-Server 9a86585, public-rackmount1/Chassis/1U.
CHASSIS = {"Members": [{"@odata.id": "/redfish/v1/Chassis/1U"}], "Members@odata.count": 1}
ENVIRONMENT = {
    "@odata.type": "#EnvironmentMetrics.v1_3_0.EnvironmentMetrics",
    "PowerWatts": {"Reading": 374, "DataSourceUri": "/redfish/v1/Chassis/1U/Sensors/TotalPower"},
    "TemperatureCelsius": {"Reading": 39},
}
POWER = {
    "@odata.type": "#Power.v1_7_1.Power",
    "PowerControl": [
        {
            "Name": "System Input Power",
            "PowerConsumedWatts": 344,
            "PowerMetrics": {"IntervalInMin": 30, "AverageConsumedWatts": 319},
        }
    ],
}
SECRET = "monitor:s3cret"


class Controller(http.server.ThreadingHTTPServer):
    """A management controller that wants a name and a password."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, Any] = {"/redfish/v1/Chassis": CHASSIS}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Controller)
        body = self.server.bodies.get(self.path)
        expected = "Basic " + base64.b64encode(SECRET.encode()).decode()
        status = 401 if self.headers.get("Authorization") != expected else 200 if body is not None else 404
        payload = json.dumps(body).encode() if status == 200 and not isinstance(body, bytes) else body or b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(payload)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setenv("BEDSIDE_REDFISH", SECRET)
    server = Controller()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_environment_metrics_are_preferred(controller: Controller) -> None:
    controller.bodies |= {
        "/redfish/v1/Chassis/1U/EnvironmentMetrics": ENVIRONMENT,
        "/redfish/v1/Chassis/1U/Power": POWER,
    }
    meter = RedfishMeter(RedfishOptions(url=controller.url))
    info, (reading,) = meter.describe(), meter.read()
    meter.close()
    assert (reading.device, reading.power_w, reading.error) == ("node", 374.0, None)
    assert (info.evidence, info.boundary, info.sensor_api) == ("M2", "node_ac", "redfish EnvironmentMetrics")
    assert (info.period_s, info.note) == (1.0, "uncalibrated against a wall meter; chassis 1U")


def test_the_older_power_resource(controller: Controller) -> None:
    controller.bodies["/redfish/v1/Chassis/1U/Power"] = POWER
    meter = RedfishMeter(RedfishOptions(url=controller.url, boundary="node_dc"))
    assert meter.read()[0].power_w == 344.0
    assert meter.describe().boundary == "node_dc"
    assert "statistics over 30 min" in meter.describe().note
    meter.close()


def test_a_board_of_gpus_that_tells_its_power_is_not_the_node(controller: Controller) -> None:
    """The chassis of an HGX board comes before the node's in the list of some controllers."""
    board, node = "/redfish/v1/Chassis/HGX_Chassis_0", "/redfish/v1/Chassis/System"
    controller.bodies |= {
        "/redfish/v1/Chassis": {"Members": [{"@odata.id": board}, {"@odata.id": node}]},
        board: {"ChassisType": "Module"},
        node: {"ChassisType": "RackMount"},
        f"{board}/EnvironmentMetrics": {"PowerWatts": {"Reading": 2000}},
        f"{node}/Power": POWER,
    }
    meter = RedfishMeter(RedfishOptions(url=controller.url))
    assert meter.read()[0].power_w == 344.0
    assert "chassis System" in meter.describe().note
    meter.close()
    asked = RedfishMeter(RedfishOptions(url=controller.url, chassis="HGX_Chassis_0"))
    assert asked.read()[0].power_w == 2000.0
    asked.close()
    del controller.bodies[f"{node}/Power"]
    with pytest.raises(RedfishError, match="name the one to read as `chassis`"):
        RedfishMeter(RedfishOptions(url=controller.url))


def test_a_controller_that_stops_telling_gives_error_readings(controller: Controller) -> None:
    controller.bodies["/redfish/v1/Chassis/1U/Power"] = POWER
    meter = RedfishMeter(RedfishOptions(url=controller.url))
    controller.bodies["/redfish/v1/Chassis/1U/Power"] = {"PowerControl": [{"PowerConsumedWatts": None}]}
    silent = meter.read()[0]
    controller.bodies["/redfish/v1/Chassis/1U/Power"] = b"<html>"
    garbled = meter.read()[0]
    del controller.bodies["/redfish/v1/Chassis/1U/Power"]
    gone = meter.read()[0]
    meter.close()
    assert [(r.power_w, (r.error or "").rpartition(": ")[2]) for r in (silent, garbled, gone)] == [
        (None, "the controller tells no power"),
        (None, "JSONDecodeError"),
        (None, "HTTP 404"),
    ]


def test_wrong_credentials_are_an_error_that_does_not_hold_them(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEDSIDE_REDFISH", "monitor:wr0ng")
    with pytest.raises(RedfishError, match="HTTP 401") as raised:
        RedfishMeter(RedfishOptions(url=controller.url))
    assert "wr0ng" not in str(raised.value)


def test_missing_credentials_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BMC", raising=False)
    found = report(RedfishOptions(url="https://bmc.invalid", credentials_env="BMC"))
    assert (found.usable, found.note) == (
        False,
        "environment variable BMC must hold `name:password` of a read-only account",
    )


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEDSIDE_REDFISH", SECRET)
    with pytest.raises(RedfishError, match=r"127\.0\.0\.1:9/redfish/v1/Chassis: ConnectError"):
        RedfishMeter(RedfishOptions(url="http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("body", "watts"),
    [
        ({"PowerWatts": {"Reading": 0}}, None),
        ({"PowerWatts": {"Reading": None}}, None),
        ({"PowerControl": []}, None),
        ({"PowerControl": [{"PowerConsumedWatts": 100}, {"PowerConsumedWatts": 50.5}]}, 150.5),
        ({"PowerControl": [{"PowerConsumedWatts": 100}, {}]}, None),
        ({}, None),
    ],
)
def test_power_in_a_resource(body: dict[str, Any], watts: float | None) -> None:
    assert power_of(body) == watts


# As ipmitool prints it; values from the unit tests of a public exporter (recorded 2024-02-15).
DCMI = """
    Instantaneous power reading:                   332 Watts
    Minimum during sampling period:                 68 Watts
    Maximum during sampling period:                504 Watts
    Average power reading over sample period:      348 Watts
    IPMI timestamp:                           Thu Feb 15 08:36:01 2024
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated
"""


@pytest.fixture
def ipmitool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """A program `ipmitool` that prints a text and ends with a status."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def say(text: str, status: int = 0) -> None:
        (tmp_path / "answer").write_text(text)
        (tmp_path / "ipmitool").write_text(
            f'#!/bin/sh\n[ "$*" = "dcmi power reading" ] && cat {tmp_path}/answer; exit {status}\n'
        )
        (tmp_path / "ipmitool").chmod(0o755)

    return say


def test_ipmi_reads_the_instantaneous_power(ipmitool: Callable[..., None]) -> None:
    ipmitool(DCMI)
    meter = ipmi.IpmiMeter()
    assert [(r.device, r.power_w, r.error) for r in meter.read()] == [("node", 332.0, None)]
    assert meter.describe().note == "uncalibrated against a wall meter; its statistics cover 1 s"


def test_ipmi_that_is_deactivated_repeats_an_old_value_which_is_not_taken(ipmitool: Callable[..., None]) -> None:
    ipmitool(DCMI)
    meter = ipmi.IpmiMeter()
    ipmitool(DCMI.replace("activated", "deactivated"))
    assert [(r.power_w, r.error) for r in meter.read()] == [(None, "the power reading is deactivated")]
    ipmitool("Unable to open interface", 1)
    assert meter.read()[0].error == "ipmitool failed: Unable to open interface"
    with pytest.raises(ipmi.IpmiError):
        ipmi.IpmiMeter()


def test_ipmi_without_its_device_is_told(tmp_path: Path, ipmitool: Callable[..., None]) -> None:
    ipmitool(DCMI)
    assert ipmi.report(tmp_path).note == "no /dev/ipmi0 (a virtual machine, or no driver)"
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ipmi0").touch()
    assert (ipmi.report(tmp_path).usable, ipmi.report(tmp_path).note[:9]) == (False, "not asked")
    assert ipmi.report(tmp_path, asked=True).usable
    ipmitool("Unable to open interface", 1)
    assert ipmi.report(tmp_path, asked=True).note == "ipmitool failed: Unable to open interface"
