"""Group A: is it the machine, the model and the quiet surroundings that the result will be said to come from?"""

from typing import Any

from results.memory import gpus
from results.records import Answered, Ranked
from results.series import Column
from results.validity.base import Check, Rule, StepView, failed, not_applicable, not_known, passed
from results.validity.power import untold

LEAST_FREE_BYTES = 10_000_000_000


def fingerprint(view: StepView) -> Check:
    """A1"""
    ended = view.cell.ended
    if ended is None or ended.fingerprint_start is None or ended.fingerprint_end is None:
        return not_known("the environment's fingerprint was not taken at both ends of the cell")
    if ended.fingerprint_start != ended.fingerprint_end or ended.changed:
        names = ", ".join(ended.changed) or "unnamed entries"
        return failed(names, f"the environment changed during the cell: {names}")
    return passed(ended.fingerprint_start[:12])


def hashes(view: StepView) -> Check:
    """A2"""
    engine = view.step.engine
    if view.cell.facts.synthetic_weights:
        return not_applicable("synthetic weights")
    if view.cell.facts.backend == "recorded":
        return not_applicable("answers made elsewhere")
    missing = ["weights"] if engine is None or engine.weights_sha256 is None else []
    missing += ["tokenizer"] if engine is None or engine.tokenizer_sha256 is None else []
    templated = bool(view.step.answered)
    missing += ["chat template"] if templated and (engine is None or engine.chat_template_sha256 is None) else []
    if missing:
        names = ", ".join(missing)
        text = f"which model this was cannot be proved: no hash of {names}"
        return failed(f"no hash of {names}", text, "W" if view.profile.name == "smoke" else "I")
    return passed("hashed")


def device(view: StepView) -> Check:
    """A3"""
    engine, settings = view.step.engine, view.cell.facts.settings
    if engine is None:
        return not_known("the engine does not say where it runs")
    asked = str(settings.get("device") or "auto")
    if asked != "auto" and asked.split(":")[0] not in engine.device.lower():
        return failed(engine.device, f"asked for {asked}, ran on {engine.device}")
    cards = int(settings.get("tensor_parallel_size") or 1) * int(settings.get("pipeline_parallel_size") or 1)
    used = [
        d
        for m, d in gpus(view.cell.series, "memory_bytes")
        if (view.cell.series.column(m, d, "memory_bytes").values > 0).any()
    ]
    if cards > 1 and used and len(used) != cards:
        return failed(f"{len(used)} GPUs", f"the plan has {cards} GPUs, our processes were on {len(used)}")
    return passed(engine.device)


def alone(view: StepView) -> Check:
    """A4"""
    series, span = view.cell.series, view.span
    if view.step.where == "cpu":
        return not_applicable("no accelerator in use")
    seen = gpus(series, "foreign_processes")
    if not seen:
        return untold(view, "who else computes on it")
    crowded = [
        d
        for m, d in seen
        if (series.column(m, d, "foreign_processes").within(span.start_ns, span.end_ns).values > 0).any()
    ]
    if crowded:
        return failed(", ".join(crowded), f"other processes computed on {', '.join(crowded)} during the step")
    return passed("none")


def quiet(view: StepView) -> Check:
    """A5"""
    swapped = _rise(view, "swap_bytes")
    if swapped:
        return failed(f"swap +{swapped / 2**20:.0f} MiB", f"{swapped / 2**20:.0f} MiB were swapped out during the step")
    free = view.cell.host.get("disk_free_bytes")
    if isinstance(free, int) and free < LEAST_FREE_BYTES:
        return failed(f"{free / 1e9:.1f} GB free", f"{free / 1e9:.1f} GB of disk were free when the run began")
    foreign, cores = (
        foreign_cores(view),
        host_value(view.cell.host, "cpu", "threads", "logical", "cores", "logical_cores"),
    )
    if foreign is None or not isinstance(cores, (int, float)):
        return not_known("the load of other processes was not read")
    if foreign > 0.05 * cores:
        return failed(f"{foreign:.2f} of {cores:g} cores", f"other processes used {foreign:.2f} of {cores:g} cores")
    return passed(f"{foreign:.2f} of {cores:g} cores")


def foreign_cores(view: StepView) -> float | None:
    """Mean number of cores that others kept busy: the whole machine's less our worker's and the harness's; `None` where not read."""
    series, span = view.cell.series, view.span
    cores = host_value(view.cell.host, "cpu", "threads", "logical", "cores", "logical_cores")
    busy = [
        series.column(m, d, "host_cpu_percent").within(span.start_ns, span.end_ns)
        for m, d in series.with_field("host_cpu_percent")
    ]
    ours = [
        series.column(m, d, "cpu_seconds").within(span.start_ns, span.end_ns)
        for m, d in series.with_field("cpu_seconds")
    ]
    if (
        not busy
        or not ours
        or not len(busy[0].values)
        or len(ours[0].values) < 2
        or not isinstance(cores, (int, float))
    ):
        return None
    harness = [
        series.column(m, d, "harness_cpu_seconds").within(span.start_ns, span.end_ns)
        for m, d in series.with_field("harness_cpu_seconds")
    ]
    used = sum(_slope(column) for column in (ours[0], *harness[:1]))
    return max(0.0, float(busy[0].values.mean()) / 100 * cores - used)


def _slope(column: Column) -> float:
    """Rise of a counter of seconds for each second."""
    seconds = float(column.times_ns[-1] - column.times_ns[0]) / 1e9 if len(column.times_ns) > 1 else 0.0
    return float(column.values[-1] - column.values[0]) / seconds if seconds else 0.0


def foreign_share(view: StepView) -> float | None:
    """`foreign_cores` as a share of the machine's cores."""
    foreign = foreign_cores(view)
    cores = host_value(view.cell.host, "cpu", "threads", "logical", "cores", "logical_cores")
    return foreign / cores if foreign is not None and cores else None


