"""What of a file stands in the page cache, and what the kernel says of the clock."""

import os
from pathlib import Path

import pytest

from hardware.clock import STA_NANO, STA_UNSYNC, TIME_ERROR, Clock, clock_from, describe_clock
from hardware.page_cache import count_pages, resident_share

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 256


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    """A file that was written out and dropped; skips where the file system keeps it in memory."""
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(PAGES * PAGE))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if (count_pages(path) or (PAGES, PAGES))[0]:
        pytest.skip("this file system does not give pages back")
    return path


def test_a_file_is_cold_until_it_is_read(cold: Path) -> None:
    assert resident_share(cold) == 0.0
    cold.read_bytes()
    assert resident_share(cold) == 1.0


def test_a_folder_is_the_sum_of_its_files(cold: Path) -> None:
    (cold.parent / "more").mkdir()
    (cold.parent / "more" / "read").write_bytes(bytes(3 * PAGES * PAGE))
    assert resident_share(cold.parent) == 0.75


def test_asking_brings_nothing_in(cold: Path) -> None:
    assert (count_pages(cold), count_pages(cold)) == ((0, PAGES), (0, PAGES))


def test_a_file_that_is_not_there_or_empty_tells_nothing(tmp_path: Path) -> None:
    assert resident_share(tmp_path / "gone") is None
    (tmp_path / "empty").touch()
    assert resident_share(tmp_path / "empty") is None


def test_a_file_of_others_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(bytes(PAGE))
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert resident_share(path) is None


def test_the_clock_of_a_kept_machine() -> None:
    kept = Clock(synchronised=True, ntp_offset_ms=1.5, max_error_ms=20.0)
    assert clock_from(0, STA_NANO, 1_500_000, 20_000) == kept
    assert clock_from(0, 0, 1_500, 20_000) == kept


def test_a_clock_that_nobody_keeps_has_no_offset() -> None:
    assert clock_from(TIME_ERROR, STA_NANO, 5, 5) == Clock(synchronised=False)
    assert clock_from(0, STA_UNSYNC, 5, 5) == Clock(synchronised=False)


def test_this_machine_is_asked_without_harm() -> None:
    found = describe_clock()
    assert found.synchronised in (True, False, None)
    assert (found.ntp_offset_ms is None) == (found.synchronised is not True)
