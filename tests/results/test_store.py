"""Lines of records as they are read: whole ones only, in order, and a broken one named by its number."""

from pathlib import Path

import msgspec
import pytest

from results.records import StepEnded
from results.store import CellDir, StoreError

RECORDS = [StepEnded(f"{i} {'x' * 70_000}", i) for i in range(40)]
"""More than two pieces of what is decoded at once."""


@pytest.fixture
def cell(tmp_path: Path) -> CellDir:
    here = CellDir(tmp_path / "cell").make()
    write(here, msgspec.json.Encoder().encode_lines(RECORDS))
    return here


def write(cell: CellDir, data: bytes) -> None:
    (cell.path / "events.jsonl").write_bytes(data)


def written(cell: CellDir) -> bytes:
    return (cell.path / "events.jsonl").read_bytes()


def test_every_record_in_order(cell: CellDir) -> None:
    assert list(cell.events()) == RECORDS


def test_half_a_line_at_the_end_is_passed_over(cell: CellDir) -> None:
    write(cell, written(cell) + b'{"type":"StepEnded","st')
    assert list(cell.events()) == RECORDS
    write(cell, b'{"type":"StepEnded","st')
    assert list(cell.events()) == []


@pytest.mark.parametrize("broken", [b"{]", b"", b"[]", b"\xff\xfe"])
def test_a_broken_or_an_empty_line_is_named_after_those_before_it(cell: CellDir, broken: bytes) -> None:
    lines = written(cell).splitlines()
    lines[30] = broken
    write(cell, b"\n".join(lines) + b"\n")
    found: list[object] = []
    with pytest.raises(StoreError, match=r"events\.jsonl, line 31: not a record"):
        found.extend(cell.events())
    assert found == RECORDS[:30]
