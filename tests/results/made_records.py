"""Small runs made by hand for the tests of `results`: one cell, one step, readings every tenth of a second."""

from typing import Any

from msgspec import structs

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
    Ranked,
    Scored,
    StepEnded,
    StepStarted,
    Stopped,
    Telemetry,
    Tick,
)
from results.validity import Finding, StepView, judge_step, step_views
from results.views import read_cell

S = 1_000_000_000
MS = 1_000_000

ENGINE = EngineInfo(
    engine="scripted",
    engine_version="1",
    device="cpu",
    model="tiny",
    parameters=2_000_000_000,
    quantisation="Q8_0",
    bits_per_weight=8.5,
    weight_bytes=1000,
    cache_bytes_per_token=10.0,
    context=4096,
    max_concurrency=4,
    weights_sha256="w" * 64,
    tokenizer_sha256="t" * 64,
    chat_template_sha256="c" * 64,
    memory={"weights": 1000, "compute": 500},
)
STEP = StepFacts(
    name="qa@c1",
    task="qa",
    task_version=1,
    kind="choice",
    language="en",
    scoring="generate",
    metric="accuracy",
    load="c1",
    concurrency=1,
    items=4,
    samples=4,
    sampling={"temperature": 0.0},
    max_tokens=100,
    data_sha256="d",
    prompt_sha256="p",
)
CELL = CellFacts(id="tiny-000000", deployment="tiny", backend="scripted", model="file:tiny.gguf", steps=(STEP,))
GPU_METER = MeterInfo(meter="nvml", devices=("GPU-0",), evidence="M3", boundary="gpu", sensor_api="NVML", period_s=0.1)
CPU_METER = MeterInfo(
    meter="rapl", devices=("package-0",), evidence="M3", boundary="cpu_package", sensor_api="powercap"
)
GUESS = MeterInfo(meter="estimate", devices=("cpu",), evidence="E2", boundary="cpu_package", sensor_api="model")
PROCESS = MeterInfo(meter="memory", devices=("process",), evidence="-", boundary="none", sensor_api="procfs")


def manifest(profile: str = "smoke", cell: CellFacts = CELL, host: dict[str, Any] | None = None) -> Manifest:
    return Manifest(
        schema=1,
        run="run",
        created_utc="2026-11-22T00:00:00+00:00",
        anchor_monotonic_ns=0,
        anchor_unix_ns=0,
        suite={},
        profile=profile,
        seed=0,
        host=host or {},
        versions={},
        source_commit=None,
        cells=(cell,),
    )


def answer(sample: str, start_ns: int, **other: Any) -> Answered:
    """A request that gets its first token after 100 ms and ten more, the last after 1,100 ms."""
    values: dict[str, Any] = {
        "step": STEP.name,
        "sample": sample,
        "sched_ns": start_ns,
        "start_ns": start_ns,
        "first_ns": start_ns + 100 * MS,
        "answer_ns": start_ns + 100 * MS,
        "last_ns": start_ns + 1100 * MS,
        "end_ns": start_ns + 1100 * MS,
        "text": "Answer: A",
        "prompt_tokens": 50,
        "cached_tokens": 0,
        "output_tokens": 11,
        "token_source": "engine",
    }
    return Answered(**(values | other))


def ranked(sample: str, start_ns: int, **other: Any) -> Ranked:
    values: dict[str, Any] = {
        "step": STEP.name,
        "sample": sample,
        "start_ns": start_ns,
        "end_ns": start_ns + 500 * MS,
        "continuations": (Continuation(-1.0, 2), Continuation(-2.0, 2)),
        "prompt_tokens": 40,
    }
    return Ranked(**(values | other))


def score(sample: str, value: float | None = 1.0, **other: Any) -> Scored:
    verdict = "error" if value is None else "correct" if value == 1.0 else "wrong"
    values: dict[str, Any] = {
        "step": STEP.name,
        "sample": sample,
        "value": value,
        "verdict": verdict,
        "cluster": sample,
        "scorer": "qa/1",
    }
    return Scored(**(values | other))


