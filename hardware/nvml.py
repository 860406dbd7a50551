"""NVIDIA GPUs through NVML (nvidia-ml-py): energy counter, power, memory, clocks, temperatures, reasons for throttling.

The counter (`nvmlDeviceGetTotalEnergyConsumption`, mJ since the driver was loaded, Volta and newer) advances about every 0.1 s.
Power is the instantaneous field with GPU scope; boards that have none (Grace Hopper) give MODULE scope, which includes the processor;
older drivers give `nvmlDeviceGetPowerUsage`, an average over 1 s on Ampere (but GA100) and newer. A value that the device does not tell
is None. Sources: NVML API reference; ml-energy/zeus `zeus/device/gpu/nvidia.py`.
"""

import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport
from hardware.host import Gpu
from hardware.processes import ProcessTree, sees_all_processes

COUNTER_PERIOD_S = 0.1
DETAIL_NS = 450_000_000
"""Clocks, temperatures, limits and processes cost the driver more and move slowly: read twice a second."""
MIG_NOTE = "MIG is on: the board's power belongs to all its slices and is not attributed to one"
VGPU_NOTE = "a vGPU guest: the board's power belongs to all its guests and is not attributed to one"
HIDDEN_NOTE = (
    "process ids are hidden by a container: where the driver does not tell our memory it is the device's change since before the worker, "
    "and only processes that were there before it can be told to be foreign; run with --pid=host to tell them apart"
)


class NvmlError(HardwareError):
    """NVML cannot be used here; one sentence."""


class _Device(Struct, kw_only=True):
    """One GPU and what was on it before the worker started."""

    name: str
    uuid: str
    handle: Any = None
    lost: str | None = None
    """What the driver said instead of giving a handle."""
    whole: bool = True
    """The board is ours to attribute: neither MIG nor a vGPU guest."""
    scope: int | None = None
    """Of the instantaneous power field; None: only the averaged power of older drivers."""
    before_pids: frozenset[int] = frozenset()
    before_bytes: int | None = None
    detail_ns: int = 0


