"""Everything a run writes down. The worker's pipe and the files on disk carry the same records.

All times are `time.monotonic_ns()` of the host; the manifest holds one wall-clock anchor. History of the schema:

1 (2026-11-22): first. Later, read as absent from older runs: `MemoryProbed`, `CellStarted.page_cache_share`,
`Tick.harness_cpu_seconds`, `Answered.reasoning_sha256`, `CellStarted.model_commit`, `Prediction.step_seconds`, `CellFacts.warnings`,
`Scored.self_test`, `Judged`, `Manifest.judge`, `CellFacts.quantised_from`, `CellStarted.source_commit`,
`Manifest.source_changed`, `StepFacts.stopping`, `StepEnded.stopped`, `StepFacts.style`, `Compared`.
"""

from typing import Literal

from msgspec import Struct

SCHEMA = 1

Outcome = Literal["ok", "oom", "timeout", "crashed", "skipped", "interrupted"]
Finish = Literal["stop", "length", "error"]


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What the engine says it loaded. Bytes are bytes; `None` is "the engine does not tell"."""

    engine: str
    engine_version: str | None
    device: str
    """Where the weights are: `cpu`, `cuda:0 NVIDIA H100 80GB HBM3`, `remote`."""
    model: str
    parameters: int | None = None
    quantisation: str | None = None
    """The label of the file or of the load-time quantisation: `Q4_K_M`, `bf16`, `int8`."""
    bits_per_weight: float | None = None
    """Of the tensors as stored: 8 * sum(tensor bytes) / sum(elements); not the label's nominal value."""
    weight_bytes: int | None = None
    cache_bytes_per_token: float | None = None
    context: int | None = None
    """Longest prompt plus answer of one request, in tokens."""
    max_concurrency: int = 1
    weights_sha256: str | None = None
    tokenizer_sha256: str | None = None
    chat_template_sha256: str | None = None
    memory: dict[str, int] = {}
    """Bytes by purpose as the engine tells: `weights`, `cache`, `compute`, `peak_allocated`, `peak_reserved` ..."""
    settings: dict[str, str | int | float | bool | None] = {}
    """As echoed by the engine after loading, not as asked."""
    versions: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class Continuation(Struct, frozen=True):
    """Log-likelihood (natural log, summed over tokens) of one continuation after its context."""

    logprob: float
    tokens: int


class CellStarted(Struct, frozen=True, tag=True, kw_only=True):
    """Written by the parent before the worker starts; a resumed cell has several."""

    time_ns: int
    attempt: int
    pid: int | None = None
    page_cache_share: float | None = None
    """Of the weights' bytes, those that stood in the page cache just before; None where there is no file or the kernel does not tell."""
    model_commit: str | None = None
    """Of the Hugging Face repository that `model` names; None for other models and where it is not known."""
    source_commit: str | None = None
    """Of Bedside as this attempt ran it; a run that was resumed may have several."""
    source_changed: bool | None = None
    """As in `Manifest`."""
    clock_shift_s: float = 0.0
    """Added to every time of this attempt: the machine was restarted since the last one, and its clock began anew."""


class Loaded(Struct, frozen=True, tag=True):
    start_ns: int
    end_ns: int
    engine: EngineInfo


class StepStarted(Struct, frozen=True, tag=True):
    """The step's earlier records, if any (a run that was cut), are void from here."""

    step: str
    time_ns: int


