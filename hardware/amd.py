"""AMD GPUs through the amdsmi Python library of ROCm: energy counter, power, memory, temperature.

Traps: absent values are the text `N/A` or all ones; MI300 tells `current_socket_power`, MI200 `average_socket_power`; the counter is
`energy_accumulator` (`power` before 6.4) times `counter_resolution`, in microjoules; an MI250 shows as two devices of which one tells the
power of both. The counter is believed only if it agrees with the power at the start. Sources: ROCm/amdsmi
`docs/reference/amdsmi-py-api.md`; ml-energy/zeus `zeus/device/gpu/amd.py`; ROCm/pytorch pull request 1457; ai-dynamo/aiperf (values
seen on MI300X).
"""

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport
from hardware.host import Gpu
from hardware.processes import ProcessTree, sees_all_processes

NOT_TOLD = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
DETAIL_NS = 450_000_000


class AmdError(HardwareError):
    """amdsmi cannot be used here; one sentence."""


class _Package(Struct, kw_only=True):
    """What has a power of its own: a device, or the two devices of an MI250."""

    name: str
    handles: list[Any]
    detail_ns: int = 0


def load_library() -> Any:
    """The library, initialised. Raises `AmdError`."""
    try:
        import amdsmi
    except (ImportError, OSError, KeyError, AttributeError) as error:  # it loads libamd_smi.so when imported
        raise AmdError(f"the amdsmi library of ROCm is not there ({type(error).__name__})") from error
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException as error:
        raise AmdError(f"the AMD driver does not answer: {error}") from error
    return amdsmi


def number(value: Any) -> float | None:
    """A measured value; `None` for `N/A` and for all ones."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value in NOT_TOLD:
        return None
    return float(value)


class AmdMeter:
    """All AMD GPUs of the host. Raises `AmdError` where there are none."""

    def __init__(self, tree: ProcessTree, library: Any, self_test_s: float = 0.5) -> None:
        self._smi, self._tree, self._open = library, tree, True
        self._sees_all = sees_all_processes(tree.root)
        self._packages = self._find()
        if not self._packages:
            self.close()
            raise AmdError("the AMD driver lists no GPU")
        self._counted = self._counter_agrees(self_test_s)

    def _find(self) -> list[_Package]:
        handles = list(self._smi.amdsmi_get_processor_handles())
        packages: list[_Package] = []
        for index, handle in enumerate(handles):
            if index % 2 and "MI250" in self._name(handle):
                packages[-1].handles.append(handle)
                packages[-1].name += f"+{index}"
            else:
                packages.append(_Package(name=f"gpu{index}", handles=[handle]))
        return packages

    def _name(self, handle: Any) -> str:
        found = self._ask(self._smi.amdsmi_get_gpu_asic_info, handle) or {}
        return str(found.get("market_name", ""))

    def _counter_agrees(self, seconds: float) -> bool:
        """Counter against sampled power over a moment, within a factor of two, on every package."""
        before = [(self._energy_j(p), time.monotonic()) for p in self._packages]
        time.sleep(seconds)
        for package, (start_j, start_s) in zip(self._packages, before, strict=True):
            end_j, power_w = self._energy_j(package), self._power_w(package)
            elapsed_s = time.monotonic() - start_s
            if start_j is None or end_j is None or not power_w:
                return False
            if not 0.5 <= (end_j - start_j) / (power_w * elapsed_s) <= 2.0:
                return False
        return True

    def describe(self) -> MeterInfo:
        notes = [] if self._counted else ["the energy counter is absent or disagrees with the power and is not used"]
        if any(len(p.handles) > 1 for p in self._packages):
            notes.append("the two dies of an MI250 are read as one package")
        return MeterInfo(
            meter="amd",
            devices=tuple(p.name for p in self._packages),
            evidence="M3" if self._counted else "M4",
            boundary="gpu",
            sensor_api="amdsmi energy" if self._counted else "amdsmi power",
            note="; ".join(notes),
        )

    def read(self) -> tuple[Reading, ...]:
        return tuple(self._read(package) for package in self._packages)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._smi.amdsmi_shut_down()

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`None` where the device has no answer."""
        try:
            return function(*arguments)
        except self._smi.AmdSmiException:
            return None

    def _read(self, package: _Package) -> Reading:
        energy_j = self._energy_j(package) if self._counted else None
        now_ns = time.monotonic_ns()
        memory = [self._ask(self._smi.amdsmi_get_gpu_vram_usage, h) for h in package.handles]
        if all(m is None for m in memory):
            return Reading(time_ns=now_ns, meter="amd", device=package.name, error="the device does not answer")
        return Reading(
            time_ns=now_ns,
            meter="amd",
            device=package.name,
            energy_j=energy_j,
            power_w=self._power_w(package),
            memory_used_bytes=_mebibytes(memory, "vram_used"),
            memory_total_bytes=_mebibytes(memory, "vram_total"),
            **self._detail(package, now_ns),
        )

    def _energy_j(self, package: _Package) -> float | None:
        """The larger of the two dies': one of them counts for both."""
        found = []
        for handle in package.handles:
            told = self._ask(self._smi.amdsmi_get_energy_count, handle) or {}
            ticks = number(told.get("energy_accumulator", told.get("power")))
            resolution_uj = number(told.get("counter_resolution"))
            if ticks and resolution_uj:
                found.append(ticks * resolution_uj / 1e6)
        return max(found, default=None)

    def _power_w(self, package: _Package) -> float | None:
        found = []
        for handle in package.handles:
            told = self._ask(self._smi.amdsmi_get_power_info, handle) or {}
            watts = number(told.get("current_socket_power")) or number(told.get("average_socket_power"))
            if watts:
                found.append(watts)
        return max(found, default=None)

    def _detail(self, package: _Package, now_ns: int) -> dict[str, Any]:
        if now_ns - package.detail_ns < DETAIL_NS:
            return {}
        package.detail_ns = now_ns
        smi = self._smi
        hot = [self._temperature(h, smi.AmdSmiTemperatureType.HOTSPOT) for h in package.handles]
        memory = [self._temperature(h, smi.AmdSmiTemperatureType.VRAM) for h in package.handles]
        use = [self._ask(smi.amdsmi_get_gpu_activity, h) or {} for h in package.handles]
        return {
            "temperature_c": max((t for t in hot if t is not None), default=None),
            "memory_temperature_c": max((t for t in memory if t is not None), default=None),
            "utilisation_percent": max(
                (u for x in use if (u := number(x.get("gfx_activity"))) is not None), default=None
            ),
            **self._processes(package),
        }

    def _temperature(self, handle: Any, place: Any) -> float | None:
        """Degrees; older libraries tell thousandths."""
        told = number(
            self._ask(self._smi.amdsmi_get_temp_metric, handle, place, self._smi.AmdSmiTemperatureMetric.CURRENT)
        )
        return told / 1000.0 if told is not None and told > 1000 else told

    def _processes(self, package: _Package) -> dict[str, int | None]:
        """Only where process ids mean the same to the driver and to us."""
        listed = [self._ask(self._smi.amdsmi_get_gpu_process_list, h) for h in package.handles]
        if not self._sees_all or any(x is None for x in listed):
            return {"memory_bytes": None, "foreign_processes": None}
        found = {int(p["pid"]): p for part in listed for p in part if _vram(p)}
        ours = self._tree.known_pids(fresh=bool(set(found) - self._tree.known_pids()))
        mine = sum(_vram(p) for part in listed for p in part if int(p["pid"]) in ours)
        return {
            "memory_bytes": mine if self._tree.pid is not None else None,
            "foreign_processes": len(set(found) - ours),
        }


