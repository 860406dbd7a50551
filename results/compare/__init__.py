"""Two runs, or two deployments of one run, compared: what belongs together, what differs, what can be said of the difference."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, structs

from results.compare.judge import CellPair, Compared, Ended, Level, Pricing, StepPair, adjust, judge_step_pair, tests_of
from results.compare.pairing import ALLOWABLE, Obstacle, Side, differences, match_cells, obstacles
from results.cost import Tariff, price_row, with_price
from results.load import LoadedCell, find_deployment, load, tariff_for
from results.manifest import CellFacts, Manifest
from results.montecarlo import Variant, variant_of
from results.report.entries import machine_of
from results.report.examples import Prompts
from results.store import RunDir, StoreError
from results.validity.tables import judge_table

__all__ = ["Compared", "Level", "Options", "compare_runs"]


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says of a comparison."""

    level: Level = Level()
    allow: tuple[str, ...] = ()
    base_deployment: str | None = None
    candidate_deployment: str | None = None
    tariff: Path | None = None


def compare_runs(base: Path, candidate: Path, options: Options) -> Compared:
    """Read both, a pair of cells at a time, and compare. Raises `StoreError` where nothing can be or may be compared."""
    _check(options.allow)
    runs = RunDir(base), RunDir(candidate)
    manifests = runs[0].manifest(), runs[1].manifest()
    one, two = _chosen(manifests[0], options.base_deployment), _chosen(manifests[1], options.candidate_deployment)
    chosen = options.base_deployment is not None and options.candidate_deployment is not None
    match = match_cells(one, two)
    pairs = ((one[0], two[0]),) if chosen else match.pairs
    tariffs = tariff_for(manifests[0], options.tariff), tariff_for(manifests[1], options.tariff)
    cells: list[CellPair] = []
    refused: list[Refused] = []
    for a, b in pairs:
        left = next(load(runs[0], manifests[0], [a]))
        right = next(load(runs[1], manifests[1], [b]))
        pair, refusals = _cells(left, right, tariffs, options)
        cells.append(pair)
        refused += refusals
    if refused:
        raise StoreError(_refusal(refused))
    if not any(c.steps or c.not_compared for c in cells):
        raise StoreError(f"{base} and {candidate} have no task under the same load in common; nothing to compare")
    judged, family = adjust(cells, options.level.margin)
    return Compared(
        base=manifests[0].run,
        candidate=manifests[1].run,
        level=options.level,
        family=family,
        adjusted=judge_table(f"{manifests[0].run} / {manifests[1].run}", tests_of(judged), family),
        cells=judged,
        only_base=() if chosen else tuple(c.deployment for c in match.only_base),
        only_candidate=() if chosen else tuple(c.deployment for c in match.only_candidate),
        tariff=tariffs[0].name + (" (example prices)" if tariffs[0].example else ""),
        notes=_notes(runs),
    )


Refused = tuple[str, str, Obstacle]
"""Step, deployments, obstacle."""


def _check(allow: Sequence[str]) -> None:
    if unknown := sorted(set(allow) - set(ALLOWABLE)):
        raise StoreError(f"--allow {unknown[0]}: unknown; one of {', '.join(ALLOWABLE)}")


def _chosen(manifest: Manifest, name: str | None) -> tuple[CellFacts, ...]:
    return manifest.cells if name is None else (find_deployment(manifest, name),)


def _notes(runs: Sequence[RunDir]) -> tuple[str, ...]:
    """Files that were edited since a run ended."""
    return tuple(f"{run.path.name}: {edits[0]}" for run in dict.fromkeys(runs) if (edits := run.edits()))


def _refusal(refused: Sequence[Refused]) -> str:
    """One sentence that names every step and obstacle once, however many deployments it stands in the way of."""
    where: dict[tuple[str, str], list[str]] = {}
    for step, deployments, obstacle in refused:
        where.setdefault((step, obstacle.sentence), []).append(deployments)
    said = "; ".join(f"{step} of {', '.join(names)}: {sentence}" for (step, sentence), names in where.items())
    names = " ".join(f"--allow {name}" for name in dict.fromkeys(o.name for _, _, o in refused))
    return f"not comparable: {said}; to compare in spite of it give {names}"


