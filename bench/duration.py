"""About how long a cell takes: tokens over rough speeds. For planning an evening, not for comparing anything."""

import re
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from bench.backends import RankRequest, Request
from bench.catalogue import Recipe, Shape, recipe
from bench.job import JobStep
from bench.smallest import heaviest, refusal, short_repeat
from bench.tensors import streamed_parameters
from hardware import Host

if TYPE_CHECKING:
    from bench.plan import CellPlan

THOUGHT_TOKENS = 925
"""Mean output of DeepSeek-R1 on an exam question (published); a reasoning model is expected to say so much if it may."""
ANSWER_TOKENS = 160
CHARACTERS_PER_TOKEN = 4.2
LOAD_BYTES_PER_S = 1e9
CORE_FLOPS = 45e9
"""Rough: of one processor core in matrix products."""
CORE_BYTES_PER_S = 8e9
"""Rough: that one core can draw; a machine is taken to have at most 40 GB/s unless more is known."""
CARD_FLOPS_SHARE = 0.35
BANDWIDTH_SHARE = 0.6
SERVER_TOKENS_PER_S = 30.0
"""Of a server that nothing is known of, for one request."""

SEARCH_TRIALS = 7
"""Of the search for the smallest memory: without a limit, at what that took, and five that halve the range down to a twentieth."""
START_S = 2.0
"""Of an interpreter with its engine."""

WIDE = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")


class StepWork(Struct, frozen=True, kw_only=True):
    prompt_tokens: float
    output_tokens: float
    batch: int
    arrival_s: float = 0.0
    """An open loop takes at least so long."""
    warmup_s: float = 0.0
    """The warm-up before it lasts at least so long."""


class Work(Struct, frozen=True, kw_only=True):
    """What a cell's steps ask for, in rough tokens."""

    steps: tuple[StepWork, ...]
    idle_s: float
    in_flight: int
    batch: int
    """Highest number of sequences decoded together."""
    mean_context: float
    ranks: bool
    trial: tuple[StepWork, ...] = ()
    """One trial of the search for the smallest memory, where there is one."""


class Times(Struct, frozen=True, kw_only=True):
    """Rough seconds of a cell: `steps` in the plan's order without their warm-ups, and all together."""

    cell: float
    steps: tuple[float, ...]


def work_of(cell: "CellPlan") -> Work:
    rules = recipe(cell.deployment)
    steps, lengths = [], []
    for step in cell.steps:
        lengths += [prompt_tokens(r) + expected_output(r, rules) / 2 for r in step.job.requests]
        steps.append(_step_work(step.job, rules, step.warmup.seconds))
    return Work(
        steps=tuple(steps),
        idle_s=cell.idle_s,
        in_flight=max((s.job.load.concurrency or 16 for s in cell.steps), default=1),
        batch=max((s.batch for s in steps), default=1),
        mean_context=sum(lengths) / len(lengths) if lengths else 0.0,
        ranks=any(s.job.ranks for s in cell.steps),
        trial=_trial(cell, rules),
    )


def _step_work(job: JobStep, rules: Recipe, warmup_s: float = 0.0) -> StepWork:
    prompts = sum(map(prompt_tokens, job.requests)) + sum(map(rank_tokens, job.ranks))
    return StepWork(
        prompt_tokens=prompts,
        output_tokens=sum(expected_output(request, rules) for request in job.requests),
        batch=max(1, min(job.load.concurrency or 16, len(job.requests))),
        arrival_s=len(job.requests) / job.load.rate_per_s if job.load.rate_per_s else 0.0,
        warmup_s=warmup_s,
    )


def _trial(cell: "CellPlan", rules: Recipe) -> tuple[StepWork, ...]:
    if not cell.smallest_memory or not cell.steps or refusal(cell.settings, None):
        return ()
    return (_step_work(short_repeat(heaviest(cell.steps).job), rules),)