def _vram(process: dict[str, Any]) -> int:
    """Bytes; a process that only opened the driver holds none."""
    return int(number((process.get("memory_usage") or {}).get("vram_mem")) or 0)


def _mebibytes(parts: list[Any], field: str) -> int | None:
    values = [number((part or {}).get(field)) for part in parts]
    known = [v for v in values if v is not None]
    return int(sum(known) * 2**20) if len(known) == len(values) else None


def inventory() -> tuple[list[Gpu], dict[str, str]]:
    """GPUs for the description of the host; nothing where amdsmi cannot be used."""
    try:
        smi = load_library()
    except AmdError:
        return [], {}
    try:
        return list_gpus(smi), {"amdsmi": str(getattr(smi, "__version__", "unknown"))}
    except smi.AmdSmiException:
        return [], {}
    finally:
        smi.amdsmi_shut_down()


def list_gpus(smi: Any) -> list[Gpu]:
    gpus = []
    for index, handle in enumerate(smi.amdsmi_get_processor_handles()):
        memory = smi.amdsmi_get_gpu_vram_usage(handle)
        total, used = number(memory.get("vram_total")), number(memory.get("vram_used"))
        gpus.append(
            Gpu(
                name=str(smi.amdsmi_get_gpu_asic_info(handle).get("market_name", "AMD GPU")),
                vendor="amd",
                index=index,
                uuid=str(smi.amdsmi_get_gpu_device_uuid(handle)),
                memory_bytes=None if total is None else int(total * 2**20),
                memory_free_bytes=None if total is None or used is None else int((total - used) * 2**20),
                settings={"pci": str(smi.amdsmi_get_gpu_device_bdf(handle))},
            )
        )
    return gpus


def report(tree: ProcessTree) -> SensorReport:
    try:
        meter = AmdMeter(tree, load_library())
    except AmdError as error:
        return SensorReport(interface="amd", usable=False, evidence="M3", boundary="gpu", note=str(error))
    info = meter.describe()
    meter.close()
    return SensorReport(
        interface="amd",
        usable=True,
        evidence=info.evidence,
        boundary=info.boundary,
        devices=info.devices,
        note=info.note,
    )
