"""One folder per run, one folder per cell, append-only JSON lines inside; sealed when the run has ended.

`seal.json` holds the SHA-256 of every file of the finished run; `verify` finds and names any later edit.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec

from results.manifest import Manifest
from results.records import SCHEMA, CellEnded, Event, Scored, StepEnded, Telemetry

DERIVED = ("rows.csv", "report.html", "report.md", "curve.svg", "curve.png")
_ENCODER = msgspec.json.Encoder()
_CHUNK = 1 << 20
"""Bytes that are decoded at once: many lines for the speed, few enough for the memory."""


class StoreError(Exception):
    """A run folder that cannot be read or written; one sentence for the user."""


class Lines:
    """An append-only file of JSON lines, private to the user, with a running hash of its bytes.

    `shift_ns` is added to every time, so that a cell stays on one clock when the machine was restarted within it.
    """

    def __init__(self, path: Path, shift_ns: int = 0) -> None:
        self.path = path
        self.shift_ns = shift_ns
        self._hash = hashlib.sha256()
        _drop_half_line(path)
        if path.exists():
            self._hash.update(path.read_bytes())
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "ab", buffering=0)

    def append(self, record: msgspec.Struct) -> None:
        """Write one record; a full disk raises `OSError` and leaves at most half a line, which the next opening drops."""
        line = _ENCODER.encode(_shifted(record, self.shift_ns) if self.shift_ns else record) + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(28, "No space left on device", str(self.path))
        self._hash.update(line)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _times(record: msgspec.Struct) -> dict[str, int]:
    """Every instant of a record, by field."""
    found = {name: getattr(record, name) for name in record.__struct_fields__ if name.endswith("_ns")}
    return {name: time_ns for name, time_ns in found.items() if time_ns is not None}


def _shifted(record: msgspec.Struct, shift_ns: int) -> msgspec.Struct:
    return msgspec.structs.replace(record, **{name: t + shift_ns for name, t in _times(record).items()})


def _drop_half_line(path: Path) -> None:
    """A kill or a power cut may leave half a record at the end."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        if keep < len(data):
            file.truncate(keep)


