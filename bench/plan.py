"""From what was asked to what will run: cells with their steps, what is skipped and why. Pure; loads nothing."""

import hashlib
import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from bench.catalogue import Entry, Recipe, find
from bench.config import (
    BackendSettings,
    Deployment,
    LlamaCppSettings,
    Load,
    OpenAIServerSettings,
    RecordedSettings,
    Stopping,
    Suite,
    TransformersSettings,
    VllmSettings,
    engine_settings,
)
from bench.job import Job, JobStep
from bench.models import Weights
from bench.render import Asking, StepPlan, TaskData, choose_scoring, render_step, warmup_of
from results.manifest import CellFacts, Prediction, StepFacts, StoppingRule
from results.profiles import FLOORS, PROFILES

WARMUP_REQUESTS = 2
"""Warm-up requests for each request in flight; in profile `smoke` those that the cell has served before count."""
WARMUP_SECONDS = {"smoke": 0.0, "nightly": 30.0, "procurement": 30.0}
"""The warm-up is repeated until it has lasted so long."""

YES_OR_NO = ("choice", "label", "number", "detect")
"""Kinds of tasks whose headline is right or wrong for each item."""


class CellPlan(Struct, frozen=True, kw_only=True):
    """One deployment on this host: what is recorded of it and what its worker is told."""

    facts: CellFacts
    deployment: Deployment
    settings: BackendSettings
    steps: tuple[StepPlan, ...]
    idle_s: float
    smallest_memory: bool = False
    """Whether it is searched for after the cell."""

    def job(self, done: frozenset[str]) -> Job:
        """The steps that are not done yet, each behind its warm-up. After a resume the engine is new and the first is warmed up whole."""
        steps: list[JobStep] = []
        for step in self.steps:
            if step.job.name in done:
                continue
            warmup = step.warmup
            if done and not steps:
                warmup = warmup_of(step.job, _whole_warmup(step.job.load), step.warmup.seconds)
            steps += [warmup, step.job] if _requests(warmup) else [step.job]
        return Job(
            cell=self.facts.id,
            settings=self.settings,
            steps=tuple(steps),
            idle_s=self.idle_s,
            memory_limit_bytes=self.deployment.memory_limit_bytes,
        )


class Resolved(Struct, frozen=True, kw_only=True):
    """What is known of a deployment's weights before loading: where they are, or why they cannot be had."""

    weights: Weights | None = None
    missing: str | None = None
    prediction: Prediction = Prediction()


def expand(suite: Suite, data: Mapping[str, TaskData]) -> tuple[CellPlan, ...]:
    """One cell for each deployment, in the suite's order; what is known of the weights is added by `place`.

    Where steps may end early, the deployment that they are judged against is run first.
    """
    rendered: dict[Asking, tuple[StepPlan, ...]] = {}
    cells: list[CellPlan] = []
    against = suite.stopping.against if suite.stopping else None
    for deployment in sorted(suite.deployments, key=lambda d: d.name != against):
        settings, entry = engine_settings(deployment), find(deployment)
        asking = Asking(recipe=_recipe(entry, settings), sampling=deployment.sampling, can_rank=can_rank(settings))
        if asking not in rendered:
            rendered[asking] = tuple(_steps(suite, data, asking))
        steps = rendered[asking]
        if suite.stopping and cells:
            rule = rule_of(suite.stopping, cells[0].facts.id, suite.profile)
            steps = ruled(steps, cells[0].steps, data, rule)
        cells.append(cell_of(suite, deployment, settings, entry, steps))
    return tuple(cells)


def _recipe(entry: Entry | None, settings: BackendSettings) -> Recipe:
    """How the variant wants to be asked; a recorded answer is whole, and nothing stands before it."""
    recipe = entry.recipe if entry else Recipe()
    return msgspec.structs.replace(recipe, prefill="") if isinstance(settings, RecordedSettings) else recipe


def place(cell: CellPlan, resolved: Resolved) -> CellPlan:
    """The cell with its weights found (or not) and its prediction made."""
    weights, prediction = resolved.weights, resolved.prediction
    facts = msgspec.structs.replace(
        cell.facts,
        parameters_b=weights.parameters / 1e9 if weights and weights.parameters else cell.facts.parameters_b,
        quantisation=cell.facts.quantisation or (weights.label if weights else None),
        quantised_from=weights.quantised_from if weights else None,
        prediction=prediction,
        skipped=resolved.missing or (prediction.advice if prediction.fits is False else None),
    )
    return msgspec.structs.replace(
        cell, facts=facts, settings=with_weights(cell.settings, weights, most_in_flight(cell.steps))
    )


def cell_id(deployment: Deployment, settings: BackendSettings) -> str:
    """A readable slug and six hash characters of everything that makes the deployment what it is."""
    slug = re.sub(r"[^a-z0-9]+", "-", deployment.name.lower()).strip("-")[:48] or "cell"
    digest = hashlib.sha256(msgspec.json.encode([deployment, settings], order="sorted")).hexdigest()
    return f"{slug}-{digest[:6]}"


def cell_of(
    suite: Suite, deployment: Deployment, settings: BackendSettings, entry: Entry | None, steps: tuple[StepPlan, ...]
) -> CellPlan:
    """A deployment with its steps, before anything is known of its weights."""
    facts = CellFacts(
        id=cell_id(deployment, settings),
        deployment=deployment.name,
        backend=deployment.backend,
        model=deployment.model,
        family=entry.family if entry else None,
        parameters_b=entry.parameters_b if entry else None,
        active_parameters_b=entry.active_parameters_b if entry and not deployment.layers else None,
        quantisation=deployment.quantise,
        settings=dict(deployment.settings),
        steps=tuple(facts for step in steps for facts in _facts_of(step)),
        synthetic_weights=deployment.model.startswith("synthetic:"),
    )
    return CellPlan(
        facts=facts,
        deployment=deployment,
        settings=settings,
        steps=steps,
        idle_s=suite.idle_s,
        smallest_memory=suite.smallest_memory,
    )


