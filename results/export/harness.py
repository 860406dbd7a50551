"""lm-evaluation-harness's results JSON (0.4): `<model>/results_<date>.json`, one file for each deployment, a task for each scored step.

Metrics have the harness's keys, `name,filter`; the filter is `none` for likelihoods and `extract` for generated answers. `_stderr` is
the clustered standard error of the mean, which the harness itself leaves unclustered.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from results.load import LoadedCell, items
from results.manifest import Manifest
from results.rows import Row
from results.stats import clustered_se
from results.store import StoreError
from results.validity.base import StepView


def results_files(manifest: Manifest, cells: Iterable[LoadedCell]) -> dict[str, bytes]:
    """Files by name. Raises `StoreError` where nothing was scored."""
    found = {}
    for cell in cells:
        scored = [(v, r) for v, r in zip(cell.views, cell.rows, strict=True) if r.accuracy is not None]
        if scored:
            name = f"{sanitised(cell.facts.deployment)}/results_{_date(manifest)}.json"
            whole = json.dumps(_results(manifest, cell, scored), indent=2, ensure_ascii=False, allow_nan=False)
            found[name] = (whole + "\n").encode()
    if not found:
        raise StoreError(f"{manifest.run}: nothing was scored, so there is nothing for lm-eval")
    return found


def sanitised(name: str) -> str:
    """As the harness makes folders of model names."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)


def _date(manifest: Manifest) -> str:
    return manifest.created_utc.replace(":", "-")


def _results(manifest: Manifest, cell: LoadedCell, scored: Sequence[tuple[StepView, Row]]) -> dict[str, Any]:
    loads: dict[str, set[str]] = {}
    for view, _ in scored:
        loads.setdefault(view.step.facts.task, set()).add(view.step.facts.name)
    names = {id(v): v.step.facts.task if len(loads[v.step.facts.task]) == 1 else v.step.facts.name for v, _ in scored}
    steps = {names[id(v)]: (v, r) for v, r in scored}
    engine = scored[0][0].step.engine
    return {
        "results": {name: _metrics(name, v, r) for name, (v, r) in steps.items()},
        "group_subtasks": {name: [] for name in steps},
        "configs": {name: _config(v) for name, (v, _) in steps.items()},
        "versions": {name: v.step.facts.task_version for name, (v, _) in steps.items()},
        "n-shot": dict.fromkeys(steps, 0),
        "higher_is_better": {name: {v.step.facts.metric: True, "correct": True} for name, (v, _) in steps.items()},
        "n-samples": {
            name: {"original": v.step.facts.items, "effective": len(items([v]))} for name, (v, _) in steps.items()
        },
        "config": {
            "model": cell.facts.backend,
            "model_args": {"pretrained": cell.facts.model, **cell.facts.settings},
            "model_num_parameters": engine.parameters if engine else None,
            "model_dtype": engine.quantisation if engine else None,
            "device": engine.device if engine else None,
            "limit": None,
            "bootstrap_iters": 0,
            "random_seed": manifest.seed,
        },
        "git_hash": manifest.source_commit,
        "date": manifest.created_utc,
        "pretty_env_info": json.dumps(manifest.versions),
        "lm_eval_version": f"exported by Bedside {manifest.versions.get('bedside', '')}".strip(),
        "task_hashes": {name: v.step.facts.data_sha256 for name, (v, _) in steps.items()},
        "model_source": cell.facts.backend,
        "model_name": cell.facts.deployment,
        "model_name_sanitized": sanitised(cell.facts.deployment),
        "chat_template_sha": engine.chat_template_sha256 if engine else None,
        "total_evaluation_time_seconds": str(sum(r.seconds or 0.0 for _, r in scored)),
    }


def _metrics(name: str, view: StepView, row: Row) -> dict[str, Any]:
    """The headline, the share of correct answers, and the means of the task's other measures; errors are no zeros."""
    rule = "none" if row.scoring == "likelihood" else "extract"
    answered = items([view])
    error, _ = clustered_se([i.value for i in answered], [i.cluster for i in answered])
    judged = [s for s in view.step.scores if s.value is not None]
    found: dict[str, Any] = {
        "alias": name,
        "sample_len": len(answered),
        f"{row.metric},{rule}": row.accuracy,
        f"{row.metric}_stderr,{rule}": "N/A" if error is None else error,
    }
    if row.metric != "correct" and row.correct is not None:
        found[f"correct,{rule}"] = row.correct / len(judged)
    for metric in sorted({m for s in judged for m in s.metrics} - {row.metric}):
        values = [s.metrics[metric] for s in judged if metric in s.metrics]
        found[f"{metric},{rule}"] = sum(values) / len(values)
    return found


def _config(view: StepView) -> dict[str, Any]:
    facts = view.step.facts
    return {
        "task": facts.task,
        "output_type": "multiple_choice" if facts.scoring == "likelihood" else "generate_until",
        "num_fewshot": 0,
        "repeats": 1,
        "generation_kwargs": {k: v for k, v in facts.sampling.items() if k in ("temperature", "top_p")}
        | ({"max_gen_toks": facts.max_tokens} if facts.max_tokens else {}),
        "metadata": {"version": facts.task_version, "load": facts.load, "language": facts.language},
    }
