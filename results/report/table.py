"""The table of results: one for each task, with the columns that have something in them."""

from collections.abc import Callable

from msgspec import Struct

from results.report import formats
from results.report.build import Group, estimated, memory_bytes, throughput
from results.report.entries import Entry
from results.rows import Row


class Shown(Struct, frozen=True):
    """A figure as it is shown, what stands small below it, and what it is sorted by."""

    value: str
    below: str = ""
    sort: float | None = None


class Column(Struct, frozen=True, kw_only=True):
    """`key` names its heading, `term` its entry in the glossary."""

    key: str
    term: str | None = None
    money: bool = False
    show: Callable[[Row], Shown]


EMPTY = Shown(formats.DASH)


def _ranged(value: str, lo: str, hi: str, sort: float | None) -> Shown:
    return Shown(value, "" if formats.DASH in (lo, hi) else f"{lo} – {hi}", sort)


def _bits(row: Row) -> Shown:
    return Shown(formats.significant(row.bits_per_weight), sort=row.bits_per_weight)


def _accuracy(row: Row) -> Shown:
    lo, hi = formats.percent(row.accuracy_lo), formats.percent(row.accuracy_hi)
    return _ranged(formats.percent(row.accuracy), lo.removesuffix(f"{formats.GAP}%"), hi, row.accuracy)


def _cost(row: Row) -> Shown:
    if row.cost_per_1k_samples is None:
        return EMPTY
    lo, hi = (formats.significant(v, 2) for v in (row.cost_per_1k_samples_lo, row.cost_per_1k_samples_hi))
    return _ranged(_guess(row) + formats.significant(row.cost_per_1k_samples), lo, hi, row.cost_per_1k_samples)


def _cost_correct(row: Row) -> Shown:
    if row.cost_per_correct is None:
        return EMPTY
    limits = (row.cost_per_correct_lo, row.cost_per_correct_hi)
    lo, hi = (formats.significant(1000 * v if v is not None else None, 2) for v in limits)
    return _ranged(_guess(row) + formats.significant(1000 * row.cost_per_correct), lo, hi, row.cost_per_correct)


def _speed(row: Row) -> Shown:
    value, lo, hi = throughput(row), row.steady_output_tokens_per_s_lo, row.steady_output_tokens_per_s_hi
    return _ranged(formats.significant(value), formats.significant(lo), formats.significant(hi), value)


def _prompt_speed(row: Row) -> Shown:
    return Shown(formats.significant(row.prompt_tokens_per_s), sort=row.prompt_tokens_per_s)


def _ttft(row: Row) -> Shown:
    below = f"p95 {formats.milliseconds(row.ttft_p95_ms)}" if row.ttft_p95_ms is not None else ""
    return Shown(formats.milliseconds(row.ttft_p50_ms), below, row.ttft_p50_ms)


def _e2e(row: Row) -> Shown:
    below = f"p95 {formats.milliseconds(row.e2e_p95_ms)}" if row.e2e_p95_ms is not None else ""
    return Shown(formats.milliseconds(row.e2e_p50_ms), below, row.e2e_p50_ms)


def _memory(row: Row) -> Shown:
    return Shown(formats.gib(memory_bytes(row)), sort=memory_bytes(row))


def _smallest(row: Row) -> Shown:
    """Only where the suite asked for it, on the row of the cell's heaviest step."""
    return Shown(formats.gib(row.smallest_memory_bytes), sort=row.smallest_memory_bytes)


def _range_of(row: Row) -> str:
    """Of the joules of one answer, within the error of the class."""
    if row.energy_low_j is None or row.energy_high_j is None or not row.samples:
        return ""
    return f"{formats.significant(row.energy_low_j / row.samples, 2)} – {formats.significant(row.energy_high_j / row.samples, 2)} J · "


def _energy(row: Row) -> Shown:
    if row.energy_per_sample_j is None:
        return EMPTY
    mark = _guess(row)
    below = f"{_range_of(row)}{mark}{formats.significant(row.mean_power_w)} W, {row.power_class}"
    return Shown(f"{mark}{formats.significant(row.energy_per_sample_j)} J", below, row.energy_per_sample_j)


def _guess(row: Row) -> str:
    return "~" if estimated(row) else ""


COLUMNS = (
    Column(key="h_bits", term="bits", show=_bits),
    Column(key="h_accuracy", term="accuracy", show=_accuracy),
    Column(key="h_cost_1k", term="cost", money=True, show=_cost),
    Column(key="h_cost_correct", term="correct", money=True, show=_cost_correct),
    Column(key="h_speed", show=_speed),
    Column(key="h_prompt_speed", show=_prompt_speed),
    Column(key="h_ttft", term="ttft", show=_ttft),
    Column(key="h_e2e", show=_e2e),
    Column(key="h_memory", term="memory", show=_memory),
    Column(key="h_smallest", term="smallest", show=_smallest),
    Column(key="h_energy", term="class", show=_energy),
)


class Line(Struct, frozen=True, kw_only=True):
    """One row of the table: figures in the order of its columns, and the probability to be on the frontier."""

    entry: Entry
    cells: tuple[Shown, ...]
    chance: float | None


class Table(Struct, frozen=True, kw_only=True):
    """The table of one task."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def table_of(group: Group) -> Table:
    """Columns that are empty in every row are left out; the page tells elsewhere why they are."""
    filled = tuple(c for c in COLUMNS if any(c.show(e.row).sort is not None for e in group.entries))
    lines = tuple(
        Line(entry=e, cells=tuple(c.show(e.row) for c in filled), chance=group.main.probability.get(e.name))
        for e in group.entries
    )
    return Table(columns=filled, lines=lines)
