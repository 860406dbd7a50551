"""One row of rows.csv recomputed from the raw records by plain arithmetic, with nothing of the product's own code.

As a program it writes the page docs/worked-example.md:

    python tests/results/by_hand.py RUN CELL STEP TARIFF.toml > docs/worked-example.md

`make_docs.py RUN` does so for a run of the demo, and takes the picture of its report.
"""

import csv
import json
import sys
import tomllib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

Z = 1.959963984540054
"""97.5 % point of the normal distribution."""
T9 = 2.262157162798205
"""97.5 % point of Student's t with 9 degrees of freedom: 10 batches."""
SHOWN = "{:.12g}"
"""Twelve significant digits are shown, and compared; more than any time in nanoseconds needs, so that no rounding falls on a tie."""


COPIED = {
    "parameters_b", "bits_per_weight", "weight_bytes", "cache_bytes_per_token", "predicted_memory_bytes",
    "predicted_decode_ceiling", "active_parameters_b", "repeat", "page_cache_share",
}  # fmt: skip
"""Numbers that stand in the manifest, or that the engine says of itself."""
DRAWN = {"cost_per_1k_samples_lo", "cost_per_1k_samples_hi", "cost_per_correct_lo", "cost_per_correct_hi"}
"""Quantiles of many draws; nothing for the hand."""


class Figure(NamedTuple):
    """A column, how it comes about with the numbers put in, and its value."""

    column: str
    how: str
    value: float | int


class Raw(NamedTuple):
    """What one step left in the files, nothing computed yet."""

    started_ns: int
    ended_ns: int
    requests: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    loaded: dict[str, Any]
    states: list[dict[str, Any]]
    ticks: list[dict[str, Any]]
    meter: str
    cell_started_ns: int
    first_step_ns: int
    last_step_ns: int


def read(run: Path, cell: str, step: str) -> Raw:
    """The last start of the step counts; everything before it is void. For cells that were run in one attempt."""
    folder = run / "cells" / cell
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    starts = [e["time_ns"] for e in events if e["type"] == "StepStarted" and e["step"] == step]
    ends = [e["time_ns"] for e in events if e["type"] == "StepEnded" and e["step"] == step]
    ticks = [json.loads(line) for line in (folder / "telemetry.jsonl").read_text().splitlines()]
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    (meter,) = [t["meter"] for t in ticks if t["type"] == "MeterInfo" and t["evidence"] != "-"]
    return Raw(
        started_ns=starts[-1],
        ended_ns=ends[-1],
        requests=[e for e in events if e["type"] in ("Answered", "Ranked") and e["step"] == step],
        scores=[s for s in scores if s["step"] == step],
        loaded=next(e for e in events if e["type"] == "Loaded"),
        states=[e for e in events if e["type"] == "EngineState" and starts[-1] <= e["time_ns"] <= ends[-1]],
        ticks=[t for t in ticks if t["type"] == "Tick"],
        meter=meter,
        cell_started_ns=next(e["time_ns"] for e in events if e["type"] == "CellStarted"),
        first_step_ns=next(e["time_ns"] for e in events if e["type"] == "StepStarted"),
        last_step_ns=max(e["time_ns"] for e in events if e["type"] == "StepEnded"),
    )


def figures(raw: Raw, tariff: dict[str, Any]) -> list[Figure]:
    """Every figure of the row that is not read off the manifest."""
    found = [*counts(raw), *speeds(raw), *latencies(raw), *steady(raw), *memory(raw)]
    energy_ = energy(raw, len(raw.requests), [s for s in raw.scores if s["verdict"] == "correct"])
    return [*found, *energy_, *costs(raw, tariff, {f.column: f.value for f in energy_})]


