"""From tasks and options to the requests that a worker sends. Pure: same suite, same data, same requests."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.backends import RankRequest, Request, Sampling, Turn
from bench.catalogue import Recipe
from bench.config import ConfigError, Load, SamplingOptions, TaskOptions
from bench.datasets_source import named_data
from bench.job import JobStep
from bench.mistakes import nearest
from results.manifest import StepFacts
from tasks import DataError, Generate, Prompt, Rank, Sample, Scoring, Task, arrange, headline

WARMUP_TOKENS = 16
Asked = TypeVar("Asked", Request, RankRequest)


class TaskData(msgspec.Struct, frozen=True):
    """A task with the samples of this suite, in the order they are asked."""

    task: Task
    options: TaskOptions
    samples: tuple[Sample, ...]
    sha256: str
    file_sha256: str | None = None
    """Of the file or folder that was named; None for embedded data."""
    shots: tuple[Sample, ...] = ()
    pool: int = 0
    """Items that `limit` may choose from."""


def load_tasks(
    wanted: Mapping[str, TaskOptions],
    known: Mapping[str, Task],
    limit: int | None,
    seed: int,
    base: Path,
    download: bool = False,
) -> dict[str, TaskData]:
    """Read the data of every task. The order is shuffled once by the seed, so that a `limit` is a fair sample.

    Relative data paths are looked for from `base`. Raises `ConfigError` for an unknown task or bad data.
    """
    if unknown := sorted(set(wanted) - set(known)):
        raise ConfigError(f"unknown task `{unknown[0]}`; {nearest(unknown[0], known)} (`tasks` lists them)")
    loaded = {}
    for name, options in wanted.items():
        task = _in_style(known[name], options.style)
        path, file_sha256 = named_data(name, options.data, options.sha256, base, download)
        samples = _read(task, path, options)
        digest = hashlib.sha256(msgspec.json.encode(samples)).hexdigest()
        if task.kind != "speed":
            random.Random(f"{seed}:{name}").shuffle(samples)
        count = options.limit if limit is None else min(limit, options.limit or limit)
        start = options.offset % len(samples)
        chosen = tuple((samples[start:] + samples[:start])[:count])
        shots = _shots(task, options, base, download)
        loaded[name] = TaskData(task, options, chosen, digest, file_sha256, shots, len(samples))
    return loaded


def _in_style(task: Task, style: str | None) -> Task:
    """The task as the suite wants it asked."""
    if style is None:
        return task
    if style not in task.styles:
        raise ConfigError(
            f"task `{task.name}` has no style `{style}`; {nearest(style, task.styles) if task.styles else 'it has none'}"
        )
    chosen = task.styles[style]
    return msgspec.structs.replace(task, prompt=chosen.prompt, metric=chosen.metric)


def _read(task: Task, path: Path | None, options: TaskOptions) -> list[Sample]:
    try:
        samples = list(task.load(path))
    except DataError as error:
        raise ConfigError(f"task `{task.name}`: {error}") from error
    if not samples:
        raise ConfigError(f"task `{task.name}`: no samples in its data")
    for tag, value in options.where.items():
        kept = [sample for sample in samples if sample.tags.get(tag) == value]
        if not kept:
            there = ", ".join(sorted({sample.tags[tag] for sample in samples if tag in sample.tags})[:20]) or "none"
            raise ConfigError(f"task `{task.name}`: no item has {tag} = {value!r} in `where`; there are {there}")
        samples = kept
    return samples


def _shots(task: Task, options: TaskOptions, base: Path, download: bool) -> tuple[Sample, ...]:
    """The solved examples. Raises `ConfigError` where they cannot be had or could not be shown."""
    if not options.shots or task.together:  # such a task has its own way
        return ()
    if options.shots_data is None or task.kind not in ("choice", "label"):
        raise ConfigError(f"task `{task.name}`: `shots` needs `shots_data`, and a task of questions with options")
    path, _ = named_data(task.name, options.shots_data, None, base, download)
    found = [sample for sample in _read(task, path, options) if "," not in sample.target]
    if len(found) < options.shots:
        raise ConfigError(f"task `{task.name}`: {options.shots_data} has {len(found)} examples, not {options.shots}")
    return tuple(found[: options.shots])


def shift_of(sample_id: str, repeat: int, seed: int) -> int:
    """By how much the options of a sample are rotated: spread over items by a hash, balanced over its repeats."""
    digest = hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:4]) + repeat


def seed_of(sample_id: str, repeat: int, seed: int) -> int:
    digest = hashlib.sha256(f"sampling:{seed}:{sample_id}:{repeat}".encode()).digest()
    return int.from_bytes(digest[:4])


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A step as it is recorded and as it is sent, and what is sent before it."""

    facts: StepFacts
    job: JobStep
    warmup: JobStep


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """How one deployment is asked: the family's rules with the suite's wishes over them."""

    recipe: Recipe
    sampling: SamplingOptions
    can_rank: bool = True

    @property
    def temperature(self) -> float:
        return self.recipe.temperature if self.sampling.temperature is None else self.sampling.temperature

    @property
    def top_p(self) -> float:
        return self.recipe.top_p if self.sampling.top_p is None else self.sampling.top_p


