"""Fold a cell's records into rows. Pure: the same records give the same rows."""

from collections.abc import Iterable

import msgspec

from results.judging import agreement, figures, withheld
from results.manifest import CellFacts, Manifest, StoppingRule
from results.measure import Measured
from results.records import Event, Scored, Stopped, Telemetry
from results.rows import Row
from results.stats import Interval, Percentile, clip, items_of, mean_t, percentile, unknown
from results.validity import Finding, StepView, judge_step, reasons, sentences, step_views
from results.views import CellRecords, StepRecords, read_cell


def fold(
    manifest: Manifest,
    cell_facts: CellFacts,
    events: Iterable[Event],
    telemetry: Iterable[Telemetry],
    scores: Iterable[Scored],
) -> tuple[Row, ...]:
    """One row for each measured step of the plan, in its order; warm-ups are left out.

    A step that did not end, and every step of a skipped cell, has a row that says so. Costs are empty until `results.cost` prices it.
    """
    cell = read_cell(manifest, cell_facts, events, telemetry, scores)
    return tuple(row_of(view) for view in step_views(cell))


def row_of(view: StepView, findings: tuple[Finding, ...] | None = None) -> Row:
    """One step as a row. `findings` are the rules' verdicts on it, where they were asked already."""
    findings = judge_step(view) if findings is None else findings
    row = _facts(view.cell, view.step)
    if view.measured is None:
        outcome = view.cell.outcome if view.cell.outcome != "ok" else "interrupted"
        row |= {"outcome": outcome, "valid": False, "reasons": (_why_not(view.cell, view.step),)}
        row |= {"energy_reasons": ("the step did not end",)}
        return msgspec.convert(row, Row)
    row |= _measured(view.measured, view.step) | _energy(view.measured, view.step)
    row |= _smallest(view) | _judge(view) | _similarity(view)
    row |= {
        "outcome": "ok",
        "valid": not reasons(findings, "ranking"),
        "reasons": reasons(findings, "ranking"),
        "energy_valid": view.measured.energy.value_j is not None and not reasons(findings, "energy"),
        "energy_reasons": reasons(findings, "energy"),
        "warnings": (*_warnings(findings, view.measured), *_early(view), *_no_smallest(view)),
    }
    return msgspec.convert(row | _elsewhere(view.step), Row)


def _smallest(view: StepView) -> dict[str, object]:
    """On the row of the step that was repeated for it; a reserved, a needed and a smallest memory are three numbers."""
    probed, attempt = view.cell.probed, view.step.attempt
    found: dict[str, object] = {"page_cache_share": attempt.page_cache_share if attempt else None}
    if probed is None or probed.step != view.step.facts.name:
        return found
    return found | {
        "smallest_memory_bytes": probed.smallest_bytes,
        "smallest_memory_resolution": probed.resolution,
    }


def _judge(view: StepView) -> dict[str, object]:
    """The agreement always, the judge's figures only where they may be shown."""
    judged = view.cell.judged.get(view.step.facts.name)
    if judged is None:
        return {}
    row: dict[str, object] = {"judge": judged.judge, "judge_reason": withheld(judged) or None}
    if found := agreement(judged):
        row |= _limits("judge_kappa", found.kappa) | _limits("judge_accuracy", found.accuracy)
    if shown := figures(judged):
        row |= _limits("judge_supported", shown.supported) | _limits("judge_contradicted", shown.contradicted)
        row |= {"judge_statements": shown.statements}
    return row


def _similarity(view: StepView) -> dict[str, object]:
    compared = view.cell.compared.get(view.step.facts.name)
    if compared is None:
        return {}
    row: dict[str, object] = {"similarity_model": compared.model, "similarity_reason": compared.reason or None}
    if compared.reason:
        return row
    cosines = [(s.sample, s.sample, s.cosine) for s in compared.summaries if s.cosine is not None]
    row |= {"similarity_negated": compared.negated, "similarity_unrelated": compared.unrelated}
    items = items_of(cosines)
    return row | _limits("similarity", clip(mean_t([i.value for i in items]), -1.0) if items else unknown("none"))


def _limits(name: str, interval: Interval) -> dict[str, object]:
    return {name: interval.value, f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}


def _no_smallest(view: StepView) -> tuple[str, ...]:
    probed = view.cell.probed
    if probed is None or probed.step != view.step.facts.name or probed.smallest_bytes is not None:
        return ()
    return (f"smallest memory: {probed.reason}",)


def _why_not(cell: CellRecords, step: StepRecords) -> str:
    if cell.outcome == "skipped":
        return f"skipped: {cell.facts.skipped or (cell.ended.detail if cell.ended else 'no reason recorded')}"
    started = "the step was cut" if step.start_ns is not None else "the step was never started"
    detail = cell.ended.detail if cell.ended else "the run has no end; resume it"
    return f"{started}: {cell.outcome}" + (f", {detail}" if detail else "")