def counts(raw: Raw) -> list[Figure]:
    judged = [s for s in raw.scores if s["value"] is not None]
    found = [
        Figure("samples", "lines Answered or Ranked of the step", len(raw.requests)),
        Figure("scored", "lines of scores.jsonl with a value", len(judged)),
        Figure("items", "different samples among them", len({s["sample"] for s in judged})),
        Figure("errors", "requests with an error", sum(r["error"] is not None for r in raw.requests)),
    ]
    for verdict in ("correct", "wrong", "no_answer", "truncated"):
        found.append(
            Figure(verdict, f"scores with the verdict {verdict}", sum(s["verdict"] == verdict for s in judged))
        )
    total, n = sum(s["value"] for s in judged), len(judged)
    found.append(Figure("accuracy", f"{total:.9g} / {n}", total / n))
    found.append(Figure("accuracy_n", "independent items: clusters of one", len({s["cluster"] for s in judged})))
    whole = [s["value"] for s in judged if s["verdict"] in ("correct", "wrong")]
    if whole:
        found.append(
            Figure(
                "accuracy_given_finished", f"{sum(whole):.9g} / {len(whole)} right or wrong", sum(whole) / len(whole)
            )
        )
    if all(s["value"] in (0.0, 1.0) for s in judged) and len({s["cluster"] for s in judged}) == n:
        p = total / n
        centre, spread = p + Z * Z / (2 * n), Z * (p * (1 - p) / n + Z * Z / (4 * n * n)) ** 0.5
        how = f"(p + z²/2n {{}} z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), p = {p:.9g}, n = {n}, z = {Z:.9g} (Wilson)"
        found.append(Figure("accuracy_lo", how.format("−"), (centre - spread) / (1 + Z * Z / n)))
        found.append(Figure("accuracy_hi", how.format("+"), (centre + spread) / (1 + Z * Z / n)))
    return found


def speeds(raw: Raw) -> list[Figure]:
    seconds = (raw.ended_ns - raw.started_ns) / 1e9
    done = [r for r in raw.requests if r["error"] is None]
    prompt = sum(r["prompt_tokens"] for r in done)
    cached = sum(r.get("cached_tokens") or 0 for r in done)
    load_s = (raw.loaded["end_ns"] - raw.loaded["start_ns"]) / 1e9
    found = [
        Figure("seconds", f"({raw.ended_ns} − {raw.started_ns}) / 10⁹", seconds),
        Figure("load_seconds", f"({raw.loaded['end_ns']} − {raw.loaded['start_ns']}) / 10⁹", load_s),
        Figure("prompt_tokens", "sum of prompt_tokens", prompt),
        Figure("prompt_tokens_per_s", f"({prompt} − {cached} cached) / {seconds:.9g}", (prompt - cached) / seconds),
        Figure("samples_per_s", f"{len(done)} / {seconds:.9g}", len(done) / seconds),
    ]
    if "output_tokens" in done[0]:
        output = sum(r["output_tokens"] for r in done)
        found += [
            Figure("output_tokens", "sum of output_tokens", output),
            Figure("output_tokens_mean", f"{output} / {len(done)}", output / len(done)),
            Figure("output_tokens_per_s", f"{output} / {seconds:.9g}", output / seconds),
            Figure("energy_per_output_token_j", "energy_j / output_tokens", _joules(raw) / output),
            Figure("cached_tokens", "sum of cached_tokens", cached),
        ]
        found += _of_answers(raw, done, seconds)
    return found


def _of_answers(raw: Raw, done: Sequence[dict[str, Any]], seconds: float) -> list[Figure]:
    characters = sum(len(r["text"].rpartition("</think>")[2].strip()) for r in done)
    found = [Figure("characters_per_s", f"{characters} / {seconds:.9g}", characters / seconds)]
    waits = sum(r["first_ns"] - r["start_ns"] for r in done) / 1e9
    read_tokens = sum(r["prompt_tokens"] - (r["cached_tokens"] or 0) for r in done)
    if most_in_flight(done) == 1:
        found.append(Figure("prefill_tokens_per_s", f"{read_tokens} / {waits:.9g} s of waiting", read_tokens / waits))
    return found


