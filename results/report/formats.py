"""Numbers as a reader wants them: three significant digits, a unit that fits, a dash for what is unknown."""

import math

DASH = "–"
GAP = "\u00a0"
"""Between a number and its unit, which must not be torn apart at the end of a line."""


def percent(share: float | None, digits: int = 1) -> str:
    """0.4567 is "45.7 %"."""
    return DASH if share is None else f"{100 * share:.{digits}f}{GAP}%"


def two_decimals(value: float | None) -> str:
    """For a coefficient without a unit."""
    return DASH if value is None else f"{value:.2f}"


def bare(share: float | None) -> str:
    """In percentage points, without a sign."""
    return DASH if share is None else f"{100 * share:.1f}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, always with its sign."""
    return DASH if difference is None else f"{100 * difference:+.1f}"


def significant(value: float | None, digits: int = 3) -> str:
    """Three significant digits, thousands apart, never in powers of ten for everyday sizes."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - size)
    rounded = round(value, digits - 1 - size)
    return f"{rounded:,.{decimals}f}"


def trimmed(value: float | None) -> str:
    """Three significant digits without zeros that say nothing, for axes: 0.004, 1.5, 20."""
    shown = significant(value)
    return shown.rstrip("0").rstrip(".") if "." in shown and "e" not in shown else shown


def integer(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def gib(size: float | None) -> str:
    """Bytes in the binary unit that fits."""
    if size is None:
        return DASH
    if size >= 2**30:
        return f"{significant(size / 2**30)}{GAP}GiB"
    return f"{significant(size / 2**20)}{GAP}MiB"


def milliseconds(value: float | None) -> str:
    if value is None:
        return DASH
    return f"{significant(value / 1000)}{GAP}s" if value >= 10_000 else f"{significant(value)}{GAP}ms"


def seconds(value: float | None) -> str:
    if value is None:
        return DASH
    if value >= 7200:
        return f"{significant(value / 3600)}{GAP}h"
    return f"{significant(value / 60)}{GAP}min" if value >= 120 else f"{significant(value)}{GAP}s"


def trimmed_seconds(value: float) -> str:
    """For axes."""
    if value >= 7200:
        return f"{trimmed(value / 3600)}{GAP}h"
    return f"{trimmed(value / 60)}{GAP}min" if value >= 600 else f"{trimmed(value)}{GAP}s"


def p_value(p: float | None) -> str:
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def probability(p: float | None) -> str:
    """Draws can never show 0 or 100 % exactly."""
    if p is None:
        return DASH
    if p >= 0.995:
        return f">{GAP}99{GAP}%"
    return f"<{GAP}1{GAP}%" if p < 0.005 else f"{100 * p:.0f}{GAP}%"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within a range, about so many."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of every power of ten within a range of positive values; more between where that leaves fewer than three."""
    for multiples in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        found = [m * 10**e for e in exponents for m in multiples if low <= m * 10**e <= high]
        if len(found) >= 4:
            return found[:12]
    return ticks(low, high, 4)
