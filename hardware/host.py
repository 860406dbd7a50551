"""What the machine is: processor, memory, accelerators, software. Found without starting any process and without asking a network."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from hardware import machine
from hardware.base import HardwareError
from hardware.catalog import gpu_facts
from hardware.clock import Clock, describe_clock
from hardware.machine import ROOT, Cpu

VERSIONED = (
    "llama-cpp-python", "gguf", "torch", "transformers", "accelerate", "vllm", "torchao", "bitsandbytes",
    "triton", "flash-attn", "flashinfer-python", "numpy", "nvidia-ml-py", "torch-npu", "vllm-ascend",
)  # fmt: skip


class HostError(HardwareError):
    """A host file that cannot be used; one sentence: what, where, what to do."""


class Gpu(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One accelerator. Bandwidth, rated power and peaks come from the catalogue or the host file, never from a measurement."""

    name: str
    vendor: str = "nvidia"
    index: int = 0
    node: int = 0
    uuid: str | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_bandwidth_gb_s: float | None = None
    """10^9 bytes per second."""
    tdp_w: float | None = None
    peak_tflops: dict[str, float] = {}
    """Dense, by number format: `bf16`, `fp16`, `fp8`, `int8`, `fp32`."""
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    settings: dict[str, str] = {}
    """What changes its behaviour: firmware, ECC, MIG, persistence, link, locked clocks."""