def ticks(info: MeterInfo, start_s: float, end_s: float, every_ms: int = 100, **values: Any) -> list[Telemetry]:
    """The meter and its readings. A callable value is asked for each second; `device_values` differ by device."""
    per_device = values.pop("device_values", {})
    made: list[Telemetry] = [info]
    for time_ns in range(int(start_s * S), int(end_s * S) + 1, every_ms * MS):
        for device in info.devices:
            fields = {k: v(time_ns / S) if callable(v) else v for k, v in (values | per_device.get(device, {})).items()}
            made.append(Tick(time_ns=time_ns, meter=info.meter, device=device, **fields))
    return made


class Run:
    """One cell whose parts a test may change before it asks for the rows or the findings.

    The sampler runs from 0 s, the worker from 5 s, the model is loaded from 6 to 7 s, the step runs from 10 to 20 s, the worker is
    gone at 20.5 s, the last reading is at 26 s.
    """

    def __init__(self, profile: str = "smoke") -> None:
        self.profile = profile
        self.end_s = 20.0
        self.stopped: Stopped | None = None
        self.page_cache_share: float | None = None
        self.facts, self.step, self.engine = CELL, STEP, ENGINE
        self.host: dict[str, Any] = {"cpu": {"governor": "performance", "logical_cores": 4}}
        self.warmup: list[Event] = [
            StepStarted("warmup", 8 * S),
            *(answer(f"w{i}", 8 * S + i * MS, step="warmup") for i in range(8)),
            StepEnded("warmup", 9 * S),
        ]
        self.records: list[Answered | Ranked] = [answer(f"q{i}", int((10 + 2.2 * i) * S)) for i in range(4)]
        self.states: list[EngineState] = [
            EngineState(time_ns=12 * S, cache_tokens_used=100, cache_tokens_total=400, preemptions=0)
        ]
        self.scores: list[Scored] = [score("q0"), score("q1"), score("q2"), score("q3", 0.0)]
        self.telemetry: list[Telemetry] = [
            *ticks(GUESS, 0, 26, power_w=lambda t: 20.0 if 10 <= t <= 20 else 10.0, power_low_w=5.0, power_high_w=30.0),
            *ticks(
                PROCESS,
                0,
                26,
                anon_bytes=600,
                file_bytes=1000,
                shared_bytes=10,
                swap_bytes=0,
                major_faults=3,
                processes=lambda t: 1 if 5 <= t <= 20.5 else 0,
                cpu_seconds=lambda t: max(0.0, t - 6),
                host_cpu_percent=26.0,
            ),
        ]
        self.ended: CellEnded | None = CellEnded(
            time_ns=26 * S, outcome="ok", fingerprint_start="f" * 64, fingerprint_end="f" * 64
        )

        self.judged: list[Event] = []
        """What a judge said of the step, after its cell has ended."""

    def events(self) -> list[Event]:
        end: list[Event] = [self.ended] if self.ended else []
        return [
            CellStarted(time_ns=5 * S, attempt=1, pid=1, page_cache_share=self.page_cache_share),
            Loaded(6 * S, 7 * S, self.engine),
            *self.warmup,
            StepStarted(self.step.name, 10 * S),
            *self.records,
            *self.states,
            StepEnded(self.step.name, round(self.end_s * S), self.stopped),
            *end,
            *self.judged,
        ]

    def cell_facts(self) -> CellFacts:
        warmup = structs.replace(self.step, name="warmup", warmup=True)
        return structs.replace(self.facts, steps=(warmup, self.step))

    def view(self) -> StepView:
        facts = self.cell_facts()
        cell = read_cell(manifest(self.profile, facts, self.host), facts, self.events(), self.telemetry, self.scores)
        return step_views(cell)[0]

    def finding(self, rule: str) -> Finding:
        return next(f for f in judge_step(self.view()) if f.rule == rule)

    def predict(self, **values: Any) -> None:
        self.facts = structs.replace(self.facts, prediction=Prediction(**values))
