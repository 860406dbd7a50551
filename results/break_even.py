"""From which utilisation on an own machine is cheaper than an API that is paid by the token."""

import numpy as np
from msgspec import Struct, structs

from results.cost import Amount, Api, Inputs, Quantity, inputs_of, node_power
from results.montecarlo import (
    Range,
    Variant,
    drawn_inputs,
    generator_of,
    interval,
    per_sample,
    power_factor,
    speed_factor,
    triangular,
)
from results.rows import Row
from results.stats import Floats

DRAWS = 2000


class BreakEven(Struct, frozen=True, kw_only=True):
    """Of one row against the API of its tariff."""

    asked: Amount
    """Money that the API asks for the tokens of 1,000 samples of this row."""
    utilisation: float | None
    """Share of all hours from which on the own machine is cheaper; `None` where it is not even when it always works."""
    range: Range
    """95 % interval; `None` at an end where the draws that never break even reach it."""
    never: float
    """Share of the draws in which it never does."""


def break_even(variant: Variant, seed: int = 0) -> BreakEven | None:
    """`None` where the tariff names no API, the row wrote nothing (an API by the token sells no rankings), or it has no cost."""
    row, tariff = variant.row, variant.tariff
    power = node_power(row, tariff.node)
    asked = api_cost(row, tariff.api) if tariff.api else None
    if asked is None or row.seconds is None or power.busy_w is None or power.idle_w is None:
        return None
    watts, slower = power_factor(row, DRAWS, seed), 1 / speed_factor(row, DRAWS, seed)
    drawn = drawn_inputs(tariff, power, watts, DRAWS, seed)
    prices = triangular(asked, generator_of(seed, f"{tariff.name}:api").random(DRAWS))
    shares = _share(drawn, row, slower, prices)
    share = float(_share(inputs_of(tariff, power.busy_w, power.idle_w), row, np.ones(1), asked.value)[0])
    return BreakEven(
        asked=asked,
        utilisation=share if np.isfinite(share) else None,
        range=interval(shares),
        never=float(np.isnan(shares).mean()),
    )


def api_cost(row: Row, api: Api) -> Amount | None:
    """What the API asks for 1,000 samples with this row's tokens, as this row's tokenizer counts them."""
    if not row.samples or not row.output_tokens or row.prompt_tokens is None:
        return None
    into, out = (1000 * tokens / row.samples / 1e6 for tokens in (row.prompt_tokens, row.output_tokens))
    price_in, price_out = api.input_per_million_tokens, api.output_per_million_tokens
    low, high = (
        into * (price_in.value if a is None else a) + out * (price_out.value if b is None else b)
        for a, b in ((price_in.low, price_out.low), (price_in.high, price_out.high))
    )
    return structs.replace(price_in, value=into * price_in.value + out * price_out.value, low=low, high=high)


def _share(inputs: Inputs, row: Row, slower: Floats, price: Quantity) -> Floats:
    """Cost is `floor + slope / utilisation`, so two points give the whole curve; NaN where it stays above the price within all hours."""
    always, half = (1000 * per_sample(structs.replace(inputs, utilisation=u), row) * slower for u in (1.0, 0.5))
    slope = half - always
    above = price - (always - slope)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(always <= price, np.maximum(slope / above, 0.0), np.nan)
