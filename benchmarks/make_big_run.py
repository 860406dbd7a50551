"""A run of 200 cells with 5,000 answers each and 10 Hz telemetry of 8 devices (a million answers), and how long its rows and report take.

`python benchmarks/make_big_run.py FOLDER [CELLS] [SAMPLES]` makes the run where it is not there yet, then measures in processes of
their own: the whole command `report` (at most 30 s and 15 MB are asked for), the same in parts, and the rows alone (60 s and 2 GB).
Times are told by the clock and of the processor, since a shared machine makes the first wait.
"""

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
from msgspec.structs import replace

from results.manifest import CellFacts, Manifest, StepFacts
from results.records import (
    Answered,
    CellEnded,
    CellStarted,
    EngineInfo,
    EngineState,
    Loaded,
    MeterInfo,
    Scored,
    StepEnded,
    StepStarted,
    Tick,
)
from results.store import RunDir

ROOT = Path(__file__).parents[1]
S = 1_000_000_000
SECONDS = 150
SLOTS = 64
GPUS = tuple(f"GPU-{i}" for i in range(8))
FIELDS = (
    "cardiology",
    "respiratory",
    "nephrology",
    "neurology",
    "pharmacology",
    "paediatrics",
    "surgery",
    "psychiatry",
)
QUANTISATIONS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
ENCODER = msgspec.json.Encoder()


def step_facts(samples: int) -> StepFacts:
    return StepFacts(
        name="clinical_qa_en@c64", task="clinical_qa_en", task_version=1, kind="choice", language="en", scoring="generate",
        metric="acc", load="c64", concurrency=SLOTS, items=samples, samples=samples, sampling={"temperature": 0.0},
        max_tokens=1024, data_sha256="d", prompt_sha256="p", synthetic=True,
    )  # fmt: skip


def lines(*records: msgspec.Struct) -> bytes:
    return b"".join(ENCODER.encode(r) + b"\n" for r in records)


