"""The recommendation as a page in the report's style, and as Markdown. Neither holds a script nor asks anything of any network."""

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from results.accept.words import Said
from results.recommend import Recommendation
from results.recommend.demand import Demand
from results.recommend.fit import DRAWS, Fit, Kept
from results.recommend.words import WORDS, say
from results.report import formats
from results.report.markdown import escaped
from results.report.page import policy
from results.stats import Interval

HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "static" / "report.css"

Tell = Callable[[Said], str]


class Table(Struct, frozen=True):
    """Headings and lines, as text."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


class Shown(Struct, frozen=True):
    """Everything that page and Markdown say, in one language."""

    title: str
    name: str
    asks: tuple[str, ...]
    answer: tuple[str, ...]
    tables: tuple[Table, ...]
    rules: tuple[str, ...]


def shown(found: Recommendation, lang: str) -> Shown:
    """The words, before any markup."""

    def t(said: Said) -> str:
        return said.zh if lang == "zh" else said.en

    return Shown(
        title=t(WORDS["title"]),
        name=found.demand.name,
        asks=tuple(_asks(found.demand, t)),
        answer=tuple(_answer(found, t)),
        tables=(_each(found, t), _why(found, t), _kept(found, t), _hours(found, t)),
        rules=tuple(_rules(found, t)),
    )


def html(found: Recommendation, lang: str) -> str:
    """The page as text; names are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = STYLE.read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        lang=lang,
        shown=shown(found, lang),
        best=found.best is not None,
        labels={k: (v.zh if lang == "zh" else v.en) for k, v in WORDS.items()},
        style=Markup(style),
        policy=policy(style, ""),
    )


def markdown(found: Recommendation, lang: str) -> str:
    """The same as Markdown."""
    said = shown(found, lang)
    labels = {k: (v.zh if lang == "zh" else v.en) for k, v in WORDS.items()}
    lines = [
        f"# {said.title}: {escaped(said.name)}",
        "",
        *(f"**{escaped(a)}**" for a in said.answer),
        "",
        f"## {labels['demand']}",
        "",
    ]
    lines += [f"- {escaped(a)}" for a in said.asks]
    for table in said.tables:
        if table.lines:
            lines += [
                "",
                f"## {table.title}",
                "",
                "| " + " | ".join(map(escaped, table.columns)) + " |",
                "|" + "---|" * len(table.columns),
            ]
            lines += ["| " + " | ".join(map(escaped, line)) + " |" for line in table.lines]
    return "\n".join([*lines, "", f"## {labels['how']}", "", *(f"- {escaped(r)}" for r in said.rules), ""])


def _asks(demand: Demand, t: Tell) -> list[str]:
    found = []
    for w in demand.work:
        n = w.requests_per_day
        number = f"{n:,.0f}" if isinstance(n, float) else f"{n.value:,.0f} ({n.low:,.0f} – {n.high:,.0f})"
        asked = say("asks", work=w.name, task=w.task, n=number, peak=f"{100 * w.hours.max():.1f}", burst=f"{w.burst:g}")
        limits = [] if w.minimum_accuracy is None else [say("accuracy", asked=f"{100 * w.minimum_accuracy:g}")]
        for key, limit in (("ttft", w.ttft), ("tpot", w.tpot)):
            if limit is not None:
                limits.append(say(key, ms=formats.milliseconds(limit.at_most_ms), asked=f"{100 * limit.share:g}"))
        found.append("; ".join(t(x) for x in (asked, *limits)))
    return found


def _answer(found: Recommendation, t: Tell) -> list[str]:
    best = found.best
    if best is None:
        return [t(WORDS["none"])]
    year = best.fit.cost_per_year
    said = [
        t(
            say(
                "best",
                a=best.deployment,
                machine=best.machine,
                nodes=best.fit.nodes,
                spare=best.fit.spare,
                p=formats.probability(best.fit.probability),
                cost=formats.integer(year.value) if year else t(WORDS["uncosted"]),
                cur=best.tariff.currency,
                lo=formats.integer(year.lo) if year else formats.DASH,
                hi=formats.integer(year.hi) if year else formats.DASH,
            )
        )
    ]
    if found.tied:
        said.append(t(say("tied", names=", ".join(found.tied))))
    return said


