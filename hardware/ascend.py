"""Huawei Ascend NPUs through `npu-smi info`: power, memory, temperature of every card in one call. No energy counter is known: class M4.

The table is read and not `npu-smi info -t power -i N`, because a call takes a good part of a second and a node has eight cards or
sixteen. Watts in the table are watts; the library below it (`dcmi_get_device_power_info`) counts in tenths of a watt. The second chip of
a 910C shows `-` where the first one tells the power of the card. Sample outputs and their sources: tests/hardware/data/npu_smi.md.
"""

import re
import shutil
import subprocess
import time

from msgspec import Struct, structs

from hardware.base import HardwareError, MeterInfo, Reading, SensorReport
from hardware.host import Gpu
from hardware.processes import ProcessTree, sees_all_processes

PERIOD_S = 1.0
TIMEOUT_S = 10.0
MEBI = 2**20


class AscendError(HardwareError):
    """npu-smi cannot be used here; one sentence."""


class Chip(Struct, frozen=True, kw_only=True):
    """Two rows of the table. `None` where it shows `-` or `NA`."""

    npu: int
    chip: int
    name: str
    bus: str
    power_w: float | None
    temperature_c: float | None
    utilisation_percent: float | None
    used_bytes: int | None
    total_bytes: int | None
    processes: dict[int, int] = {}
    """Process id to bytes."""

    @property
    def device(self) -> str:
        return f"npu{self.npu}" if self.chip == 0 else f"npu{self.npu}.{self.chip}"


def run_npu_smi() -> str:
    """Output of `npu-smi info`. Raises `AscendError`."""
    program = shutil.which("npu-smi")
    if program is None:
        raise AscendError("no Ascend driver: npu-smi was not found")
    try:
        done = subprocess.run([program, "info"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AscendError(f"npu-smi does not answer: {type(error).__name__}") from error
    if done.returncode != 0:
        raise AscendError(f"npu-smi failed: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


def driver_version(table: str) -> str | None:
    found = re.search(r"npu-smi\s+(\S+)\s+Version", table)
    return found[1] if found else None


def parse_table(table: str) -> tuple[Chip, ...]:
    """Chips in the table's order; rows that are neither a card, a chip nor a process are passed over."""
    chips: list[Chip] = []
    head: list[str] | None = None
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        first = cells[0].split()
        if not first or not first[0].isdigit():
            continue
        if len(cells) == 3 and head is None:
            head = cells
        elif len(cells) == 3 and head is not None:
            chips.append(_chip(head, cells))
            head = None
        elif len(cells) >= 4 and len(first) == 2:
            chips = _with_process(chips, int(first[0]), int(first[1]), cells)
    return tuple(chips)


def _chip(head: list[str], row: list[str]) -> Chip:
    """`0 910B3 | OK | 101.8 43 0 / 0` above `0 | 0000:C1:00.0 | 0 0 / 0 3318 / 65536`."""
    number, _, name = head[0].partition(" ")
    values = head[2].split()
    pairs = re.findall(r"(\d+)\s*/\s*(\d+)", row[2])
    used, total = pairs[-1] if pairs else (None, None)
    return Chip(
        npu=int(number),
        chip=int(row[0].split()[0]),
        name=name.strip(),
        bus=row[1],
        power_w=_value(values[0]),
        temperature_c=_value(values[1]) if len(values) > 1 else None,
        utilisation_percent=_value(row[2].split()[0]),
        used_bytes=None if used is None else int(used) * MEBI,
        total_bytes=None if total is None or total == "0" else int(total) * MEBI,
    )


def _with_process(chips: list[Chip], npu: int, chip: int, cells: list[str]) -> list[Chip]:
    """`0 0 | 55115 | python | 30784`."""
    if not cells[1].isdigit() or not cells[3].isdigit():
        return chips
    more = {int(cells[1]): int(cells[3]) * MEBI}
    return [structs.replace(c, processes=c.processes | more) if (c.npu, c.chip) == (npu, chip) else c for c in chips]


def _value(text: str) -> float | None:
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


class AscendMeter:
    """All chips that the table lists at the start; one that is missing later gives an error. Raises `AscendError`."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree, self._sees_all = tree, sees_all_processes(tree.root)
        self._chips = parse_table(run_npu_smi())
        if not self._chips:
            raise AscendError("npu-smi lists no NPU")

    def describe(self) -> MeterInfo:
        return MeterInfo(
            meter="ascend",
            devices=tuple(chip.device for chip in self._chips),
            evidence="M4",
            boundary="gpu",
            sensor_api="npu-smi info",
            period_s=PERIOD_S,
            note="sampled power of the card; no energy counter; idle cards keep a few MB of memory after jobs",
        )

    def read(self) -> tuple[Reading, ...]:
        try:
            chips = {chip.device: chip for chip in parse_table(run_npu_smi())}
        except AscendError as error:
            now_ns = time.monotonic_ns()
            return tuple(
                Reading(time_ns=now_ns, meter="ascend", device=c.device, error=str(error)) for c in self._chips
            )
        now_ns = time.monotonic_ns()
        return tuple(self._reading(c.device, chips.get(c.device), now_ns) for c in self._chips)

    def _reading(self, device: str, chip: Chip | None, now_ns: int) -> Reading:
        if chip is None:
            return Reading(time_ns=now_ns, meter="ascend", device=device, error="npu-smi no longer lists it")
        ours: frozenset[int] = self._tree.known_pids()
        known = self._sees_all and self._tree.pid is not None
        return Reading(
            time_ns=now_ns,
            meter="ascend",
            device=device,
            power_w=chip.power_w or None,
            temperature_c=chip.temperature_c,
            utilisation_percent=chip.utilisation_percent,
            memory_used_bytes=chip.used_bytes,
            memory_total_bytes=chip.total_bytes,
            memory_bytes=sum(v for p, v in chip.processes.items() if p in ours) if known else None,
            foreign_processes=len(set(chip.processes) - ours) if self._sees_all else None,
        )

    def close(self) -> None: ...


def inventory() -> tuple[list[Gpu], dict[str, str]]:
    """NPUs for the description of the host; nothing where npu-smi cannot be used."""
    try:
        table = run_npu_smi()
    except AscendError:
        return [], {}
    version = driver_version(table)
    gpus = [
        Gpu(
            name=f"Ascend {chip.name.removeprefix('Ascend')}",
            vendor="huawei",
            index=index,
            memory_bytes=chip.total_bytes,
            memory_free_bytes=None
            if chip.total_bytes is None or chip.used_bytes is None
            else chip.total_bytes - chip.used_bytes,
            settings={"pci": chip.bus},
        )
        for index, chip in enumerate(parse_table(table))
    ]
    return gpus, {"npu-smi": version} if version else {}


def report(tree: ProcessTree) -> SensorReport:
    try:
        info = AscendMeter(tree).describe()
    except AscendError as error:
        return SensorReport(interface="ascend", usable=False, evidence="M4", boundary="gpu", note=str(error))
    return SensorReport(
        interface="ascend",
        usable=True,
        evidence=info.evidence,
        boundary=info.boundary,
        devices=info.devices,
        note=info.note,
    )
