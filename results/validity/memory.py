"""Group E: is the memory that is reported what this model under this load took?"""

from results.validity.base import Check, Rule, StepView, failed, not_applicable, not_known, passed

PREALLOCATING = ("vllm", "sglang")
"""Engines whose reserved memory is a setting: without cache use it says nothing of what was needed."""

COLD, WARM = 0.05, 0.95
"""Shares of the weights in the page cache, up to and from which a load counts as from the disk or from memory."""


def ours(view: StepView) -> Check:
    """E1"""
    if view.step.where != "gpu":
        return not_applicable("no accelerator in use")
    memory = view.result.memory
    if memory.vram_reserved is None:
        return failed("unknown", f"accelerator memory is unknown: {memory.reason}")
    return passed(f"{memory.vram_reserved / 2**30:.2f} GiB")


def cache_told(view: StepView) -> Check:
    """E2"""
    engine = view.step.engine
    if engine is None or engine.engine not in PREALLOCATING:
        return not_applicable("the engine takes memory as it needs it")
    states = view.step.states
    if all(s.cache_tokens_used is None for s in states) or all(s.cache_tokens_total is None for s in states):
        return failed(
            "not told", f"{engine.engine} reserves its cache in advance and did not tell how much of it was used"
        )
    return passed("told")


def adds_up(view: StepView) -> Check:
    """E3"""
    engine, reserved = view.step.engine, view.result.memory.vram_reserved
    if view.step.where != "gpu" or engine is None:
        return not_applicable("no accelerator in use")
    parts = [engine.memory.get(name) for name in ("weights", "cache", "compute")]
    known = [p for p in parts if p is not None]
    if reserved is None or len(known) < len(parts):
        return not_known("the engine does not tell weights, cache and compute apart")
    known += [engine.memory[name] for name in ("graphs", "context", "other") if name in engine.memory]
    difference = abs(sum(known) - reserved) / reserved
    seen = f"{difference:.1%}"
    if difference > 0.10:
        return failed(seen, f"the engine's own figures and the reserved memory differ by {seen}")
    if difference > 0.05:
        return failed(seen, f"the engine's own figures and the reserved memory differ by {seen}", "W")
    return passed(seen)


def foreseen(view: StepView) -> Check:
    """E4"""
    memory, predicted = view.result.memory, view.cell.facts.prediction.total_bytes
    measured = memory.vram_reserved if view.step.where == "gpu" else memory.host
    if not predicted or measured is None:
        return not_known("no prediction or no reading")
    engine = view.step.engine
    if engine is not None and engine.engine in PREALLOCATING:
        return not_applicable("the engine reserves what it is told to")
    difference = measured / predicted - 1
    seen = f"{difference:+.0%}"
    if abs(difference) > 0.15:
        return failed(
            seen, f"measured {measured / 2**20:.0f} MiB, the plan foresaw {predicted / 2**20:.0f} MiB ({seen})"
        )
    return passed(seen)


def in_memory(view: StepView) -> Check:
    """E5"""
    if view.step.where != "cpu":
        return not_applicable("the model is not in host memory")
    series, span = view.cell.series, view.span
    rises: dict[str, float] = {}
    for field in ("major_faults", "swap_bytes"):
        columns = [
            series.column(m, d, field).within(span.start_ns, span.end_ns).values for m, d in series.with_field(field)
        ]
        if any(len(c) > 1 for c in columns):
            rises[field] = max(float(c[-1] - c[0]) for c in columns if len(c) > 1)
    if "major_faults" not in rises:
        return not_known("page faults were not read")
    seen = f"{rises['major_faults']:.0f} faults, {rises.get('swap_bytes', 0.0) / 2**20:.0f} MiB swapped"
    if rises["major_faults"] > 10 or rises.get("swap_bytes", 0.0) > 0:
        return failed(seen, f"the model was not wholly in memory while it was measured ({seen})", view.profile.short)
    return passed(seen)


def page_cache(view: StepView) -> Check:
    """E6"""
    if view.step.where is None or view.step.where == "remote":
        return not_applicable("no weights are loaded on this machine")
    share = view.step.attempt.page_cache_share if view.step.attempt else None
    if share is None:
        return not_known(
            "whether the weights were in the page cache before loading was not recorded: load times are not compared"
        )
    if COLD < share < WARM:
        return failed(
            f"{share:.0%}",
            f"{share:.0%} of the weights were in the page cache before loading: the load time is neither a cold nor a warm one",
        )
    return passed(f"{'warm' if share >= WARM else 'cold'}, {share:.0%}")


RULES = (
    Rule(
        id="E1",
        severity="I",
        axis="memory",
        title="memory of our processes, not of the board",
        threshold="told, or rise without others",
        check=ours,
    ),
    Rule(
        id="E2",
        severity="I",
        axis="memory",
        title="cache use of engines that reserve in advance",
        threshold="told",
        check=cache_told,
    ),
    Rule(
        id="E3",
        severity="I",
        axis="memory",
        title="parts add up to what was reserved",
        threshold="> 5 % W, > 10 % I",
        check=adds_up,
    ),
    Rule(
        id="E4",
        severity="I",
        axis="memory",
        title="prediction against measurement",
        threshold="within 15 %",
        check=foreseen,
    ),
    Rule(
        id="E5",
        severity="I",
        axis="speed",
        title="model in memory while measured (CPU)",
        threshold="<= 10 major faults, no swap",
        check=in_memory,
    ),
    Rule(
        id="E6",
        severity="W",
        axis="memory",
        title="page cache before loading recorded",
        threshold="cold (<= 5 % of the weights) or warm (>= 95 %)",
        check=page_cache,
    ),
)
