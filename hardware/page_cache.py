"""How much of a model's file stands in the page cache: a load from memory and one from the disk are two different numbers.

The kernel is asked page by page (mincore); nothing is read or brought in. Since Linux 5.2 it answers honestly only whoever owns a file
or may write it, so of other files nothing is told.
"""

import ctypes
import mmap
import os
import sys
from pathlib import Path

CHUNK_BYTES = 1 << 30
"""Mapped at a time: the answer takes a byte for each page."""
MAP_FAILED = ctypes.c_void_p(-1).value


def resident_share(path: Path) -> float | None:
    """Of the bytes of a file, or of all files under a folder, from 0 to 1; `None` where nothing is told."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file()] if path.is_dir() else [path]
    counts = [count_pages(file) for file in files]
    known = [c for c in counts if c is not None]
    total = sum(pages for _, pages in known)
    if len(known) < len(counts) or not total:
        return None
    return sum(resident for resident, _ in known) / total


def count_pages(path: Path) -> tuple[int, int] | None:
    """Pages in the cache and pages in all; `None` for a file that is missing or that the kernel would not tell the truth of."""
    if sys.platform != "linux":
        return None
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid() and not os.access(path, os.W_OK):
                return None
            chunks = [
                _chunk(file.fileno(), start, min(CHUNK_BYTES, facts.st_size - start))
                for start in range(0, facts.st_size, CHUNK_BYTES)
            ]
    except OSError:
        return None
    return sum(resident for resident, _ in chunks), sum(pages for _, pages in chunks)


def _chunk(descriptor: int, start: int, length: int) -> tuple[int, int]:
    """Raises `OSError` where the file cannot be mapped (some network file systems)."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    address = library.mmap(
        None, ctypes.c_size_t(length), mmap.PROT_READ, mmap.MAP_SHARED, descriptor, ctypes.c_int64(start)
    )
    if address == MAP_FAILED:
        raise OSError(ctypes.get_errno(), "cannot be mapped")
    try:
        pages = -(-length // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        if library.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), found):
            raise OSError(ctypes.get_errno(), "the kernel does not tell its pages")
    finally:
        library.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
    return sum(page & 1 for page in found), pages
