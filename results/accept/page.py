"""The acceptance record: one page in English and Chinese to print on A4 and sign. It holds no script and asks nothing of any network."""

import base64
import hashlib
from pathlib import Path

from results.accept import Accepted
from results.accept.words import WORDS, Said, say

HERE = Path(__file__).parent
OVERALL = {"met": "accepted", "not_met": "refused", "undecided": "open"}


def html(accepted: Accepted) -> str:
    """The page as text. All that comes from specifications and runs is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        a=accepted,
        words=WORDS,
        overall=WORDS[OVERALL[accepted.verdict]],
        facts=facts(accepted),
        rules=rules(accepted),
        counts=[(WORDS[v], sum(c.verdict == v for c in accepted.clauses)) for v in ("met", "not_met", "undecided")],
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
    )


def facts(accepted: Accepted) -> list[tuple[Said, str]]:
    """What was accepted by whom; lines without a value are left for the pen."""
    return [
        (WORDS["buyer"], accepted.buyer),
        (WORDS["supplier"], accepted.supplier),
        (WORDS["contract"], accepted.reference),
        (WORDS["machine"], accepted.machine),
        (WORDS["deployment"], f"{accepted.deployment} ({accepted.model})"),
        (WORDS["software"], accepted.engine),
        (WORDS["measured"], f"{accepted.created_utc[:16].replace('T', ' ')} UTC"),
        (WORDS["run"], accepted.run),
        (WORDS["tariff"], accepted.tariff),
    ]


def rules(accepted: Accepted) -> list[Said]:
    """How verdicts come about, and what a reader must know of these."""
    found = [say("rule_met", confidence=f"{accepted.confidence:.0%}"), WORDS["rule_seal"]]
    if accepted.tariff_is_example:
        found.append(WORDS["rule_example"])
    if accepted.synthetic_items:
        found.append(WORDS["rule_synthetic"])
    return found
