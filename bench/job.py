"""What the parent tells the worker: one document, read once, nothing is sent back."""

from msgspec import Struct

from bench.backends import RankRequest, Request
from bench.config import BackendSettings, Load


class JobStep(Struct, frozen=True, kw_only=True):
    """One task under one load. Either `requests` or `ranks` is filled."""

    name: str
    load: Load
    seed: int
    requests: tuple[Request, ...] = ()
    ranks: tuple[RankRequest, ...] = ()
    seconds: float = 0.0
    """Of a warm-up: it is repeated until it has lasted so long."""


class Job(Struct, frozen=True, kw_only=True):
    """`steps` in the order they are run, warm-ups among them."""

    cell: str
    settings: BackendSettings
    steps: tuple[JobStep, ...]
    idle_s: float = 0.0
    """Rest between loading and the first step, so that the idle draw with the model in memory is on record."""
    state_every_s: float = 1.0
    memory_limit_bytes: int | None = None
    turns: str | None = None
    """File by which workers that are loaded together take turns (`bench.turns`)."""


EXIT_OUT_OF_MEMORY = 77
EXIT_BAD_MODEL = 78
EXIT_TIMED_OUT = 79