def _joules(raw: Raw) -> float:
    return trapezoid(_watts(raw, "power_w"), raw.started_ns, raw.ended_ns)


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between the two values around place share * (n - 1)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def latencies(raw: Raw) -> list[Figure]:
    """Milliseconds. A median needs 11 values, a 95th percentile 130."""
    done = [r for r in raw.requests if r["error"] is None]
    of: dict[str, list[float]] = {"e2e": [(_last(r) - r.get("sched_ns", r["start_ns"])) / 1e6 for r in done]}
    told = [r for r in done if r.get("first_ns") is not None]
    if told:
        of["ttft"] = [(r["first_ns"] - r["sched_ns"]) / 1e6 for r in told]
        long = [r for r in told if r["output_tokens"] >= 2]
        of["ttfat"] = [(r["answer_ns"] - r["sched_ns"]) / 1e6 for r in told if r["answer_ns"] is not None]
        of["tpot"] = [(r["last_ns"] - r["first_ns"]) / 1e6 / (r["output_tokens"] - 1) for r in long]
    what = {
        "e2e": "last token (a ranking: result) − planned start",
        "ttft": "first text − planned start",
        "ttfat": "first text of the answer − planned start",
        "tpot": "(last − first text) / (tokens − 1)",
    }
    found = []
    for name, values in of.items():
        for label, share, floor in (("p50", 0.5, 11), ("p95", 0.95, 130)):
            if len(values) >= floor:
                place = share * (len(values) - 1)
                how = f"{what[name]}; place {place:.9g} of {len(values)} sorted values, counted from 0"
                found.append(Figure(f"{name}_{label}_ms", how, percentile(values, share)))
    return found


def _last(request: dict[str, Any]) -> int:
    return int(request.get("last_ns") or request["end_ns"])


def steady(raw: Raw) -> list[Figure]:
    """From the moment B requests have begun to give tokens to the moment N − B − 1 have finished; at B = 1 first to last."""
    done = [r for r in raw.requests if r["error"] is None]
    ranked = raw.requests[0]["type"] == "Ranked"
    begins = sorted(r["start_ns"] if ranked else r["first_ns"] for r in done)
    ends = sorted(_last(r) for r in done)
    b, n = most_in_flight(done), len(done)
    if b > 1 and n < 2 * b + 2:
        return []
    start, end = (begins[0], ends[-1]) if b == 1 else (begins[b - 1], ends[n - b - 2])
    found = [
        Figure("steady_seconds", f"({end} − {start}) / 10⁹, B = {b}, N = {n}", (end - start) / 1e9),
        Figure("steady_energy_j", "trapezoids within these two edges", trapezoid(_watts(raw, "power_w"), start, end)),
    ]
    prompts = [_prompt_piece(r, ranked) for r in done]
    found += _ten_parts("prompt", prompts, start, end)
    if ranked:
        joules, tokens = found[1].value, sum(_until(p, end) - _until(p, start) for p in prompts)
        how = f"steady_energy_j / {tokens:.9g} prompt tokens that fall between the edges"
        found.append(Figure("prefill_energy_per_token_j", how, joules / tokens))
    return found if ranked else found + _ten_parts("output", [_output_piece(r) for r in done], start, end)


Piece = tuple[int, int, float, float]
"""Start, end, tokens that come at once at the start, tokens that come evenly from then to the end."""