def _rise(view: StepView, field: str) -> float:
    """How much a field rose within the step, the device with the largest rise."""
    series, span = view.cell.series, view.span
    columns = (
        series.column(m, d, field).within(span.start_ns, span.end_ns).values for m, d in series.with_field(field)
    )
    return max((float(c[-1] - c[0]) for c in columns if len(c) > 1), default=0.0)


def host_value(host: dict[str, Any], *path: str) -> Any:
    """A fact of the host: `path[0]` names the table, the others the keys that it may stand under; `None` where it is not told."""
    table = host.get(path[0])
    if not isinstance(table, dict):
        return None
    return next((table[key] for key in path[1:] if table.get(key) is not None), None)


def clock(view: StepView) -> Check:
    """A6"""
    bad = [r.sample for r in view.step.records if not _in_order(r)]
    if bad:
        return failed(f"{len(bad)} requests", f"times run backwards in {len(bad)} requests, first in `{bad[0]}`")
    offset = host_value(view.cell.host, "clock", "ntp_offset_ms")
    external = view.result.energy.evidence in ("M1", "M2")
    if external and host_value(view.cell.host, "clock", "synchronised") is False:
        return not_known("a node sensor was read and no time server keeps this machine's clock")
    if external and offset is None:
        return not_known("a node sensor was read and the clock's offset was not")
    if external and abs(float(offset)) > 800:
        return failed(f"{offset} ms", f"the clock is {offset} ms off, at most 800 ms are allowed with a node sensor")
    return passed("in order")


def _in_order(record: Answered | Ranked) -> bool:
    """Planned, sent, first text, last text, end; a time that is not known is passed over."""
    if isinstance(record, Ranked):
        return record.start_ns <= record.end_ns
    first_ns = record.start_ns if record.first_ns is None else record.first_ns
    last_ns = first_ns if record.last_ns is None else record.last_ns
    return record.sched_ns <= record.start_ns <= first_ns <= last_ns <= record.end_ns


def governor(view: StepView) -> Check:
    """A7"""
    name = host_value(view.cell.host, "cpu", "governor")
    if name is None:
        return not_known("the CPU's governor is not told (usual in a virtual machine)")
    if name != "performance":
        return failed(str(name), f"the CPU's governor is `{name}`, not `performance`: clocks may change with the load")
    return passed(str(name))


def limits_kept(view: StepView) -> Check:
    """A8"""
    series, span = view.cell.series, view.span
    columns = [
        (d, series.column(m, d, "power_limit_w").within(span.start_ns, span.end_ns).values)
        for m, d in gpus(series, "power_limit_w")
    ]
    moved = [d for d, values in columns if len(values) and values.max() - values.min() > 0.5]
    changed = [n for n in (view.cell.ended.changed if view.cell.ended else ()) if _is_limit(n)]
    if moved or changed:
        names = ", ".join([*moved, *changed])
        return failed(names, f"power limit, clocks, ECC or MIG changed during the run: {names}")
    return passed("unchanged") if columns else untold(view, "the power limit")


def _is_limit(name: str) -> bool:
    return any(word in name.lower() for word in ("power_limit", "clock", "ecc", "mig"))


def clean_end(view: StepView) -> Check:
    """A9"""
    if view.cell.outcome in ("oom", "timeout", "crashed"):
        detail = view.cell.ended.detail if view.cell.ended else ""
        return failed(
            view.cell.outcome, f"the cell ended later as {view.cell.outcome}" + (f": {detail}" if detail else "")
        )
    return passed(view.cell.outcome)


def memory_errors(view: StepView) -> Check:
    """A10"""
    if not gpus(view.cell.series, "ecc_uncorrected"):
        return not_applicable("no accelerator tells memory errors")
    new = _rise(view, "ecc_uncorrected")
    if new > 0:
        return failed(f"{new:.0f}", f"{new:.0f} uncorrectable memory errors during the step")
    return passed("0")


RULES = (
    Rule(
        id="A1",
        severity="I",
        axis="all",
        title="fingerprint complete, same at start and end",
        threshold="equal",
        check=fingerprint,
        must_know=True,
    ),
    Rule(
        id="A2",
        severity="I",
        axis="all",
        title="weights, tokenizer and chat template hashed",
        threshold="all three (W in smoke)",
        check=hashes,
    ),
    Rule(
        id="A3",
        severity="I",
        axis="all",
        title="the device that was asked for is the one used",
        threshold="equal",
        check=device,
    ),
    Rule(
        id="A4",
        severity="I",
        axis="all",
        title="no foreign process on a used accelerator",
        threshold="none",
        check=alone,
    ),
    Rule(
        id="A5",
        severity="W",
        axis="speed",
        title="other load on the host, swapping, room on the disk",
        threshold="<= 5 % of cores, no swap, >= 10 GB free",
        check=quiet,
    ),
    Rule(
        id="A6",
        severity="I",
        axis="all",
        title="times in order; clock offset with external meters",
        threshold="monotonic; <= 800 ms",
        check=clock,
    ),
    Rule(id="A7", severity="W", axis="speed", title="CPU governor", threshold="performance", check=governor),
    Rule(
        id="A8",
        severity="I",
        axis="speed",
        title="power limit, clocks, ECC, MIG unchanged",
        threshold="unchanged",
        check=limits_kept,
    ),
    Rule(
        id="A9",
        severity="I",
        axis="all",
        title="the cell did not end in a crash, time-out or lack of memory",
        threshold="clean end",
        check=clean_end,
    ),
    Rule(
        id="A10", severity="I", axis="all", title="uncorrectable memory errors", threshold="0 new", check=memory_errors
    ),
)