def can_rank(settings: BackendSettings) -> bool:
    match settings:
        case RecordedSettings():
            return False
        case OpenAIServerSettings():
            return settings.can_rank
        case _:
            return True


def _steps(suite: Suite, data: Mapping[str, TaskData], asking: Asking) -> list[StepPlan]:
    """Repeats outermost, so that drift of the machine does not fall on one task. Ranking always fills the engine's batch: once."""
    steps: list[StepPlan] = []
    for repeat in range(suite.repeats):
        for task_data in data.values():
            loads = task_data.options.load or suite.load
            if choose_scoring(task_data, asking) != "generate" and task_data.task.kind != "speed":
                loads = loads[:1]
            for load in loads:
                steps.append(_step(suite, task_data, asking, load, repeat, steps))
    return steps


def _step(
    suite: Suite, data: TaskData, asking: Asking, load: Load, repeat: int, before: Sequence[StepPlan]
) -> StepPlan:
    facts, job = render_step(data, asking, load, repeat, suite.seed)
    requests = _whole_warmup(load)
    if suite.profile == "smoke":
        requests = _still_cold(job, requests, before)
    return StepPlan(facts=facts, job=job, warmup=warmup_of(job, requests, WARMUP_SECONDS[suite.profile]))


def _still_cold(job: JobStep, wanted: int, before: Sequence[StepPlan]) -> int:
    """A run that is only indicative need not warm up what the steps before have: their requests count (rule C3 counts them too), but
    the first step that writes, or ranks, has at least one of its own kind."""
    served = sum(_requests(step.warmup) + _requests(step.job) for step in before)
    first = not any(bool(step.job.ranks) == bool(job.ranks) for step in before)
    return max(wanted - served, 1 if first else 0)


def _whole_warmup(load: Load) -> int:
    return (load.concurrency or 1) * WARMUP_REQUESTS


def _requests(step: JobStep) -> int:
    return len(step.requests) + len(step.ranks)


def _facts_of(step: StepPlan) -> tuple[StepFacts, StepFacts]:
    """A step's warm-up and the step, as they stand in the manifest; a warm-up of no request may get some after a resume."""
    count = _requests(step.warmup)
    warmup = msgspec.structs.replace(
        step.facts, name=step.warmup.name, items=count, samples=count, warmup=True, stopping=None
    )
    return warmup, step.facts


def ruled(
    steps: Sequence[StepPlan], baseline: Sequence[StepPlan], data: Mapping[str, TaskData], rule: StoppingRule
) -> tuple[StepPlan, ...]:
    """The steps, each with the rule where it can apply: one yes/no answer to each item, and the same asked of the baseline."""
    others = {step.facts.name: step.facts for step in baseline}

    def applies(step: StepPlan) -> bool:
        facts, other = step.facts, others.get(step.facts.name)
        once = facts.samples == facts.items and data[facts.task].task.together is None
        return once and facts.kind in YES_OR_NO and other is not None and other.scoring == facts.scoring

    return tuple(
        msgspec.structs.replace(step, facts=msgspec.structs.replace(step.facts, stopping=rule))
        if applies(step)
        else step
        for step in steps
    )


def rule_of(stopping: Stopping, baseline_cell: str, profile: str) -> StoppingRule:
    """The suite's wish with what the profile asks of a measurement filled in."""
    asked = PROFILES[profile]
    percentile = FLOORS[asked.percentile] if asked.percentile else 0
    whole = stopping.window_s is None
    return StoppingRule(
        baseline=stopping.against,
        baseline_cell=baseline_cell,
        alpha=stopping.alpha,
        futility_margin=stopping.futility_margin,
        look_every=stopping.look_every,
        fewest_items=stopping.fewest_items,
        window_s=asked.window_s if stopping.window_s is None else stopping.window_s,
        window_requests=percentile if whole else 0,
        window_requests_per_slot=asked.requests_per_slot if whole else 0,
    )


def most_in_flight(steps: tuple[StepPlan, ...]) -> int:
    return max((s.job.load.concurrency or 16 for s in steps), default=1)


def with_weights(settings: BackendSettings, weights: Weights | None, in_flight: int) -> BackendSettings:
    """Fill in where the weights are and, for llama.cpp, a slot for each request in flight (at least 4, for ranking)."""
    if isinstance(settings, LlamaCppSettings) and settings.slots is None:
        settings = msgspec.structs.replace(settings, slots=max(4, in_flight))
    if weights and hasattr(settings, "model_path"):
        settings = msgspec.structs.replace(settings, model_path=str(weights.path))
    if weights and weights.config is not None:
        match settings:
            case TransformersSettings():
                settings = msgspec.structs.replace(settings, synthetic_config=weights.config)
            case VllmSettings():
                settings = msgspec.structs.replace(settings, load_format="dummy")
    return settings


def planned_seconds(cells: tuple[CellPlan, ...]) -> float | None:
    """Sum over the cells that run; None when one of them is unknown."""
    parts = [c.facts.prediction.seconds for c in cells if not c.facts.skipped]
    known = [p for p in parts if p is not None]
    return sum(known) if known and len(known) == len(parts) else None