def _facts(cell: CellRecords, step: StepRecords) -> dict[str, object]:
    """What was planned and what the engine says it loaded; the engine's word counts where both speak."""
    facts, engine = cell.facts, step.engine
    known: dict[str, object] = {
        "parameters_b": engine.parameters / 1e9 if engine and engine.parameters else facts.parameters_b,
        "quantisation": (engine.quantisation if engine else None) or facts.quantisation,
        "bits_per_weight": engine.bits_per_weight if engine else None,
        "engine": engine.engine if engine else facts.backend,
        "engine_version": engine.engine_version if engine else None,
        "device": engine.device if engine else None,
        "weight_bytes": engine.weight_bytes if engine else None,
        "cache_bytes_per_token": engine.cache_bytes_per_token if engine else None,
        "load_seconds": (step.loaded.end_ns - step.loaded.start_ns) / 1e9 if step.loaded else None,
    }
    return known | {
        "run": cell.run,
        "cell": facts.id,
        "deployment": facts.deployment,
        "backend": facts.backend,
        "model": facts.model,
        "family": facts.family,
        "active_parameters_b": facts.active_parameters_b,
        "synthetic_weights": facts.synthetic_weights,
        "predicted_memory_bytes": facts.prediction.total_bytes,
        "predicted_decode_ceiling": facts.prediction.decode_tokens_per_s_ceiling,
        "profile": cell.profile,
        "step": step.facts.name,
        "task": step.facts.task,
        "language": step.facts.language,
        "scoring": step.facts.scoring,
        "load": step.facts.load,
        "metric": step.facts.metric,
        "repeat": step.facts.repeat,
        "synthetic_data": step.facts.synthetic,
        "stopping_rule": step.facts.stopping.sentence if step.facts.stopping else None,
        "public_data": step.facts.public,
    }


MEMORY_HERE = tuple(f for f in Row.__struct_fields__ if f.startswith(("host_", "vram_")))
POWER_HERE = (
    *(f for f in Row.__struct_fields__ if f.startswith("energy_") or f.endswith("power_w")),
    "power_class",
    "steady_energy_j",
    "steady_energy_per_output_token_j",
    "prefill_energy_per_token_j",
    "decode_energy_per_token_j",
    "phase_energy_method",
    "phase_energy_reason",
)
NOT_TIMED = (
    *(
        f
        for f in Row.__struct_fields__
        if f.endswith(("_per_s", "_per_s_lo", "_per_s_hi")) or "_p50_ms" in f or "_p95_ms" in f
    ),
    "seconds",
    "steady_seconds",
    "load_seconds",
)


def _elsewhere(step: StepRecords) -> dict[str, object]:
    """Blanks for what was not measured here: answers recorded elsewhere have no time or power of ours, a remote server no memory.

    Its power is known where the suite names its node's meters (`results.energy.window_energy` takes no others for it).
    """
    device = step.engine.device if step.engine else None
    if device == "remote":
        return dict.fromkeys(MEMORY_HERE)
    if device != "recorded":
        return {}
    found = percentile([r.engine_decode_ms for r in step.answered if r.engine_decode_ms is not None], 0.5)
    return dict.fromkeys(MEMORY_HERE + POWER_HERE + NOT_TIMED) | {
        "energy_valid": False,
        "energy_reasons": (f"the model ran elsewhere ({device})",),
        "e2e_p50_ms": found.value,
        "warnings": ("answers, tokens and durations are as recorded elsewhere",),
    }


def _measured(measured: Measured, step: StepRecords) -> dict[str, object]:
    return _accuracy(measured, step) | _speed(measured, step) | _latency(measured) | _memory(measured)


def _accuracy(measured: Measured, step: StepRecords) -> dict[str, object]:
    accuracy, thinks = measured.accuracy, measured.tokens.think is not None
    flags = accuracy.flags
    return {
        "samples": len(step.records),
        "scored": accuracy.scored,
        "items": accuracy.items,
        "correct": accuracy.correct,
        "wrong": accuracy.wrong,
        "no_answer": accuracy.no_answer,
        "truncated": accuracy.truncated,
        "errors": accuracy.errors,
        "accuracy": accuracy.interval.value,
        "accuracy_lo": accuracy.interval.lo,
        "accuracy_hi": accuracy.interval.hi,
        "accuracy_n": accuracy.interval.n if accuracy.items else None,
        "accuracy_method": accuracy.interval.method if accuracy.items else None,
        "accuracy_given_finished": accuracy.given_finished,
        "think_unclosed": flags.get("think_unclosed", 0) if accuracy.scored and thinks else None,
        "think_empty": flags.get("think_empty", 0) if accuracy.scored and thinks else None,
        "loops": flags.get("loop", 0) if accuracy.scored and step.answered else None,
        "scorer": ", ".join(accuracy.scorers) or None,
        "stopped_items": step.stopped.items if step.stopped else None,
        "stopped_decision": step.stopped.decision if step.stopped else None,
        "stopped_e_value": step.stopped.e_value if step.stopped else None,
    }


