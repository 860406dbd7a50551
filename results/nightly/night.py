"""Everything one night shows: each series judged, accuracy weighed, failures and changed answers named. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from results.nightly.evidence import Evidence, accumulate
from results.nightly.history import Entry
from results.nightly.judge import METRICS, Finding, Point, confirm, judge
from results.nightly.probe import Probe, probes
from results.nightly.swap import swaps
from results.paired import benjamini_hochberg

FALSE_DISCOVERY_RATE = 0.05
DISTURBED = 0.05
"""Share of the cores that others kept busy in some step of a block, from which on it is disturbed; that of rule A5 (docs/validity.md)."""
ENOUGH = 3
"""Quiet blocks that a night's figure may rest on alone; with fewer, the disturbed ones count as well."""


class Key(Struct, frozen=True, order=True):
    deployment: str
    task: str
    load: str
    metric: str

    def __str__(self) -> str:
        return f"{self.deployment}, {self.task} {self.load}, {self.metric}"


class Series(Struct, frozen=True, kw_only=True):
    """One figure over the nights; `epochs` in step with `points`."""

    key: Key
    points: tuple[Point, ...]
    epochs: tuple[str, ...]
    finding: Finding

    @property
    def current(self) -> tuple[Point, ...]:
        """Only the nights of tonight's epoch: nothing is tested across epochs."""
        return tuple(p for p, e in zip(self.points, self.epochs, strict=True) if e == self.epochs[-1])


class Accuracy(Struct, frozen=True, kw_only=True):
    deployment: str
    task: str
    evidence: Evidence
    nights: int


class Night(Struct, frozen=True, kw_only=True):
    """The judgement. `regressions` and `improvements` are sentences."""

    suite: str
    night: str
    verdict: Literal["ok", "regression"]
    regressions: tuple[str, ...]
    improvements: tuple[str, ...]
    candidates: tuple[Key, ...]
    """Series that one night put far out; to be confirmed by re-runs."""
    series: tuple[Series, ...]
    accuracy: tuple[Accuracy, ...]
    failures: tuple[str, ...]
    events: tuple[str, ...]
    """Changed answers of greedy models within an epoch, new epochs, runs that could not be read, doubts that re-runs did not confirm."""
    probes: tuple[Probe, ...] = ()
    unprobed: str = ""
    """Why there is no determinism probe."""
    runs: tuple[str, ...] = ()
    """Names of the runs of this night, in the order in which they began."""


def series_of(entries: Sequence[Entry], control: str | None) -> tuple[Series, ...]:
    """Every series with its points in the order of the nights, judged up to the last night."""
    values: dict[Key, dict[str, Blocks]] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    epochs: dict[tuple[str, str], str] = {}
    runs: dict[tuple[str, int], str] = {}
    for e in entries:
        if e.arm == "b":
            epochs[e.deployment, e.night] = e.epoch
            runs[e.night, e.block] = e.run
        if e.arm == "b" and e.metric and e.value is not None:
            values[Key(e.deployment, e.task, e.load, e.metric)][e.night][e.block][e.repeat] = math.log(e.value)
    nights = sorted({e.night for e in entries})
    quiet = quiet_blocks(entries)
    found = []
    for key, by_night in sorted(values.items()):
        if key.deployment == control:
            continue
        base = values.get(replace(key, deployment=control)) if control else None
        points, ages = [], []
        for night in nights:
            tonight = by_night.get(night, {})
            counted = {block: value for block, value in tonight.items() if _counts(quiet.get(night, set()), block)}
            tonights = ratios(counted, base.get(night, {}) if base else None)
            if tonights:
                points.append(_point(night, tonights, runs[night, min(counted)]))
                ages.append(epochs[key.deployment, night] + (epochs.get((control, night), "") if control else ""))
        if points:
            current = [p for p, age in zip(points, ages, strict=True) if age == ages[-1]]
            metric = METRICS[key.metric]
            found.append(Series(key=key, points=tuple(points), epochs=tuple(ages), finding=judge(current, metric)))
    return tuple(found)


def quiet_blocks(entries: Iterable[Entry]) -> dict[str, set[int]]:
    """By night, the blocks in whose steps others kept at most `DISTURBED` of the cores busy; one that was not watched is quiet."""
    quiet: dict[str, set[int]] = defaultdict(set)
    disturbed: dict[str, set[int]] = defaultdict(set)
    for e in entries:
        if e.arm == "b" and not e.metric and not e.item:
            noisy = e.foreign is not None and e.foreign > DISTURBED
            (disturbed if noisy else quiet)[e.night].add(e.block)
    return {night: quiet[night] - disturbed[night] for night in {*quiet, *disturbed}}


