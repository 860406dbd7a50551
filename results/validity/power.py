"""Group D: where does a joule come from, and may it be compared?"""

import re
from collections.abc import Iterator
from datetime import date

import numpy as np

from results.energy import covers, device_energy
from results.memory import gpus
from results.validity.base import Check, Rule, StepView, failed, not_applicable, not_known, passed

HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER_BRAKE = 0x8, 0x20, 0x40, 0x80
"""NVML's clocks-event reasons."""
BMC_WINDOW_S = 600.0
CALIBRATED = re.compile(r"\bcalibrated (\d{4}-\d{2}-\d{2})\b")
SLICED = re.compile(r"\b(MIG|vGPU|time-slic\w*)\b", re.IGNORECASE)


def untold(view: StepView, what: str) -> Check:
    """Of an accelerator that works and does not say; nothing where none works."""
    return not_known(f"{what} is not told") if view.step.where == "gpu" else not_applicable("no accelerator in use")


def known(view: StepView) -> bool:
    return view.result.energy.value_j is not None


def labelled(view: StepView) -> Check:
    """D1"""
    energy = view.result.energy
    if not energy.meters:
        return failed("no meter", f"no energy: {energy.reason}")
    infos = [view.cell.series.meters[m] for m in energy.meters]
    missing = [i.meter for i in infos if not (i.evidence and i.boundary and i.sensor_api)]
    if missing:
        return failed(", ".join(missing), f"class, boundary or interface of {', '.join(missing)} is not told")
    return passed(f"{energy.evidence}, {energy.boundary}")


def long_enough(view: StepView) -> Check:
    """D2"""
    energy = view.result.energy
    if not known(view):
        return not_applicable("no energy")
    wanted = BMC_WINDOW_S if energy.evidence == "M2" else 60.0
    if energy.seconds < wanted:
        text = f"energy over {energy.seconds:.1f} s; {wanted:g} s keep the edges' error small"
        return failed(f"{energy.seconds:.1f} s", text, view.profile.short, f">= {wanted:g} s")
    return passed(f"{energy.seconds:.1f} s")


def all_devices(view: StepView) -> Check:
    """D3"""
    energy = view.result.energy
    if not energy.meters:
        return not_applicable("no meter")
    if not known(view) or energy.devices_seen < energy.devices_expected:
        return failed(f"{energy.devices_seen} of {energy.devices_expected}", f"energy is unknown: {energy.reason}")
    if energy.failed_meters:
        lost = energy.failed_meters[0]
        return failed(lost, f"another meter of as good a class failed: {lost}")
    return passed(f"{energy.devices_seen} of {energy.devices_expected}")


def counter_runs(view: StepView) -> Check:
    """D4"""
    energy, series = view.result.energy, view.cell.series
    if not any(m in energy.meters for m, _ in series.with_field("energy_j")):
        return not_applicable("no counter")
    if energy.failed_counters:
        broken = "; ".join(energy.failed_counters)
        return failed(broken, f"the counter cannot be trusted: {broken}")
    return passed(energy.method) if energy.method else not_known("no energy")


def agreement(view: StepView) -> Check:
    """D5"""
    difference = view.result.cross_check
    if difference is None:
        return not_applicable("no device has both a counter and sampled power")
    seen = f"{difference:.1%}"
    if difference > 0.05:
        return failed(seen, f"counter and sampled power differ by {seen}")
    if difference > 0.03:
        return failed(seen, f"counter and sampled power differ by {seen}", "W")
    return passed(seen)


def plausible(view: StepView) -> Check:
    """D6"""
    energy, idle = view.result.energy, view.result.idle_before_w
    power = energy.mean_power_w
    if power is None:
        return not_applicable("no energy")
    if idle is not None and power < 0.5 * idle:
        return failed(f"{power:.1f} W", f"{power:.1f} W under load is less than half of the {idle:.1f} W at rest")
    for seen, sentence in _too_much(view):
        return failed(seen, sentence)
    tokens = view.result.tokens.output
    per_token = (energy.value_j or 0.0) / tokens if tokens else None
    most = 100.0 if view.step.where == "gpu" else 3000.0
    if per_token is not None and not 0 < per_token <= most:
        return failed(f"{per_token:.3g} J/token", f"{per_token:.3g} J per token is not within (0, {most:g}]")
    return passed(f"{power:.1f} W")


