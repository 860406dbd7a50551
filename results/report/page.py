"""report.html: one file that asks nothing of any network and runs under a strict content-security policy.

The policy forbids everything but the one style sheet and the one script inside the file, each named by its hash. All text from models,
suites and hosts goes through Jinja's escaping; nothing reaches the page as markup but the charts, which escape it themselves.
"""

import base64
import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.report import formats
from results.report.build import Group, Report, estimated
from results.report.charts import swings
from results.report.differences import MARGIN
from results.report.entries import Entry
from results.report.gather import CellPage, RunPage, StepPage
from results.report.lacking import Lack, lacking
from results.report.phrases import rule_title, sentence
from results.report.plots import (
    curve_chart,
    difference_chart,
    memory_chart,
    once_each,
    power_chart,
    tag_chart,
    tag_name,
    tag_values,
    usage_chart,
)
from results.report.saying import Speak, badges, metric_name, of_all, of_task, task_name
from results.report.table import table_of
from results.report.words import speaker
from results.rows import Row
from results.validity import RULES

HERE = Path(__file__).parent
FILTERS = ("task", "engine", "quantisation", "machine", "run")


def html(report: Report, lang: str) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    titles = {rule.id: rule.title for rule in RULES}

    def say(text: str) -> str:
        return sentence(text, lang)

    def rule(name: str) -> str:
        return rule_title(name, titles[name], lang)

    environment.filters |= {
        "say": say,
        "rule": rule,
        "percent": formats.percent,
        "points": formats.points,
        "bare": formats.bare,
        "two": formats.two_decimals,
        "significant": formats.significant,
        "integer": formats.integer,
        "gib": formats.gib,
        "ms": formats.milliseconds,
        "seconds": formats.seconds,
        "p": formats.p_value,
        "chance": formats.probability,
    }
    style, script = (HERE / "static" / name for name in ("report.css", "report.js"))
    t = speaker(lang)
    return environment.get_template("report.html.j2").render(
        **_context(report, lang, t),
        style=_inline(style.read_text(encoding="utf-8")),
        script=_inline(script.read_text(encoding="utf-8")),
        policy=policy(style.read_text(encoding="utf-8"), script.read_text(encoding="utf-8")),
    )


def _inline(source: str) -> Any:
    """Our own style and script, as they are."""
    from markupsafe import Markup

    return Markup(source)


def policy(style: str, script: str) -> str:
    """Nothing may be loaded, sent or run but these two, and no base or form may lead away."""
    style_hash, script_hash = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (style, script))
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _context(report: Report, lang: str, t: Speak) -> dict[str, Any]:
    runs = report.runs
    return {
        "t": t,
        "lang": lang,
        "report": report,
        "runs": runs,
        "badges": badges(report, t),
        "said": of_all(report, t),
        "made": _made(runs, report.entries, t),
        "groups": [_group(g, report, t) for g in report.groups],
        "entries": report.entries,
        "columns": len(Row.__struct_fields__),
        "currency": report.tariff.currency,
        "filters": _filters(report.entries, t),
        "filter_values": filter_values,
        "cell_anchor": cell_anchor,
        "cells": [_cell(run, cell, report, t, lang) for run in runs for cell in run.cells],
        "lacks": lacking(report, t),
        "failures": [(run, cell) for run in runs for cell in run.cells if cell.outcome != "ok"],
        "estimates": _estimates(report, t),
        "prices": _prices(report),
        "meters": list(dict.fromkeys(m for run in runs for cell in run.cells for m in cell.meters)),
        "metrics": t("list").join(dict.fromkeys(f"{g.task}: {g.metric}" for g in report.groups if not g.speed)),
        "machines": _machines(runs),
        "estimated": estimated,
        "margin": f"{100 * MARGIN:g}",
        "tag_name": lambda tag: tag_name(tag, t),
        "version": next((r.manifest.versions["bedside"] for r in runs if "bedside" in r.manifest.versions), ""),
        "dash": formats.DASH,
        "power_classes": ", ".join(sorted({e.row.power_class for e in report.entries if e.row.power_class})),
    }


