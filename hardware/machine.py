"""What Linux says of a machine under /proc and /sys. Every function takes the root, so that a copied tree can be read too."""

import os
import re
from pathlib import Path

from msgspec import Struct

ROOT = Path("/")
UNLIMITED = 1 << 60
"""Control groups of version 1 write "no limit" as a number near 2^63."""


class Cpu(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`None` is "not told". Cores and threads are those of all sockets that this system sees."""

    model: str | None = None
    vendor: str | None = None
    family: int | None = None
    model_number: int | None = None
    stepping: int | None = None
    microcode: str | None = None
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    numa_nodes: int | None = None
    smt: str | None = None
    governor: str | None = None
    energy_preference: str | None = None
    turbo: bool | None = None
    max_mhz: float | None = None
    flags: tuple[str, ...] = ()


class Limits(Struct, frozen=True, kw_only=True):
    """Of the control group this process runs in; `None` is no limit, or not told."""

    memory_bytes: int | None = None
    cpus: float | None = None


def read_text(path: Path) -> str | None:
    """Stripped text of a small file; `None` where it is missing, unreadable or empty."""
    try:
        with open(path, "rb", buffering=0) as file:  # read ten times a second: without the layers for text
            return file.read().decode("utf-8", "replace").strip() or None
    except OSError:
        return None


class KeptFile:
    """A small file of /proc that is read ten times a second, opened once: finding it again by name takes longer than reading it."""

    MOST_BYTES = 8192
    """More than is ever looked at; /proc/stat is longer where there are many cores, its first line alone is read."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._descriptor: int | None = None

    def text(self) -> str:
        """From its beginning; empty where it is missing or unreadable, and when its process has gone."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._descriptor, self.MOST_BYTES, 0).decode("utf-8", "replace")
        except OSError:
            self.close()
            return ""

    def close(self) -> None:
        """It may be read again, which opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_int(path: Path) -> int | None:
    text = read_text(path)
    return int(text) if text and re.fullmatch(r"-?\d+", text) else None


def describe_cpu(root: Path = ROOT) -> Cpu:
    blocks = [_pairs(block) for block in (read_text(root / "proc/cpuinfo") or "").split("\n\n")]
    cpus = [b for b in blocks if "processor" in b]
    first = cpus[0] if cpus else {}
    system = root / "sys/devices/system"
    frequency = system / "cpu/cpu0/cpufreq"
    max_khz = read_int(frequency / "cpuinfo_max_freq")
    return Cpu(
        model=first.get("model name") or first.get("Model"),
        vendor=first.get("vendor_id"),
        family=_number(first.get("cpu family")),
        model_number=_number(first.get("model")),
        stepping=_number(first.get("stepping")),
        microcode=first.get("microcode"),
        sockets=len({c["physical id"] for c in cpus if "physical id" in c}) or None,
        cores=len({(c["physical id"], c["core id"]) for c in cpus if "core id" in c and "physical id" in c}) or None,
        threads=len(cpus) or None,
        numa_nodes=sum(bool(re.fullmatch(r"node\d+", p.name)) for p in _children(system / "node")) or None,
        smt=read_text(system / "cpu/smt/control"),
        governor=_governors(system / "cpu"),
        energy_preference=read_text(frequency / "energy_performance_preference"),
        turbo=_turbo(system / "cpu"),
        max_mhz=max_khz / 1000 if max_khz else None,
        flags=tuple((first.get("flags") or first.get("Features") or "").split()),
    )


def _pairs(block: str) -> dict[str, str]:
    lines = [line.partition(":") for line in block.splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _children(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def _governors(cpus: Path) -> str | None:
    """`performance`, or all of them where the cores differ."""
    found = {read_text(p / "cpufreq/scaling_governor") for p in _children(cpus) if re.fullmatch(r"cpu\d+", p.name)}
    return ",".join(sorted(g for g in found if g)) or None


def _turbo(cpus: Path) -> bool | None:
    no_turbo, boost = read_int(cpus / "intel_pstate/no_turbo"), read_int(cpus / "cpufreq/boost")
    if no_turbo is not None:
        return no_turbo == 0
    return None if boost is None else boost == 1


def memory_info(root: Path = ROOT) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    pairs = _pairs(read_text(root / "proc/meminfo") or "")
    return {name: int(value.split()[0]) * 1024 for name, value in pairs.items() if value.endswith(" kB")}


VENDORS = {
    "KVM": "kvm",
    "OpenStack": "kvm",
    "QEMU": "qemu",
    "Amazon EC2": "amazon",
    "VMware": "vmware",
    "VMW": "vmware",
    "innotek GmbH": "oracle",
    "VirtualBox": "oracle",
    "Oracle Corporation": "oracle",
    "Xen": "xen",
    "Bochs": "bochs",
    "Parallels": "parallels",
    "BHYVE": "bhyve",
    "Hyper-V": "microsoft",
    "Microsoft Corporation": "microsoft",
    "Google Compute Engine": "google",
    "Alibaba": "alibaba",
    "Nutanix": "nutanix",
}
"""Vendor strings in the firmware tables and the names that systemd-detect-virt gives them."""


def virtual_machine(flags: tuple[str, ...], root: Path = ROOT) -> str | None:
    """Name of the hypervisor, `vm-other` for one that does not say, `None` on bare metal.

    The processor's `hypervisor` flag decides on x86: rented bare metal carries its vendor's name in the firmware tables too.
    """
    told = read_text(root / "sys/hypervisor/type")
    tree = read_text(root / "proc/device-tree/hypervisor/compatible")
    if "hypervisor" not in flags and not told and not tree:
        return None
    for name in ("product_name", "sys_vendor", "board_vendor", "bios_vendor"):
        text = read_text(root / "sys/class/dmi/id" / name) or ""
        for vendor, kind in VENDORS.items():
            if text.startswith(vendor) or (vendor == "KVM" and vendor in text):
                return kind
    return told or ("kvm" if tree and "kvm" in tree else "vm-other")


def container(root: Path = ROOT) -> str | None:
    """Kind of container this process runs in; `None` outside of one."""
    if told := read_text(root / "run/systemd/container"):
        return told
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    if (root / ".dockerenv").exists():
        return "docker"
    groups = read_text(root / "proc/1/cgroup") or ""
    words = {"kubepods": "kubernetes", "docker": "docker", "lxc": "lxc", "libpod": "podman", "containerd": "containerd"}
    return next((kind for word, kind in words.items() if word in groups), None)


def group_paths(pid: int | str, root: Path = ROOT) -> dict[str, Path]:
    """Folder of the control group of a process by controller; `""` is the unified hierarchy of version 2."""
    paths: dict[str, Path] = {}
    base = root / "sys/fs/cgroup"
    for line in (read_text(root / f"proc/{pid}/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            paths[""] = base / path.lstrip("/")
        for controller in controllers.split(","):
            if controller in ("memory", "cpu"):
                folder = base / controller / path.lstrip("/")
                paths[controller] = folder if folder.exists() else base / controller
    return paths


def limits(root: Path = ROOT) -> Limits:
    """The tightest memory and CPU limit from this process's control group up to the root."""
    paths = group_paths("self", root)
    memory = [read_int(p / "memory.max") for p in _upwards(paths.get(""), root)]
    memory += [read_int(p / "memory.limit_in_bytes") for p in _upwards(paths.get("memory"), root)]
    cpus = [_quota(read_text(p / "cpu.max")) for p in _upwards(paths.get(""), root)]
    for path in _upwards(paths.get("cpu"), root):
        quota, period = read_int(path / "cpu.cfs_quota_us"), read_int(path / "cpu.cfs_period_us")
        if quota and period and quota > 0:
            cpus.append(quota / period)
    return Limits(
        memory_bytes=min((v for v in memory if v is not None and 0 < v < UNLIMITED), default=None),
        cpus=min((v for v in cpus if v is not None), default=None),
    )


def _upwards(path: Path | None, root: Path) -> list[Path]:
    if path is None:
        return []
    base = root / "sys/fs/cgroup"
    return [p for p in (path, *path.parents) if p.is_relative_to(base)]


def _quota(text: str | None) -> float | None:
    """`max 100000` is no limit; `200000 100000` is two CPUs."""
    parts = (text or "").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None


def operating_system(root: Path = ROOT) -> str | None:
    lines = (read_text(root / "etc/os-release") or "").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    name = found.get("PRETTY_NAME") or found.get("NAME")
    return name.strip('"') if name else None


def product(root: Path = ROOT) -> str | None:
    """Vendor and model of the machine, as the firmware tells."""
    parts = [read_text(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")]
    return " ".join(p for p in parts if p) or None


def cpu_times(stat: str) -> tuple[float, float] | None:
    """Busy and total CPU time of the whole machine since boot, in clock ticks, from the text of /proc/stat.

    Waiting for a disk is idle; a stolen tick is neither.
    """
    line = stat.partition("\n")[0].split()
    if len(line) < 8 or line[0] != "cpu":
        return None
    user, nice, system, idle, waiting, irq, soft_irq = (float(v) for v in line[1:8])
    busy = user + nice + system + irq + soft_irq
    return busy, busy + idle + waiting


class BusyShare:
    """Share of all cores that was busy, from 0 to 1. CPU time is counted in ticks of 10 ms, so fewer than `MIN_TICKS` say nothing."""

    MIN_TICKS = 8

    def __init__(self, root: Path = ROOT) -> None:
        self._stat = KeptFile(root / "proc/stat")
        self._times = cpu_times(self._stat.text())
        self._share: float | None = None

    def latest(self) -> float | None:
        """Over the time since it last changed; the old one until enough ticks have passed, `None` before that."""
        now = cpu_times(self._stat.text())
        if now is None:
            return None
        self._times = self._times or now
        ticks = now[1] - self._times[1]
        if ticks >= self.MIN_TICKS:
            self._share = min(1.0, max(0.0, (now[0] - self._times[0]) / ticks))
            self._times = now
        return self._share

    def close(self) -> None:
        self._stat.close()
