"""The report: rows.csv, report.html, report.md, curve.svg and curve.png of one run or several."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results.store import StoreError

if TYPE_CHECKING:
    from results.report.gather import RunPage

LANGUAGES = ("en", "zh")


def write_report(runs: list[Path], out: Path, tariff: Path | None, lang: str) -> Path:
    """Read the runs, price them, write the five files into `out` and return the page's path.

    Without a tariff the shipped example is used, and the page says so. Raises `StoreError` for no run, a folder that is none, a
    tariff that cannot be read, a language that is not there, or an `out` that cannot be written.
    """
    from results.report.gather import gather, uncollected

    if lang not in LANGUAGES:
        raise StoreError(f"language `{lang}` is not there; one of {', '.join(LANGUAGES)}")
    with uncollected():
        return render(gather(runs), out, tariff, lang)


def render(runs: "Sequence[RunPage]", out: Path, tariff: Path | None, lang: str) -> Path:
    """The same from runs that were read already."""
    from results.report import drawn, markdown, page
    from results.report.build import build
    from results.report.pricing import tariffs_of
    from results.rows import to_csv

    report = build(runs, tariffs_of(runs, tariff))
    svg, png = drawn.curves(report)
    files = {
        "rows.csv": to_csv(report.rows).encode(),
        "report.md": markdown.markdown(report, lang).encode(),
        "curve.svg": svg,
        "curve.png": png,
        "report.html": page.html(report, lang).encode(),
    }
    _write(out, files)
    return out / "report.html"


def _write(out: Path, files: dict[str, bytes]) -> None:
    from results.store import write_atomically

    try:
        os.makedirs(out, mode=0o700, exist_ok=True)
        for name, data in files.items():
            write_atomically(out / name, data)
    except OSError as error:
        raise StoreError(
            f"{out}: the report cannot be written ({error.strerror}); give another folder with --out"
        ) from error
