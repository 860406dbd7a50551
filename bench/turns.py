"""Workers that are loaded at the same time and take turns, so that whatever slows the machine for a second slows all of them alike.

A small file that the parent makes says how many turns each worker has had and who is at work. Whoever works holds the lock beside it,
so that one at a time works and a worker that dies gives its turn back; who has had more turns than another lets that one go first.
"""

import contextlib
import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

POLITE_S = 0.002
"""Between giving the lock back and asking for it again, so that the others get it."""


class Table(Struct, frozen=True, kw_only=True):
    """Where turns are taken. `halt`: the user has ended the run, which only the main thread is told."""

    path: Path
    halt: threading.Event


class Standing(Struct, frozen=True, kw_only=True):
    """What the file says: turns by name, and who is at work."""

    had: dict[str, int]
    at_work: str | None = None


class Turns:
    """The seat of one worker; `name` is its cell."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for one's turn and keep it; a stretch of work like any other, so loading and ending are turns too."""
        with self._locked() as file:
            while (had := _read(self._path).had).get(self._name, 0) > min(had.values(), default=0):
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(POLITE_S)
                fcntl.flock(file, fcntl.LOCK_EX)
            _write(self._path, Standing(had=had, at_work=self._name))
            try:
                yield
            finally:
                had = _read(self._path).had
                _write(self._path, Standing(had=had | {self._name: had.get(self._name, 0) + 1}))

    def waits(self) -> bool:
        """Whether another one is at work, so that this one's silence means nothing."""
        return _read(self._path).at_work not in (None, self._name)

    def leave(self) -> None:
        """Nobody waits for this worker any more. The parent says so when it has ended, however it did."""
        with self._locked():
            had = _read(self._path).had
            _write(self._path, Standing(had={name: turns for name, turns in had.items() if name != self._name}))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with self._path.with_suffix(".lock").open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield file.fileno()
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked meanwhile would keep it


def set_table(path: Path, names: Sequence[str]) -> None:
    """The file for these workers, none of whom has had a turn."""
    _write(path, Standing(had=dict.fromkeys(names, 0)))


def _read(path: Path) -> Standing:
    return msgspec.json.decode(path.read_bytes(), type=Standing)


def _write(path: Path, standing: Standing) -> None:
    """Whole or not at all, also when the writer is killed. Only whoever holds the lock writes."""
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(standing))
    part.replace(path)
