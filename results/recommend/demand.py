"""What a hospital asks of its machines, in TOML: requests by kind and hour, time limits, the accuracy needed. Decoded strictly."""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from results.stats import Floats
from results.store import StoreError

Share = Annotated[float, Meta(gt=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]
PEAK_HOUR_SHARE = 0.135
"""Of a day's requests, in the busiest hour, where the demand tells neither this nor the hours: between the 12 and 15 % that are usual."""
PEAK_HOUR = 10


class Estimate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure with its range."""

    value: Positive
    low: Positive
    high: Positive

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError("an estimate needs low <= value <= high")


class Limit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most so many milliseconds for this share of the requests."""

    at_most_ms: Positive
    share: Share = 0.95


class Work(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of request. `task` names the measured task that stands for it."""

    name: str
    task: str
    requests_per_day: Estimate | Positive
    by_hour: tuple[Annotated[float, Meta(ge=0)], ...] = ()
    """24 weights, from 0 to 1 o'clock on."""
    peak_hour_share: Share | None = None
    """Where the hours are not known: the other 23 hours share the rest alike."""
    burst: Annotated[float, Meta(ge=1)] = 1.0
    """Busiest minutes of the busiest hour against that hour's mean."""
    prompt_tokens: Positive | None = None
    output_tokens: Positive | None = None
    """Means of the real requests; a measurement on requests much shorter says nothing of them."""
    minimum_accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None
    ttft: Limit | None = None
    tpot: Limit | None = None

    def __post_init__(self) -> None:
        if self.by_hour and (len(self.by_hour) != 24 or not sum(self.by_hour) > 0):
            raise ValueError("`by_hour` needs 24 weights, one of them above 0")
        if self.by_hour and self.peak_hour_share is not None:
            raise ValueError("`by_hour` already says how large the busiest hour is; leave `peak_hour_share` out")

    @property
    def hours(self) -> Floats:
        """Shares of a day's requests."""
        if self.by_hour:
            return np.array(self.by_hour) / sum(self.by_hour)
        peak = PEAK_HOUR_SHARE if self.peak_hour_share is None else self.peak_hour_share
        found = np.full(24, (1 - peak) / 23)
        found[PEAK_HOUR] = peak
        return found


class Demand(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole demand. All kinds of work run on the same nodes."""

    name: str
    work: tuple[Work, ...]
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    """With which accuracy and times must be kept, all of them together."""
    spare_nodes: Annotated[int, Meta(ge=0)] = 1
    """The load must be carried while so many nodes are out of service."""
    most_nodes: Annotated[int, Meta(ge=1)] = 64
    tariff: str | None = None
    """From this file's folder."""


def load_demand(path: Path) -> Demand:
    """Read a demand; every mistake is a `StoreError` that names the file and the place."""
    try:
        demand = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Demand)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); give a demand (see docs/recommend.md)") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: {error}") from error
    if not demand.work:
        raise StoreError(f"{path}: no [[work]]; a demand needs at least one kind")
    return demand
