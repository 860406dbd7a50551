"""Which cells and steps of two runs belong together, what stands in the way of comparing them, and in what they differ. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from results.manifest import CellFacts, Manifest, StepFacts
from results.records import EngineInfo
from results.report.examples import Asked, Place
from results.rows import Row
from results.validity.base import StepView
from results.views import CellRecords

Allowable = Literal["data", "prompts", "scorer", "sampling", "scoring"]
ALLOWABLE: tuple[Allowable, ...] = ("data", "prompts", "scorer", "sampling", "scoring")

FLEETING = frozenset(
    {"base", "memory_available_bytes", "disk_free_bytes", "load_average", "memory_free_bytes", "notes", "described"}
)
"""Facts of a host that change by themselves and make no machine another one."""


class Side(Struct, frozen=True, kw_only=True):
    """One task under one load of one deployment: its repeats, in order, and the cell they belong to."""

    manifest: Manifest
    path: Path
    """Of the cell."""
    cell: CellRecords
    views: tuple[StepView, ...]
    rows: tuple[Row, ...]
    prompts: Mapping[Place, Asked] = {}
    """Texts of the first repeat; empty where they were not kept, or were not needed."""

    @property
    def facts(self) -> StepFacts:
        return self.views[0].step.facts

    @property
    def engine(self) -> EngineInfo | None:
        return self.views[0].step.engine


class Obstacle(Struct, frozen=True):
    """A reason not to compare, by the name that `--allow` takes."""

    name: Allowable
    sentence: str


class Differs(Struct, frozen=True):
    """One thing that is not the same on both sides."""

    what: str
    base: str
    candidate: str


class Match(Struct, frozen=True, kw_only=True):
    """Cells that belong together, and those that found no partner."""

    pairs: tuple[tuple[CellFacts, CellFacts], ...]
    only_base: tuple[CellFacts, ...]
    only_candidate: tuple[CellFacts, ...]


def match_cells(base: Sequence[CellFacts], candidate: Sequence[CellFacts]) -> Match:
    """By name; the others by model, quantisation and engine, the most alike first; a last one on each side belongs together."""
    by_name = {c.deployment: c for c in candidate}
    pairs = [(b, by_name[b.deployment]) for b in base if b.deployment in by_name]
    named = {b.deployment for b, _ in pairs}
    left = [b for b in base if b.deployment not in named]
    right = [c for c in candidate if c.deployment not in named]
    scored = [(likeness(b, c), i, j) for i, b in enumerate(left) for j, c in enumerate(right)]
    taken_left: set[int] = set()
    taken_right: set[int] = set()
    for score, i, j in sorted(scored, key=lambda s: (-s[0], s[1], s[2])):
        last_two = len(left) == len(right) == 1
        if (score or last_two) and i not in taken_left and j not in taken_right:
            pairs.append((left[i], right[j]))
            taken_left.add(i)
            taken_right.add(j)
    return Match(
        pairs=tuple(pairs),
        only_base=tuple(b for i, b in enumerate(left) if i not in taken_left),
        only_candidate=tuple(c for j, c in enumerate(right) if j not in taken_right),
    )


def likeness(first: CellFacts, second: CellFacts) -> int:
    """0 where the models are not the same; more for the same file, quantisation and engine."""
    same_model = bool(first.model) and first.model == second.model
    related = first.family is not None and (first.family, first.parameters_b) == (second.family, second.parameters_b)
    if not (same_model or related):
        return 0
    alike = 2 * (first.quantisation == second.quantisation) + (first.backend == second.backend)
    return 1 + 4 * same_model + alike


def obstacles(base: Side, candidate: Side) -> tuple[Obstacle, ...]:
    """Why the two must not be compared without being told to."""
    found = [_scoring(base, candidate), _data(base, candidate), _sampling(base, candidate), _scorer(base, candidate)]
    if found[0] is None:
        found.append(_prompts(base, candidate))
    return tuple(o for o in found if o is not None)


def _scoring(base: Side, candidate: Side) -> Obstacle | None:
    one, two = base.facts.scoring, candidate.facts.scoring
    return Obstacle("scoring", f"scoring differs ({one}, {two})") if one != two else None


def _data(base: Side, candidate: Side) -> Obstacle | None:
    if base.facts.data_sha256 != candidate.facts.data_sha256:
        one, two = base.facts.data_sha256[:8], candidate.facts.data_sha256[:8]
        return Obstacle("data", f"data differ (hashes {one}, {two})")
    asked = [{(r.sample, r.repeat) for v in side.views for r in v.step.records} for side in (base, candidate)]
    both = asked[0] & asked[1]
    lacking = 0 if _ended_early(base) else len(asked[1] - both)
    lacking += 0 if _ended_early(candidate) else len(asked[0] - both)
    if not lacking:
        return None
    return Obstacle("data", f"data differ ({len(both)} answers to the same items, {lacking} in one only)")


def _ended_early(side: Side) -> bool:
    """What such a side lacks its stopping rule spared it."""
    return any(view.step.ended_by_rule for view in side.views)


def _sampling(base: Side, candidate: Side) -> Obstacle | None:
    one = {**base.facts.sampling, "max_tokens": base.facts.max_tokens}
    two = {**candidate.facts.sampling, "max_tokens": candidate.facts.max_tokens}
    names = sorted(n for n in {*one, *two} if one.get(n) != two.get(n))
    if not names:
        return None
    return Obstacle(
        "sampling", "sampling differs (" + ", ".join(f"{n} {one.get(n)}, {two.get(n)}" for n in names) + ")"
    )


def _scorer(base: Side, candidate: Side) -> Obstacle | None:
    one, two = _scorers(base), _scorers(candidate)
    return Obstacle("scorer", f"scorer differs ({', '.join(one)}; {', '.join(two)})") if one != two else None


def _scorers(side: Side) -> tuple[str, ...]:
    """Of the scores; where there are none, the version that was planned."""
    told = tuple(sorted({s.scorer for v in side.views for s in v.step.scores}))
    return told or (f"{side.facts.task}/{side.facts.task_version}",)


def _prompts(base: Side, candidate: Side) -> Obstacle | None:
    """Equal hashes, else equal texts; a hash also covers order and seeds, so that two seeds of one suite differ in it.

    Where texts were not kept, data, scorer and sampling being the same (each an obstacle of its own) leave only the arrangement of
    options to depend on the seed.
    """
    one, two = base.facts, candidate.facts
    if one.prompt_sha256 == two.prompt_sha256 or one.kind == "speed":
        return None
    common = base.prompts.keys() & candidate.prompts.keys()
    if common:
        other = sum(base.prompts[place] != candidate.prompts[place] for place in common)
        return Obstacle("prompts", f"prompts differ ({other} of {len(common)})") if other else None
    if (one.permuted or two.permuted) and base.manifest.seed != candidate.manifest.seed:
        return Obstacle("prompts", "prompts differ (options are arranged by another seed)")
    return None


def differences(base: Side, candidate: Side) -> tuple[Differs, ...]:
    """Everything that is not the same: deployment, engine, settings, machine, versions."""
    one, two = _described(base), _described(candidate)
    names = [*one, *(n for n in two if n not in one)]
    return tuple(Differs(n, one.get(n, "not told"), two.get(n, "not told")) for n in names if one.get(n) != two.get(n))


def _described(side: Side) -> dict[str, str]:
    facts, manifest = side.cell.facts, side.manifest
    engine = {n: getattr(side.engine, n) for n in _ENGINE} if side.engine else {}
    asked = {f"asked.{k}": v for k, v in facts.settings.items()}
    echoed = {f"setting.{k}": v for k, v in (side.engine.settings if side.engine else {}).items()}
    software = {
        f"version.{k}": v for k, v in {**manifest.versions, **(side.engine.versions if side.engine else {})}.items()
    }
    told = {
        "deployment": facts.deployment,
        "backend": facts.backend,
        "model": facts.model,
        **engine,
        **asked,
        **echoed,
        **software,
        "source commit": manifest.source_commit,
        "source changed": manifest.source_changed,
        "profile": manifest.profile,
        "seed": manifest.seed,
        "repeats": len(side.views),
        **{f"machine.{k}": v for k, v in flat(manifest.host).items()},
    }
    return {name: str(value) for name, value in told.items() if value is not None}


_ENGINE = (
    "engine",
    "engine_version",
    "device",
    "quantisation",
    "bits_per_weight",
    "parameters",
    "weight_bytes",
    "context",
    "max_concurrency",
    "weights_sha256",
    "tokenizer_sha256",
    "chat_template_sha256",
)


def flat(table: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """A host's facts by dotted names; a list of words is one entry, what changes by itself is left out."""
    found: dict[str, str] = {}
    for key, value in table.items():
        if key in FLEETING or value is None:
            continue
        match value:
            case dict():
                found |= flat(value, f"{before}{key}.")
            case list() if value and all(isinstance(v, dict) for v in value):
                for i, entry in enumerate(value):
                    found |= flat(entry, f"{before}{key}.{i}.")
            case list():
                found[before + key] = " ".join(str(v) for v in value)
            case _:
                found[before + key] = str(value)
    return found
