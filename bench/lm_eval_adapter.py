"""Any task of lm-evaluation-harness as a task of a suite, answered by our measured backends and scored by the harness itself.

A suite names it `lm_eval:NAME`, with `data` the folder of its YAML file where the harness does not ship it, and `shots` for few-shot. The
parent lets the harness build all its requests beforehand; log-likelihoods become `rank` requests (the answers of one context together),
generations become `stream` requests, so the step has speed, memory and energy like any other. Afterwards `Replay` gives the harness
the recorded answers, and its own evaluator computes the score: of each item as the item's metrics, of the whole set as
`lm_eval_METRIC` beside them.

What differs from the harness on its own: a generation is asked through the model's chat template and the deployment's sampling, thinking is
cut off before its filters see the text, and nothing here tells whether a continuation was the greedy one, so metrics that need that
(`exact_match` of choices, `acc` of a plain `loglikelihood`), as running perplexity, are refused. A task's YAML may name Python
functions, which the harness runs: use task files that you trust.

Worked example: `lm_eval:anat_cloze` with a YAML file whose `doc_to_text` is "Question: {{question}}\\nAnswer:" asks for the four
continuations of each question; the item metrics are `acc` and `acc_norm`, and `lm_eval_acc` is what `lm_eval run` would print.
"""

import contextlib
import importlib.util
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import ConfigError, TaskOptions
from tasks import Answer, Generate, Message, Prompt, Rank, Sample, Score, Scoring, Task

if TYPE_CHECKING:
    from lm_eval.api.model import LM

PREFIX = "lm_eval:"
MAX_TOKENS = 256
"""The harness's own default for a generation."""
FEW_SHOT_SEED = 1234
"""The harness's own default."""
ANSWERABLE = ("multiple_choice", "loglikelihood", "generate_until")


def lm_eval_tasks(wanted: Mapping[str, TaskOptions], base: Path, download: bool) -> dict[str, Task]:
    """A task for every `lm_eval:NAME` that is wanted; empty, and nothing imported, where there is none."""
    return {name: _task(name, options, base, download) for name, options in wanted.items() if name.startswith(PREFIX)}


def _task(name: str, options: TaskOptions, base: Path, download: bool) -> Task:
    if options.shots_data:
        raise ConfigError(f"task `{name}`: the harness draws its own examples; remove `shots_data`")
    task = _load(name, base / options.data if options.data else None, options.shots, download)
    metrics = _answerable(name, task)
    samples = tuple(_samples(task))
    whole = Counter({sample.cluster: 0 for sample in samples})
    for sample in samples:
        whole[sample.cluster] += len(sample.extra["places"])
    asked = "\n".join(sample.input for sample in samples[:20])
    is_choice = task.OUTPUT_TYPE != "generate_until"

    def together(pairs: Sequence[tuple[Sample, Answer]]) -> Sequence[Score]:
        return judge(task, metrics[0], whole, pairs)

    return Task(
        name=name,
        version=1,
        title=f"{name.removeprefix(PREFIX)} of lm-evaluation-harness",
        language=_language(asked),
        kind="choice" if is_choice else "free",
        metric=metrics[0],
        scorings=("likelihood",) if is_choice else ("generate",),
        max_tokens=MAX_TOKENS,
        source=f"lm-evaluation-harness {_version()}",
        licence="the task's own",
        public=True,
        load=lambda path: samples,
        prompt=prompt,
        score=_never,
        together=together,
    )


def _load(name: str, folder: Path | None, shots: int, download: bool) -> Any:
    """The harness's task object with its data read. Raises `ConfigError` for what is not there."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(f"task `{name}` needs lm-evaluation-harness; pip install -e '.[lm-eval]'")
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"task `{name}`: `data` must be the folder of its YAML file; {folder} is none")
    # These libraries read their settings from the environment, once, when they are imported.
    os.environ.update({"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"})
    if not download:
        os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    from lm_eval.tasks import TaskManager

    plain = name.removeprefix(PREFIX)
    manager = TaskManager(include_path=str(folder), include_defaults=False) if folder else None
    if manager is None or plain not in manager.all_tasks:
        manager = TaskManager(include_path=str(folder) if folder else None)
    if plain not in manager.all_tasks:
        raise ConfigError(f"task `{name}`: the harness knows no {plain}; name the folder of its YAML file with `data`")
    with contextlib.chdir(folder or "."):  # task files name their data relative to themselves
        try:
            found = manager.load(plain)["tasks"]
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ConfigError(f"task `{name}`: the harness cannot load it ({type(error).__name__}: {error})") from error
    if list(found) != [plain]:
        raise ConfigError(f"task `{name}` is a group; name its tasks instead: {', '.join(sorted(found))}")
    task = found[plain]
    if shots or task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=shots)
    return task


def _answerable(name: str, task: Any) -> tuple[str, ...]:
    """Names of the task's metrics, its first one leading. Raises `ConfigError` for what no backend here can answer."""
    metrics = tuple(str(entry["metric"]) for entry in task.config.metric_list or ())
    greedy = {"multiple_choice": "exact_match", "loglikelihood": "acc"}.get(task.OUTPUT_TYPE)
    if task.OUTPUT_TYPE not in ANSWERABLE:
        raise ConfigError(
            f"task `{name}`: {task.OUTPUT_TYPE} (perplexity of running text) cannot be answered by a backend"
        )
    if greedy in metrics:
        raise ConfigError(f"task `{name}`: its metric {greedy} needs to know whether an answer is the greedy one")
    if (task.config.repeats or 1) > 1:
        raise ConfigError(f"task `{name}`: it repeats each request; use `samples_per_item` for several answers")
    if not metrics:
        raise ConfigError(f"task `{name}`: its file names no metric")
    return metrics


