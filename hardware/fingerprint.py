"""Everything about the machine and its software that can change a measurement, by name. A change starts a new epoch.

Values that move by themselves (load, free memory, temperature, current clocks, link speed at rest) are left out.
"""

import hashlib
import os
import re
from collections.abc import Mapping

import msgspec

from hardware.host import Gpu, Host

WATCHED_VARIABLES = re.compile(
    r"^(VLLM_|GGML_|OMP_|LLAMA_|KMP_|GOMP_|MKL_|OPENBLAS_|NCCL_|HCCL_|ASCEND_|PYTORCH_|TORCH_|CUDA_|HIP_|ROCR_|MALLOC_)"
)
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
URL_WITH_USER = re.compile(r"://[^/\s@]+@")


def fingerprint(host: Host, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names and values, sorted; what is not known is left out. `environment` is this process's when not given."""
    cpu = host.cpu
    found: dict[str, object] = {
        "machine.product": host.product,
        "machine.virtual": host.virtual_machine,
        "machine.container": host.container,
        "machine.memory_bytes": host.memory_bytes,
        "machine.memory_limit_bytes": host.memory_limit_bytes,
        "machine.cpu_limit": host.cpu_limit,
        "machine.swap_bytes": host.swap_bytes,
        "cpu.model": cpu.model,
        "cpu.family": cpu.family,
        "cpu.model_number": cpu.model_number,
        "cpu.stepping": cpu.stepping,
        "cpu.microcode": cpu.microcode,
        "cpu.sockets": cpu.sockets,
        "cpu.cores": cpu.cores,
        "cpu.threads": cpu.threads,
        "cpu.numa_nodes": cpu.numa_nodes,
        "cpu.smt": cpu.smt,
        "cpu.governor": cpu.governor,
        "cpu.energy_preference": cpu.energy_preference,
        "cpu.turbo": cpu.turbo,
        "cpu.flags_sha256": hashlib.sha256(" ".join(sorted(cpu.flags)).encode()).hexdigest()[:16],
        "system.kernel": host.kernel,
        "system.name": host.system,
        "system.architecture": host.architecture,
        "system.python": host.python,
        "gpu.count": len(host.gpus),
    }
    for gpu in host.gpus:
        found |= _gpu_entries(gpu)
    found |= {f"driver.{name}": value for name, value in host.drivers.items()}
    found |= {f"version.{name}": value for name, value in host.versions.items()}
    found |= {f"env.{k}": v for k, v in watched_variables(os.environ if environment is None else environment).items()}
    return {name: str(found[name]) for name in sorted(found) if found[name] is not None}


def _gpu_entries(gpu: Gpu) -> dict[str, object]:
    """Under the index, so that a card that was exchanged shows as a changed UUID and not as two entries."""
    facts: dict[str, object] = {
        "name": gpu.name,
        "uuid": gpu.uuid,
        "memory_bytes": gpu.memory_bytes,
        "power_limit_w": gpu.power_limit_w,
        "power_limit_default_w": gpu.power_limit_default_w,
        **gpu.settings,
    }
    return {f"gpu.{gpu.index}.{name}": value for name, value in facts.items()}


def watched_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that steer an engine; none that looks like a key, a password or an address with one in it."""
    return {
        name: value
        for name, value in environment.items()
        if WATCHED_VARIABLES.match(name) and not SECRET.search(name) and not URL_WITH_USER.search(value)
    }


def digest(entries: Mapping[str, str]) -> str:
    """SHA-256 of the sorted entries."""
    return hashlib.sha256(msgspec.json.encode(dict(entries), order="sorted")).hexdigest()


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the entries that were added, removed or altered, sorted."""
    return tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))
