"""The measured process: load one backend, run its steps, write records to a pipe. Knows no task and no meter."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from bench.backends import Backend, BackendError, BackendOutOfMemory, BackendTimeout, open_backend
from bench.drive import TokenCount, drive
from bench.job import EXIT_BAD_MODEL, EXIT_OUT_OF_MEMORY, EXIT_TIMED_OUT, Job, JobStep
from bench.turns import Turns
from results.records import Loaded, Progress, StepEnded, StepStarted


class Pipe:
    """The real stdout, kept for records; whatever a library prints goes to the log with stderr."""

    def __init__(self) -> None:
        self._file: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()

    def emit(self, event: msgspec.Struct) -> None:
        with self._lock:
            self._file.write(self._encoder.encode(event) + b"\n")


def main(job_path: str, parent_pid: str) -> int:
    """Run the job; the exit code tells memory that ran out and a model that cannot be loaded from a crash."""
    die_with_parent(int(parent_pid))
    pipe = Pipe()
    job = msgspec.json.decode(sys.stdin.buffer.read() if job_path == "-" else Path(job_path).read_bytes(), type=Job)
    if job.memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (job.memory_limit_bytes, job.memory_limit_bytes))
    try:
        run(job, pipe)
    except (BackendOutOfMemory, MemoryError) as error:
        print(f"out of memory: {error}", file=sys.stderr)
        return EXIT_OUT_OF_MEMORY
    except BackendTimeout as error:
        print(f"hangs: {error}", file=sys.stderr)
        return EXIT_TIMED_OUT
    except BackendError as error:
        print(f"cannot be used: {error}", file=sys.stderr)
        return EXIT_BAD_MODEL
    except RuntimeError as error:
        if not job.memory_limit_bytes or "start new thread" not in str(error):
            raise
        print(f"out of memory: no room for a thread's stack within the limit: {error}", file=sys.stderr)
        return EXIT_OUT_OF_MEMORY
    return 0


def run(job: Job, pipe: Pipe) -> None:
    turn = Turns(Path(job.turns), job.cell).turn if job.turns else contextlib.nullcontext
    with turn():
        start_ns = time.monotonic_ns()
        backend = open_backend(job.settings)
        pipe.emit(Loaded(start_ns, time.monotonic_ns(), backend.describe()))
        time.sleep(job.idle_s)
    seen = TokenCount()
    with _Reporter(backend, seen, pipe, job.state_every_s):
        for step in job.steps:
            with turn():
                _run_step(backend, step, seen, pipe)
    with turn():
        backend.close()


def _run_step(backend: Backend, step: JobStep, seen: TokenCount, pipe: Pipe) -> None:
    started = time.monotonic()
    pipe.emit(StepStarted(step.name, time.monotonic_ns()))
    while True:
        for record in drive(backend, step, seen):
            pipe.emit(record)
        if time.monotonic() - started >= step.seconds:
            break
    pipe.emit(StepEnded(step.name, time.monotonic_ns()))


class _Reporter:
    """Each second: how many tokens have appeared, and the engine's own state where it has one to tell."""

    def __init__(self, backend: Backend, seen: TokenCount, pipe: Pipe, period_s: float) -> None:
        self._backend, self._seen, self._pipe, self._period_s = backend, seen, pipe, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = 0
        while not self._stop.wait(self._period_s):
            if (tokens := self._seen.tokens) != last:
                last = tokens
                self._pipe.emit(Progress(time.monotonic_ns(), tokens))
            if state := self._backend.state():
                self._pipe.emit(state)


def die_with_parent(parent_pid: int) -> None:
    """A killed parent must not leave a worker that goes on computing (Linux; elsewhere the pipe's end stops it)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of an engine that went wrong must not keep the process alive