class CellDir:
    """The folder of one cell."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> Self:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    @property
    def id(self) -> str:
        return self.path.name

    def events(self) -> Iterator[Event]:
        yield from _read(self.path / "events.jsonl", Event)

    def telemetry(self) -> Iterator[Telemetry]:
        yield from _read(self.path / "telemetry.jsonl", Telemetry)

    def scores(self) -> Iterator[Scored]:
        yield from _read(self.path / "scores.jsonl", Scored)

    def finished_steps(self) -> tuple[str, ...]:
        return tuple(e.step for e in self.events() if isinstance(e, StepEnded))

    def ended(self) -> CellEnded | None:
        last = None
        for event in self.events():
            if isinstance(event, CellEnded):
                last = event
        return last

    def last_ns(self) -> int | None:
        """The latest instant that was recorded; None where nothing was."""
        records: Iterator[msgspec.Struct] = chain(self.events(), self.telemetry())
        return max((max(_times(r).values()) for r in records if _times(r)), default=None)

    def has_scores(self) -> bool:
        return (self.path / "scores.jsonl").exists()

    def drop_scores(self) -> None:
        """Before a cell goes on: what was judged of it so far is no longer all of it."""
        (self.path / "scores.jsonl").unlink(missing_ok=True)

    def write_scores(self, scores: list[Scored]) -> None:
        write_atomically(self.path / "scores.jsonl", b"".join(_ENCODER.encode(s) + b"\n" for s in scores))


class RunDir:
    """The folder of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cell(self, cell_id: str) -> CellDir:
        return CellDir(self.path / "cells" / cell_id)

    def judge(self) -> CellDir:
        """Where the judge's own records stand, where a suite has one."""
        return CellDir(self.path / "judge")

    def write_manifest(self, manifest: Manifest) -> None:
        write_atomically(self.path / "manifest.json", msgspec.json.format(_ENCODER.encode(manifest), indent=1))

    def manifest(self) -> Manifest:
        """The manifest; raises `StoreError` for a folder that is no run, a broken or a newer one."""
        path = self.path / "manifest.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"{self.path}: no run here ({error.strerror}: manifest.json); give a folder made by `run`"
            ) from error
        try:
            schema = msgspec.json.decode(data, type=_OnlySchema).schema
            if schema > SCHEMA:
                raise StoreError(
                    f"{self.path}: written by a newer Bedside (schema {schema}, this one reads up to {SCHEMA}); update Bedside"
                )
            return msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: broken manifest: {error}") from error

    def seal(self) -> str:
        """Hash every file of the run; returns the seal's own hash."""
        return self._write_seal({name: _sha256(self.path / name) for name in self._sealed_names()})

    def unseal(self) -> None:
        """Take the seal off a run that goes on; raises `StoreError` for one that was edited. A report may be half made."""
        seal = self.path / "seal.json"
        if not seal.exists():
            return
        edited = [sentence for sentence in self.edits() if sentence.split(" was ")[0] not in DERIVED]
        if edited:
            raise StoreError(f"{self.path}: {edited[0]}; a run that is not whole cannot be gone on with")
        seal.unlink()

    def reseal(self, names: Sequence[str]) -> None:
        """Take files that were made anew on purpose (a report) into the seal; the others keep the hash they were sealed with."""
        if (seal := self._read_seal()) is None:
            return
        fresh = {name: _sha256(self.path / name) for name in names if (self.path / name).exists()}
        self._write_seal({**seal.files, **fresh})

    def _read_seal(self) -> "_Seal | None":
        try:
            return msgspec.json.decode((self.path / "seal.json").read_bytes(), type=_Seal)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _write_seal(self, files: dict[str, str]) -> str:
        files = dict(sorted(files.items()))
        digest = hashlib.sha256(_ENCODER.encode(files)).hexdigest()
        write_atomically(self.path / "seal.json", _ENCODER.encode({"sha256": digest, "files": files}))
        return digest

    def seal_sha256(self) -> str | None:
        """The seal's own hash; None for a run that is not sealed."""
        seal = self._read_seal()
        return seal.sha256 if seal else None

    def measurement_sha256(self) -> str | None:
        """One hash over what was measured and how it was scored: all that is sealed but the report, which may be made anew.

        Of the seal, not of the files: it says nothing where `edits` finds an edit. None for a run that is not sealed.
        """
        if (seal := self._read_seal()) is None:
            return None
        measured = {name: digest for name, digest in sorted(seal.files.items()) if name not in DERIVED}
        return hashlib.sha256(_ENCODER.encode(measured)).hexdigest()

    def edits(self) -> list[str]:
        """Sentences that name every file edited, added or removed since the run was sealed; empty when it is whole."""
        path = self.path / "seal.json"
        try:
            seal = msgspec.json.decode(path.read_bytes(), type=_Seal)
        except OSError:
            return ["seal.json is missing: the run was not finished, or the seal was removed"]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return [f"seal.json was edited: {error}"]
        found = []
        if hashlib.sha256(_ENCODER.encode(seal.files)).hexdigest() != seal.sha256:
            found.append("seal.json was edited: its hash does not match its content")
        names = set(self._sealed_names())
        found += [f"{name} was removed" for name in sorted(set(seal.files) - names)]
        found += [f"{name} was added after the run" for name in sorted(names - set(seal.files))]
        found += [
            f"{name} was edited"
            for name in sorted(names & set(seal.files))
            if _sha256(self.path / name) != seal.files[name]
        ]
        return found

    def _sealed_names(self) -> list[str]:
        names = (p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        return sorted(n for n in names if n not in ("seal.json", "lock") and not n.endswith(".part"))


class _OnlySchema(msgspec.Struct):
    schema: int


class _Seal(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    files: dict[str, str]


def new_run_dir(out: Path, name: str, now: datetime | None = None) -> RunDir:
    """Make `<UTC yyyymmddThhmmssZ>_<name>` under `out`, folders 0700."""
    stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    path = out / f"{stamp}_{name}"
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        suffix = 1
        while path.exists():
            suffix += 1
            path = out / f"{stamp}_{name}-{suffix}"
        (path / "cells").mkdir(mode=0o700, parents=True)
        path.chmod(0o700)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written ({error.strerror}); give another folder with --out") from error
    return RunDir(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, sync, rename, sync the folder: a reader sees the old file or the new one, also after a power cut."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, kind: Any) -> Iterator[Any]:
    """Every whole line; half a line at the end is what a kill leaves and is passed over."""
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    number = 0
    with path.open("rb") as file:
        while (lines := file.readlines(_CHUNK)) and lines[-1].endswith(b"\n"):
            yield from _decoded(decoder, path, lines, number)
            number += len(lines)
        yield from _decoded(decoder, path, lines[:-1], number)


def _decoded(decoder: Any, path: Path, lines: list[bytes], before: int) -> list[Any] | Iterator[Any]:
    try:
        found: list[Any] = decoder.decode_lines(b"".join(lines))
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = []
    return found if len(found) == len(lines) else _one_by_one(decoder, path, lines, before)


def _one_by_one(decoder: Any, path: Path, lines: list[bytes], before: int) -> Iterator[Any]:
    """The same, so that those before a broken or an empty line are handed out and it is named."""
    for number, line in enumerate(lines, before + 1):
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}, line {number}: not a record ({error})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
