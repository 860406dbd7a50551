"""Reads the pretend GPUs of a trace as the product would, on a clock of its own. Started by test_nvml.py with the stub on the library path.

Arguments: seconds to play, milliseconds between readings, process id of the worker (0: none), when it starts (s), folder with a /proc.
Prints JSON: the meter's description, its readings, the inventory and the sensor report.
"""

import ctypes
import sys
from pathlib import Path

import msgspec

from hardware import nvml
from hardware.base import WatchedProcess
from hardware.processes import ProcessTree

seconds, step_ms, worker, start_s, root = (
    float(sys.argv[1]),
    float(sys.argv[2]),
    int(sys.argv[3]),
    float(sys.argv[4]),
    Path(sys.argv[5]),
)
uuids = tuple(sys.argv[6:])
library = ctypes.CDLL("libnvidia-ml.so.1")
library.stub_set_time_ms.argtypes = [ctypes.c_double]
now_ms = 0.0


def set_time(ms: float) -> None:
    global now_ms
    now_ms = ms
    library.stub_set_time_ms(ms)


watched = WatchedProcess()
set_time(0.0)
try:
    meter = nvml.NvmlMeter(ProcessTree(watched, root), uuids, clock=lambda: int(now_ms * 1e6) + 10**12)
except nvml.NvmlError as error:
    print(msgspec.json.encode({"error": str(error)}).decode())
    sys.exit(0)
readings = []
ticks = int(seconds * 1000 / step_ms)
for tick in range(ticks + 1):
    # A real sampler is late by a little, never by the same amount.
    set_time(tick * step_ms + (tick * 7919 % 13) * 0.3)
    watched.pid = worker if worker and now_ms >= start_s * 1000 else None
    readings += meter.read()
set_time(0.0)
found, drivers = nvml.inventory()
out = {
    "info": meter.describe(),
    "readings": readings,
    "gpus": found,
    "drivers": drivers,
    "report": nvml.report(ProcessTree(watched, root)),
}
meter.close()
print(msgspec.json.encode(out).decode())