def _nvml() -> Any:
    """The library, initialised; each call needs its own `nvmlShutdown`. Raises `NvmlError`."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        raise NvmlError("no NVIDIA driver: libnvidia-ml.so.1 was not found") from error
    except pynvml.NVMLError as error:
        raise NvmlError(f"the NVIDIA driver does not answer: {error}") from error
    return pynvml


def _ask(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or `None` where this device or driver has none. A device that is gone raises `NVMLError`."""
    try:
        return function(*arguments)
    except nvml.NVMLError as error:
        gone = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_RESET_REQUIRED)
        if error.value in (*gone, nvml.NVML_ERROR_DRIVER_NOT_LOADED, nvml.NVML_ERROR_GPU_NOT_FOUND):
            raise
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class NvmlMeter:
    """All GPUs of the host, or those whose UUID begins with one of `uuids`. Raises `NvmlError` where there are none."""

    def __init__(
        self, tree: ProcessTree, uuids: tuple[str, ...] = (), clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._nvml, self._tree, self._clock, self._open = _nvml(), tree, clock, True
        self._sees_all = sees_all_processes(tree.root)
        self._strangers: set[int] = set()
        try:
            self._devices = self._find(uuids)
            if not self._devices:
                raise NvmlError(f"no GPU with UUID {', '.join(uuids)}" if uuids else "the driver lists no GPU")
            alive = [d for d in self._devices if not d.lost]
            self._counted = any(self._energy_j(d) is not None for d in alive)
            self._reasons = _reasons_call(self._nvml, alive)
        except self._nvml.NVMLError as error:
            self.close()
            raise NvmlError(f"the NVIDIA driver does not answer: {error}") from error
        except NvmlError:
            self.close()
            raise

    def _find(self, uuids: tuple[str, ...]) -> list[_Device]:
        nvml, found = self._nvml, []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                device = self._describe(index)
            except nvml.NVMLError as error:
                device = _Device(name=f"gpu{index}", uuid="", lost=str(error))
            if not uuids or any(device.uuid.startswith(wanted) for wanted in uuids):
                found.append(device)
        return found

    def _describe(self, index: int) -> _Device:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        whole = not _mig(nvml, handle) and not _is_guest(nvml, handle)
        scope = _power_scope(nvml, handle) if whole else None
        return _Device(name=f"gpu{index}", uuid=uuid, handle=handle, whole=whole, scope=scope)

    def describe(self) -> MeterInfo:
        nvml, scopes = self._nvml, {d.scope for d in self._devices if d.whole and not d.lost}
        instant = scopes and None not in scopes
        notes = ["instantaneous power" if instant else "power as the driver averages it"]
        for device in self._devices:
            if not device.whole:
                notes.append(f"{device.name}: {MIG_NOTE if _mig(nvml, device.handle) else VGPU_NOTE}")
        if not self._sees_all:
            notes.append(HIDDEN_NOTE)
        return MeterInfo(
            meter="nvml",
            devices=tuple(d.name for d in self._devices),
            evidence="M3" if self._counted else "M4",
            boundary="gpu",
            sensor_api="nvml total energy" if self._counted else "nvml power",
            period_s=COUNTER_PERIOD_S,
            scope="MODULE" if nvml.NVML_POWER_SCOPE_MODULE in scopes else "GPU",
            note="; ".join([*notes, *(f"{d.name} is {d.uuid}" for d in self._devices)]),
        )

    def read(self) -> tuple[Reading, ...]:
        return tuple(self._read(device) for device in self._devices)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._nvml.nvmlShutdown()

    def _read(self, device: _Device) -> Reading:
        """The counter first and the clock right after it, so that the two belong together."""
        nvml = self._nvml
        if device.lost:
            return Reading(time_ns=self._clock(), meter="nvml", device=device.name, error=device.lost)
        try:
            energy_j = self._energy_j(device)
            now_ns = self._clock()
            power_w = self._power_w(device)
            memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, device.handle)
            detail = self._detail(device, memory, now_ns)
            throttle = _ask(nvml, self._reasons, device.handle)
        except nvml.NVMLError as error:
            return Reading(time_ns=self._clock(), meter="nvml", device=device.name, error=str(error))
        if device.whole and energy_j is None and power_w is None and memory is None:
            return Reading(time_ns=now_ns, meter="nvml", device=device.name, error="the driver tells nothing of it")
        return Reading(
            time_ns=now_ns,
            meter="nvml",
            device=device.name,
            power_w=power_w,
            energy_j=energy_j,
            memory_used_bytes=int(memory.used) if memory else None,
            memory_total_bytes=int(memory.total) if memory else None,
            throttle=throttle,
            **detail,
        )

    def _energy_j(self, device: _Device) -> float | None:
        if not device.whole:
            return None
        millijoules = _ask(self._nvml, self._nvml.nvmlDeviceGetTotalEnergyConsumption, device.handle)
        return None if millijoules is None else millijoules / 1000.0

    def _power_w(self, device: _Device) -> float | None:
        """A board that is on never draws 0 W; drivers say so when they are asked too often."""
        nvml = self._nvml
        if not device.whole:
            return None
        if device.scope is None:
            milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, device.handle)
        else:
            milliwatts = _field(nvml, device.handle, nvml.NVML_FI_DEV_POWER_INSTANT, device.scope)
        return milliwatts / 1000.0 if milliwatts else None

    def _detail(self, device: _Device, memory: Any, now_ns: int) -> dict[str, Any]:
        if now_ns - device.detail_ns < DETAIL_NS:
            return {}
        device.detail_ns = now_ns
        nvml, handle = self._nvml, device.handle
        limit = _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        use = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        return {
            "temperature_c": _ask(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "memory_temperature_c": _field(nvml, handle, nvml.NVML_FI_DEV_MEMORY_TEMP, 0) or None,
            "clock_mhz": _ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": _ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "utilisation_percent": use.gpu if use else None,
            "power_limit_w": limit / 1000.0 if limit else None,
            "ecc_uncorrected": _ask(
                nvml,
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_AGGREGATE_ECC,
            ),
            **self._processes(device, int(memory.used) if memory else None),
        }

    def _processes(self, device: _Device, used_bytes: int | None) -> dict[str, int | None]:
        """Our memory on the device and how many strangers compute on it.

        Inside a container a driver lists the host's ids, or ids of a thread, or nobody, or us with 0 bytes (NVIDIA/nvidia-docker issue
        1483, open-gpu-kernel-modules pull request 614, Project-HAMi/HAMi-core issue 112). None of that is "no memory" or "nobody".
        """
        nvml = self._nvml
        listed = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v3, device.handle)
        if listed is None:
            return {"memory_bytes": None, "foreign_processes": None}
        pids = frozenset(p.pid for p in listed)
        if self._tree.pid is None:
            device.before_pids, device.before_bytes = pids, used_bytes
            return {"memory_bytes": None, "foreign_processes": self._seen(pids)}
        ours = self._tree.known_pids()
        if pids - ours - self._strangers:
            ours = self._tree.known_pids(fresh=True)
            self._strangers |= pids - ours
        foreign = pids - ours if self._sees_all else (pids - ours) & device.before_pids
        told = [p.usedGpuMemory for p in listed if p.pid in ours]
        memory: int | None = int(sum(told)) if None not in told else None
        if (told and not all(told)) or not (told or self._sees_all):
            memory = _growth(device, used_bytes, foreign)
        return {"memory_bytes": memory, "foreign_processes": self._seen(foreign)}

    def _seen(self, foreign: frozenset[int]) -> int | None:
        """How many; that there are none is known only to who sees all processes."""
        return len(foreign) if foreign or self._sees_all else None


