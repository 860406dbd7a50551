"""What llama.cpp says while it loads: kept for error messages, and read for what no function of its tells. Pure but for the printing."""

import re
import sys
from collections import deque
from collections.abc import Sequence

DEBUG = 1
CONTINUED = 5
MIB = 1 << 20
BUFFER = re.compile(r"(?P<device>\S+)\s+(?P<what>model|KV|RS|compute|output) buffer size\s*=\s*(?P<mib>[\d.]+) MiB")
PURPOSE = {"model": "weights", "KV": "cache", "RS": "cache", "compute": "compute", "output": "output"}
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
DEVICE = re.compile(r"using device (\S+) \(([^)]*)\)")
FLASH = re.compile(
    r"[Ff]lash [Aa]ttention (?:was auto, set to )?(enabled|disabled)|flash_attn\s*=\s*(enabled|disabled)"
)
NO_MEMORY = re.compile(
    r"failed to allocate|unable to allocate|out of memory|cannot allocate memory|bad_alloc|not enough memory|insufficient memory"
    r"|cudaMalloc failed|ErrorOutOfDeviceMemory",
    re.IGNORECASE,
)


class Log:
    """Lines as they come, without the debug level; forwarded to stderr, which is the worker's log."""

    def __init__(self, most_lines: int = 2000) -> None:
        self.lines: deque[str] = deque(maxlen=most_lines)
        self._half = ""
        self._shown = True

    def write(self, level: int, text: str) -> None:
        """`level` is ggml's; a line may come in several pieces."""
        if level != CONTINUED:
            self._shown = level != DEBUG
        if not self._shown:
            return
        sys.stderr.write(text)
        *whole, self._half = (self._half + text).split("\n")
        self.lines.extend(line for line in whole if line.strip(" ."))

    def last_words(self, count: int = 3) -> str:
        return "; ".join(line.strip() for line in list(self.lines)[-count:]) or "llama.cpp gave no reason"


def buffer_bytes(lines: Sequence[str]) -> dict[str, int]:
    """Bytes by purpose (`weights`, `cache`, `compute`, `output`), and the same for each device where there are several."""
    totals: dict[str, int] = {}
    devices: dict[str, int] = {}
    for line in lines:
        if found := BUFFER.search(line):
            purpose, size = PURPOSE[found["what"]], round(float(found["mib"]) * MIB)
            totals[purpose] = totals.get(purpose, 0) + size
            name = f"{purpose}:{found['device']}"
            devices[name] = devices.get(name, 0) + size
    return totals if len({name.partition(":")[2].split("_")[0] for name in devices}) < 2 else totals | devices


def flash_attention(lines: Sequence[str]) -> bool | None:
    """Whether it is used in the end; None where the log does not say."""
    said = [found[1] or found[2] for line in lines if (found := FLASH.search(line))]
    return said[-1] == "enabled" if said else None


def offloaded_layers(lines: Sequence[str]) -> int | None:
    said = [int(found[1]) for line in lines if (found := OFFLOADED.search(line))]
    return said[-1] if said else None


def devices(lines: Sequence[str]) -> list[str]:
    """`CUDA0 NVIDIA H100 80GB HBM3`; empty on a build without GPUs."""
    return [f"{found[1]} {found[2]}" for line in lines if (found := DEVICE.search(line))]


def lacks_memory(lines: Sequence[str]) -> bool:
    return any(NO_MEMORY.search(line) for line in lines)
