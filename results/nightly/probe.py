"""Do the same prompts, asked greedily one at a time, still get the same answers? An event where not, never a failure. Pure."""

from collections.abc import Sequence

from msgspec import Struct

from results.nightly.history import Entry


class Probe(Struct, frozen=True, kw_only=True):
    """Tonight's probe of one deployment against the latest earlier answers to the same prompts in the same epoch."""

    deployment: str
    asked: int
    compared: int
    """Prompts that have an earlier answer in this epoch, and text in both."""
    changed: int
    since: str | None = None
    """The latest night that was compared with."""
    reason: str = ""
    """Why fewer than all were compared."""

    @property
    def words(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        if not self.compared:
            return f"{self.asked} probe answers, none compared{why}"
        return f"{self.changed} of {self.compared} probe answers changed since {self.since}{why}"


def probes(entries: Sequence[Entry], night: str) -> tuple[Probe, ...]:
    """What the probe of a night found, by deployment. Nothing is compared across epochs."""
    ours = [e for e in entries if e.arm == "p" and e.night <= night]
    return tuple(
        _probe(name, [e for e in ours if e.deployment == name], night)
        for name in sorted({e.deployment for e in ours if e.night == night})
    )


def _probe(deployment: str, entries: Sequence[Entry], night: str) -> Probe:
    head = next(e for e in entries if e.night == night and not e.item and not e.metric)
    tonight = {(e.task, e.item): e.text_hash for e in entries if e.night == night and e.item}
    before: dict[tuple[str, str], Entry] = {}
    for e in sorted(entries, key=lambda e: e.night):
        if e.night < night and e.epoch == head.epoch and e.text_hash:
            before[e.task, e.item] = e
    both = [where for where, text_hash in tonight.items() if text_hash and where in before]
    changed = sum(before[where].text_hash != tonight[where] for where in both)
    return Probe(
        deployment=deployment,
        asked=len(tonight),
        compared=len(both),
        changed=changed,
        since=max((before[where].night for where in both), default=None),
        reason=_reason(head.outcome, list(tonight.values()).count(""), bool(before), len(tonight) - len(both)),
    )


def _reason(outcome: str, without_text: int, earlier: bool, left: int) -> str:
    if outcome != "ok":
        return f"the probe ended {outcome}"
    if without_text:
        return f"no text in {without_text}"
    if left:
        return f"{left} without an earlier answer in this epoch" if earlier else "first night of this epoch"
    return ""