def _growth(device: _Device, used_bytes: int | None, foreign: frozenset[int]) -> int | None:
    """Since before the worker; unknown when somebody else holds memory too."""
    if used_bytes is None or device.before_bytes is None or foreign or device.before_pids:
        return None
    return max(0, used_bytes - device.before_bytes)


def _reasons_call(nvml: Any, devices: list[_Device]) -> Callable[..., Any]:
    """What holds the clocks down. Old drivers know the call by its older name only; the bits are the same."""
    newer, older = nvml.nvmlDeviceGetCurrentClocksEventReasons, nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    told = (f for f in (newer, older) if any(_ask(nvml, f, d.handle) is not None for d in devices))
    return next(told, newer)  # type: ignore[no-any-return]


def _mig(nvml: Any, handle: Any) -> bool:
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return bool(mode and mode[0])


def _is_guest(nvml: Any, handle: Any) -> bool:
    return bool(_ask(nvml, nvml.nvmlDeviceGetVirtualizationMode, handle) == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU)


def _field(nvml: Any, handle: Any, field: int, scope: int) -> int | None:
    values = _ask(nvml, nvml.nvmlDeviceGetFieldValues, handle, [(field, scope)])
    if values is None or values[0].nvmlReturn != nvml.NVML_SUCCESS:
        return None
    return int(values[0].value.uiVal)


def _power_scope(nvml: Any, handle: Any) -> int | None:
    for scope in (nvml.NVML_POWER_SCOPE_GPU, nvml.NVML_POWER_SCOPE_MODULE):
        if _field(nvml, handle, nvml.NVML_FI_DEV_POWER_INSTANT, scope):
            return int(scope)
    return None


def inventory() -> tuple[list[Gpu], dict[str, str]]:
    """GPUs and driver versions for the description of the host; nothing where NVML cannot be used."""
    try:
        nvml = _nvml()
    except NvmlError:
        return [], {}
    try:
        gpus = [_describe_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion)
        drivers = {"nvidia": _text(nvml.nvmlSystemGetDriverVersion())}
        return gpus, drivers | ({"cuda": f"{cuda // 1000}.{cuda % 1000 // 10}"} if cuda else {})
    except nvml.NVMLError:
        return [], {}
    finally:
        nvml.nvmlShutdown()


def _describe_gpu(nvml: Any, index: int) -> Gpu:
    """A device that does not answer is listed all the same."""
    try:
        return _describe_handle(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index))
    except nvml.NVMLError as error:
        return Gpu(name=f"not answering: {error}", index=index)


def _describe_handle(nvml: Any, index: int, handle: Any) -> Gpu:
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    limit = _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    default = _ask(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        memory_bytes=int(memory.total) if memory else None,
        memory_free_bytes=int(memory.free) if memory else None,
        power_limit_w=limit / 1000.0 if limit else None,
        power_limit_default_w=default / 1000.0 if default else None,
        settings={name: value for name, value in _settings(nvml, handle).items() if value is not None},
    )


def _settings(nvml: Any, handle: Any) -> dict[str, str | None]:
    """What a benchmark's result depends on. The link's current speed drops at rest, so its highest is given."""
    ecc = _ask(nvml, nvml.nvmlDeviceGetEccMode, handle)
    mig = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    vbios = _ask(nvml, nvml.nvmlDeviceGetVbiosVersion, handle)
    persistence = _ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    mode = _ask(nvml, nvml.nvmlDeviceGetVirtualizationMode, handle)
    clock = _ask(nvml, nvml.nvmlDeviceGetApplicationsClock, handle, nvml.NVML_CLOCK_SM)
    generation = _ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    width = _ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, handle)
    return {
        "vbios": _text(vbios) if vbios is not None else None,
        "ecc": None if ecc is None else ("on" if ecc[0] else "off"),
        "mig": None if mig is None else ("on" if mig[0] else "off"),
        "mig_layout": _mig_layout(nvml, handle) if mig and mig[0] else None,
        "persistence": None if persistence is None else ("on" if persistence else "off"),
        "virtualisation": None if mode is None else str(mode),
        "applications_clock_mhz": None if clock is None else str(clock),
        "pcie_generation_max": None if generation is None else str(generation),
        "pcie_width": None if width is None else str(width),
    }


def _mig_layout(nvml: Any, handle: Any) -> str:
    """UUIDs of the slices."""
    found = []
    for index in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if part is not None:
            found.append(_text(_ask(nvml, nvml.nvmlDeviceGetUUID, part)))
    return ",".join(found)


def report(tree: ProcessTree, uuids: tuple[str, ...] = ()) -> SensorReport:
    try:
        meter = NvmlMeter(tree, uuids)
    except NvmlError as error:
        return SensorReport(interface="nvml", usable=False, evidence="M3", boundary="gpu", note=str(error))
    info = meter.describe()
    meter.close()
    return SensorReport(
        interface="nvml",
        usable=True,
        evidence=info.evidence,
        boundary=info.boundary,
        devices=info.devices,
        note=info.note,
    )
