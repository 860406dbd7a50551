"""Are tonight's weights those of the night before? Another file under the same name is told at once, with what it did to the answers. Pure.

A changed fingerprint begins a new epoch and nothing is tested across it, since an update of the machine explains itself. Weights that
change while the suite still asks for the same model explain nothing: somebody overwrote a file, or a server loaded another one. That is a
failure on the night it happens, once; a person says whether it was meant. What it did is counted on items that both asked.
"""

from collections.abc import Sequence

from msgspec import Struct

from results.nightly.history import Entry
from results.paired import mcnemar_mid_p

SHOWN = 12


class Swap(Struct, frozen=True, kw_only=True):
    """One deployment whose weights are not those of its last night."""

    deployment: str
    since: str
    """The last night with the other weights."""
    before: str
    after: str
    compared: int
    """Answers of tonight to items that the other weights have answered, the determinism probe's among them."""
    differ: int
    """Of these, answers that are not the same to the last character (a ranking: digit)."""
    judged: int
    """Of these, answers that were judged both times."""
    lost: int
    gained: int
    """Right before and not now, and the other way round."""

    @property
    def words(self) -> str:
        name = f"{self.deployment}: other weights than on {self.since} under the same name ({self.before} was, {self.after} is)"
        if not self.compared:
            return f"{name}; no item was asked of both"
        said = f"{name}; {self.differ} of {self.compared} answers to the same items differ"
        if not self.judged:
            return said
        change = 100 * (self.gained - self.lost) / self.judged
        p = mcnemar_mid_p(self.lost, self.gained)
        return f"{said}, accuracy {change:+.1f} points on {self.judged} ({self.lost} lost, {self.gained} gained; McNemar mid-p {p:.2g})"


def swaps(entries: Sequence[Entry], night: str) -> tuple[Swap, ...]:
    """Deployments of tonight whose weights differ from those of their last night before; those that tell none are left out."""
    found = []
    for name in sorted({e.deployment for e in entries if e.night == night}):
        ours = [e for e in entries if e.deployment == name and e.weights]
        tonight = [e for e in ours if e.night == night]
        last = max((e.night for e in ours if e.night < night), default=None)
        if not tonight or last is None:
            continue
        after, before = tonight[-1], next(e for e in ours if e.night == last)
        if after.weights != before.weights and after.asked == before.asked:
            found.append(_swap(name, last, before.weights, after.weights, ours, tonight))
    return tuple(found)


def _swap(name: str, since: str, before: str, after: str, ours: Sequence[Entry], tonight: Sequence[Entry]) -> Swap:
    was = _answers([e for e in ours if e.weights == before and e.night <= since])
    now = _answers(tonight)
    both = [(was[key], now[key]) for key in now if key in was]
    hashed = [(a, b) for a, b in both if a.text_hash and b.text_hash]
    judged = [(a.right, b.right) for a, b in both if a.right is not None and b.right is not None]
    return Swap(
        deployment=name,
        since=since,
        before=before[:SHOWN],
        after=after[:SHOWN],
        compared=len(hashed),
        differ=sum(a.text_hash != b.text_hash for a, b in hashed),
        judged=len(judged),
        lost=sum(bool(a and not b) for a, b in judged),
        gained=sum(bool(b and not a) for a, b in judged),
    )


def _answers(entries: Sequence[Entry]) -> dict[tuple[str, str, str], Entry]:
    """The latest answer to each item; an item of the probe is asked in another way and stands apart."""
    in_order = sorted((e for e in entries if e.item), key=lambda e: (e.night, e.block))
    return {("p" if e.arm == "p" else "", e.task, e.item): e for e in in_order}
