"""One step summarised: the row, and rows.csv.

Every column is explained in docs/metrics.md. Columns may be added at the end, never renamed; empty means unknown, never zero.
"""

import csv
import io
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from results.store import StoreError, write_atomically


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured step of one cell. `None` is unknown, with the reason in `reasons` or `warnings`."""

    run: str
    cell: str
    outcome: str
    """`ok` for a step that ended; else how its cell ended: oom, timeout, crashed, skipped, interrupted."""
    model: str
    family: str | None = None
    parameters_b: float | None = None
    """Billions, counted from the file where there is one."""
    quantisation: str | None = None
    bits_per_weight: float | None = None
    engine: str | None = None
    engine_version: str | None = None
    device: str | None = None
    task: str
    language: str
    scoring: str
    load: str
    samples: int | None = None
    """Requests that came to an end, failed ones included."""
    scored: int | None = None
    correct: int | None = None
    accuracy: float | None = None
    """Mean of the items' mean scores, in [0, 1]."""
    accuracy_lo: float | None = None
    accuracy_hi: float | None = None
    metric: str
    no_answer: int | None = None
    truncated: int | None = None
    errors: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    think_tokens: int | None = None
    seconds: float | None = None
    """From the start of the step to its end."""
    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p95_ms: float | None = None
    tpot_p50_ms: float | None = None
    tpot_p95_ms: float | None = None
    e2e_p50_ms: float | None = None
    e2e_p95_ms: float | None = None
    load_seconds: float | None = None
    weight_bytes: int | None = None
    vram_reserved_bytes: int | None = None
    vram_needed_bytes: int | None = None
    host_memory_bytes: int | None = None
    energy_j: float | None = None
    """Gross, over `seconds`, within `energy_boundary`."""
    mean_power_w: float | None = None
    idle_power_w: float | None = None
    """Bare, before the worker."""
    power_class: str | None = None
    energy_per_output_token_j: float | None = None
    energy_per_sample_j: float | None = None
    energy_per_correct_j: float | None = None
    cost_per_1k_samples: float | None = None
    cost_per_correct: float | None = None
    currency: str | None = None
    valid: bool
    """May stand in a ranking of accuracy, speed or cost."""
    reasons: tuple[str, ...] = ()
    """Why not, rule by rule."""

    step: str
    repeat: int = 0
    deployment: str
    backend: str
    active_parameters_b: float | None = None
    synthetic_data: bool = False
    synthetic_weights: bool = False
    public_data: bool = False
    profile: str
    items: int | None = None
    accuracy_n: int | None = None
    accuracy_method: str | None = None
    wrong: int | None = None
    accuracy_given_finished: float | None = None
    think_unclosed: int | None = None
    think_empty: int | None = None
    loops: int | None = None
    scorer: str | None = None
    cached_tokens: int | None = None
    output_tokens_mean: float | None = None
    samples_per_s: float | None = None
    characters_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    ttfat_p50_ms: float | None = None
    ttfat_p95_ms: float | None = None
    steady_seconds: float | None = None
    steady_output_tokens_per_s: float | None = None
    steady_output_tokens_per_s_lo: float | None = None
    steady_output_tokens_per_s_hi: float | None = None
    steady_prompt_tokens_per_s: float | None = None
    steady_prompt_tokens_per_s_lo: float | None = None
    steady_prompt_tokens_per_s_hi: float | None = None
    steady_energy_j: float | None = None
    steady_energy_per_output_token_j: float | None = None
    energy_low_j: float | None = None
    energy_high_j: float | None = None
    energy_net_j: float | None = None
    energy_boundary: str | None = None
    energy_method: str | None = None
    energy_meters: str | None = None
    energy_valid: bool = False
    """May stand in a ranking of energy."""
    energy_reasons: tuple[str, ...] = ()
    idle_loaded_power_w: float | None = None
    idle_after_power_w: float | None = None
    host_anon_bytes: int | None = None
    host_file_bytes: int | None = None
    host_needed_bytes: int | None = None
    cache_bytes_per_token: float | None = None
    predicted_memory_bytes: int | None = None
    predicted_decode_ceiling: float | None = None
    cost_per_1k_samples_lo: float | None = None
    cost_per_1k_samples_hi: float | None = None
    cost_per_correct_lo: float | None = None
    cost_per_correct_hi: float | None = None
    cost_per_million_output_tokens: float | None = None
    cost_per_acceptable: float | None = None
    cost_energy_share: float | None = None
    cost_idle_share: float | None = None
    cost_reason: str | None = None
    tariff: str | None = None
    warnings: tuple[str, ...] = ()
    """What a reader should know though the row is valid, and why a column is empty."""
    smallest_memory_bytes: int | None = None
    """Smallest limit of memory under which a short repeat of this step works."""
    smallest_memory_resolution: float | None = None
    page_cache_share: float | None = None
    """Of the weights' bytes, those that stood in the page cache just before the worker was started."""
    prefill_energy_per_token_j: float | None = None
    decode_energy_per_token_j: float | None = None
    phase_energy_method: str | None = None
    phase_energy_reason: str | None = None
    judge: str | None = None
    """Who judged the summaries; its figures never stand in a ranking."""
    judge_supported: float | None = None
    judge_supported_lo: float | None = None
    judge_supported_hi: float | None = None
    judge_contradicted: float | None = None
    judge_contradicted_lo: float | None = None
    judge_contradicted_hi: float | None = None
    judge_statements: int | None = None
    judge_kappa: float | None = None
    judge_kappa_lo: float | None = None
    judge_kappa_hi: float | None = None
    judge_accuracy: float | None = None
    judge_accuracy_lo: float | None = None
    judge_accuracy_hi: float | None = None
    judge_reason: str | None = None
    """Why the judge's figures are not shown."""
    stopped_items: int | None = None
    """Items after which the step was ended early by its stopping rule; `None`: run whole."""
    stopped_decision: str | None = None
    """`different` or `futile`."""
    stopped_e_value: float | None = None
    stopping_rule: str | None = None
    """As it stood in the plan; `None`: the step could not end early."""
    similarity: float | None = None
    """Mean cosine of summary and reference; blind to negation and numbers."""
    similarity_lo: float | None = None
    similarity_hi: float | None = None
    similarity_negated: float | None = None
    similarity_unrelated: float | None = None
    similarity_model: str | None = None
    similarity_reason: str | None = None


