"""report.md: the summary, the table and the caveats, for a terminal, a merge request or an archive."""

from collections.abc import Callable

from results.report import formats
from results.report.build import Report, estimated, memory_bytes, throughput
from results.report.phrases import sentence
from results.report.saying import Speak, badges, of_all, of_task, task_name
from results.report.words import speaker


def markdown(report: Report, lang: str) -> str:
    """The whole file. Names come from suites and files, so what Markdown or HTML would take as markup is escaped."""
    t = speaker(lang)
    names = ", ".join(run.manifest.run for run in report.runs)
    lines = [f"# {t('title')}", "", escaped(names), "", f"## {t('summary')}", ""]
    for group in report.groups:
        lines += [
            f"**{escaped(task_name(group.task, t))}**",
            "",
            *(f"- {s.lead}: {escaped(s.text)}" for s in of_task(group, t)),
            "",
        ]
    lines += [f"- {s.lead}: {escaped(s.text)}" for s in of_all(report, t)]
    lines += [
        "",
        f"## {t('results')}",
        "",
        "![curve](curve.svg)",
        "",
        *_table(report, t),
        "",
        *_judged(report, t),
        f"## {t('md_caveats')}",
        "",
    ]
    lines += [f"- **{b.name}**: {escaped(b.why)}" for b in badges(report, t)]
    return "\n".join([*lines, "", t("md_full"), ""])


def _table(report: Report, t: Speak) -> list[str]:
    keys = ("h_variant", "h_load", "h_accuracy", "h_cost_1k", "h_speed", "h_e2e", "h_memory", "h_energy", "h_valid")
    lines = ["| " + " | ".join(t(k) for k in keys) + " |", "|" + "---|" * len(keys)]
    for e in report.entries:
        row, mark = e.row, "~" if estimated(e.row) else ""
        cells = (
            e.label,
            f"{row.task} {row.load}",
            f"{formats.percent(row.accuracy)} ({formats.percent(row.accuracy_lo)} – {formats.percent(row.accuracy_hi)})"
            if row.accuracy is not None
            else formats.DASH,
            f"{mark}{formats.significant(row.cost_per_1k_samples)} {row.currency or ''}"
            if row.cost_per_1k_samples is not None
            else formats.DASH,
            formats.significant(throughput(row)),
            formats.milliseconds(row.e2e_p50_ms),
            formats.gib(memory_bytes(row)),
            f"{mark}{formats.significant(row.energy_per_sample_j)} J"
            if row.energy_per_sample_j is not None
            else formats.DASH,
            t("ranked") if row.valid else f"{t('not_ranked')}: {'; '.join(row.reasons)}",
        )
        lines.append("| " + " | ".join(escaped(c) for c in cells) + " |")
    return lines


def _judged(report: Report, t: Speak) -> list[str]:
    """Every figure of a judge with its agreement in the same line."""
    rows = [(e.label, e.row) for e in report.entries if e.row.judge]
    if not rows:
        return []
    keys = ("h_variant", "j_judge", "j_supported", "j_contradicted", "j_kappa")
    lines = [f"## {t('judge')}", "", t("judge_text"), ""]
    lines += ["| " + " | ".join(t(k) for k in keys) + " |", "|" + "---|" * len(keys)]
    for label, row in rows:
        supported = _ranged(formats.percent, row.judge_supported, row.judge_supported_lo, row.judge_supported_hi)
        against = _ranged(formats.percent, row.judge_contradicted, row.judge_contradicted_lo, row.judge_contradicted_hi)
        kappa = _ranged(formats.two_decimals, row.judge_kappa, row.judge_kappa_lo, row.judge_kappa_hi)
        why = sentence(row.judge_reason, t("lang")) if row.judge_reason else supported
        cells = (label, f"{row.judge}, {row.task}", why, against, kappa)
        lines.append("| " + " | ".join(escaped(c) for c in cells) + " |")
    return [*lines, ""]


def _ranged(shown: Callable[[float | None], str], value: float | None, lo: float | None, hi: float | None) -> str:
    return formats.DASH if value is None else f"{shown(value)} ({shown(lo)} – {shown(hi)})"


def escaped(text: str) -> str:
    """Without anything that would become markup, and on one line."""
    for mark, harmless in (
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("<", "&lt;"),
        ("`", "\\`"),
        ("*", "\\*"),
        ("[", "\\["),
        ("\n", " "),
    ):
        text = text.replace(mark, harmless)
    return text
