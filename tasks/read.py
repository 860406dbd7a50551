"""Strict reading of JSON Lines: the whole file is good, or one sentence names the line that is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from tasks.base import DataError

MAX_LINE_BYTES = 600_000
"""About 200,000 Chinese or 600,000 English characters: an item longer than any clinical record, and than most
contexts.
"""

DATA = Path(__file__).parent / "data"


class Row(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Row)


def read_rows(path: Path, kind: type[R], complaint: Callable[[R], str]) -> tuple[R, ...]:
    """Every line of a UTF-8 JSONL file as a `kind`; `complaint` says what is wrong with a row, or "".

    Lines end at a newline only: some public texts hold U+2028, which `str.splitlines` would cut at. Blank lines are
    passed over. Raises `DataError` naming file and line; nothing is returned half read.
    """
    decode = msgspec.json.Decoder(kind).decode
    rows: list[R] = []
    first_line: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if not raw.strip():
                    continue
                where = f"{path}, line {number}"
                row = _row(raw, decode, where)
                if problem := _id_problem(row.id, first_line) or complaint(row):
                    raise DataError(f"{where}: {problem}")
                first_line[row.id] = number
                rows.append(row)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{path} holds no items")
    return tuple(rows)


def _row(raw: bytes, decode: Callable[[str], R], where: str) -> R:
    if len(raw) > MAX_LINE_BYTES:
        raise DataError(f"{where}: the item is longer than {MAX_LINE_BYTES:,} bytes; split it or leave it out")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise DataError(f"{where}: the line begins with a byte order mark; save it as UTF-8 without one")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8") from error
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {error}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{where}: not one complete JSON object ({error})") from error


def _id_problem(item: str, first_line: dict[str, int]) -> str:
    if not item.strip():
        return "`id` is empty"
    if item in first_line:
        return f"`id` {item!r} stands already in line {first_line[item]}"
    return ""