def _each(found: Recommendation, t: Tell) -> Table:
    currency = found.candidates[0].tariff.currency
    keys = ("deployment", "machine", "meets", "probability", "nodes", "utilisation", "capacity", "year", "correct")
    lines = tuple(
        (
            c.deployment,
            c.machine,
            t(WORDS["yes" if c.fit.meets else "no"]),
            formats.probability(c.fit.probability),
            f"{c.fit.nodes} ({c.fit.spare})" if c.fit.nodes else formats.DASH,
            _works(c.fit.utilisation),
            _rates(c.fit),
            _ranged(c.fit.cost_per_year, 1.0),
            _ranged(c.fit.cost_per_correct, 1000.0),
        )
        for c in found.candidates
    )
    return Table(t(WORDS["each"]), tuple(t(say(k, cur=currency)) for k in keys), lines)


def _works(hours: Sequence[float]) -> str:
    return f"{formats.percent(max(hours))} / {formats.percent(sum(hours) / 24)}" if hours else formats.DASH


def _rates(fit: Fit) -> str:
    if fit.capacity_per_s is None:
        return formats.DASH
    return f"{formats.integer(3600 * fit.capacity_per_s)} / {formats.integer(3600 * (fit.peak_per_s or 0.0))}"


def _ranged(cost: Interval | None, unit: float) -> str:
    if cost is None or cost.value is None or cost.lo is None or cost.hi is None:
        return formats.DASH
    value, lo, hi = (formats.significant(unit * v) for v in (cost.value, cost.lo, cost.hi))
    return f"{value} ({lo} – {hi})"


def _why(found: Recommendation, t: Tell) -> Table:
    lines = tuple((c.deployment, t(why)) for c in found.candidates for why in c.fit.why_not)
    return Table(t(WORDS["why"]), (t(WORDS["deployment"]), t(WORDS["why"])), lines)


def _kept(found: Recommendation, t: Tell) -> Table:
    keys = ("deployment", "work", "requirement", "value", "probability")
    lines = tuple(
        (c.deployment, k.work, t(_requirement(k)), _value(k), formats.probability(k.probability))
        for c in found.candidates
        for k in c.fit.kept
    )
    return Table(t(WORDS["kept"]), tuple(t(WORDS[k]) for k in keys), lines)


def _requirement(kept: Kept) -> Said:
    return say(kept.what, asked=f"{100 * kept.asked:g}", ms=formats.milliseconds(kept.at_most_ms))


def _value(kept: Kept) -> str:
    return f"{formats.percent(kept.value)} ({formats.bare(kept.lo)} – {formats.percent(kept.hi)})"


def _hours(found: Recommendation, t: Tell) -> Table:
    able = [c for c in found.candidates if c.fit.utilisation][:6]
    lines = (
        tuple((f"{h:02}", *(formats.percent(c.fit.utilisation[h]) for c in able)) for h in range(24)) if able else ()
    )
    return Table(t(WORDS["hours"]), (t(WORDS["hour"]), *(c.deployment for c in able)), lines)


def _rules(found: Recommendation, t: Tell) -> list[str]:
    demand = found.demand
    said = [
        WORDS["rule_queue"],
        say("rule_draws", draws=f"{DRAWS:,}", confidence=formats.percent(demand.confidence, 0)),
    ]
    tariffs = {(c.tariff.name, c.tariff.machine): c.tariff for c in found.candidates}
    said += [say("rule_tariff", name=name, machine=machine) for name, machine in tariffs]
    said += [WORDS["rule_example"]] if any(tariff.example for tariff in tariffs.values()) else []
    said += [WORDS["rule_synthetic"]] if any(c.synthetic for c in found.candidates) else []
    checks = [x for c in found.candidates for x in c.checks]
    said += [
        say(
            "check",
            deployment=x.deployment,
            load=x.load,
            predicted=formats.significant(x.predicted_s),
            measured=formats.significant(x.measured_s),
            off=f"{100 * x.off:+.0f} %",
        )
        for x in checks
    ] or [WORDS["no_check"]]
    return [t(x) for x in said]
