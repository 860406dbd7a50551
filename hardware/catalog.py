"""Published facts of processors and accelerators, from catalog.toml; each entry names its source and the day it was read."""

import functools
import re
import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

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


class CpuFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rated power and cores of one socket."""

    match: str
    tdp_w: float
    cores: int
    source: str
    date: str


class Coefficients(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Watts of one hardware thread at rest and under full load, for processors whose rated power is not known."""

    idle_w: float
    idle_low_w: float
    idle_high_w: float
    full_w: float
    full_low_w: float
    full_high_w: float
    source: str
    date: str


class Catalog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    per_thread: Coefficients
    cpus: tuple[CpuFacts, ...] = ()
    gpus: tuple[GpuFacts, ...] = ()


@functools.cache
def catalog() -> Catalog:
    return msgspec.convert(tomllib.loads(CATALOG.read_text(encoding="utf-8")), Catalog)


def gpu_facts(name: str, memory_bytes: int | None) -> GpuFacts | None:
    """The product that the driver's name fits; where several do, the one whose nominal memory is within 10 % of the device's."""
    found = [g for g in catalog().gpus if re.search(g.match, name, re.IGNORECASE)]
    if memory_bytes is not None:
        found = [g for g in found if abs(g.memory_bytes / memory_bytes - 1) <= 0.10]
    return found[0] if len(found) == 1 else None


def cpu_facts(model: str | None) -> CpuFacts | None:
    """By the model name that the processor tells; `None` for one that is not listed or hidden by a hypervisor."""
    return next((c for c in catalog().cpus if model and re.search(c.match, model)), None)