def render_step(data: TaskData, asking: Asking, load: Load, repeat: int, seed: int) -> tuple[StepFacts, JobStep]:
    """The requests of one task under one load for one deployment, and what is recorded of them."""
    scoring = choose_scoring(data, asking)
    answers = _answers_per_item(data, asking) if scoring == "generate" else 1
    pairs = [(sample, k) for k in range(answers) for sample in data.samples]
    examples = solved(data, scoring)
    prompts = [_after(examples, data.task.prompt(_arranged(data, sample, k, seed), scoring)) for sample, k in pairs]
    name = f"{data.task.name}@{load.name}" + (f"#{repeat + 1}" if repeat else "")
    job = JobStep(
        name=name,
        load=load,
        seed=seed + repeat,
        requests=tuple(
            _request(sample, k, prompt, asking, data, seed + repeat)
            for (sample, k), prompt in zip(pairs, prompts, strict=True)
            if isinstance(prompt, Generate)
        ),
        ranks=_ranks(pairs, prompts),
    )
    return _facts(data, asking, job, scoring, answers, repeat), job


def choose_scoring(data: TaskData, asking: Asking) -> Scoring:
    """The suite's wish, else generation for reasoning models and for engines that cannot rank, else the task's default."""
    task, wish = data.task, data.options.scoring
    if wish and wish not in task.scorings:
        raise ConfigError(f"task `{task.name}` cannot be scored by `{wish}`; it offers {', '.join(task.scorings)}")
    if wish:
        return wish
    if "generate" in task.scorings and (asking.recipe.reasoning or not asking.can_rank):
        return "generate"
    return task.scorings[0]


def warmup_of(step: JobStep, requests: int, seconds: float) -> JobStep:
    """Requests from the end of the step, short, so that the measured ones are not warmed one by one."""
    seed = step.seed + 1_000_003

    def last(sent: tuple[Asked, ...]) -> tuple[Asked, ...]:
        return sent[max(0, len(sent) - requests) :]

    short = tuple(
        msgspec.structs.replace(
            r,
            sampling=msgspec.structs.replace(
                r.sampling, max_tokens=min(WARMUP_TOKENS, r.sampling.max_tokens), seed=seed
            ),
        )
        for r in last(step.requests)
    )
    load = Load(concurrency=step.load.concurrency or 1)
    return JobStep(
        name=f"warmup:{step.name}", load=load, seed=seed, requests=short, ranks=last(step.ranks), seconds=seconds
    )


def solved(data: TaskData, scoring: Scoring) -> str:
    """The examples as text, each followed by a blank line, as lm-evaluation-harness joins them; "" for none."""
    text = ""
    for shot in data.shots:
        prompt = data.task.prompt(shot, scoring)
        if not isinstance(prompt, Rank):
            raise ConfigError(f"task `{data.task.name}`: `shots` are for ranked questions, not for `{scoring}`")
        text += f"{prompt.context}{prompt.continuations[int(shot.target)]}\n\n"
    return text


def _after(examples: str, prompt: Prompt) -> Prompt:
    return msgspec.structs.replace(prompt, context=examples + prompt.context) if isinstance(prompt, Rank) else prompt


def _answers_per_item(data: TaskData, asking: Asking) -> int:
    """A recipe's K is for answers that are judged; a `speed` step repeats its requests only where the suite asks for a longer step."""
    recipe = asking.recipe.samples_per_item if asking.temperature > 0 and data.task.kind != "speed" else 1
    return data.options.samples_per_item or recipe


