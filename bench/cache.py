"""The user's cache folder: where it is, files made there atomically and privately, and what was learnt of large files."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

SMALL_BYTES = 1 << 20
"""Files up to this size are hashed anew each time."""
CHUNK_BYTES = 8 << 20


def cache_home() -> Path:
    """`$XDG_CACHE_HOME/bedside`, else `~/.cache/bedside`; not made yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "bedside"


def private_folder(path: Path) -> Path:
    """Make the folder and those above it that are missing, readable by the user alone."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


@contextmanager
def made_once(target: Path) -> Iterator[Path | None]:
    """Yields where to write, or None when the file is there already; after a good end the written file takes its name.

    A lock beside the file makes a second process wait for the first. After a bad end nothing is left but the lock.
    """
    private_folder(target.parent)
    with target.with_name(f".{target.name}.lock").open("a") as lock:
        os.chmod(lock.fileno(), 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        part = target.with_name(f"{target.name}.part")
        try:
            yield part
            settle(part, target)
        finally:
            part.unlink(missing_ok=True)


def settle(part: Path, target: Path) -> None:
    """Put a finished file under its name: on the disk first, then visible, so that a name never stands for half a file."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.chmod(0o600)
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sha256_of(path: Path) -> str:
    """Hash of a file; for a large one remembered by path, size, time of change and inode."""
    known = known_sha256(path)
    if known is not None:
        return known
    key = _identity(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if path.stat().st_size > SMALL_BYTES and key == _identity(path):
        _remember(key, digest)
    return digest


def known_sha256(path: Path) -> str | None:
    """The hash if it has been taken before and the file has not changed since."""
    return _read_memory().get(_identity(path))


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


def _memory_file() -> Path:
    return cache_home() / "sha256.json"


def _read_memory() -> dict[str, str]:
    """What is remembered; a memory that is missing or damaged is an empty one."""
    try:
        return msgspec.json.decode(_memory_file().read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}


def _remember(key: str, digest: str) -> None:
    """Two processes that write at once lose one entry, which is only hashed again."""
    file = _memory_file()
    private_folder(file.parent)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_bytes(msgspec.json.encode({**_read_memory(), key: digest}))
    part.chmod(0o600)
    part.replace(file)
