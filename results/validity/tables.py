"""The rule of a table of comparisons: with many tests one of them is small by chance."""

from collections.abc import Mapping

from results.validity.base import Check, Finding, failed, not_applicable, passed

ADJUSTMENT = "Holm"
ID, TITLE, THRESHOLD = (
    "F7",
    "several tests are adjusted for being several",
    "every p within one declared family, adjusted",
)

PValues = Mapping[str, tuple[float, float | None]]
"""Name of each test, its p, and its adjusted p."""


def judge_table(name: str, p_values: PValues, family: tuple[str, ...]) -> Finding:
    """F7"""
    check = _check(p_values, family)
    return Finding(
        rule=ID,
        step=name,
        severity="I",
        axis="accuracy",
        verdict=check.verdict,
        observed=check.observed,
        threshold=THRESHOLD,
        sentence=check.sentence,
    )


def _check(p_values: PValues, family: tuple[str, ...]) -> Check:
    if len(p_values) < 2:
        return not_applicable("a single test")
    outside = sorted(p_values.keys() ^ set(family))
    if outside:
        return failed(
            outside[0], f"{len(outside)} tests are shown and not in the declared family, or the other way round"
        )
    bare = [name for name, (p, adjusted) in p_values.items() if adjusted is None or adjusted < p]
    if bare:
        return failed(bare[0], f"{len(bare)} of {len(p_values)} p-values are not adjusted, first `{bare[0]}`")
    return passed(f"{ADJUSTMENT} over {len(family)}")
