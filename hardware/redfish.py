"""The whole node's power from its management controller over Redfish: read-only, optional, asked once a second.

Newer controllers have `Chassis/{id}/EnvironmentMetrics` with `PowerWatts.Reading`, older ones `Chassis/{id}/Power` with
`PowerControl[].PowerConsumedWatts`. The energy in kWh that some add moves too rarely to be used as a counter. How the controller samples
and averages is its own affair, so the class is M2 until it has been compared with a wall meter. Source: DMTF Redfish schemas.
"""

import os
import time
from typing import Any

from msgspec import Struct

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport

PERIOD_S = 1.0
TIMEOUT_S = 2.0
NOT_A_NODE = frozenset(
    {"Card", "Component", "Drawer", "Expansion", "HeatExchanger", "IPBasedDrive", "ImmersionTank", "Module", "Pod", "PowerStrip", "Rack",
     "RackGroup", "Row", "Shelf", "Sidecar", "StorageEnclosure", "Zone"}
)  # fmt: skip
"""Values of ChassisType that are a part of a node or hold several. A board of GPUs has a chassis of its own that tells its power."""


class RedfishError(HardwareError):
    """The controller cannot be used; one sentence that holds no credentials."""


class RedfishOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which controller. The user's name and password stand in an environment variable as `name:password`, never in a file of ours."""

    url: str
    """`https://bmc.example`."""
    credentials_env: str = "BEDSIDE_REDFISH"
    chassis: str | None = None
    """Id of the chassis; `None`: the first one of a whole node that tells its power."""
    boundary: str = "node_ac"
    """`node_ac` at the plug, `node_dc` behind the supply; the controller's manual says which."""
    ca_file: str | None = None
    """Certificate to trust, for a controller with one of its own."""
    verify: bool = True


class RedfishMeter:
    """One node. Raises `RedfishError` when its power cannot be found."""

    def __init__(self, options: RedfishOptions) -> None:
        self._options = options
        self._client = _client(options)
        try:
            self._path, self._note = self._find()
        except RedfishError:
            self._client.close()
            raise

    def _find(self) -> tuple[str, str]:
        """The resource that tells the power, which chassis it is of, and what is known of its averaging."""
        asked = self._options.chassis
        chassis = [f"/redfish/v1/Chassis/{asked}"] if asked else [c for c in self._members() if self._is_node(c)]
        for base in chassis:
            for path in (f"{base}/EnvironmentMetrics", f"{base}/Power"):
                try:
                    body = self._get(path)
                except RedfishError:
                    continue
                if power_of(body) is not None:
                    return path, "; ".join(filter(None, [f"chassis {base.rsplit('/', 1)[-1]}", averaging_of(body)]))
        raise RedfishError(
            f"{self._options.url}: no chassis of a whole node tells its power ({', '.join(chassis) or 'none listed'}); "
            "name the one to read as `chassis`"
        )

    def _is_node(self, path: str) -> bool:
        """A chassis that does not say what it is gets the benefit of the doubt."""
        try:
            return self._get(path).get("ChassisType") not in NOT_A_NODE
        except RedfishError:
            return True

    def _members(self) -> list[str]:
        body = self._get("/redfish/v1/Chassis")
        return [str(m["@odata.id"]) for m in body.get("Members", []) if isinstance(m, dict) and "@odata.id" in m]

    def _get(self, path: str) -> dict[str, Any]:
        import httpx

        try:
            answer = self._client.get(path)
            answer.raise_for_status()
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RedfishError(f"{self._options.url}{path}: {_plain(error)}") from error
        return body if isinstance(body, dict) else {}

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="redfish",
            devices=("node",),
            evidence="M2",
            boundary=self._options.boundary,
            sensor_api=f"redfish {self._path.rsplit('/', 1)[-1]}",
            period_s=PERIOD_S,
            note="; ".join(filter(None, ["uncalibrated against a wall meter", self._note])),
        )

    def read(self) -> tuple[Reading, ...]:
        """Stamped when the answer has come."""
        try:
            power_w = power_of(self._get(self._path))
        except RedfishError as error:
            return (Reading(time_ns=time.monotonic_ns(), meter="redfish", device="node", error=str(error)),)
        now_ns = time.monotonic_ns()
        if power_w is None:
            return (Reading(time_ns=now_ns, meter="redfish", device="node", error="the controller tells no power"),)
        return (Reading(time_ns=now_ns, meter="redfish", device="node", power_w=power_w),)

    def close(self) -> None:
        self._client.close()


def _client(options: RedfishOptions) -> Any:
    import ssl

    import httpx

    name, colon, password = os.environ.get(options.credentials_env, "").partition(":")
    if not colon:
        raise RedfishError(
            f"environment variable {options.credentials_env} must hold `name:password` of a read-only account"
        )
    verify: ssl.SSLContext | bool = options.verify
    if options.verify and options.ca_file:
        verify = ssl.create_default_context(cafile=options.ca_file)
    return httpx.Client(
        base_url=options.url,
        auth=httpx.BasicAuth(name, password),
        verify=verify,
        timeout=TIMEOUT_S,
        trust_env=False,
        follow_redirects=False,
    )


def _plain(error: Exception) -> str:
    """Kind and status of a failure, nothing of the request."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def power_of(body: dict[str, Any]) -> float | None:
    """Watts in either form; several power controls of a chassis add up, and one that is silent makes the sum unknown."""
    watts = body.get("PowerWatts")
    if isinstance(watts, dict):
        return _watts(watts.get("Reading"))
    controls = body.get("PowerControl")
    if not isinstance(controls, list) or not controls:
        return None
    parts = [_watts(c.get("PowerConsumedWatts")) for c in controls if isinstance(c, dict)]
    known = [p for p in parts if p is not None]
    return sum(known) if known and len(known) == len(parts) else None


def _watts(value: Any) -> float | None:
    """A node that answers is on: 0 W is a sensor that does not work."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def averaging_of(body: dict[str, Any]) -> str:
    for control in body.get("PowerControl") or []:
        minutes = (control.get("PowerMetrics") or {}).get("IntervalInMin")
        if minutes:
            return f"the controller keeps its statistics over {minutes} min"
    return ""


def report(options: RedfishOptions | None) -> SensorReport:
    if options is None:
        return SensorReport(
            interface="redfish",
            usable=False,
            evidence="M2",
            boundary="node_ac",
            note="not asked; give the management controller's address as `redfish.url` in the meters' options to measure the whole node",
        )
    try:
        meter = RedfishMeter(options)
    except RedfishError as error:
        return SensorReport(
            interface="redfish", usable=False, evidence="M2", boundary=options.boundary, note=str(error)
        )
    info = meter.describe()
    meter.close()
    return SensorReport(
        interface="redfish", usable=True, evidence="M2", boundary=info.boundary, devices=info.devices, note=info.note
    )
