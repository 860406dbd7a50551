"""What of a run can be measured on this machine, by which evidence, and what would give better: the sensors' reports in a few sentences."""

from collections.abc import Sequence

from msgspec import Struct

from hardware.base import SensorReport

BETTER = ("M1", "M2", "M3", "M4", "E1", "E2", "E3")
MEANING = {
    "M2": "node sensor, rankings of energy allowed",
    "M3": "energy counters, rankings of energy allowed",
    "M4": "sampled power, rankings of energy allowed",
    "E2": "an estimate with its range, never ranked",
    "E3": "somebody's word, never ranked",
}
PARTS = {
    "energy of the accelerators": "gpu",
    "energy of the processors": "cpu",
    "energy of the whole node": "node",
}


class Measurable(Struct, frozen=True, kw_only=True):
    """`by` is an interface, None where nothing measures it; `sentence` says what that means or what is missing."""

    quantity: str
    by: str | None
    evidence: str | None
    sentence: str


def measurable(reports: Sequence[SensorReport]) -> tuple[Measurable, ...]:
    """Each part's energy by its best usable sensor; memory of accelerators where their own interface answers."""
    found = [_energy(quantity, start, reports) for quantity, start in PARTS.items()]
    boards = next((r for r in reports if r.usable and r.boundary == "gpu" and r.interface != "xpu"), None)
    sentence = f"read by {boards.interface}" if boards else "no accelerator whose memory can be read"
    return (
        *found,
        Measurable(
            quantity="memory of the accelerators",
            by=boards.interface if boards else None,
            evidence=None,
            sentence=sentence,
        ),
        Measurable(
            quantity="speed, accuracy, memory of the host",
            by="memory",
            evidence=None,
            sentence="always: the monotonic clock, /proc",
        ),
    )


def _energy(quantity: str, start: str, reports: Sequence[SensorReport]) -> Measurable:
    of = [r for r in reports if r.boundary.startswith(start) and r.evidence in BETTER]
    usable = sorted((r for r in of if r.usable), key=lambda r: BETTER.index(r.evidence))
    best = BETTER.index(usable[0].evidence) if usable else len(BETTER)
    lacking = [f"{r.interface}: {r.note}" for r in of if not r.usable and BETTER.index(r.evidence) < best]
    more = f"; better: {' | '.join(lacking)}" if lacking and usable and usable[0].evidence.startswith("E") else ""
    if usable:
        kind = usable[0].evidence
        sentence = f"{usable[0].interface}, class {kind} ({MEANING.get(kind, kind)}){more}"
        return Measurable(quantity=quantity, by=usable[0].interface, evidence=kind, sentence=sentence)
    return Measurable(quantity=quantity, by=None, evidence=None, sentence=f"not here ({' | '.join(lacking)})")
