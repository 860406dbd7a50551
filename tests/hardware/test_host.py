"""Description of a machine from copied /proc and /sys, described machines, the fingerprint, and this very machine."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hardware import (
    ConstantMeter,
    Cpu,
    Gpu,
    Host,
    HostError,
    MeterOptions,
    Sampler,
    WatchedProcess,
    changes,
    describe_host,
    digest,
    fingerprint,
    load_host,
    open_meters,
    sensors,
)
from hardware.declared import DeclaredOptions
from hardware.host import measure_memory_bandwidth, with_memory_bandwidth
from hardware.machine import Limits, container, describe_cpu, limits, operating_system, virtual_machine

HOSTS = Path(__file__).parents[2] / "hardware" / "hosts"
GIB = 1 << 30


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Files of a pretend machine by path."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def cpuinfo(sockets: int, cores: int, threads_per_core: int, flags: str = "fpu avx2") -> str:
    blocks = []
    for socket in range(sockets):
        for core in range(cores):
            blocks += [
                f"processor\t: {len(blocks) + thread}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n"
                f"model name\t: Intel(R) Xeon(R) Platinum 8480+\nstepping\t: 8\nmicrocode\t: 0x2b000461\n"
                f"physical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: {flags}\n"
                for thread in range(threads_per_core)
            ]
    return "\n".join(blocks)


def test_a_two_socket_server(tree: Callable[[dict[str, str]], Path]) -> None:
    system = "sys/devices/system"
    root = tree(
        {
            "proc/cpuinfo": cpuinfo(sockets=2, cores=3, threads_per_core=2),
            f"{system}/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            f"{system}/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
            f"{system}/cpu/cpu0/cpufreq/energy_performance_preference": "balance_performance\n",
            f"{system}/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3800000\n",
            f"{system}/cpu/intel_pstate/no_turbo": "0\n",
            f"{system}/cpu/smt/control": "on\n",
            f"{system}/node/node0/cpulist": "0-5\n",
            f"{system}/node/node1/cpulist": "6-11\n",
        }
    )
    assert describe_cpu(root) == Cpu(
        model="Intel(R) Xeon(R) Platinum 8480+",
        vendor="GenuineIntel",
        family=6,
        model_number=143,
        stepping=8,
        microcode="0x2b000461",
        sockets=2,
        cores=6,
        threads=12,
        numa_nodes=2,
        smt="on",
        governor="performance,powersave",
        energy_preference="balance_performance",
        turbo=True,
        max_mhz=3800.0,
        flags=("fpu", "avx2"),
    )


def test_an_arm_server_tells_less(tree: Callable[[dict[str, str]], Path]) -> None:
    root = tree(
        {
            "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 200.00\nFeatures\t: fp asimd\nCPU part\t: 0xd01\n\nprocessor\t: 1\n"
        }
    )
    assert describe_cpu(root) == Cpu(threads=2, flags=("fp", "asimd"))


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert describe_cpu(tmp_path) == Cpu()
    assert limits(tmp_path) == Limits()
    assert container(tmp_path) is None
    assert operating_system(tmp_path) is None


@pytest.mark.parametrize(
    ("flags", "files", "kind"),
    [
        ((), {"sys/class/dmi/id/sys_vendor": "Amazon EC2"}, None),
        (("hypervisor",), {"sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "amazon"),
        (
            ("hypervisor",),
            {"sys/class/dmi/id/product_name": "Standard PC", "sys/class/dmi/id/sys_vendor": "QEMU"},
            "qemu",
        ),
        (("hypervisor",), {"sys/class/dmi/id/product_name": "KVM Virtual Machine"}, "kvm"),
        (("hypervisor",), {"sys/class/dmi/id/sys_vendor": "VMware, Inc."}, "vmware"),
        (("hypervisor",), {}, "vm-other"),
        ((), {"sys/hypervisor/type": "xen"}, "xen"),
        ((), {"proc/device-tree/hypervisor/compatible": "linux,kvm"}, "kvm"),
    ],
)
def test_which_hypervisor(
    tree: Callable[[dict[str, str]], Path], flags: tuple[str, ...], files: dict[str, str], kind: str | None
) -> None:
    assert virtual_machine(flags, tree({"proc/x": "", **files})) == kind


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"run/systemd/container": "lxc\n"}, "lxc"),
        ({"proc/1/cgroup": "0::/kubepods.slice/pod1\n"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
    ],
)
def test_which_container(tree: Callable[[dict[str, str]], Path], files: dict[str, str], kind: str | None) -> None:
    assert container(tree(files)) == kind


def test_the_tightest_limit_of_nested_control_groups(tree: Callable[[dict[str, str]], Path]) -> None:
    root = tree(
        {
            "proc/self/cgroup": "0::/slice/job\n",
            "sys/fs/cgroup/slice/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/slice/job/memory.max": "max\n",
            "sys/fs/cgroup/slice/cpu.max": "max 100000\n",
            "sys/fs/cgroup/slice/job/cpu.max": "250000 100000\n",
        }
    )
    assert limits(root) == Limits(memory_bytes=8 * GIB, cpus=2.5)


def test_limits_of_version_1(tree: Callable[[dict[str, str]], Path]) -> None:
    root = tree(
        {
            "proc/self/cgroup": "4:memory:/job\n1:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        }
    )
    assert limits(root) == Limits(memory_bytes=4 * GIB, cpus=None)


def test_shipped_hosts() -> None:
    shipped = {path.name: load_host(path) for path in HOSTS.glob("*.toml")}
    summary = {
        name: (
            host.nodes,
            len(host.gpus),
            host.gpus[0].memory_bytes,
            host.gpus[0].memory_bandwidth_gb_s,
            host.usable_memory_bytes,
        )
        for name, host in shipped.items()
    }
    assert summary == {
        "h20-96g-x8.toml": (1, 8, 96 * GIB, 4000.0, 2048 * GIB),
        "h100-80g-x8.toml": (1, 8, 80 * GIB, 3350.0, 2048 * GIB),
        "ascend-910b-64g-2x8.toml": (2, 16, 64 * GIB, None, 1536 * GIB),
        "rtx4090-1tb.toml": (1, 1, 24 * GIB, 1008.0, 1024 * GIB),
    }
    assert all(host.described and "described, not measured" in host.notes[-1] for host in shipped.values())
    assert [g.node for g in shipped["ascend-910b-64g-2x8.toml"].gpus] == [0] * 8 + [1] * 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("name = ", "not valid TOML"),
        ('name = "x"\nsource = "y"\nmemory = 3', "unknown field `memory`"),
        ('name = "x"', "missing required field `source`"),
        (
            'name = "x"\nsource = "y"\n[[gpus]]\nname = "z"\ncount = "8"',
            "Expected `int`, got `str` - at `$.gpus[0].count`",
        ),
    ],
)
def test_a_wrong_host_file_is_one_sentence(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "host.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(HostError) as raised:
        load_host(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_memory_that_can_be_used_is_the_control_groups_where_that_is_less() -> None:
    assert Host(name="h", memory_bytes=9, memory_limit_bytes=4).usable_memory_bytes == 4


MACHINE = Host(
    name="h",
    cpu=Cpu(model="X", governor="performance"),
    gpus=(Gpu(name="H100", uuid="GPU-1", power_limit_w=700.0, settings={"ecc": "on"}),),
    drivers={"nvidia": "570.00"},
    versions={"torch": "2.7.0"},
    load_average=1.0,
    memory_available_bytes=5,
    disk_free_bytes=7,
)


def test_a_fingerprint_names_what_changed() -> None:
    before = fingerprint(MACHINE, {})
    slower = msgspec.structs.replace(MACHINE.gpus[0], power_limit_w=500.0, settings={"ecc": "off"})
    after = fingerprint(
        msgspec.structs.replace(MACHINE, gpus=(slower,), cpu=Cpu(model="X", governor="powersave"), versions={}),
        {"OMP_NUM_THREADS": "4"},
    )
    assert changes(before, before) == ()
    assert changes(before, after) == (
        "cpu.governor",
        "env.OMP_NUM_THREADS",
        "gpu.0.ecc",
        "gpu.0.power_limit_w",
        "version.torch",
    )
    assert digest(before) != digest(after)
    assert len(digest(before)) == 64


def test_what_moves_by_itself_is_not_in_the_fingerprint() -> None:
    later = msgspec.structs.replace(
        MACHINE,
        name="another-pod",
        load_average=9.0,
        memory_available_bytes=1,
        disk_free_bytes=1,
        gpus=(msgspec.structs.replace(MACHINE.gpus[0], memory_free_bytes=3),),
    )
    assert digest(fingerprint(MACHINE, {})) == digest(fingerprint(later, {}))


def test_the_digest_does_not_depend_on_order() -> None:
    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})


def test_no_secret_of_the_environment_is_taken() -> None:
    environment = {
        "VLLM_ATTENTION_BACKEND": "FLASHINFER",
        "VLLM_API_KEY": "k1",
        "LLAMA_ARG_HF_TOKEN": "k2",
        "VLLM_PROXY": "http://user:k3@proxy:8080",
        "GGML_CUDA_FORCE_MMQ": "1",
        "HF_TOKEN": "k4",
        "HOME": "/root",
    }
    found = fingerprint(MACHINE, environment)
    assert {k: v for k, v in found.items() if k.startswith("env.")} == {
        "env.GGML_CUDA_FORCE_MMQ": "1",
        "env.VLLM_ATTENTION_BACKEND": "FLASHINFER",
    }


def test_this_machine_describes_itself_the_same_twice() -> None:
    one, two = describe_host(), describe_host()
    assert changes(fingerprint(one), fingerprint(two)) == ()
    assert one.memory_bytes
    assert one.cpu.threads == os.cpu_count()
    assert msgspec.json.decode(msgspec.json.encode(one), type=Host) == one


def test_every_interface_is_reported_once() -> None:
    names = [report.interface for report in sensors()]
    assert names == ["memory", "nvml", "amd", "ascend", "xpu", "rapl", "redfish", "ipmi", "estimate"]


def test_this_machines_meters_read_the_worker_and_its_child() -> None:
    """Memory always, and power by some evidence; the child's 64 MiB are seen beside the parent's."""
    code = "import subprocess, sys; a = b'x' * (32 << 20); subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "a = b'x' * (64 << 20); print('ready', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    watched = WatchedProcess()
    watched.pid = process.pid
    meters = open_meters(
        watched, MeterOptions(declared=DeclaredOptions(power_w=5.0, boundary="node_ac", source="test"))
    )
    got = []
    with Sampler(meters, got.append):
        pass
    process.stdin.close()
    process.wait()
    process.stdout.close()
    memory = [r for r in got if r.meter == "memory"][-1]
    assert (memory.processes, memory.swap_bytes) == (2, 0)
    assert (memory.anon_bytes or 0) > 96 << 20
    assert (memory.file_bytes or 0) > 0
    assert {m.describe().meter for m in meters} >= {"memory", "declared"}
    assert any(m.describe().evidence.startswith(("M", "E2")) for m in meters)


def test_importing_the_package_is_light() -> None:
    code = "import sys, hardware; print(*{'numpy', 'pynvml', 'amdsmi', 'httpx', 'psutil', 'ssl'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_memory_bandwidth_is_measured_in_a_process_of_its_own() -> None:
    found = measure_memory_bandwidth(workers=1, mib_per_array=8, seconds=0.02)
    assert found is not None
    assert 0.1 < found < 1000


def test_memory_bandwidth_that_was_declared_is_not_measured() -> None:
    declared = msgspec.structs.replace(describe_host(), memory_bandwidth_gb_s=12.5)
    assert with_memory_bandwidth(declared) is declared


def test_the_fake_needs_no_machine() -> None:
    (reading,) = ConstantMeter(power_w=80.0, memory_bytes=1).read()
    assert (reading.device, reading.power_w, reading.memory_bytes) == ("constant0", 80.0, 1)