class Answered(Struct, frozen=True, tag=True, kw_only=True):
    """One generated answer. A failed request has `error` and is never scored as an answer."""

    step: str
    sample: str
    repeat: int = 0
    sched_ns: int
    """When it was meant to be sent (open loop); equals `start_ns` in a closed loop."""
    start_ns: int
    first_ns: int | None = None
    """First non-empty text of any channel."""
    answer_ns: int | None = None
    """First text after the thinking part; equals `first_ns` where there is none."""
    end_ns: int
    last_ns: int | None = None
    """Last non-empty text."""
    text: str | None = None
    """Everything the model said in the answer channel; `None` when the suite keeps no text."""
    reasoning: str | None = None
    """What came in a channel of its own (`reasoning`, `reasoning_content`)."""
    text_sha256: str | None = None
    """Where the suite keeps no text, or not all of it."""
    reasoning_sha256: str | None = None
    """Likewise; `None` also where nothing came in that channel."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    think_tokens: int | None = None
    token_source: Literal["engine", "usage", "retokenised"] | None = None
    finish: Finish = "stop"
    error: str | None = None
    engine_prefill_ms: float | None = None
    engine_decode_ms: float | None = None


class Ranked(Struct, frozen=True, tag=True, kw_only=True):
    """One context with the log-likelihood of each of its continuations, in the order asked."""

    step: str
    sample: str
    repeat: int = 0
    start_ns: int
    end_ns: int
    continuations: tuple[Continuation, ...] = ()
    prompt_tokens: int | None = None
    """Tokens evaluated for this request, context and continuations together, shared prefix left out."""
    error: str | None = None


class EngineState(Struct, frozen=True, tag=True, kw_only=True):
    """What the engine says of itself while it runs; `None` is not told."""

    time_ns: int
    cache_tokens_used: int | None = None
    cache_tokens_total: int | None = None
    preemptions: int | None = None
    memory: dict[str, int] = {}


class Progress(Struct, frozen=True, tag=True):
    """Tokens that have appeared since the worker started; a sign of life within long answers."""

    time_ns: int
    output_tokens: int


class Stopped(Struct, frozen=True, kw_only=True):
    """What ended a step before its last question: the state of its comparison at that look (docs/stopping.md)."""

    items: int
    """So many of the first items, in the order of the plan, are judged against the baseline."""
    answered: int
    """Requests that had come to an end; those to later items are ahead of the judged ones."""
    decision: Literal["different", "futile"]
    e_value: float
    pairs: int
    """Of the judged items, those that count: one of each cluster, with a score on both sides."""
    only_candidate: int
    only_baseline: int
    lo: float | None
    """Anytime-valid limits of candidate less baseline, in shares, at 1 - alpha."""
    hi: float | None


class StepEnded(Struct, frozen=True, tag=True):
    step: str
    time_ns: int
    stopped: Stopped | None = None
    """Written by the parent, which then ends the worker; None: every request of the step came to an end."""


class CellEnded(Struct, frozen=True, tag=True, kw_only=True):
    time_ns: int
    outcome: Outcome
    detail: str = ""
    log_tail: str = ""
    fingerprint_start: str | None = None
    fingerprint_end: str | None = None
    changed: tuple[str, ...] = ()
    """Names of fingerprint entries that differ between start and end."""
    records_sha256: str | None = None
    """Of every byte that stands before this record in the cell's events.jsonl."""


class MemoryTrial(Struct, frozen=True, kw_only=True):
    """One worker under one limit of memory; `limit_bytes` None is none."""

    limit_bytes: int | None
    outcome: Outcome
    seconds: float
    peak_bytes: int | None = None
    """Most that the limit counts, as the kernel tells of the worker."""
    detail: str = ""


class MemoryProbed(Struct, frozen=True, tag=True, kw_only=True):
    """The smallest memory that the cell's heaviest step works with; written after the cell has ended well."""

    time_ns: int
    step: str
    limit: str
    """What was limited."""
    smallest_bytes: int | None
    """Smallest limit under which every request was answered; None with the reason."""
    failed_bytes: int | None = None
    """Largest limit under which not."""
    trials: tuple[MemoryTrial, ...] = ()
    reason: str = ""

    @property
    def resolution(self) -> float | None:
        """(worked - failed) / worked."""
        if self.smallest_bytes is None or self.failed_bytes is None:
            return None
        return (self.smallest_bytes - self.failed_bytes) / self.smallest_bytes


class LabelJudged(Struct, frozen=True, kw_only=True):
    """What the judge said of a statement whose label is known."""

    id: str
    note: str
    """Statements about one note are not independent."""
    label: str
    verdict: str


class StatementJudged(Struct, frozen=True, kw_only=True):
    """What the judge said of one statement of one summary."""

    sample: str
    repeat: int = 0
    statement: int
    """Its number within the summary, from 0."""
    verdict: str


class Judged(Struct, frozen=True, tag=True, kw_only=True):
    """What a judge made of the summaries of one step; written after all cells have ended. The last one of a step counts.

    A verdict is `supported`, `contradicted`, `not_stated`, `undecided` (its votes differ) or `error` (it gave no answer). The votes
    themselves, one for each order of the options, stand in the run's `judge/` folder.
    """

    time_ns: int
    step: str
    judge: str
    """Its name in the suite."""
    names: tuple[str, ...] = ()
    """Of the judge: family, model, what the engine calls it."""
    candidates: tuple[str, ...] = ()
    """The same of every deployment of the run."""
    engine: str | None = None
    engine_version: str | None = None
    weights_sha256: str | None = None
    scoring: str = ""
    version: int = 1
    """Of the question and of how votes are counted."""
    language: str = ""
    prompt_sha256: str | None = None
    """Of every question about the summaries, in order."""
    labels_sha256: str | None = None
    """Of the labelled statements as they were asked."""
    labels: tuple[LabelJudged, ...] = ()
    statements: tuple[StatementJudged, ...] = ()
    summaries: int = 0
    """Summaries that were looked at, those that state nothing included."""
    reason: str = ""
    """Why it was not judged."""


