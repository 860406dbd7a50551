"""A specification in TOML: what a delivered machine has to show, clause by clause. Decoded strictly."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from results.store import StoreError

Share = Annotated[float, Meta(gt=0, lt=1)]
Positive = Annotated[float, Meta(gt=0)]


class Accuracy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="accuracy"):
    """Decided by the confidence limits, never by the value alone."""

    task: str
    at_least: Annotated[float, Meta(ge=0, le=1)]
    load: str | None = None
    deployment: str | None = None


class NonInferior(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="non_inferior"):
    """Not worse than a reference on the same items by more than the margin."""

    task: str
    reference: str
    """A deployment's name."""
    reference_run: str | None = None
    """Folder of the reference's run, from the specification's folder; `None`: the same run."""
    margin: Share = 0.02
    load: str | None = None
    deployment: str | None = None


class FirstToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="first_token"):
    """Time to the first text under a load."""

    task: str
    at_most_ms: Positive
    percentile: Annotated[float, Meta(gt=0, lt=100)] = 95.0
    of: Literal["first", "answer"] = "first"
    """`answer`: the first text after the thinking part."""
    load: str | None = None
    deployment: str | None = None


class UserSpeed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="user_speed"):
    """Tokens per second that one user sees, for a share of the requests."""

    task: str
    at_least_tokens_per_s: Positive
    for_share: Share = 0.95
    load: str | None = None
    deployment: str | None = None


class Throughput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="throughput"):
    """Tokens per second of all users together in the steady state."""

    task: str
    at_least_tokens_per_s: Positive
    of: Literal["output", "prompt"] = "output"
    load: str | None = None
    deployment: str | None = None


class Memory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="memory"):
    """Highest reading over the steps."""

    at_most_gib: Positive
    of: Literal["device", "host"] = "device"
    task: str | None = None
    load: str | None = None
    deployment: str | None = None


class PowerCap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="power"):
    """Mean power under load, the highest over the steps, with the range of its evidence class."""

    at_most_w: Positive
    task: str | None = None
    load: str | None = None
    deployment: str | None = None


class Cost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="cost"):
    """By the 95 % interval over all inputs of the tariff."""

    task: str
    at_most: Positive
    currency: str
    per: Literal["1k_samples", "correct"] = "1k_samples"
    load: str | None = None
    deployment: str | None = None


class Validity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="validity"):
    """Every step keeps the rules of this profile; the records are judged anew by it."""

    profile: Literal["smoke", "nightly", "procurement"]
    deployment: str | None = None


class Evidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="evidence"):
    """Power was read by a meter of this class or a better one."""

    at_least: Literal["M1", "M2", "M3", "M4"]
    deployment: str | None = None


Clause = Accuracy | NonInferior | FirstToken | UserSpeed | Throughput | Memory | PowerCap | Cost | Validity | Evidence


class Spec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole specification."""

    title: str
    title_zh: str = ""
    buyer: str = ""
    supplier: str = ""
    reference: str = ""
    """Number of the tender or the contract."""
    deployment: str
    """Whose measurements are judged, unless a clause names another."""
    tariff: str | None = None
    """From the specification's folder; `None`: the shipped example."""
    confidence: Annotated[float, Meta(ge=0.8, lt=1)] = 0.95
    """Of the two-sided intervals that decide."""
    clauses: tuple[Clause, ...]


def load_spec(path: Path) -> Spec:
    """Read a specification; every mistake is a `StoreError` that names the file and the place."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read ({error.strerror}); give a specification (see docs/acceptance.md)"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not valid TOML: {error}") from error
    try:
        spec = msgspec.convert(raw, Spec)
    except msgspec.ValidationError as error:
        raise StoreError(f"{path}: {error}") from error
    if not spec.clauses:
        raise StoreError(f"{path}: no [[clauses]]; a specification needs at least one")
    return spec
