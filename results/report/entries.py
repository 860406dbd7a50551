"""The rows of a report with what stands behind each, and names that tell them apart."""

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct

from results.report.gather import CellPage, RunPage, StepPage
from results.report.pricing import Priced
from results.rows import Row

DOT = "\u00a0·\u00a0"
"""Between the parts of a name, which must not be torn apart at the end of a line."""


class Entry(Struct, frozen=True, kw_only=True):
    """One row of the report with everything that stands behind it. `label` tells it from the others of the page."""

    name: str
    label: str
    short: str
    """The same, as brief as a chart needs."""
    variant: str
    """The same without the load and the repeat, which an accuracy does not depend on."""
    colour: int
    machine: str
    row: Row
    run: RunPage
    cell: CellPage
    step: StepPage
    anchor: str


def machine_of(host: dict[str, object]) -> str:
    """Accelerators, or the processor where there is none; the host's name where neither is told."""
    gpus = host.get("gpus")
    if isinstance(gpus, list) and gpus:
        names = [str(g.get("name")) for g in gpus if isinstance(g, dict)]
        return " + ".join(f"{names.count(n)} × {n}" for n in dict.fromkeys(names))
    cpu = host.get("cpu")
    if isinstance(cpu, dict) and cpu.get("model"):
        cores = cpu.get("cores") or cpu.get("threads")
        return f"{cpu['model']}" + (f", {cores} cores" if cores else "")
    return str(host.get("name") or "?")


def entries_of(runs: Sequence[RunPage], priced: Priced) -> tuple[Entry, ...]:
    found = [(run, cell, page) for run in runs for cell in run.cells for page in cell.steps]
    several_runs = len(runs) > 1
    names = _short_names(runs)
    loads: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, cell, page in found:
        loads[cell.facts.id, page.facts.task].add(page.facts.load)
    colours = {d: i for i, d in enumerate(dict.fromkeys(c.facts.deployment for _, c, _ in found))}
    entries = []
    for number, (run, cell, page) in enumerate(found):
        row = priced.rows[f"{page.row.run}/{page.row.cell}/{page.row.step}"]
        load = f"{DOT}{page.facts.load}" if len(loads[cell.facts.id, page.facts.task]) > 1 else ""
        repeat = f" #{page.facts.repeat + 1}" if page.facts.repeat else ""
        where = f"{DOT}{run.manifest.run}" if several_runs else ""
        which = f"{DOT}{runs.index(run) + 1}" if several_runs else ""
        entries.append(
            Entry(
                name=f"{row.run}/{row.cell}/{row.step}",
                label=cell.facts.deployment + load + repeat + where,
                short=names[cell.facts.deployment] + load + repeat + which,
                variant=names[cell.facts.deployment] + which,
                colour=colours[cell.facts.deployment],
                machine=machine_of(run.manifest.host),
                row=row,
                run=run,
                cell=cell,
                step=page,
                anchor=f"row-{number + 1}",
            )
        )
    return tuple(entries)


def _short_names(runs: Sequence[RunPage]) -> dict[str, str]:
    """The quantisation where that alone tells the deployments that ran apart, else the names without what all of them begin with."""
    deployments = list(dict.fromkeys(c.facts.deployment for run in runs for c in run.cells))
    known = {c.facts.deployment: c.engine.quantisation for run in runs for c in run.cells if c.engine}
    ran = [known.get(name) for name in deployments if name in known]
    if None not in ran and len(set(ran)) == len(ran) == len(deployments):
        return {name: str(known[name]) for name in deployments}
    parts = [name.split("-") for name in deployments]
    same = 0
    while len(parts) > 1 and all(len(p) > same + 1 and p[same] == parts[0][same] for p in parts):
        same += 1
    return {name: "-".join(name.split("-")[same:]) for name in deployments}
