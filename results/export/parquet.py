"""Rows as a Parquet file by DuckDB: one column for each field of `Row`, typed; lists of sentences are lists, unknown is NULL."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from results.rows import Row
from results.store import StoreError

KINDS: dict[Any, str] = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN", tuple: "VARCHAR[]"}


def columns() -> dict[str, str]:
    """SQL type of each column."""
    return {name: KINDS[_kind(hint)] for name, hint in get_type_hints(Row).items()}


def _kind(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        hint = next(a for a in get_args(hint) if a is not type(None))
    return get_origin(hint) or hint


def to_parquet(rows: Sequence[Row]) -> bytes:
    """The file as bytes."""
    import duckdb

    names = columns()
    with duckdb.connect() as database, tempfile.TemporaryDirectory() as folder:
        declared = ", ".join(f'"{name}" {kind}' for name, kind in names.items())
        database.execute(f"CREATE TABLE rows ({declared})")
        if rows:
            marks = ", ".join("?" * len(names))
            database.executemany(f"INSERT INTO rows VALUES ({marks})", [_values(row, names) for row in rows])
        target = Path(folder) / "rows.parquet"
        database.execute(f"COPY rows TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
        return target.read_bytes()


def _values(row: Row, names: dict[str, str]) -> list[Any]:
    values = [getattr(row, name) for name in names]
    return [list(v) if isinstance(v, tuple) else v for v in values]


def from_parquet(path: Path) -> tuple[Row, ...]:
    """The rows of a file, columns that this version does not know left out; raises `StoreError` for a file that is none."""
    import duckdb

    if not path.is_file():
        raise StoreError(f"{path}: cannot be read; make it with `export RUN --to parquet`")
    known = Row.__struct_fields__
    try:
        with duckdb.connect() as database:
            found = database.execute("SELECT * FROM read_parquet(?)", [str(path)])
            names = [column[0] for column in found.description or ()]
            lines = found.fetchall()
        return tuple(
            msgspec.convert({n: v for n, v in zip(names, line, strict=True) if n in known}, Row) for line in lines
        )
    except (duckdb.Error, msgspec.ValidationError) as error:
        raise StoreError(f"{path}: not a table of Bedside's rows ({str(error).splitlines()[0]})") from error