def _made(runs: Sequence[RunPage], entries: Sequence[Entry], t: Speak) -> str:
    days = sorted(run.manifest.created_utc[:16].replace("T", " ") for run in runs)
    machines = t("list").join(dict.fromkeys(e.machine for e in entries)) or "?"
    if len(runs) == 1:
        return t("made", date=f"{days[0]} UTC", machine=machines)
    return t("made_runs", n=len(runs), first=days[0], last=days[-1]) + " · " + machines


def filter_values(entry: Entry) -> dict[str, str]:
    """What a row is found by."""
    return {
        "task": entry.row.task,
        "engine": entry.row.engine or "",
        "quantisation": entry.row.quantisation or "",
        "machine": entry.machine,
        "run": entry.row.run,
    }


def cell_anchor(entry: Entry) -> str:
    """Where the entry's cell stands on the page."""
    return f"cell-{entry.run.manifest.run}-{entry.cell.facts.id}"


def _filters(entries: Sequence[Entry], t: Speak) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Only those that have something to choose from."""
    found = []
    for name in FILTERS:
        values = list(dict.fromkeys(v for e in entries if (v := filter_values(e)[name])))
        if len(values) > 1:
            shown = [(v, task_name(v, t) if name == "task" else v) for v in values]
            found.append((name, t("filter_" + name), shown))
    return found


def _group(group: Group, report: Report, t: Speak) -> dict[str, Any]:
    currency = report.tariff.currency
    charts = [(c, curve_chart(group, c, t, currency)) for c in group.curves]
    tags = list(dict.fromkeys(s.tag for e in group.entries for s in e.step.tags))
    entries = {e.name: e for e in group.entries}
    references = list(dict.fromkeys(d.reference for d in group.differences))
    return {
        "group": group,
        "entries": entries,
        "name": task_name(group.task, t),
        "metric": metric_name(group.metric, t),
        "table": table_of(group),
        "said": of_task(group, t),
        "main": _markup(charts[0][1]),
        "others": [(c, _markup(svg)) for c, svg in charts[1:]],
        "difference": _markup(difference_chart(group.differences, entries, t)),
        "reference": entries[references[0]].label if len(references) == 1 else t("differences_many"),
        "once": once_each(group),
        "tags": [(tag, _markup(tag_chart(group, tag, t)), _tag_table(group, tag)) for tag in tags],
        "positions": [(e, _rstd(e)) for e in group.entries if e.step.positions],
        "judged": [e for e in group.entries if e.row.judge],
        "compared": [e for e in group.entries if e.row.similarity_model],
        "example": next((e for e in group.entries if e.step.examples), None),
        "tornado": _markup(swings(*report.tornados[group.anchor].drawing(t)))
        if group.anchor in report.tornados
        else "",
        "usage": _markup(usage_chart(group, report, t)),
        "api": report.tariff.api,
        "break_even": [(u.entry, u.break_even) for u in report.usage[group.anchor] if u.break_even],
        "driver": report.tornados[group.anchor].label if group.anchor in report.tornados else "",
        "shared": _shared_key(group, t),
        "cost_power": _cost_power(group, t),
    }


def _rstd(entry: Entry) -> float | None:
    """Standard deviation of the recalls over the positions; `None` with fewer than two."""
    recalls = [p.recalled / p.right for p in entry.step.positions if p.right]
    return statistics.pstdev(recalls) if len(recalls) > 1 else None


def _tag_table(group: Group, tag: str) -> list[tuple[str, list[tuple[Entry, Any]]]]:
    return [
        (
            value,
            [
                (e, next((s.interval for s in e.step.tags if s.tag == tag and s.value == value), None))
                for e in once_each(group)
            ],
        )
        for value in tag_values(group, tag)
    ]


def _shared_key(group: Group, t: Speak) -> str:
    spread = group.main.spread
    if spread is None or spread.low is None or spread.high is None:
        return ""
    return t("key_shared", lo=formats.significant(spread.low, 2), hi=formats.significant(spread.high, 2))


def _cost_power(group: Group, t: Speak) -> str:
    shares = [
        e.row.cost_energy_share for e in group.entries if estimated(e.row) and e.row.cost_energy_share is not None
    ]
    return t("key_cost_power", share=_between(shares, t)) if shares else ""


def _between(shares: Sequence[float], t: Speak) -> str:
    """A range of shares, or one where both ends read alike."""
    lo, hi = formats.percent(min(shares), 0), formats.percent(max(shares), 0)
    return lo if lo == hi else t("from_to", lo=lo, hi=hi)


def _markup(svg: str) -> Any:
    from markupsafe import Markup

    return Markup(svg)


def _cell(run: RunPage, cell: CellPage, report: Report, t: Speak, lang: str) -> dict[str, Any]:
    entries = [e for e in report.entries if e.cell is cell]
    return {
        "run": run,
        "cell": cell,
        "entries": entries,
        "rows": " ".join(e.anchor for e in entries),
        "anchor": f"cell-{run.manifest.run}-{cell.facts.id}",
        "power": _markup(power_chart(cell, t)),
        "memory": _markup(memory_chart(cell, t)),
        "smallest": smallest_memory(cell, t, lang),
        "identity": _identity(cell) + _against_ceiling(cell, [e.row for e in entries]),
        "steps": [(e, _validity(e.step), _percentiles(e.row)) for e in entries],
    }


def smallest_memory(cell: CellPage, t: Speak, lang: str) -> str:
    """What the search found, or why it found nothing; empty where nobody asked for one."""
    found = cell.smallest
    if found is None:
        return ""
    if found.smallest_bytes is None or found.resolution is None:
        return t("cell_smallest_none", why=sentence(found.reason, lang))
    return t(
        "cell_smallest",
        size=formats.gib(found.smallest_bytes),
        step=found.step,
        resolution=formats.percent(found.resolution),
        n=len(found.trials),
    )


def _identity(cell: CellPage) -> list[tuple[str, str]]:
    """Everything that says what was run, as the engine echoed it; else as it was asked."""
    facts, engine = cell.facts, cell.engine
    found: list[tuple[str, object]] = [
        ("cell", facts.id),
        ("model", facts.model),
        ("commit of the repository", cell.model_commit),
        ("backend", facts.backend),
    ]
    if engine is not None:
        found += [
            ("engine", f"{engine.engine} {engine.engine_version or ''}"),
            ("device", engine.device),
            ("quantisation", engine.quantisation),
            ("made here from a file of", facts.quantised_from),
            ("parameters", f"{engine.parameters:,}" if engine.parameters else None),
            ("bits per weight", formats.significant(engine.bits_per_weight, 4) if engine.bits_per_weight else None),
            ("weights", formats.gib(engine.weight_bytes) if engine.weight_bytes else None),
            ("cache per token", f"{engine.cache_bytes_per_token:,.0f} B" if engine.cache_bytes_per_token else None),
            ("context", engine.context),
            ("weights SHA-256", engine.weights_sha256),
            ("tokenizer SHA-256", engine.tokenizer_sha256),
            ("chat template SHA-256", engine.chat_template_sha256),
            *((f"memory: {k}", formats.gib(v)) for k, v in engine.memory.items()),
            *((f"setting: {k}", v) for k, v in engine.settings.items()),
            *((f"version: {k}", v) for k, v in engine.versions.items()),
            *(("note", n) for n in engine.notes),
        ]
    else:
        found += [(f"setting (asked): {k}", v) for k, v in facts.settings.items()]
    predicted = facts.prediction
    found += [
        ("predicted memory", formats.gib(predicted.total_bytes) if predicted.total_bytes else None),
        (
            "predicted ceiling of decoding",
            f"{formats.significant(predicted.decode_tokens_per_s_ceiling)} token/s"
            if predicted.decode_tokens_per_s_ceiling
            else None,
        ),
        ("environment fingerprint", cell.fingerprint),
        ("changed during the cell", ", ".join(cell.changed) or None),
    ]
    return [(name, str(value)) for name, value in found if value is not None]


def _against_ceiling(cell: CellPage, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Measured decoding over its ceiling, of the steps with the most in flight: the ceiling is that of this load."""
    ceiling = cell.facts.prediction.decode_tokens_per_s_ceiling
    in_flight = {step.name: step.concurrency or 0 for step in cell.facts.steps if not step.warmup}
    most = max(in_flight.values(), default=0)
    if not ceiling or not most:
        return []
    return [
        (
            f"{row.step}: steady output, prompts read between / ceiling of decoding",
            f"{formats.significant(row.steady_output_tokens_per_s)} / {formats.significant(ceiling)} token/s"
            f" = {row.steady_output_tokens_per_s / ceiling:.2f}",
        )
        for row in rows
        if in_flight.get(row.step) == most and row.steady_output_tokens_per_s
    ]