def _counts(quiet: set[int], block: int) -> bool:
    return block in quiet or len(quiet) < ENOUGH


Blocks = dict[int, dict[int, float]]
"""Logarithms of a figure by block and by repeat."""


def ratios(candidate: Blocks, control: Blocks | None) -> list[float]:
    """One log ratio for each block that both have, the middle of its repeats; the candidate's own logarithms where there is no control.

    Repeats of a block share its loading and its minute, so that they are no blocks of their own.
    """
    found = []
    for block, repeats in candidate.items():
        base = control.get(block, {}) if control is not None else None
        pairs = [v - (base[r] if base is not None else 0.0) for r, v in repeats.items() if base is None or r in base]
        if pairs:
            found.append(middle_of(pairs))
    return found


def _point(night: str, ratios: Sequence[float], run: str) -> Point:
    spread = float(np.std(ratios, ddof=1)) if len(ratios) > 1 else None
    return Point(night=night, value=middle_of(ratios), block_sd=spread, blocks=len(ratios), run=run)


def middle_of(ratios: Sequence[float]) -> float:
    """The median of the means of all pairs, each value with itself among them (Hodges and Lehmann 1963).

    Deaf to a few wild blocks (up to 29 % of them), and for well-behaved ones as sharp as a median over half as many blocks again.
    """
    values = np.asarray(ratios, dtype=float)
    first, second = np.triu_indices(len(values))
    return float(np.median((values[first] + values[second]) / 2))


