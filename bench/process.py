"""Start a worker in its own process group and end all of it, whatever it has started meanwhile."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import psutil

ROOT = Path(__file__).resolve().parents[1]
MARK = "BEDSIDE_CELL"
"""Environment variable by which strays that left the process group are found."""


class Worker:
    """A running worker: its lines on a queue, its exit code, its end."""

    def __init__(
        self,
        python: str,
        job: str,
        job_bytes: bytes | None,
        log: BinaryIO | int,
        environment: dict[str, str],
        module: str = "bench.worker",
    ) -> None:
        self.mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [python, "-m", module, job, str(os.getpid())],
            stdin=subprocess.PIPE if job_bytes is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            cwd=os.getcwd(),
            env={**environment, "PYTHONPATH": str(ROOT), MARK: self.mark},
        )
        if job_bytes is not None and self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(job_bytes)
                self._process.stdin.close()
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):  # a worker killed while writing leaves half a line
                self.lines.put(line)
        self.lines.put(None)

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """SIGTERM, a moment, SIGKILL: to the group and to every process that carries our mark."""
        for signal_number, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if not self._signal_all(signal_number):
                break
            limit = time.monotonic() + patience_s
            while self._alive() and time.monotonic() < limit:
                self.wait(0.05)
        self.wait(5.0)
        self._reader.join(2.0)
        if self._process.stdout:
            self._process.stdout.close()

    def _signal_all(self, number: signal.Signals) -> bool:
        found = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
            found = True
        for process in strays(self.mark):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.send_signal(number)
                found = True
        return found

    def _alive(self) -> bool:
        return self._process.poll() is None or bool(strays(self.mark))


def strays(mark: str) -> list[psutil.Process]:
    """Processes of ours that carry the mark in their environment, zombies left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextlib.contextmanager
def ended_as_by_the_user() -> Iterator[None]:
    """SIGTERM (a timer, a shutdown) and SIGHUP (a terminal that closes) raise `KeyboardInterrupt`, so that the cell is recorded as
    interrupted and its processes are ended. A signal that is ignored (nohup) or handled already stays so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    mine = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        mine = []  # only the main thread may ask for signals
    for number in mine:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def worker_environment() -> dict[str, str]:
    """What the worker inherits: the user's environment, offline switches on, no stray Python path."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME"}}
    return {
        **environment,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def default_python() -> str:
    return sys.executable