def _too_much(view: StepView) -> Iterator[tuple[str, str]]:
    """Accelerators that drew more than they can: on average more than their enforced limit, at one instant more than they are rated for."""
    series, span = view.cell.series, view.span
    for info in (series.meters[m] for m in view.result.energy.meters if "gpu" in covers(series.meters[m])):
        for device in info.devices:
            limits = series.column(info.meter, device, "power_limit_w").values
            joules = device_energy(series, info, device, span.start_ns, span.end_ns).best.value_j
            if not len(limits) or joules is None:
                continue
            mean_w, limit_w = joules / span.seconds, float(limits.max())
            if mean_w > 1.1 * limit_w:
                text = f"{device}: {mean_w:.1f} W is more than the enforced limit of {limit_w:.1f} W allows"
                yield f"{mean_w:.1f} W", text
            peaks = series.column(info.meter, device, "power_w").within(span.start_ns, span.end_ns).values
            rated_w = max(limit_w, _rated_w(view, device))
            if len(peaks) and peaks.max() > 1.7 * rated_w:
                text = f"{device}: a reading of {peaks.max():.1f} W, the board is rated {rated_w:.1f} W"
                yield f"{peaks.max():.1f} W", text


def _rated_w(view: StepView, device: str) -> float:
    """As the host's description has it: a limit may have been set lower. 0 where it is not told."""
    number = re.search(r"\d+$", device)
    gpus = [g for g in view.cell.host.get("gpus") or () if number and g.get("index") == int(number[0])]
    return max((g.get(name) or 0.0 for g in gpus for name in ("tdp_w", "power_limit_default_w")), default=0.0)


def throttled(view: StepView) -> Check:
    """D7"""
    series, span = view.cell.series, view.span
    masks = [
        series.column(m, d, "throttle").within(span.start_ns, span.end_ns).values.astype(np.int64)
        for m, d in gpus(series, "throttle")
    ]
    readings = np.concatenate(masks) if masks else np.empty(0, dtype=np.int64)
    if not len(readings):
        return untold(view, "what holds the clocks down")
    hard = np.count_nonzero(readings & (HW_SLOWDOWN | HW_THERMAL | HW_POWER_BRAKE))
    if hard:
        return failed(
            f"{hard} readings",
            f"the hardware slowed its clocks (heat, power brake) in {hard} of {len(readings)} readings",
        )
    soft = np.count_nonzero(readings & SW_THERMAL) / len(readings)
    if soft > 0.01:
        return failed(f"{soft:.1%}", f"the driver slowed clocks for heat in {soft:.1%} of the readings", "R")
    return passed("none")


def idle_twice(view: StepView) -> Check:
    """D9"""
    before, after = view.result.idle_before_w, view.result.idle_after_w
    if not known(view):
        return not_applicable("no energy")
    if before is None or after is None:
        return failed("not both", "the draw at rest was not read both before and after", view.profile.short)
    seen = f"{before:.1f} W, {after:.1f} W"
    if abs(before - after) > max(3.0, 0.05 * max(before, after)):
        return failed(seen, f"the draw at rest was {before:.1f} W before and {after:.1f} W after", view.profile.short)
    return passed(seen)


def sliced(view: StepView) -> Check:
    """D10"""
    infos = [view.cell.series.meters[m] for m in view.result.energy.meters]
    shared = [i for i in infos if SLICED.search(f"{i.scope} {i.note}")]
    if not shared:
        return not_applicable("no accelerator is sliced")
    if not view.result.energy.estimated:
        return failed(
            shared[0].meter, "a slice of an accelerator has no power of its own: the whole board's draw is not its"
        )
    return passed("estimated")


def same_window(view: StepView) -> Check:
    """D11"""
    energy = view.result.energy
    if not known(view):
        return not_applicable("no energy")
    if abs(energy.seconds - view.result.seconds) > 1e-6:
        return failed(f"{energy.seconds:.3f} s", "energy and tokens are not of the same window")
    return passed("the step")