def _samples(task: Any) -> Iterator[Sample]:
    """A sample for each context that a document needs asked: mostly one. They share the document's cluster."""
    for doc, instances in _requests(task, None).items():
        contexts: dict[str, list[Any]] = defaultdict(list)
        for instance in instances:
            contexts[instance.args[0]].append(instance)
        for number, (context, group) in enumerate(contexts.items()):
            settings = group[0].args[1] if task.OUTPUT_TYPE == "generate_until" else {}
            yield Sample(
                id=f"{doc}" if len(contexts) == 1 else f"{doc}/{number}",
                input=context,
                target="",
                cluster=f"{doc}",
                extra={
                    "doc": doc,
                    "continuations": () if settings else tuple(instance.args[1] for instance in group),
                    "places": tuple(instance.idx for instance in group),
                    "max_tokens": settings.get("max_gen_toks", MAX_TOKENS),
                    "until": _until(settings),
                },
            )


def _requests(task: Any, docs: Sequence[int] | None) -> dict[int, list[Any]]:
    """The harness's requests by document, of all or of some documents (in ascending order)."""
    task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    task.build_all_requests(samples=list(docs) if docs else None)
    by_doc: dict[int, list[Any]] = defaultdict(list)
    for instance in task.instances:
        by_doc[docs[instance.doc_id] if docs else instance.doc_id].append(instance)
    return by_doc


def _until(settings: Mapping[str, Any]) -> tuple[str, ...]:
    until = settings.get("until") or ()
    return (until,) if isinstance(until, str) else tuple(until)


def prompt(sample: Sample, scoring: Scoring) -> Prompt:
    """The request as the harness built it."""
    if scoring == "generate":
        return Generate(
            messages=(Message("user", sample.input),),
            max_tokens=sample.extra["max_tokens"],
            stop=tuple(sample.extra["until"]),
        )
    return Rank(context=sample.input, continuations=tuple(sample.extra["continuations"]))


def judge(task: Any, metric: str, whole: Mapping[str, int], pairs: Sequence[tuple[Sample, Answer]]) -> Sequence[Score]:
    """Scores in the order of the answers, through the harness's own evaluator.

    `whole`: how many requests each document has; it counts when all of them were answered.
    """
    from lm_eval.evaluator import evaluate

    answers: dict[int, dict[int, float | str]] = defaultdict(dict)
    for sample, answer in pairs:
        answers[sample.extra["doc"]] |= _answers(sample, answer)
    docs = sorted(doc for doc, found in answers.items() if len(found) == whole[str(doc)])
    if not docs:
        return [Score(value=None, verdict="error", detail="no question was answered in full") for _ in pairs]
    name = task.config.task
    task.set_fewshot_seed(seed=FEW_SHOT_SEED)
    result = evaluate(
        lm=replay(docs, answers),
        task_dict={"tasks": {name: task}, "groups": {}},
        samples={name: docs},
        bootstrap_iters=0,
    )
    own = {f"lm_eval_{_metric(key)}": float(v) for key, v in result["results"][name].items() if _is_metric(key, v)}
    items: dict[int, dict[str, float]] = defaultdict(dict)
    for logged in result["samples"][name]:
        items[logged["doc_id"]] |= {key: float(logged[key]) for key in logged["metrics"] if _is_number(logged[key])}
    return [_score(items.get(sample.extra["doc"]), own, metric) for sample, _ in pairs]


def _answers(sample: Sample, answer: Answer) -> dict[int, float | str]:
    """By the place of each request among the document's."""
    places = sample.extra["places"]
    if answer.logprobs:
        return dict(zip(places, answer.logprobs, strict=True))
    from tasks.thinking import split_thinking

    text = split_thinking(answer.text, answer.reasoning).final
    for end in sample.extra["until"]:
        text = text.split(end)[0] if end else text
    return {places[0]: text}


def replay(docs: Sequence[int], answers: Mapping[int, Mapping[int, float | str]]) -> "LM":
    """A model for the harness that says what was recorded, by document and place."""
    from lm_eval.api.model import LM

    class Replay(LM):  # type: ignore[misc]  # the harness is not typed
        def _recorded(self, requests: Sequence[Any]) -> list[Any]:
            return [answers[docs[request.doc_id]][request.idx] for request in requests]

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return [(value, False) for value in self._recorded(requests)]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return self._recorded(requests)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            raise NotImplementedError("running perplexity cannot be answered by a measured backend")

    return Replay()


def _score(item: Mapping[str, float] | None, own: Mapping[str, float], metric: str) -> Score:
    if item is None:
        return Score(value=None, verdict="error", detail="another request of the same question failed")
    value = item.get(metric)
    if value is None or not 0.0 <= value <= 1.0:
        why = f"the harness gives {metric} for the set as a whole, not for an item"
        return Score(value=None, verdict="error", metrics={**item, **own}, detail=why)
    return Score(value=value, verdict="correct" if value == 1.0 else "wrong", metrics={**item, **own})


def _metric(key: str) -> str:
    """ "acc,none" is acc; with a filter "exact_match,strict" it keeps its name."""
    metric, _, chosen = key.partition(",")
    return metric if chosen in ("", "none") else f"{metric}_{chosen}"


def _is_metric(key: str, value: object) -> bool:
    return "," in key and "_stderr" not in key and _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _language(text: str) -> Any:
    from tasks.language import is_wrong_language

    return "zh" if is_wrong_language(text, "en") else "en"


def _version() -> str:
    from importlib.metadata import version

    return version("lm-eval")


def _never(sample: Sample, scoring: Scoring, answer: Answer) -> Score:
    raise TypeError("the answers to a harness task are scored together")