CONTRACT = Row.__struct_fields__[: Row.__struct_fields__.index("reasons") + 1]
"""The columns that other programs rely on, in their order."""

_LIST_SEPARATOR = " | "
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")


def to_csv(rows: Iterable[Row]) -> str:
    """rows.csv as text, one line for each row, every column of `Row` in its order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(Row.__struct_fields__)
    writer.writerows([_cell(getattr(row, name)) for name in Row.__struct_fields__] for row in rows)
    return out.getvalue()


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows.csv; a spreadsheet will not take any of its text for a formula."""
    write_atomically(path, to_csv(rows).encode())


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case int():
            return str(value)
        case tuple():
            return _safe(_LIST_SEPARATOR.join(str(v).replace(_LIST_SEPARATOR, " / ") for v in value))
        case _:
            return _safe(str(value))


def _safe(text: str) -> str:
    """An apostrophe before what a spreadsheet would run as a formula (OWASP, CSV injection)."""
    return "'" + text if text.startswith(_FORMULA_STARTS) else text


def read_rows(path: Path) -> tuple[Row, ...]:
    """Read rows.csv back, columns that this version does not know left out; raises `StoreError` for a file that is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); make it with `report RUN`") from error
    hints = get_type_hints(Row)
    rows = []
    for number, cells in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            values = {name: _parse(cells[name] or "", hints[name]) for name in hints if name in cells}
            rows.append(msgspec.convert(values, Row))
        except (ValueError, msgspec.ValidationError) as error:
            raise StoreError(f"{path}, line {number}: not a row of Bedside ({error})") from error
    return tuple(rows)


def _parse(text: str, hint: Any) -> Any:
    """A cell as the column's type; empty is `None` where the column may be unknown."""
    optional = get_origin(hint) in (Union, types.UnionType)
    kind = next(a for a in get_args(hint) if a is not type(None)) if optional else get_origin(hint) or hint
    plain = text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA_STARTS) else text
    if kind is tuple:
        return tuple(plain.split(_LIST_SEPARATOR)) if plain else ()
    if not text and optional:
        return None
    if kind is bool:
        return text == "true"
    return kind(text) if kind in (int, float) else plain
