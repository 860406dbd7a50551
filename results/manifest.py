"""What a run was asked to do: the types of `manifest.json`, written once when the run begins.

What happened then stands in `results.records`, and so do the schema number and its history, which cover both.
"""

from typing import Any, Literal

from msgspec import Struct


class StoppingRule(Struct, frozen=True, kw_only=True):
    """When a step may end before its last question, said before the first one (docs/stopping.md)."""

    baseline: str
    """The deployment that it is judged against, item by item."""
    baseline_cell: str
    alpha: float = 0.05
    futility_margin: float | None = None
    """Ends as well when the difference is within this margin either way; None: never."""
    look_every: int = 25
    """Items, in the order of the plan."""
    fewest_items: int = 50
    window_s: float = 0.0
    """Of steady state that must have been measured first."""
    window_requests: int = 0
    """Likewise, in all."""
    window_requests_per_slot: int = 0
    """Likewise, for each request in flight."""

    @property
    def sentence(self) -> str:
        futile = "" if self.futility_margin is None else f" or within {100 * self.futility_margin:g} points"
        looks = f"a look after every {self.look_every} items from {self.fewest_items} on"
        return f"against {self.baseline}, ends when different at alpha {self.alpha:g}{futile}; {looks}"


class StepFacts(Struct, frozen=True, kw_only=True):
    """What a step was meant to do; stands in the manifest."""

    name: str
    """`clinical_qa_en@c4`; a repeat adds `#2`."""
    task: str
    task_version: int
    kind: str
    language: str
    scoring: Literal["likelihood", "letters", "generate"]
    metric: str
    load: str
    concurrency: int | None = None
    rate_per_s: float | None = None
    repeat: int = 0
    items: int
    samples: int
    """Requests: items times answers for each."""
    sampling: dict[str, float | int | str | None] = {}
    """Of every request; the seed varies from request to request."""
    max_tokens: int | None = None
    data_sha256: str
    """Of the samples as read: ids, texts, options, targets."""
    data_file_sha256: str | None = None
    """Of the file (or folder) that the suite named; None for embedded data."""
    shots: int = 0
    """Solved examples before every ranked question."""
    prompt_sha256: str
    """Of every rendered prompt in order."""
    permuted: bool = False
    style: str | None = None
    """How the task was asked, where the suite chose another way than the task's own."""
    synthetic: bool = False
    """Items were written for this project and not reviewed by a clinician."""
    public: bool = False
    warmup: bool = False
    stopping: StoppingRule | None = None
    """None: the step is run whole."""


class Prediction(Struct, frozen=True, kw_only=True):
    """What the plan expects before anything is loaded. Predicted, never measured; bytes."""

    weight_bytes: int | None = None
    cache_bytes: int | None = None
    overhead_bytes: int | None = None
    total_bytes: int | None = None
    available_bytes: int | None = None
    fits: bool | None = None
    decode_tokens_per_s_ceiling: float | None = None
    """Roofline at the highest load; None where the memory bandwidth is unknown."""
    seconds: float | None = None
    """Rough duration of the cell."""
    step_seconds: tuple[float, ...] = ()
    """Rough duration of each measured step in the plan's order, warm-ups left out; empty where unknown."""
    basis: str = ""
    advice: str = ""


class CellFacts(Struct, frozen=True, kw_only=True):
    """What a cell was meant to be; stands in the manifest."""

    id: str
    deployment: str
    backend: str
    model: str
    family: str | None = None
    parameters_b: float | None = None
    active_parameters_b: float | None = None
    quantisation: str | None = None
    quantised_from: str | None = None
    """Label of the file it is made from on this machine; None where the file is used as it came."""
    settings: dict[str, Any] = {}
    steps: tuple[StepFacts, ...] = ()
    prediction: Prediction = Prediction()
    skipped: str | None = None
    """Why it is not run at all."""
    warnings: tuple[str, ...] = ()
    """What the plan expects the rules of validity to find."""
    synthetic_weights: bool = False


class Manifest(Struct, frozen=True, kw_only=True):
    """One run. `anchor_*` tie the monotonic clock of the records to wall-clock time."""

    schema: int
    run: str
    created_utc: str
    anchor_monotonic_ns: int
    anchor_unix_ns: int
    suite: dict[str, Any]
    profile: str
    seed: int
    host: dict[str, Any]
    versions: dict[str, str]
    source_commit: str | None
    cells: tuple[CellFacts, ...]
    store_text: bool = True
    judge: CellFacts | None = None
    """Whom the suite asks about the summaries when all cells have ended; its steps are the labelled statements."""
    source_changed: bool | None = None
    """What ran differed from the commit; None where that is not known."""
