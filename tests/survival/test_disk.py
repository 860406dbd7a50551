"""A disk that is full at any write or cannot be written at all: one sentence, nothing lost, resumed when there is room."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from living import ROOT, judged, only_run, start_run, told

from bench.cli import USER_ERROR

Suite = Callable[..., Path]
TASKS = "[tasks.clinical_qa_en]\nlimit = 4\n[tasks.note_summary_en]\nlimit = 4\nload = [{ concurrency = 2 }]"
PROGRAM = f"{sys.executable} {ROOT / 'run_bench.py'}"
RESUME = f"{sys.executable} {Path(__file__).with_name('living.py')} resume"


def in_mount_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """A shell that may mount file systems which nobody else sees."""
    return subprocess.run(["unshare", "-r", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=500)


@pytest.fixture(autouse=True)
def may_mount(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    try:
        tried = in_mount_namespace(f"mount -t tmpfs -o size=64k none {tmp_path}/disk")
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if tried.returncode:
        pytest.skip(f"mounting in a namespace of one's own is not permitted here: {tried.stderr.strip()}")


@pytest.mark.parametrize("size_kib", [4, 16, 28, 40, 48, 56, 68, 96])
def test_a_full_disk_is_one_sentence_and_the_run_is_resumed(write_suite: Suite, tmp_path: Path, size_kib: int) -> None:
    """Sizes at which the manifest, the job, the records, the scores and the report no longer fit."""
    suite = write_suite(tasks=TASKS, good={"reply": "Summary: well.", "delay_s": 0.05})
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    done = in_mount_namespace(
        f"mount -t tmpfs -o size={size_kib}k none {disk} || exit 90\n"
        f"{PROGRAM} run {suite} --out {disk}/runs; echo status $?\n"
        f"mount -o remount,size=64m {disk} || exit 91\n"
        f"[ -f {disk}/runs/*/manifest.json ] && {RESUME} {disk}/runs/*\n"
        f"cp -r {disk}/runs {kept}"
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"status {USER_ERROR}" in done.stdout, done.stderr
    assert len(said) == 1, done.stderr
    assert "No space left" in said[0]
    assert "Traceback" not in done.stderr
    folder = only_run(kept)
    if not (folder.path / "manifest.json").exists():
        return  # nothing had begun
    reference = start_run(suite, tmp_path / "undisturbed")
    assert told(folder) == told(reference)
    assert judged(folder) == judged(reference)
    assert folder.edits() == []


@pytest.mark.parametrize("room_kib", [0, 8, 20])
def test_a_night_on_a_full_disk_is_one_sentence_and_goes_on(write_suite: Suite, tmp_path: Path, room_kib: int) -> None:
    """Rooms in which the lock, the Parquet file and the pages no longer fit; its runs are there."""
    suite, disk = (
        write_suite(tasks="[tasks.clinical_qa_en]\nlimit = 2\n[nightly]\nblocks = 1", good={}),
        tmp_path / "disk",
    )
    night = f"{PROGRAM} nightly {suite} --history {disk}/h --night n"
    done = in_mount_namespace(
        f"mount -t tmpfs -o size=64m none {disk} && {night} >/dev/null 2>&1 || exit 90\n"
        f"rm -r {disk}/h/history.parquet {disk}/h/nights\n"
        f"mount -o remount,size=$(($(df --output=used -k {disk} | tail -1) + {room_kib}))k {disk} || exit 91\n"
        f"{night} >/dev/null; echo status $?\n"
        f"mount -o remount,size=64m {disk}; {night} 2>/dev/null; echo status $?; find {disk}/h -maxdepth 1 -type f"
    )
    first, verdict, second, *left = done.stdout.splitlines()
    assert (first, second) == (f"status {USER_ERROR}", "status 0"), done.stderr
    assert '"verdict":"ok"' in verdict
    assert len(done.stderr.splitlines()) == 1
    assert "No space left" in done.stderr
    assert left == [f"{disk}/h/history.parquet"]


@pytest.mark.parametrize(
    "command",
    [
        "run {suite} --out {disk}/runs",
        "run --resume {disk}/runs/*",
        "report {disk}/runs/*",
        "nightly {suite} --history {disk}/h",
    ],
)
def test_a_folder_that_cannot_be_written(write_suite: Suite, tmp_path: Path, command: str) -> None:
    suite = write_suite(head="limit = 2", good={})
    start_run(suite, tmp_path / "disk" / "runs")
    filled = command.format(suite=suite, disk=tmp_path / "disk")
    done = in_mount_namespace(
        f"mount --bind {tmp_path}/disk {tmp_path}/disk && mount -o remount,ro,bind {tmp_path}/disk || exit 90\n{PROGRAM} {filled}"
    )
    assert done.returncode == USER_ERROR, done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