def events(samples: int, engine: EngineInfo, speed: float) -> bytes:
    """The worker starts at 10 s, the step is warmed up for 35 s, the step runs from 60 s for two and a half minutes or less."""
    name, text = "clinical_qa_en@c64", "The findings fit best with the first option. " * 8 + "Answer: A"
    each_s = SECONDS * SLOTS / samples / speed
    records: list[msgspec.Struct] = [
        CellStarted(time_ns=10 * S, attempt=1),
        Loaded(11 * S, 18 * S, engine),
        *warmup(),
        StepStarted(name, 60 * S),
    ]
    for i in range(samples):
        start = 60 * S + int((i // SLOTS) * each_s * S) + (i % SLOTS) * 1000
        end = start + int(each_s * S * 0.98)
        records.append(
            Answered(
                step=name, sample=f"q{i:05}", sched_ns=start, start_ns=start, first_ns=start + (end - start) // 10,
                answer_ns=start + (end - start) // 10, last_ns=end, end_ns=end, text=f"{text} ({i})", prompt_tokens=310,
                cached_tokens=0, output_tokens=90, token_source="engine",
            )
        )  # fmt: skip
        if i % 50 == 0:
            records.append(
                EngineState(time_ns=end, cache_tokens_used=20_000, cache_tokens_total=100_000, preemptions=0)
            )
    stop = 60 * S + int(SECONDS / speed * S)
    records += [
        StepEnded(name, stop),
        CellEnded(time_ns=stop + 10 * S, outcome="ok", fingerprint_start="f", fingerprint_end="f"),
    ]
    return lines(*records)


def warmup() -> list[msgspec.Struct]:
    """Three requests for each slot, from 20 to 55 s."""
    name = "warmup:clinical_qa_en@c64"
    found: list[msgspec.Struct] = [StepStarted(name, 20 * S)]
    for i in range(3 * SLOTS):
        start = (20 + 11 * (i // SLOTS)) * S
        found.append(
            Answered(
                step=name, sample=f"w{i}", sched_ns=start, start_ns=start, first_ns=start + S, answer_ns=start + S,
                last_ns=start + 11 * S, end_ns=start + 11 * S, text="w", prompt_tokens=310, cached_tokens=0, output_tokens=90,
                token_source="engine",
            )
        )  # fmt: skip
    return [*found, StepEnded(name, 55 * S)]


def telemetry(speed: float) -> bytes:
    until = 60 + SECONDS / speed
    meters = (
        MeterInfo(meter="nvml", devices=GPUS, evidence="M3", boundary="gpu", sensor_api="NVML counter", period_s=0.1),
        MeterInfo(
            meter="memory", devices=("process",), evidence="-", boundary="none", sensor_api="procfs", period_s=0.1
        ),
    )
    counters, records = dict.fromkeys(GPUS, 0.0), []
    for tick in range(int((until + 10) * 10)):
        busy = 200 <= tick <= until * 10
        for gpu in GPUS:
            watts = 500.0 + tick % 7 if busy else 75.0
            counters[gpu] += watts / 10
            records.append(
                Tick(
                    time_ns=tick * S // 10, meter="nvml", device=gpu, energy_j=counters[gpu], power_w=watts,
                    memory_bytes=30 << 30, foreign_processes=0, temperature_c=61.0, clock_mhz=1980.0, throttle=0,
                )
            )  # fmt: skip
        records.append(
            Tick(
                time_ns=tick * S // 10, meter="memory", device="process", anon_bytes=4 << 30, file_bytes=1 << 30, shared_bytes=0,
                swap_bytes=0, major_faults=0, processes=1 if 100 < tick < until * 10 else 0, host_cpu_percent=20.0,
            )
        )  # fmt: skip
    return lines(*meters, *records)


def scores(samples: int, cell: int, right: float) -> bytes:
    own = random.Random(cell)
    common = random.Random(0)
    made = []
    for i in range(samples):
        correct = 0.8 * common.random() + 0.2 * own.random() < right
        made.append(
            Scored(
                step="clinical_qa_en@c64", sample=f"q{i:05}", value=float(correct), verdict="correct" if correct else "wrong",
                answer="A", target=str(i % 4), cluster=f"q{i:05}", tags={"specialty": FIELDS[i % 8]}, metrics={"acc": float(correct)},
                scorer="clinical_qa_en/1",
            )
        )  # fmt: skip
    return lines(*made)


def job(samples: int) -> bytes:
    question = "A 64-year-old patient comes with shortness of breath on exertion and swollen ankles. " * 3
    requests = [{"id": f"q{i:05}", "turns": [{"role": "user", "text": f"{question} ({i})"}]} for i in range(samples)]
    return json.dumps({"steps": [{"name": "clinical_qa_en@c64", "requests": requests}]}).encode()


def make(folder: Path, cells: int, samples: int) -> Path:
    """Write the run; cells of one speed share the bytes of their records."""
    run = RunDir(folder / f"20261122T000000Z_big-{cells}x{samples}")
    if run.path.exists():
        return run.path
    step = step_facts(samples)
    warm = replace(step, name=f"warmup:{step.name}", warmup=True)
    facts, engines = [], []
    for i in range(cells):
        quantisation, size = QUANTISATIONS[i % 8], (1.5, 7, 8, 14, 32)[i // 8 % 5]
        bits = 16.0 / (1 + 0.45 * (i % 8))
        engines.append(
            EngineInfo(
                engine="vllm" if i % 2 else "llama_cpp", engine_version="1", device="cuda:0 H100", model=f"r1-{size}b",
                parameters=int(size * 1e9), quantisation=quantisation, bits_per_weight=bits, weight_bytes=int(size * 1e9 * bits / 8),
                cache_bytes_per_token=57344.0, context=4096, max_concurrency=SLOTS, weights_sha256="w", tokenizer_sha256="t",
                chat_template_sha256="c", memory={"weights": 1 << 30, "compute": 1 << 28}, settings={"context": 4096, "threads": 16},
            )
        )  # fmt: skip
        facts.append(
            CellFacts(
                id=f"cell-{i:03}", deployment=f"r1-{size}b-{quantisation.lower()}-v{i // 40}", backend="vllm", model=f"hf:r1-{size}b",
                family=f"r1-v{i // 40}", parameters_b=float(size), steps=(warm, step),
            )
        )  # fmt: skip
    (run.path / "cells").mkdir(parents=True)
    run.write_manifest(
        Manifest(
            schema=1, run=run.path.name, created_utc="2026-11-22T00:00:00+00:00", anchor_monotonic_ns=0, anchor_unix_ns=0,
            suite={"name": "big"}, profile="nightly", seed=0, host={"name": "8xh100-80g", "gpus": [{"name": "H100"}] * 8}, versions={},
            source_commit=None, cells=tuple(facts),
        )
    )  # fmt: skip
    asked, read = job(samples), {speed: telemetry(speed) for speed in (1.0, 1.25, 1.5, 2.0)}
    for i, cell in enumerate(facts):
        speed, path = (1.0, 1.25, 1.5, 2.0)[i % 4], run.cell(cell.id).make().path
        (path / "events.jsonl").write_bytes(events(samples, engines[i], speed))
        (path / "telemetry.jsonl").write_bytes(read[speed])
        (path / "scores.jsonl").write_bytes(scores(samples, i, 0.75 - 0.02 * (i % 8)))
        (path / "job.json").write_bytes(asked)
    return run.path


ROWS = """
import resource, sys, time
from pathlib import Path
from results.store import RunDir
from results.summary import fold
start, cpu = time.perf_counter(), time.process_time()
run = RunDir(Path(sys.argv[1])); manifest = run.manifest(); rows = []
for facts in manifest.cells:
    cell = run.cell(facts.id)
    rows += fold(manifest, facts, cell.events(), cell.telemetry(), cell.scores())
print(f"{len(rows)} rows: {time.perf_counter() - start:.1f} s (processor {time.process_time() - cpu:.1f} s), "
      f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB at most")
"""

READ = """
import sys, time
from pathlib import Path
from results.report import render
from results.report.gather import gather, uncollected
with uncollected():
    start = time.perf_counter()
    runs = gather([Path(sys.argv[1])])
    read = time.perf_counter()
    render(runs, Path(sys.argv[2]), None, "en")
print(f"of it: reading {read - start:.1f} s, drawing {time.perf_counter() - read:.1f} s")
"""


def report_command(run: Path, out: Path) -> None:
    """The whole command, as a user starts it; its memory is that of its largest process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, ROOT / "run_bench.py", "report", run, "--out", out], check=True, cwd=ROOT)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"command report: {seconds:.1f} s (processor {processor:.1f} s), largest process {after.ru_maxrss / 2**20:.2f} GiB, "
        f"page {(out / 'report.html').stat().st_size / 1e6:.1f} MB"
    )


def main() -> None:
    folder, *sizes = sys.argv[1:]
    cells, samples = (int(s) for s in (*sizes, "200", "5000")[:2])
    run, out = make(Path(folder), cells, samples).resolve(), Path(folder).resolve() / "report"
    report_command(run, out)
    for code in (READ, ROWS):
        subprocess.run([sys.executable, "-c", code, str(run), str(out)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