def _arranged(data: TaskData, sample: Sample, repeat: int, seed: int) -> Sample:
    return arrange(sample, shift_of(sample.id, repeat, seed)) if data.options.permute else sample


def arranged_sample(data: TaskData, sample: Sample, repeat: int, seed: int) -> Sample:
    """The sample as it was asked; the scorer needs the same."""
    return _arranged(data, sample, repeat, seed)


def _request(sample: Sample, repeat: int, prompt: Generate, asking: Asking, data: TaskData, seed: int) -> Request:
    exact = prompt.prompt_tokens is not None
    room = data.options.max_tokens or max(prompt.max_tokens, (asking.recipe.max_tokens or 0) if not exact else 0)
    return Request(
        id=sample.id,
        repeat=repeat,
        turns=_turns(prompt, asking.recipe),
        prefill="" if exact else asking.recipe.prefill,
        exact_prompt_tokens=prompt.prompt_tokens,
        sampling=Sampling(
            max_tokens=prompt.max_tokens if exact else room,
            temperature=0.0 if exact else asking.temperature,
            top_p=1.0 if exact else asking.top_p,
            seed=seed_of(sample.id, repeat, seed),
            stop=() if asking.recipe.reasoning else prompt.stop,
            think_budget=None if exact else asking.sampling.think_budget,
        ),
    )


def _turns(prompt: Generate, recipe: Recipe) -> tuple[Turn, ...]:
    """Families without a system prompt get its text at the head of the first user turn."""
    if recipe.system_prompt:
        return tuple(Turn(m.role, m.text) for m in prompt.messages)
    system = "\n\n".join(m.text for m in prompt.messages if m.role == "system")
    turns = [Turn(m.role, m.text) for m in prompt.messages if m.role != "system"]
    if system and turns:
        turns[0] = Turn(turns[0].role, f"{system}\n\n{turns[0].text}")
    return tuple(turns)


def _ranks(pairs: Sequence[tuple[Sample, int]], prompts: Sequence[Prompt]) -> tuple[RankRequest, ...]:
    ranked = [
        (sample.id, k, prompt) for (sample, k), prompt in zip(pairs, prompts, strict=True) if isinstance(prompt, Rank)
    ]
    prefix = common_prefix([prompt.context for _, _, prompt in ranked])
    return tuple(
        RankRequest(id=i, repeat=k, context=p.context, continuations=p.continuations, prefix=prefix)
        for i, k, p in ranked
    )


def common_prefix(contexts: Sequence[str]) -> str:
    """What all contexts begin with, cut back to the end of a line so that its tokens do not depend on what follows."""
    if len(contexts) < 2:
        return ""
    first, last = min(contexts), max(contexts)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("\n", 0, length) + 1]


def _facts(data: TaskData, asking: Asking, job: JobStep, scoring: Scoring, answers: int, repeat: int) -> StepFacts:
    task = data.task
    first = job.requests[0].sampling if job.requests else None
    sampling: dict[str, float | int | str | None] = {}
    if first:
        sampling = {"temperature": first.temperature, "top_p": first.top_p, "think_budget": first.think_budget}
        sampling |= {"prefill": job.requests[0].prefill, "system_prompt": int(asking.recipe.system_prompt)}
        sampling |= {"reasoning": int(asking.recipe.reasoning)}
    return StepFacts(
        name=job.name,
        task=task.name,
        task_version=task.version,
        kind=task.kind,
        language=task.language,
        scoring=scoring,
        metric=headline(task, scoring),
        load=job.load.name,
        concurrency=job.load.concurrency,
        rate_per_s=job.load.rate_per_s,
        repeat=repeat,
        items=len(data.samples),
        samples=len(data.samples) * answers,
        sampling=sampling,
        max_tokens=first.max_tokens if first else None,
        data_sha256=data.sha256,
        data_file_sha256=data.file_sha256,
        shots=len(data.shots),
        prompt_sha256=hashlib.sha256(msgspec.json.encode([job.requests, job.ranks])).hexdigest(),
        permuted=data.options.permute,
        style=data.options.style,
        synthetic=task.synthetic,
        public=task.public,
    )