def _cells(
    left: LoadedCell, right: LoadedCell, tariffs: tuple[Tariff, Tariff], options: Options
) -> tuple[CellPair, list[Refused]]:
    one, two = _steps(left), _steps(right)
    steps: list[StepPair] = []
    ended: list[Ended] = []
    refused: list[Refused] = []
    sides: list[tuple[Side, Side]] = []
    for key in (k for k in one if k in two):
        base, candidate = _side(left, one[key]), _side(right, two[key])
        if base is None or candidate is None:
            ended.append(Ended(task=key[0], load=key[1], base=_end(left, one[key]), candidate=_end(right, two[key])))
            continue
        base, candidate = _with_prompts(left, base, candidate), _with_prompts(right, candidate, base)
        found = obstacles(base, candidate)
        names = " and ".join(dict.fromkeys((left.facts.deployment, right.facts.deployment)))
        refused += [(base.facts.name, names, o) for o in found if o.name not in options.allow]
        pricing = _pricing(base, candidate, tariffs)
        steps.append(judge_step_pair(base, candidate, pricing, options.level, tuple(o.name for o in found)))
        sides.append((base, candidate))
    return CellPair(
        base=left.facts.deployment,
        candidate=right.facts.deployment,
        differences=differences(*sides[0]) if sides else (),
        steps=tuple(steps),
        not_compared=tuple(ended),
        only_base=tuple("@".join(k) for k in one if k not in two),
        only_candidate=tuple("@".join(k) for k in two if k not in one),
    ), refused


Key = tuple[str, str]
"""Task and load."""


def _steps(cell: LoadedCell) -> dict[Key, list[int]]:
    """Places of the repeats of each task under each load."""
    found: dict[Key, list[int]] = {}
    for i, view in enumerate(cell.views):
        found.setdefault((view.step.facts.task, view.step.facts.load), []).append(i)
    return found


def _side(cell: LoadedCell, places: Sequence[int]) -> Side | None:
    """The repeats that ended; `None` when none did."""
    done = [i for i in places if cell.views[i].measured is not None]
    if not done:
        return None
    return Side(
        manifest=cell.manifest,
        path=cell.path,
        cell=cell.records,
        views=tuple(cell.views[i] for i in done),
        rows=tuple(cell.rows[i] for i in done),
    )


def _end(cell: LoadedCell, places: Sequence[int]) -> str:
    row = cell.rows[places[0]]
    return row.outcome if row.outcome == "ok" else f"{row.outcome} ({'; '.join(row.reasons)})"


def _with_prompts(cell: LoadedCell, side: Side, other: Side) -> Side:
    """With the texts of what was asked, where hashes alone cannot tell whether it was the same."""
    if side.facts.prompt_sha256 == other.facts.prompt_sha256 or side.facts.kind == "speed":
        return side
    places = [(r.sample, r.repeat) for r in side.views[0].step.records]
    return structs.replace(side, prompts=Prompts().of(cell.job, side.views[0].step, places))


def _pricing(base: Side, candidate: Side, tariffs: tuple[Tariff, Tariff]) -> Pricing:
    machines = [machine_of(side.manifest.host) for side in (base, candidate)]
    apart = ""
    if machines[0] != machines[1] and tariffs[0].machine == tariffs[1].machine:
        apart = f"the tariff prices both machines as {tariffs[0].machine}; give one with an entry for each host's name"
    return Pricing(base=_variant(base, tariffs[0]), candidate=_variant(candidate, tariffs[1]), apart=apart)


def _variant(side: Side, tariff: Tariff) -> Variant:
    row = side.rows[0]
    return variant_of(with_price(row, price_row(row, tariff)), tariff, side.views[0].step.scores)