def _ten_parts(name: str, pieces: Sequence[Piece], start: int, end: int) -> list[Figure]:
    edges = [start + (end - start) * i // 10 for i in range(11)]
    arrived = [sum(_until(p, edge) for p in pieces) for edge in edges]
    rates = [(y - x) / ((d - c) / 1e9) for x, y, c, d in zip(arrived, arrived[1:], edges, edges[1:], strict=False)]
    mean = sum(rates) / 10
    half = T9 * (sum((r - mean) ** 2 for r in rates) / 9 / 10) ** 0.5
    column, listed = f"steady_{name}_tokens_per_s", ", ".join(f"{r:.6g}" for r in rates)
    return [
        Figure(column, f"mean of ten equal parts: {listed}", mean),
        Figure(f"{column}_lo", f"mean − {T9:.9g} × deviation / √10", mean - half),
        Figure(f"{column}_hi", f"mean + {T9:.9g} × deviation / √10", mean + half),
    ]


def most_in_flight(done: Sequence[dict[str, Any]]) -> int:
    """Most requests under way at one instant; one that ends as another begins is not counted with it."""
    return max(sum(r["start_ns"] <= at["start_ns"] < r["end_ns"] for r in done) for at in done)


def _prompt_piece(request: dict[str, Any], ranked: bool) -> Piece:
    """Evaluated evenly until the result of a ranking, or until the first token."""
    until = request["end_ns"] if ranked else request["first_ns"]
    return request["start_ns"], until, 0.0, float(request["prompt_tokens"] - (request.get("cached_tokens") or 0))


def _output_piece(request: dict[str, Any]) -> Piece:
    return request["first_ns"], _last(request), 1.0, request["output_tokens"] - 1.0


def _until(piece: Piece, time_ns: int) -> float:
    start, end, at_once, evenly = piece
    if time_ns < start:
        return 0.0
    return at_once + evenly * min(1.0, (time_ns - start) / (end - start))


def memory(raw: Raw) -> list[Figure]:
    inside = [t for t in raw.ticks if raw.started_ns <= t["time_ns"] <= raw.ended_ns]
    mine = [t for t in inside if all(t.get(f"{f}_bytes") is not None for f in ("anon", "file", "shared"))]
    engine = raw.loaded["engine"]
    found = [
        Figure("host_anon_bytes", f"largest anon_bytes of {len(mine)} readings", max(t["anon_bytes"] for t in mine)),
        Figure("host_file_bytes", f"largest file_bytes of {len(mine)} readings", max(t["file_bytes"] for t in mine)),
        Figure(
            "host_memory_bytes",
            "largest anon_bytes + file_bytes + shared_bytes of one reading",
            max(t["anon_bytes"] + t["file_bytes"] + t["shared_bytes"] for t in mine),
        ),
    ]
    used = max(s["cache_tokens_used"] for s in raw.states)
    compute = max([m["compute"] for m in (engine["memory"], *(s["memory"] for s in raw.states)) if "compute" in m])
    weights, each = engine["memory"].get("weights", engine["weight_bytes"]), engine["cache_bytes_per_token"]
    how = f"weights {weights} + {used} tokens × {each:.9g} + compute {compute}"
    return [*found, Figure("host_needed_bytes", how, int(weights + used * each + compute))]


def trapezoid(readings: Sequence[tuple[int, float]], start: int, end: int) -> float:
    """Joules between two instants: watts between readings on straight lines, at the two edges as well."""

    def watts_at(time_ns: int) -> float:
        before = max((r for r in readings if r[0] <= time_ns), key=lambda r: r[0])
        after = min((r for r in readings if r[0] >= time_ns), key=lambda r: r[0])
        if after[0] == before[0]:
            return before[1]
        return before[1] + (after[1] - before[1]) * (time_ns - before[0]) / (after[0] - before[0])

    inside = [(t, w) for t, w in readings if start < t < end]
    line = [(start, watts_at(start)), *inside, (end, watts_at(end))]
    return sum((b[0] - a[0]) / 1e9 * (a[1] + b[1]) / 2 for a, b in pairwise(line))


def _watts(raw: Raw, field: str) -> list[tuple[int, float]]:
    return [(t["time_ns"], t[field]) for t in raw.ticks if t["meter"] == raw.meter and t.get(field) is not None]


def energy(raw: Raw, samples: int, correct: Sequence[Any]) -> list[Figure]:
    watts, seconds = _watts(raw, "power_w"), (raw.ended_ns - raw.started_ns) / 1e9
    joules, low, high = (
        trapezoid(_watts(raw, f), raw.started_ns, raw.ended_ns) for f in ("power_w", "power_low_w", "power_high_w")
    )
    gone = max(
        [
            raw.last_step_ns,
            *(t["time_ns"] for t in raw.ticks if t.get("processes") and t["time_ns"] >= raw.last_step_ns),
        ]
    )
    rests = {
        "idle_power_w": at_rest(watts, 0, raw.cell_started_ns, "before"),
        "idle_loaded_power_w": at_rest(watts, raw.loaded["end_ns"], raw.first_step_ns, "before"),
        "idle_after_power_w": at_rest(watts, gone, raw.ticks[-1]["time_ns"], "after"),
    }
    found = [
        Figure("energy_j", f"trapezoids of {len(watts)} readings of {raw.meter} between the step's edges", joules),
        Figure("energy_low_j", "the same of power_low_w", low),
        Figure("energy_high_j", "the same of power_high_w", high),
        Figure("mean_power_w", f"{joules:.9g} / {seconds:.9g}", joules / seconds),
        Figure("energy_per_sample_j", f"{joules:.9g} / {samples}", joules / samples),
    ]
    if correct:
        found.append(Figure("energy_per_correct_j", f"{joules:.9g} / {len(correct)}", joules / len(correct)))
    for name, value in rests.items():
        if value is not None:
            found.append(Figure(name, "mean watts at rest, second to second-last reading of the rest", value))
    loaded_w = rests["idle_loaded_power_w"]
    if loaded_w is not None:
        how = f"{joules:.9g} − {loaded_w:.9g} × {seconds:.9g}"
        found.append(Figure("energy_net_j", how, joules - loaded_w * seconds))
    return found


def at_rest(watts: Sequence[tuple[int, float]], start: int, end: int, side: str) -> float | None:
    """Mean watts of a rest, its first and last reading left out; a rest cut by a gap of over 3 s counts on the side of the work."""
    times = [t for t, _ in watts if start <= t <= end]
    runs: list[list[int]] = []
    for t in times:
        if runs and t - runs[-1][-1] <= 3e9:
            runs[-1].append(t)
        else:
            runs.append([t])
    if not runs:
        return None
    run = runs[-1] if side == "before" else runs[0]
    if len(run) < 4:
        return None
    return trapezoid(watts, run[1], run[-2]) / ((run[-2] - run[1]) / 1e9)


def costs(raw: Raw, tariff: dict[str, Any], watts: dict[str, float]) -> list[Figure]:
    """Capital recovery, electricity of busy and idle hours, maintenance and fixed cost over the busy seconds of a year.

    For a tariff without hours, demand charge and declared watts of the node, as the shipped example has it for the demo's machine.
    """
    machine = tariff["machines"][tariff["machine"]]
    price, rest, years = (machine[n]["value"] for n in ("price", "salvage", "lifetime_years"))
    rate, kwh, pue, use = (tariff[n]["value"] for n in ("discount_rate", "electricity_per_kwh", "pue", "utilisation"))
    staff = tariff["staff_share"]["value"] * tariff["staff_salary"]["value"]
    busy, idle = watts["mean_power_w"], watts["idle_loaded_power_w"]
    recovery = rate * (1 + rate) ** years / ((1 + rate) ** years - 1)
    capital = (price - rest / (1 + rate) ** years) * recovery
    power_busy, power_idle = 8.76 * pue * use * busy * kwh, 8.76 * pue * (1 - use) * idle * kwh
    upkeep = machine["maintenance_share"]["value"] * price
    year = capital + power_busy + power_idle + upkeep + staff
    second = year / (8760 * 3600 * use)
    seconds, n = (raw.ended_ns - raw.started_ns) / 1e9, len(raw.requests)
    right = sum(s["verdict"] == "correct" for s in raw.scores)
    yearly = (
        f"capital {capital:.9g} (= {price} × {recovery:.9g}, recovery over {years} years at {rate:.3g}) + electricity busy "
        f"{power_busy:.9g} (= 8.76 × PUE {pue} × {use} × {busy:.9g} W × {kwh}) + idle {power_idle:.9g} (= 8.76 × {pue} × "
        f"{1 - use:.9g} × {idle:.9g} W × {kwh}) + maintenance {upkeep:.9g} + staff {staff:.9g} = {year:.9g} a year"
    )
    energy_ = power_busy + power_idle
    found = [
        Figure(
            "cost_per_1k_samples",
            f"1000 × {seconds:.9g} s × {second:.9g} / {n}, where a busy second costs year / (8760 × 3600 × {use}); {yearly}",
            1000 * seconds * second / n,
        ),
        Figure("cost_energy_share", f"({power_busy:.9g} + {power_idle:.9g}) / {year:.9g}", energy_ / year),
        Figure(
            "cost_idle_share",
            f"((1 − {use}) × ({year:.9g} − {energy_:.9g}) + {power_idle:.9g}) / {year:.9g}",
            ((1 - use) * (year - energy_) + power_idle) / year,
        ),
    ]
    if "output_tokens" in raw.requests[0]:
        output = sum(r["output_tokens"] for r in raw.requests)
        how = f"10⁶ × {seconds:.9g} s × {second:.9g} / {output} tokens"
        found.append(Figure("cost_per_million_output_tokens", how, 1e6 * seconds * second / output))
    if right:
        how = f"{seconds:.9g} s × {second:.9g} / {right} correct"
        found.append(Figure("cost_per_correct", how, seconds * second / right))
    return found


def page(run: Path, cell: str, step: str, tariff: Path) -> str:
    """The worked example: each figure with how it comes about and the value in rows.csv. Raises `SystemExit` where two differ."""
    with (run / "rows.csv").open(encoding="utf-8", newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["cell"] == cell and r["step"] == step)
    lines = []
    for figure in figures(read(run, cell, step), tomllib.loads(tariff.read_text(encoding="utf-8"))):
        shown = SHOWN.format(figure.value)
        if not row[figure.column] or SHOWN.format(float(row[figure.column])) != shown:
            raise SystemExit(f"{figure.column}: {shown} by hand, {row[figure.column]} in rows.csv")
        lines.append(f"| `{figure.column}` | {figure.how} | {shown} |")
    head = HEAD.format(run=run.name, cell=cell, step=step, tariff=tariff.stem, model=row["model"], device=row["device"])
    return head + "\n".join(lines) + TAIL


HEAD = """# A row recomputed by hand

Row of run `{run}`, cell `{cell}`, step `{step}` ({model} on {device}), priced with the shipped example tariff `{tariff}`.

Every figure below was computed from the raw records of the run (`events.jsonl`, `scores.jsonl`, `telemetry.jsonl`) and the tariff's
file by a program of plain arithmetic that uses nothing of Bedside's own code (`tests/results/by_hand.py`), and is equal to the value in
`rows.csv` in all twelve digits that are shown (nine within the formulas). The tests repeat this on another run. What the columns
mean stands in `docs/metrics.md`.

| column | how it comes about | value |
|---|---|---|
"""
TAIL = """

Not here: columns that are copied from the manifest or from what the engine says of itself (`model`, `weight_bytes`, `bits_per_weight`,
`cache_bytes_per_token` ...), and `cost_per_1k_samples_lo`, `cost_per_1k_samples_hi`, `cost_per_correct_lo` and `cost_per_correct_hi`: these
are quantiles of 10,000 draws of all inputs with a fixed seed, which no one recomputes by hand. Their method stands in
`results/montecarlo.py`; that their frontier calls no winner where there is none is tested by simulation.
"""


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])))