def _percentiles(row: Row) -> list[tuple[str, str, str]]:
    """Median and 95th percentile of each time that the step has."""
    named = (("ttft", "TTFT"), ("ttfat", "TTFAT"), ("tpot", "TPOT"), ("e2e", "E2E"))
    found = ((name, getattr(row, f"{key}_p50_ms"), getattr(row, f"{key}_p95_ms")) for key, name in named)
    return [
        (n, formats.milliseconds(a), formats.milliseconds(b)) for n, a, b in found if a is not None or b is not None
    ]


def _validity(step: StepPage) -> dict[str, Any]:
    by_verdict: dict[str, list[Any]] = {"pass": [], "fail": [], "not_applicable": [], "unknown": []}
    for finding in step.findings:
        by_verdict[finding.verdict].append(finding)
    return {
        "shown": [*by_verdict["fail"], *by_verdict["unknown"]],
        "passed": [f.rule for f in by_verdict["pass"]],
        "idle": [f.rule for f in by_verdict["not_applicable"]],
    }


def _estimates(report: Report, t: Speak) -> list[str]:
    rows = [r for r in report.rows if estimated(r)]
    said = []
    if rows:
        ratios = [
            (r.energy_low_j / r.energy_j, r.energy_high_j / r.energy_j)
            for r in rows
            if r.energy_j and r.energy_low_j is not None and r.energy_high_j is not None
        ]
        said.append(
            t(
                "est_power",
                n=len(rows),
                classes=", ".join(sorted({r.power_class or "" for r in rows})),
                meters=", ".join(sorted({r.energy_meters or "" for r in rows})),
                lo=formats.significant(min((a for a, _ in ratios), default=None), 2),
                hi=formats.significant(max((b for _, b in ratios), default=None), 2),
            )
        )
        shares = [r.cost_energy_share for r in rows if r.cost_energy_share is not None]
        if shares:
            said.append(t("est_cost", share=_between(shares, t)))
    prices = _prices(report)
    unverified = sum("not verified" in p[3] for p in prices)
    if unverified:
        said.append(t("est_prices", n=unverified, all=len(prices)))
    if any(c.facts.prediction.total_bytes for run in report.runs for c in run.cells):
        said.append(t("est_predicted"))
    return said


