"""docs/metrics.md explains every column."""

import re
from pathlib import Path

from results.energy import CLASS_ERROR
from results.rows import Row

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")


def explained() -> list[str]:
    """Names in the first cell of every line of a table of columns."""
    first_cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    return [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]


def test_every_column_is_explained_once_and_nothing_else_is() -> None:
    assert sorted(explained()) == sorted(Row.__struct_fields__)


def test_every_line_of_columns_has_five_cells() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| `"):
            assert line.count("|") == 6, line


def test_the_errors_of_the_classes_are_those_of_the_code() -> None:
    found = {
        name: float(percent) / 100 for name, percent in re.findall(r"^\| ([ME]\d) \|.*\| (\d+) %", PAGE, re.MULTILINE)
    }
    assert found == CLASS_ERROR
