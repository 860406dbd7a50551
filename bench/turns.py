"""Workers that are loaded at the same time and take turns, so that whatever slows the machine for a second slows all of them alike.

The turns stand in a small file that the parent makes: how many each worker has had. Whoever works holds the file's lock, so that one
at a time works and a worker that dies gives its turn back; who has had more turns than another lets that one go first.
"""

import contextlib
import fcntl
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

POLITE_S = 0.002
"""Between giving the lock back and asking for it again, so that the others get it."""


class Table(Struct, frozen=True, kw_only=True):
    """Where turns are taken. `halt`: the user has ended the run, which only the main thread is told."""

    path: Path
    halt: threading.Event


class Turns:
    """The seat of one worker; `name` is its cell."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn and keep it; a stretch of work like any other, so loading and ending are turns too."""
        with self._path.open("r+", encoding="utf-8") as file:
            while True:
                fcntl.flock(file, fcntl.LOCK_EX)
                had = _read(self._path)
                if had.get(self._name, 0) <= min(had.values(), default=0):
                    break
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(POLITE_S)
            try:
                yield
            finally:
                had = _read(self._path)
                had[self._name] = had.get(self._name, 0) + 1
                _write(self._path, had)

    def leave(self) -> None:
        """Nobody waits for this worker any more. The parent says so when it has ended, however it did."""
        with self._path.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            had = _read(self._path)
            had.pop(self._name, None)
            _write(self._path, had)


def set_table(path: Path, names: Sequence[str]) -> None:
    """The file for these workers, none of whom has had a turn."""
    _write(path, dict.fromkeys(names, 0))


def _read(path: Path) -> dict[str, int]:
    had: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return had


def _write(path: Path, had: dict[str, int]) -> None:
    """In place: the lock is the file's own."""
    path.write_text(json.dumps(had), encoding="utf-8")