class SummaryCompared(Struct, frozen=True, kw_only=True):
    """Cosine of one summary with its reference; None where the summary is empty. `cut`: longer than the encoder reads."""

    sample: str
    repeat: int = 0
    cosine: float | None = None
    cut: bool = False


class Compared(Struct, frozen=True, tag=True, kw_only=True):
    """What an encoder made of the summaries of one step; written after all cells have ended. The last one of a step counts.

    Cosines are as they come, not rescaled; `unrelated` and `negated` tell how much room there is below 1.
    """

    time_ns: int
    step: str
    model: str
    engine: str | None = None
    engine_version: str | None = None
    weights_sha256: str | None = None
    pooling: str | None = None
    dimension: int | None = None
    context: int | None = None
    prefix: str = ""
    language: str = ""
    identical: float | None = None
    """A text with itself: the self-test."""
    negated: float | None = None
    """A sentence with its negation."""
    unrelated: float | None = None
    """Mean of the references of different notes with each other."""
    summaries: tuple[SummaryCompared, ...] = ()
    reason: str = ""
    """Why it was not compared."""


Event = (
    CellStarted
    | Loaded
    | StepStarted
    | Answered
    | Ranked
    | EngineState
    | Progress
    | StepEnded
    | CellEnded
    | MemoryProbed
    | Judged
    | Compared
)


Verdict = Literal["correct", "wrong", "no_answer", "truncated", "error"]


class Scored(Struct, frozen=True, kw_only=True):
    """A line of scores.jsonl: what a task's scorer made of one answer."""

    step: str
    sample: str
    repeat: int = 0
    value: float | None
    """The task's headline score in [0, 1]; `None` for an error (never a zero)."""
    verdict: Verdict
    answer: str | None = None
    """The extracted answer, so that a reader can see why."""
    target: str | None = None
    cluster: str
    """Samples that share it are not independent (the same question twice, one patient)."""
    tags: dict[str, str] = {}
    metrics: dict[str, float] = {}
    flags: tuple[str, ...] = ()
    """`think_unclosed`, `think_empty`, `loop`, `refusal`, `wrong_language`, `empty` ..."""
    scorer: str
    """`task/version` of the code that judged."""
    detail: str = ""
    self_test: float | None = None
    """What the scorer gave the reference itself, 1 where its tokenizer knows the language; None where no text is compared by its words."""


class MeterInfo(Struct, frozen=True, kw_only=True, tag=True):
    """Where a meter's numbers come from; the first lines of telemetry.jsonl, once for each meter."""

    meter: str
    devices: tuple[str, ...]
    evidence: str
    """M1 wall analyser, M2 node sensor, M3 component counters, M4 component sampled power, E1-E3 estimates (METHOD 1.1); `-` for memory."""
    boundary: str
    sensor_api: str
    period_s: float | None = None
    scope: str | None = None
    note: str = ""


class Tick(Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """One reading of one device. `None` is "not read"; a failed read has `error` and no values."""

    time_ns: int
    meter: str
    device: str
    power_w: float | None = None
    power_low_w: float | None = None
    power_high_w: float | None = None
    energy_j: float | None = None
    """Cumulative counter."""
    memory_bytes: int | None = None
    """Of our processes on the device."""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    anon_bytes: int | None = None
    file_bytes: int | None = None
    shared_bytes: int | None = None
    swap_bytes: int | None = None
    major_faults: int | None = None
    cgroup_peak_bytes: int | None = None
    processes: int | None = None
    cpu_seconds: float | None = None
    """CPU time of the process tree since its start."""
    harness_cpu_seconds: float | None = None
    """CPU time of the measuring process itself since its start."""
    host_cpu_percent: float | None = None
    """Of the whole machine, 100 = all cores."""
    load_average: float | None = None
    temperature_c: float | None = None
    memory_temperature_c: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    utilisation_percent: float | None = None
    throttle: int | None = None
    """Bit mask in NVML's numbering (METHOD 1.2)."""
    power_limit_w: float | None = None
    ecc_uncorrected: int | None = None
    foreign_processes: int | None = None
    late_ms: float | None = None
    """How much later than planned the reading was taken."""
    error: str | None = None


Telemetry = MeterInfo | Tick