def rankable(view: StepView) -> Check:
    """D12"""
    energy = view.result.energy
    if not known(view):
        return not_applicable("no energy")
    if energy.estimated:
        text = f"power is an estimate (class {energy.evidence}, {energy.low_j:.3g} to {energy.high_j:.3g} J): no ranking of energy"
        return failed(f"{energy.evidence}", text)
    return passed(f"{energy.evidence}")


def calibrated(view: StepView) -> Check:
    """D13"""
    energy = view.result.energy
    if energy.evidence not in ("M2", "M3", "M4"):
        return not_applicable("nothing to calibrate")
    dates = [CALIBRATED.search(view.cell.series.meters[m].note) for m in energy.meters]
    if None in dates:
        return failed(
            "uncalibrated",
            "the sensors were not compared with a wall meter: absolute values are as the maker states them",
        )
    oldest = min(date.fromisoformat(d[1]) for d in dates if d)
    if view.cell.created_utc and (date.fromisoformat(view.cell.created_utc[:10]) - oldest).days > 366:
        return failed(f"{oldest}", f"the sensors were last compared with a wall meter on {oldest}")
    return passed(f"calibrated {oldest}")


def scope(view: StepView) -> Check:
    """D14"""
    infos = [
        view.cell.series.meters[m] for m in view.result.energy.meters if "gpu" in covers(view.cell.series.meters[m])
    ]
    if not infos:
        return not_applicable("no accelerator power")
    module = [i.meter for i in infos if i.scope == "MODULE"]
    if module:
        return failed(
            "MODULE", "the watts include the CPU of the module: not to be compared with those of a GPU alone", "R"
        )
    return passed(infos[0].scope or "GPU")


RULES = (
    Rule(
        id="D1",
        severity="I",
        axis="energy",
        title="class, boundary and interface told",
        threshold="all three",
        check=labelled,
    ),
    Rule(
        id="D2",
        severity="I",
        axis="energy",
        title="length of the energy window",
        threshold=">= 60 s (node sensor 600 s)",
        check=long_enough,
    ),
    Rule(
        id="D3",
        severity="I",
        axis="energy",
        title="every expected device read around the window",
        threshold="all, gap <= 3 s",
        check=all_devices,
    ),
    Rule(
        id="D4",
        severity="I",
        axis="energy",
        title="counter only rises",
        threshold="no reset, no standstill",
        check=counter_runs,
    ),
    Rule(
        id="D5",
        severity="I",
        axis="energy",
        title="counter against sampled power",
        threshold="> 3 % W, > 5 % I",
        check=agreement,
    ),
    Rule(
        id="D6",
        severity="I",
        axis="energy",
        title="plausible power",
        threshold="0.5 x idle .. 1.1 x limit of each; an instant <= 1.7 x rated; J/token <= 100 (GPU), 3000 (CPU)",
        check=plausible,
    ),
    Rule(
        id="D7",
        severity="I",
        axis="speed",
        title="clocks not slowed for heat or power",
        threshold="hardware never (I); driver for heat <= 1 % (R)",
        check=throttled,
    ),
    Rule(
        id="D9",
        severity="I",
        axis="energy",
        title="draw at rest before and after",
        threshold="within 5 % or 3 W",
        check=idle_twice,
    ),
    Rule(
        id="D10",
        severity="I",
        axis="energy",
        title="no board power for a slice of it",
        threshold="estimates only",
        check=sliced,
    ),
    Rule(
        id="D11",
        severity="I",
        axis="energy",
        title="energy, tokens and time of one window",
        threshold="equal",
        check=same_window,
    ),
    Rule(
        id="D12",
        severity="R",
        axis="energy",
        title="measured, not estimated",
        threshold="class M1 to M4",
        check=rankable,
    ),
    Rule(
        id="D13",
        severity="W",
        axis="energy",
        title="compared with a wall meter",
        threshold="within 12 months",
        check=calibrated,
    ),
    Rule(
        id="D14",
        severity="R",
        axis="energy",
        title="scope of accelerator power",
        threshold="GPU, not MODULE",
        check=scope,
    ),
)