def _early(view: StepView) -> tuple[str, ...]:
    stopped, facts = view.step.stopped, view.step.facts
    if stopped is None:
        return ()
    return (f"ended early after {stopped.items} of {facts.items} items: {ended_because(stopped, facts.stopping)}",)


def ended_because(stopped: Stopped, rule: StoppingRule | None) -> str:
    """Why a step was ended before its last item."""
    against = rule.baseline if rule else "no baseline that the plan names"
    if stopped.decision == "different":
        return f"different from {against} (e-value {stopped.e_value:.3g})"
    return f"as good as {against} within the margin (anytime-valid interval)"


def _speed(measured: Measured, step: StepRecords) -> dict[str, object]:
    tokens, seconds, steady = measured.tokens, measured.seconds, measured.steady
    done = sum(r.error is None for r in step.records)
    joules = steady.energy.value_j if steady else None
    return {
        "seconds": seconds,
        "prompt_tokens": tokens.prompt,
        "cached_tokens": tokens.cached,
        "output_tokens": tokens.output,
        "think_tokens": tokens.think,
        "output_tokens_mean": tokens.output_mean,
        "prompt_tokens_per_s": ratio(tokens.evaluated, seconds),
        "output_tokens_per_s": ratio(tokens.output, seconds),
        "samples_per_s": ratio(done, seconds),
        "characters_per_s": ratio(tokens.characters, seconds),
        "prefill_tokens_per_s": measured.latency.prefill_tokens_per_s,
        "steady_seconds": steady.window.seconds if steady else None,
        "steady_output_tokens_per_s": steady.output.value if steady else None,
        "steady_output_tokens_per_s_lo": steady.output.lo if steady else None,
        "steady_output_tokens_per_s_hi": steady.output.hi if steady else None,
        "steady_prompt_tokens_per_s": steady.prompt.value if steady else None,
        "steady_prompt_tokens_per_s_lo": steady.prompt.lo if steady else None,
        "steady_prompt_tokens_per_s_hi": steady.prompt.hi if steady else None,
        "steady_energy_j": joules,
        "steady_energy_per_output_token_j": ratio(joules, steady.output_tokens) if steady else None,
    }


def _latency(measured: Measured) -> dict[str, object]:
    latency = measured.latency
    return {
        f"{name}_ms": p.value
        for name in latency.__struct_fields__
        if isinstance(p := getattr(latency, name), Percentile)
    }


def _memory(measured: Measured) -> dict[str, object]:
    memory = measured.memory
    return {
        "vram_reserved_bytes": memory.vram_reserved,
        "vram_needed_bytes": memory.vram_needed,
        "host_memory_bytes": memory.host,
        "host_anon_bytes": memory.host_anon,
        "host_file_bytes": memory.host_file,
        "host_needed_bytes": memory.host_needed,
    }


def _energy(measured: Measured, step: StepRecords) -> dict[str, object]:
    """Gross energy of the whole step. Net of idle is above the draw with the model loaded and no request."""
    energy, idle = measured.energy, measured.idle_loaded_w
    joules = energy.value_j
    known = joules is not None
    return {
        "energy_j": joules,
        "energy_low_j": energy.low_j,
        "energy_high_j": energy.high_j,
        "energy_net_j": joules - idle * measured.seconds if joules is not None and idle is not None else None,
        "mean_power_w": energy.mean_power_w,
        "idle_power_w": measured.idle_before_w,
        "idle_loaded_power_w": idle,
        "idle_after_power_w": measured.idle_after_w,
        "power_class": energy.evidence if known else None,
        "energy_boundary": energy.boundary if known else None,
        "energy_method": energy.method or None,
        "energy_meters": "+".join(energy.meters) if known else None,
        "energy_per_output_token_j": ratio(joules, measured.tokens.output),
        "energy_per_sample_j": ratio(joules, len(step.records)),
        "energy_per_correct_j": ratio(joules, measured.accuracy.correct),
        "prefill_energy_per_token_j": measured.phases.prefill_j,
        "decode_energy_per_token_j": measured.phases.decode_j,
        "phase_energy_method": measured.phases.method,
        "phase_energy_reason": measured.phases.reason or None,
    }


def ratio(part: float | None, whole: float | None) -> float | None:
    """`part / whole`; `None` where one is unknown or there is nothing to divide by."""
    return part / whole if part is not None and whole else None


def _warnings(findings: tuple[Finding, ...], measured: Measured) -> tuple[str, ...]:
    latency = measured.latency
    shown = (getattr(latency, name) for name in latency.__struct_fields__)
    empty = sorted({p.reason for p in shown if isinstance(p, Percentile) and p.value is None and p.n})
    extra = [measured.energy.reason, *measured.energy.notes, measured.memory.reason]
    return (*sentences(findings), *empty, *(e for e in extra if e))
