"""Runs a server as long as its starter lives: `python -m bench.backends.vllm_guard COMMAND...`, with a pipe as stdin.

vLLM's engine processes outlive an API server that was killed, and a killed worker can end nothing. So this small process stands between:
when its stdin closes (the worker ended, in whatever way), when it gets SIGTERM or when the server ends, it ends the server and all its
descendants, also those whose parent has gone (it adopts them; Linux), and exits with the server's status.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import psutil

PATIENCE_S = 10.0
"""For the server's own orderly end."""
ORPHANS_PATIENCE_S = 1.0
"""For what a server that has ended left behind."""


def main(command: list[str]) -> int:
    _adopt_orphans()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    os.environ.pop("PYTHONPATH", None)  # ours; the server's environment has packages of its own
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_until_closed, args=(ending,), daemon=True).start()
    threading.Thread(target=_until_ended, args=(server, ending), daemon=True).start()
    ending.wait()
    end_descendants(PATIENCE_S if server.poll() is None else ORPHANS_PATIENCE_S)
    status = server.wait()
    return status if status >= 0 else 128 - status


def end_descendants(patience_s: float) -> None:
    """SIGTERM to all, a time to end, SIGKILL; again as long as new ones appear."""
    own = psutil.Process()
    living = _living(own)
    for process in living:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(living, timeout=patience_s)
    while left := _living(own):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1.0)


def _living(own: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in own.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _until_closed(ending: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ending.set()


def _until_ended(server: subprocess.Popen[bytes], ending: threading.Event) -> None:
    server.wait()
    ending.set()


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
