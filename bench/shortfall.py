"""Is every step as long as its profile asks? Said while it is planned; the rules of validity (C1, C2, C10) only find it afterwards. Pure.

Worked example: profile `nightly`, 32 notes at 4 in flight, expected to take 40 s. A percentile needs 130 requests; a steady state of 60 s
needs 60 / (40 / 32) = 48 and 5 more, since the first and the last few are not in it: 130 it is, which `samples_per_item = 5` gives.
"""

import math
from collections.abc import Mapping

import msgspec

from bench.plan import CellPlan
from bench.render import StepPlan, TaskData
from results.manifest import StepFacts
from results.profiles import FLOORS, PROFILES, Profile


def warned(cell: CellPlan, data: Mapping[str, TaskData], profile: str) -> CellPlan:
    """The cell with a warning where it will be shorter than its profile asks."""
    sentence = too_short(cell, data, PROFILES[profile])
    if not sentence:
        return cell
    return msgspec.structs.replace(cell, facts=msgspec.structs.replace(cell.facts, warnings=(sentence,)))


def too_short(cell: CellPlan, data: Mapping[str, TaskData], profile: Profile) -> str:
    """One sentence on the steps that are likely to be too short, and what would fill them; "" for none.

    Also for a profile that takes short steps as indicative, for a cell that is not run and for answers made elsewhere.
    """
    if profile.short == "W" or cell.facts.skipped or cell.deployment.backend == "recorded":
        return ""
    seconds = cell.facts.prediction.step_seconds or (None,) * len(cell.steps)
    parts = [
        _part(step, took, data[step.facts.task], profile)
        for step, took in zip(cell.steps, seconds, strict=True)
        if step.facts.repeat == 0
    ]
    repeats = 1 + max((step.facts.repeat for step in cell.steps), default=0)
    if repeats < profile.repeats:
        parts.append(f"every step has {repeats} of {profile.repeats} repetitions (repeats = {profile.repeats})")
    found = "; ".join(filter(None, parts))
    return f"shorter than profile `{profile.name}` asks, by a rough estimate: {found}" if found else ""


def _part(step: StepPlan, seconds: float | None, data: TaskData, profile: Profile) -> str:
    requests, slots = step.facts.samples, _slots(step)
    asked = max(FLOORS[profile.percentile] if profile.percentile else 0, profile.requests_per_slot * slots)
    lacks = [f"{requests} of {asked} requests"] if requests < asked else []
    edges = slots + 1 if slots > 1 else 0  # those that begin before all are in flight or end when no longer
    if seconds:
        steady_s = seconds * max(0, requests - edges) / requests
        if steady_s < profile.window_s:
            lacks.append(f"about {int(steady_s)} of {profile.window_s:g} s of steady state")
            asked = max(asked, edges + math.ceil(profile.window_s * requests / seconds))
    if not lacks:
        return ""
    return f"{step.facts.name} has {' and '.join(lacks)} ({filler(step.facts, data, asked)})"


def _slots(step: StepPlan) -> int:
    """In flight together; a ranking and an open loop have what comes about, which is not known before."""
    return (step.job.load.concurrency or 1) if step.job.requests else 1


def filler(step: StepFacts, data: TaskData, asked: int) -> str:
    """The settings that would each bring a step to so many requests."""
    pool = max(data.pool, step.items)
    limit = -(-asked * step.items // step.samples)
    ways = [f"limit = {limit}"] if step.items < limit <= pool else []
    if step.scoring == "generate":
        ways.append(f"samples_per_item = {-(-asked // step.items)}")
    if ways:
        return f"{' or '.join(ways)} would do"
    return f"no setting fills it, `{step.task}` has {pool} items"
