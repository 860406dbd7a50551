"""Published facts of processors and accelerators, from catalog.toml; each entry names its source and the day it was read."""

import functools
import re
import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

from hardware.machine import Cpu

CATALOG = Path(__file__).parent / "catalog.toml"


class GpuFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A product as its maker describes it. Peaks are dense (without sparsity); what could not be verified is absent."""

    name: str
    match: str
    """Regular expression for what the driver calls it, and for its name in host files."""
    memory_gib: float
    """Nominal; tells apart products of one name."""
    memory_bandwidth_gb_s: float | None = None
    tdp_w: float | None = None
    peak_tflops: dict[str, float] = {}
    source: str
    date: str
    note: str = ""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * 2**30)


class CpuFacts(Struct, frozen=True):
    """One socket: rated power and cores."""

    tdp_w: float
    cores: int
    source: str


class CpuTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Model name to [rated watts, cores]."""

    source: str
    date: str
    models: dict[str, tuple[float, int]]


class PerThread(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Watts of one hardware thread at rest and under full load, with the range over all architectures."""

    idle_w: float
    idle_low_w: float
    idle_high_w: float
    full_w: float
    full_low_w: float
    full_high_w: float


class Coefficients(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    source: str
    date: str
    any: PerThread
    """Medians and extremes, for a processor of unknown architecture."""
    architectures: dict[str, tuple[float, float]]


class Catalog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gpus: tuple[GpuFacts, ...]
    cpus: tuple[CpuTable, ...]
    coefficients: Coefficients


@functools.cache
def catalog() -> Catalog:
    return msgspec.convert(tomllib.loads(CATALOG.read_text(encoding="utf-8")), Catalog)


def gpu_facts(name: str, memory_bytes: int | None) -> GpuFacts | None:
    """The product that the driver's name fits and whose nominal memory is within 10 % of the device's; `None` for none or several."""
    found = [g for g in catalog().gpus if re.search(g.match, name, re.IGNORECASE)]
    if memory_bytes is not None:
        found = [g for g in found if abs(g.memory_bytes / memory_bytes - 1) <= 0.10]
    return found[0] if len(found) == 1 else None


def cpu_facts(model: str | None) -> CpuFacts | None:
    """By the model name that the processor tells; `None` for one that is not listed or hidden by a hypervisor."""
    words = re.sub(r"\((R|TM)\)|\bCPU\b", " ", model or "")
    words = " ".join(words.split())
    for table in catalog().cpus:
        for name, (tdp_w, cores) in table.models.items():
            if re.search(rf"(?<!\S){re.escape(name)}(?!\S)", words):
                return CpuFacts(tdp_w, cores, f"{table.source}, read {table.date}")
    return None


ARCHITECTURES: tuple[tuple[str, int, range, range, str], ...] = (
    ("EPYC", 23, range(0x30), range(16), "EPYC 1st Gen"),
    ("EPYC", 23, range(0x30, 0x40), range(16), "EPYC 2nd Gen"),
    ("EPYC", 25, range(0x10), range(16), "EPYC 3rd Gen"),
    ("EPYC", 25, range(0x10, 0x20), range(16), "EPYC 4th Gen"),
    ("EPYC", 25, range(0xA0, 0xB0), range(16), "EPYC 4th Gen"),
    ("EPYC", 26, range(0x20), range(16), "EPYC 5th Gen"),
    ("Xeon", 6, range(45, 46), range(16), "Sandy Bridge"),
    ("Xeon", 6, range(62, 63), range(16), "Ivy Bridge"),
    ("Xeon", 6, range(63, 64), range(16), "Haswell"),
    ("Xeon", 6, range(79, 80), range(16), "Broadwell"),
    ("Xeon", 6, range(85, 86), range(5), "Skylake"),
    ("Xeon", 6, range(85, 86), range(5, 8), "Cascade Lake"),
    ("Xeon", 6, range(106, 107), range(16), "Ice Lake"),
    ("Xeon", 6, range(143, 144), range(16), "Sapphire Rapids"),
    ("Xeon", 6, range(207, 208), range(16), "Emerald Rapids"),
    ("Xeon", 6, range(173, 174), range(16), "Granite Rapids"),
)
"""Word of the name, family, models, steppings. After Linux arch/x86/include/asm/intel-family.h and AMD's revision guides. A hypervisor
shortens the name but passes these numbers on."""


def architecture(cpu: Cpu) -> str | None:
    for word, family, models, steppings, name in ARCHITECTURES:
        if (
            word in (cpu.model or "")
            and cpu.family == family
            and cpu.model_number in models
            and (cpu.stepping or 0) in steppings
        ):
            return name
    return None