def at_most(work: Work, slots: int) -> Work:
    """The same work on an engine that decodes at most `slots` sequences together."""

    def fewer(steps: tuple[StepWork, ...]) -> tuple[StepWork, ...]:
        return tuple(structs.replace(step, batch=min(step.batch, slots)) for step in steps)

    return structs.replace(work, steps=fewer(work.steps), trial=fewer(work.trial), batch=min(work.batch, slots))


def tokens_in(text: str) -> float:
    """Rough: a Chinese character is a token, other text has 4.2 characters for each."""
    wide = len(WIDE.findall(text))
    return wide * 0.7 + (len(text) - wide) / CHARACTERS_PER_TOKEN


def prompt_tokens(request: Request) -> float:
    if request.exact_prompt_tokens is not None:
        return request.exact_prompt_tokens
    return sum(tokens_in(turn.text) + 5 for turn in request.turns)


def expected_output(request: Request, rules: Recipe) -> float:
    if request.exact_prompt_tokens is not None:
        return request.sampling.max_tokens
    return min(request.sampling.max_tokens, THOUGHT_TOKENS if rules.reasoning else ANSWER_TOKENS)


def rank_tokens(rank: RankRequest) -> float:
    """The context once, without the part that the step shares, and every continuation."""
    return tokens_in(rank.context[len(rank.prefix) :]) + sum(tokens_in(text) for text in rank.continuations)


def times_of(
    work: Work, step_bytes: float | None, shape: Shape | None, weight_bytes: float, host: Host | None = None
) -> Times | None:
    """Idle before and after, loading, every step behind its warm-up, the search for the smallest memory where one is asked for and may
    happen. Rough: a factor of two either way is no surprise.

    None where nothing is known of the accelerator; without `host` a server's usual speed is taken.
    """
    machine = None
    if host is not None and step_bytes is not None:
        machine = _rough_machine(host)
        if machine is None:
            return None

    def took(step: StepWork) -> float:
        decode, prefill = SERVER_TOKENS_PER_S * step.batch, 1000.0
        if machine is not None and step_bytes is not None:
            decode, prefill = _speeds(step.batch, step_bytes, shape, machine)
        return max(step.arrival_s, step.output_tokens / decode + step.prompt_tokens / prefill)

    start_s, steps = START_S + weight_bytes / LOAD_BYTES_PER_S, tuple(map(took, work.steps))
    total = 2 * work.idle_s + start_s + sum(steps) + sum(step.warmup_s for step in work.steps)
    if not (host and host.gpus):  # the limit does not hold for an accelerator's memory
        total += sum(SEARCH_TRIALS * (start_s + took(step)) for step in work.trial)
    return Times(cell=total, steps=steps)


def _speeds(batch: int, step_bytes: float, shape: Shape | None, machine: tuple[float, float]) -> tuple[float, float]:
    """Output and prompt tokens per second of all requests together."""
    flops, bandwidth = machine
    per_token = 2 * streamed_parameters(shape) if shape else step_bytes
    prefill = flops / max(per_token, 1.0)
    decode = batch / max(step_bytes / bandwidth, batch * per_token / flops, 1e-9)
    return decode, prefill


def _rough_machine(host: Host) -> tuple[float, float] | None:
    """Operations and bytes per second that are likely to be reached; None for an accelerator of unknown bandwidth."""
    gpu = host.gpus[0] if host.gpus else None
    if gpu:
        if gpu.memory_bandwidth_gb_s is None:
            return None
        peak = gpu.peak_tflops.get("bf16") or gpu.peak_tflops.get("fp16") or 100.0
        return peak * 1e12 * CARD_FLOPS_SHARE, gpu.memory_bandwidth_gb_s * 1e9 * BANDWIDTH_SHARE
    cores = host.cpu.cores or 2
    bandwidth = host.memory_bandwidth_gb_s
    return cores * CORE_FLOPS, bandwidth * 1e9 * BANDWIDTH_SHARE if bandwidth else min(40e9, cores * CORE_BYTES_PER_S)
