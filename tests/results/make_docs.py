"""The two pages of the documentation that come from a run: the worked example and the README's picture of a report's first screen.

    python tests/results/make_docs.py RUN [DEPLOYMENT]

RUN is a run of the suite `demo` whose report was made with the shipped tariff; the row recomputed is that of the first step of DEPLOYMENT
(else of its q8_0). The picture needs Chromium. Nothing is written where a figure by hand differs from rows.csv.
"""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(1, str(ROOT))  # this checkout, whichever one is installed

import by_hand  # noqa: E402
from chrome import BINARY, Page  # noqa: E402

from results.report import render  # noqa: E402
from results.report.gather import gather  # noqa: E402
from results.store import RunDir  # noqa: E402

TARIFF = ROOT / "results" / "tariffs" / "example-us.toml"


def main(run: Path, deployment: str | None) -> None:
    cells = RunDir(run).manifest().cells
    cell = next(c for c in cells if (c.deployment == deployment if deployment else c.deployment.endswith("q8_0")))
    step = next(s.name for s in cell.steps if not s.warmup)
    page = by_hand.page(run, cell.id, step, TARIFF)
    (ROOT / "docs" / "worked-example.md").write_text(page, encoding="utf-8")
    print(f"docs/worked-example.md: {cell.deployment}, {step}")
    if BINARY is None:
        print("docs/report.png: no Chromium here (apt-get install chromium)")
        return
    with tempfile.TemporaryDirectory() as folder:
        report = render(gather([run]), Path(folder), TARIFF, "en")
        shown = Page(Path(folder) / "profile").open(report)
        shown.picture(ROOT / "docs" / "report.png")
        shown.close()
    print("docs/report.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
