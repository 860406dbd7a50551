"""docs/validity.md, made from the rules themselves: `python -m results.validity.table > docs/validity.md`."""

import sys

from results.profiles import PROFILES
from results.validity import RULES, tables
from results.validity.pairs import PAIR_RULES

DEPARTURES = {
    "A3": "cards are counted against the plan, not compared by UUID: a suite names none, and which ones were read stands "
    "in the telemetry's head",
    "A7": "where threads are bound is not read; the variables and settings that bind them are in the fingerprint, and a governor "
    "that changes during a cell fails A1",
    "A9": "by the worker's end and outcome; the engine's log is searched only to tell a lack of memory from a crash",
    "B3": "never worse than R: the figures of a request stand beside those of a token in every comparison",
    "B4": "no limit of 30 % for speed alone: over 5 % the whole row is invalid already",
    "B7": "that R1 gets no system prompt is the renderer's rule and its tests', not a record of the run",
    "B9": "where a prefix cache is declared its hit ratio is shown, not judged against a declared one",
    "C4": "a slope that is significant and within the 10 % does not fail: with thousands of tokens a drift of 1 % is",
    "C7": "no lower bound from the arithmetic of prefill: the plan knows the memory's speed and not the processor's",
    "C9": "of one core instead of all, and the lateness of readings instead of an event loop's: requests are stamped in "
    "the worker's own threads",
    "F5": "the smallest difference that could be seen belongs to two runs: `compare` prints it",
    "F12": "kappa on statements labelled for this project instead of an ICC on 50 notes scored by physicians, and a warning: a judge's "
    "figures are withheld where it fails, and no row rests on them (docs/judge.md)",
}
"""Where less, or something else, is asked than the method does, and why."""

_HEAD = """# When a number may be used

Made from the code by `python -m results.validity.table > docs/validity.md`; do not edit.

Every finished step is judged by every rule below. A rule says pass, fail, not applicable, or unknown with the reason; the verdict,
what was observed and the threshold stand in `verify RUN`. Nothing is thrown away: an invalid row stays in the data with its reasons,
is greyed in the report, and is left out of the frontier and of rankings.

Severity: **I** invalid, no ranking and no cost. **R** valid as installed, not for ranking. **W** a warning.
What it concerns: a failure (I or R) of `all`, `accuracy` or `speed` makes a row invalid (`valid`); one of `all` or `energy` keeps it
out of rankings of energy (`energy_valid`); one of `memory` is a warning beside the memory figures. Estimated power (classes E1 to E3)
never makes a row invalid.
"""

_PROFILES = """
## Profiles

A suite's `profile` says how much is asked of a measurement. In `smoke` a measurement that is only too short is a warning ("indicative
only"), and shares of few answers (B4, B5, B6, F3) fail only when their exact lower 95 % bound is above the limit. In `procurement`
what must be known and is not (marked *) fails. `plan` and the start of `run` say beforehand which steps will be shorter than `nightly`
or `procurement` asks, by a rough estimate, and which `limit` or `samples_per_item` would fill them; nothing is refused
and nothing made longer.

| profile | steady state | requests for each in flight | percentile that must be backed | repetitions | too short is |
|---|---|---|---|---|---|
"""


def rules_table() -> str:
    """The whole page as Markdown."""
    lines = [
        _HEAD,
        "## Rules of one step\n",
        "| rule | severity | concerns | what | threshold |",
        "|---|---|---|---|---|",
    ]
    for rule in RULES:
        mark = "\\*" if rule.must_know else ""
        lines.append(f"| {rule.id}{mark} | {rule.severity} | {rule.axis} | {rule.title} | {rule.threshold} |")
    lines += [
        "",
        "## Rules of two steps that are compared\n",
        "| rule | severity | concerns | what | threshold |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {r.id} | {r.severity} | {r.axis} | {r.title} | {r.threshold} |" for r in PAIR_RULES]
    lines += [
        "",
        "## Rule of a table of comparisons\n",
        "In the record of `compare` (`--json`), and under its table where it fails.\n",
        "| rule | severity | concerns | what | threshold |",
        "|---|---|---|---|---|",
        f"| {tables.ID} | I | accuracy | {tables.TITLE} | {tables.THRESHOLD} |",
    ]
    rows = (
        f"| `{p.name}` | {p.window_s:g} s | {p.requests_per_slot} | {_percentile(p.percentile)} | {p.repeats} | {p.short} |"
        for p in PROFILES.values()
    )
    lines += [_PROFILES + "\n".join(rows)]
    lines += ["", "## Less, or other, than the method asks\n", "| rule | what and why |", "|---|---|"]
    lines += [f"| {name} | {why} |" for name, why in DEPARTURES.items()]
    return "\n".join(lines) + "\n"


def _percentile(q: float | None) -> str:
    return f"p{100 * q:g}" if q else "none"


if __name__ == "__main__":
    sys.stdout.write(rules_table())