def accuracies(entries: Sequence[Entry]) -> tuple[Accuracy, ...]:
    """Each deployment's answers in tonight's epoch against the first answer to the same item in that epoch."""
    nights: dict[tuple[str, str], dict[str, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    epochs: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for e in entries:
        if e.arm == "b" and e.item and e.right is not None:
            nights[e.deployment, e.task][e.night].setdefault(e.item, e.right)
            epochs[e.deployment, e.task][e.night] = e.epoch
    found = []
    for (deployment, task), by_night in sorted(nights.items()):
        last = epochs[deployment, task][max(by_night)]
        kept = [by_night[n] for n in sorted(by_night) if epochs[deployment, task][n] == last]
        baseline: dict[str, bool] = {}
        for night in kept:
            for item, right in night.items():
                baseline.setdefault(item, right)
        found.append(Accuracy(deployment=deployment, task=task, evidence=accumulate(baseline, kept), nights=len(kept)))
    return tuple(found)


def failures(entries: Sequence[Entry], night: str) -> tuple[str, ...]:
    """Deployments that ended well the night before, or have no night before, and did not tonight."""
    outcomes: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for e in entries:
        if e.arm == "b" and not e.metric and not e.item:
            outcomes[e.deployment][e.night].add(e.outcome)
    said = []
    for deployment, by_night in sorted(outcomes.items()):
        tonight = by_night.get(night, set()) - {"ok"}
        before = [by_night[n] for n in sorted(by_night) if n < night]
        if tonight and (not before or before[-1] == {"ok"}):
            said.append(
                f"{deployment} ended {', '.join(sorted(tonight))}"
                + (", which it did not the night before" if before else "")
            )
    return tuple(said)


def changed_answers(entries: Sequence[Entry], night: str) -> tuple[str, ...]:
    """Greedy answers that differ from the last ones to the same item in the same epoch: an event, not a failure."""
    last: dict[tuple[str, str, str, str], str] = {}
    changed: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for e in sorted((e for e in entries if e.arm != "p" and e.item and e.text_hash), key=lambda e: (e.night, e.block)):
        where = (e.deployment, e.task, e.item, e.epoch)
        if e.night == night and where in last:
            changed[e.deployment, e.task][0] += last[where] != e.text_hash
            changed[e.deployment, e.task][1] += 1
        last[where] = e.text_hash
    return tuple(
        f"{deployment}, {task}: {differ} of {asked} greedy answers differ from the last time, with nothing known to have changed"
        for (deployment, task), (differ, asked) in sorted(changed.items())
        if differ
    )


def judge_night(
    entries: Sequence[Entry],
    suite: str,
    night: str,
    control: str | None,
    broken: Sequence[str] = (),
    unprobed: str = "",
) -> Night:
    """Judge one night against everything before it."""
    ours = [e for e in entries if e.suite == suite and e.night <= night]
    series = tuple(s for s in series_of(ours, control) if s.points[-1].night == night)
    accuracy = accuracies(ours)
    sure = _discoveries(series)
    worse: list[str] = []
    better: list[str] = []
    for one in series:
        if one.finding.verdict in ("regression", "improvement") and str(one.key) in sure:
            (worse if one.finding.verdict == "regression" else better).append(sentence(one.key, one.finding))
    for item in accuracy:
        if item.evidence.verdict != "steady":
            (worse if item.evidence.verdict == "regression" else better).append(_accuracy_sentence(item))
    failed, probed = failures(ours, night) + tuple(s.words for s in swaps(ours, night)), probes(ours, night)
    return Night(
        suite=suite,
        night=night,
        verdict="regression" if worse or failed else "ok",
        regressions=tuple(worse) + failed,
        improvements=tuple(better),
        candidates=tuple(s.key for s in series if s.finding.verdict == "candidate"),
        series=series,
        accuracy=accuracy,
        failures=failed,
        events=(
            *_changed_probes(probed),
            *changed_answers(ours, night),
            *_new_epochs(series),
            *_disturbed(ours, night),
            *broken,
        ),
        probes=probed,
        unprobed=unprobed,
        runs=tuple(sorted({e.run for e in ours if e.night == night})),
    )


def _discoveries(series: Sequence[Series]) -> set[str]:
    """Benjamini and Hochberg over all series of the night; a series without a test counts with p = 1."""
    p_values = {str(s.key): 1.0 if s.finding.p_value is None else s.finding.p_value for s in series}
    return {name for name, p in benjamini_hochberg(p_values).items() if p <= FALSE_DISCOVERY_RATE}


def _changed_probes(probed: Sequence[Probe]) -> tuple[str, ...]:
    return tuple(f"{p.deployment}: {p.words}, with nothing known to have changed" for p in probed if p.changed)


def _disturbed(entries: Sequence[Entry], night: str) -> tuple[str, ...]:
    blocks = {e.block for e in entries if e.night == night and e.arm == "b"}
    quiet = quiet_blocks(e for e in entries if e.night == night).get(night, set())
    if quiet == blocks:
        return ()
    what = "left out" if len(quiet) >= ENOUGH else f"counted all the same, since only {len(quiet)} were quiet"
    return (f"{len(blocks - quiet)} of {len(blocks)} blocks were disturbed by other processes and {what}",)


def _new_epochs(series: Sequence[Series]) -> tuple[str, ...]:
    began = {s.key.deployment for s in series if len(s.epochs) > 1 and s.epochs[-1] != s.epochs[-2]}
    return tuple(
        f"{name}: a new epoch begins tonight (machine, software, weights, settings or data changed)"
        for name in sorted(began)
    )


def judge_again(judged: Night, reruns: Mapping[Key, Sequence[float]]) -> Night:
    """The night with the verdict of its re-runs (log ratios by series); what they do not confirm is an event."""
    worse, better, events = list(judged.regressions), list(judged.improvements), list(judged.events)
    for key, again in reruns.items():
        before = next(s.current for s in judged.series if s.key == key)[:-1]
        finding = confirm(before, again, METRICS[key.metric])
        if finding.verdict == "steady":
            beyond = "" if finding.effect is None else f", not wholly beyond {finding.floor:.1%}"
            events.append(f"in doubt and not confirmed: {sentence(key, finding)}{beyond}")
        else:
            words = sentence(key, replace(finding, since=judged.night))
            (worse if finding.verdict == "regression" else better).append(words)
    return replace(
        judged,
        regressions=tuple(worse),
        improvements=tuple(better),
        events=tuple(events),
        verdict="regression" if worse else "ok",
    )


def sentence(key: Key, finding: Finding) -> str:
    effect = "" if finding.effect is None else f": {finding.effect:+.1%}"
    since = f" since {finding.since}" if finding.since else ""
    p = f" (p {finding.p_value:.1e})" if finding.p_value is not None else ""
    return f"{key}{effect}{since}{p}{': ' + finding.reason if finding.reason else ''}"


def _accuracy_sentence(found: Accuracy) -> str:
    e = found.evidence
    change = 0.0 if e.change is None else e.change
    return (
        f"{found.deployment}, {found.task}, accuracy: {100 * change:+.1f} points on {e.items} items "
        f"({e.losses} lost, {e.gains} gained; e-value {e.e_value:.0f})"
    )