class Host(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine, or several equal ones (`nodes`). Sizes are of one node; `gpus` lists those of all nodes."""

    name: str
    nodes: int = 1
    described: bool = False
    """True when it was read from a file instead of found."""
    product: str | None = None
    cpu: Cpu = Cpu()
    memory_bytes: int | None = None
    memory_available_bytes: int | None = None
    memory_limit_bytes: int | None = None
    """Of the control group."""
    memory_bandwidth_gb_s: float | None = None
    """Of the processor's memory, 10^9 bytes per second; `None` until it is measured or declared."""
    cpu_limit: float | None = None
    """CPUs that the control group permits."""
    swap_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    interconnect: str | None = None
    drivers: dict[str, str] = {}
    versions: dict[str, str] = {}
    kernel: str | None = None
    system: str | None = None
    architecture: str | None = None
    virtual_machine: str | None = None
    container: str | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    load_average: float | None = None
    clock: Clock = Clock()
    python: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def usable_memory_bytes(self) -> int | None:
        """Installed memory or the control group's limit, whichever is smaller."""
        known = [v for v in (self.memory_bytes, self.memory_limit_bytes) if v is not None]
        return min(known, default=None)


def describe_host(root: Path = ROOT) -> Host:
    """This machine as it is now. `root` is for a copied /proc and /sys; accelerators are asked through their own libraries."""
    cpu, memory, group = machine.describe_cpu(root), machine.memory_info(root), machine.limits(root)
    gpus, drivers = _accelerators()
    disk = shutil.disk_usage(Path.cwd())
    return Host(
        name=socket.gethostname(),
        product=machine.product(root),
        cpu=cpu,
        memory_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        memory_limit_bytes=group.memory_bytes,
        cpu_limit=group.cpus,
        swap_bytes=memory.get("SwapTotal"),
        gpus=tuple(with_catalogue(structs.replace(gpu, index=index)) for index, gpu in enumerate(gpus)),
        drivers=drivers,
        versions=installed_versions(),
        kernel=f"{platform.release()} {platform.version()}",
        system=machine.operating_system(root),
        architecture=platform.machine(),
        virtual_machine=machine.virtual_machine(cpu.flags, root),
        container=machine.container(root),
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        load_average=os.getloadavg()[0],
        clock=describe_clock(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def _accelerators() -> tuple[list[Gpu], dict[str, str]]:
    """Of every vendor whose interface answers."""
    from hardware import amd, ascend, nvml, xpu

    gpus: list[Gpu] = []
    drivers: dict[str, str] = {}
    for found, versions in (nvml.inventory(), amd.inventory(), ascend.inventory(), xpu.inventory()):
        gpus += found
        drivers |= versions
    return gpus, drivers


def installed_versions() -> dict[str, str]:
    """Of the libraries that change a measurement, in this interpreter's environment."""
    found: dict[str, str] = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def with_catalogue(gpu: Gpu) -> Gpu:
    """Fill in what the device itself does not tell from the catalogue; what is known stays."""
    facts = gpu_facts(gpu.name, gpu.memory_bytes)
    if facts is None:
        return gpu
    return structs.replace(
        gpu,
        memory_bytes=gpu.memory_bytes if gpu.memory_bytes is not None else facts.memory_bytes,
        memory_bandwidth_gb_s=gpu.memory_bandwidth_gb_s or facts.memory_bandwidth_gb_s,
        tdp_w=gpu.tdp_w or facts.tdp_w,
        peak_tflops=gpu.peak_tflops or facts.peak_tflops,
    )


class GpuGroup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[gpus]]` of a host file: `count` equal cards in each node; sizes left out come from the catalogue."""

    name: str
    count: int = 1
    vendor: str = "nvidia"
    memory_gib: float | None = None
    memory_bandwidth_gb_s: float | None = None
    tdp_w: float | None = None


class HostFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine described by hand."""

    name: str
    source: str
    nodes: int = 1
    cpu: Cpu = Cpu()
    memory_gib: float | None = None
    memory_bandwidth_gb_s: float | None = None
    interconnect: str | None = None
    disk_free_gib: float | None = None
    notes: tuple[str, ...] = ()
    gpus: tuple[GpuGroup, ...] = ()


def load_host(path: Path) -> Host:
    """A described machine. Raises `HostError` for a file that cannot be read or holds anything unknown."""
    try:
        given = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), HostFile)
    except OSError as error:
        raise HostError(f"{path}: cannot be read ({error.strerror}); give a host file (TOML)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HostError(f"{path}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise HostError(f"{path}: {error}") from error
    gpus = [
        with_catalogue(_described_gpu(group, node))
        for node in range(given.nodes)
        for group in given.gpus
        for _ in range(group.count)
    ]
    return Host(
        name=given.name,
        nodes=given.nodes,
        described=True,
        cpu=given.cpu,
        memory_bytes=_gib(given.memory_gib),
        memory_bandwidth_gb_s=given.memory_bandwidth_gb_s,
        gpus=tuple(structs.replace(gpu, index=index) for index, gpu in enumerate(gpus)),
        interconnect=given.interconnect,
        disk_free_bytes=_gib(given.disk_free_gib),
        notes=(*given.notes, f"described, not measured: {given.source}"),
    )


def _described_gpu(group: GpuGroup, node: int) -> Gpu:
    return Gpu(
        name=group.name,
        vendor=group.vendor,
        node=node,
        memory_bytes=_gib(group.memory_gib),
        memory_bandwidth_gb_s=group.memory_bandwidth_gb_s,
        tdp_w=group.tdp_w,
    )


def _gib(value: float | None) -> int | None:
    return None if value is None else int(value * 2**30)


READS = """
import multiprocessing, sys, time
import numpy as np

workers, elements, seconds, rounds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), 5

def work(start, results):
    a = np.ones(elements)
    for _ in range(rounds):
        read = 0
        start.wait()
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds / rounds:
            a @ a
            read += a.nbytes
        results.put(read / (time.perf_counter() - begun))
        start.wait()

fork = multiprocessing.get_context("fork")
start, results = fork.Barrier(workers), fork.SimpleQueue()
processes = [fork.Process(target=work, args=(start, results)) for _ in range(workers)]
[p.start() for p in processes]
print(max(sum(results.get() for _ in processes) for _ in range(rounds)) / 1e9)
[p.join() for p in processes]
"""


def usable_cpus() -> int:
    """Those that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def measure_memory_bandwidth(
    workers: int | None = None, mib_per_array: int = 128, seconds: float = 1.0
) -> float | None:
    """GB/s (10^9) of reading arrays far larger than the caches on all cores at once, best of five rounds; `None` without numpy.

    Reading alone, because that is what decoding does with the weights; STREAM's triad (McCalpin) also writes, and would be a ceiling that
    engines pass. Each core multiplies a vector with itself. Takes `seconds` and runs in a process of its own.
    """
    cores = workers or usable_cpus()
    elements = mib_per_array * 2**20 // 8
    command = [sys.executable, "-c", READS, str(cores), str(elements), str(seconds)]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 10 * seconds, check=False, env=alone)
    return float(done.stdout) if done.returncode == 0 else None


def with_memory_bandwidth(host: Host) -> Host:
    """The machine with its memory's speed measured now, where nobody has said it; takes a second."""
    if host.memory_bandwidth_gb_s is not None:
        return host
    return structs.replace(host, memory_bandwidth_gb_s=measure_memory_bandwidth())