def _prices(report: Report) -> list[tuple[str, str, str, str, str]]:
    from results.cost import amounts

    found = []
    for name, a in amounts(report.tariff).items():
        ranged = f"{a.low:g} – {a.high:g}" if a.low is not None and a.high is not None else formats.DASH
        found.append((name, f"{a.value:g}", ranged, a.source, a.date))
    return found


def _machines(runs: Sequence[RunPage]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(run.manifest.run, _host(run.manifest.host)) for run in runs]


def _host(host: dict[str, Any]) -> list[tuple[str, str]]:
    """Flat and readable; long lists (processor flags) are cut."""
    found = []
    for name, value in host.items():
        if name in ("base", "notes", "versions") or value in (None, "", [], {}, ()):
            continue
        if isinstance(value, dict):
            inner = ((k, v) for k, v in value.items() if v not in (None, "", [], {}) and k != "flags")
            found.append((name, ", ".join(f"{k} {v}" for k, v in inner)))
        elif name.endswith("_bytes") and isinstance(value, int):
            found.append((name.removesuffix("_bytes").replace("_", " "), formats.gib(value)))
        else:
            text = str(value)
            found.append((name.replace("_", " "), text if len(text) < 400 else text[:400] + " …"))
    return found


__all__ = ["Lack", "html", "policy"]
