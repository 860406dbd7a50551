"""`host --egress`: shows on the user's own machine that measuring reaches no other machine.

A small suite with a pretend model is run whole (measuring, judging, reporting) twice: with a trap in every Python process that notes and
refuses whatever would go beyond this host, and, where the kernel permits it, in a network namespace that has no interface at all, which
also holds for libraries that are not Python. The trap is an audit hook that the started interpreters get from a `sitecustomize` of
their own; nothing in the program itself knows of it.
"""

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

from bench.process import ROOT

WITHOUT_NETWORK = ["unshare", "--map-root-user", "--net"]
PATIENCE_S = 600.0
TIMED_OUT = 124
"""The status that `timeout` gives."""
TRAPPED = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")

_SUITE = """
name = "egress"
idle_s = 0.0
tasks = ["clinical_qa_en", "note_summary_en"]
limit = 2
[[deployments]]
name = "pretend"
backend = "scripted"
python = "{python}"
"""

_HOOK = """
import sys
sys.path.insert(0, {root!r})
from bench.egress import install
sys.path.pop(0)
install({noted!r})
"""

_PYTHON = """#!/bin/sh
# The worker's interpreter: Bedside sets PYTHONPATH for workers anew, so the trap is put in front of it here.
PYTHONPATH="{folder}:$PYTHONPATH" exec "{python}" "$@"
"""


class Attempt(Struct, frozen=True):
    """What was tried, whereto, and by which process."""

    event: str
    address: str
    pid: int


class Watched(Struct, frozen=True):
    status: int
    attempts: tuple[Attempt, ...]
    words: str
    """The end of what it said."""


class Egress(Struct, frozen=True, kw_only=True):
    trapped: Watched
    without_network: Watched | None
    """None where a namespace of one's own is not permitted."""
    why_not: str = ""

    @property
    def clean(self) -> bool:
        """Nothing was tried, and it worked; the namespace counts where there was one."""
        worked = self.trapped.status == 0 and (self.without_network is None or self.without_network.status == 0)
        return worked and not self.trapped.attempts


def prove() -> Egress:
    """Run the small suite in both ways."""
    with tempfile.TemporaryDirectory(prefix="bedside-egress-") as name:
        folder = Path(name)
        suite, plain = folder / "suite.toml", folder / "plain.toml"
        suite.write_text(_SUITE.format(python=folder / "python"), encoding="utf-8")
        plain.write_text(_SUITE.format(python=sys.executable), encoding="utf-8")
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        trapped = watch(_command(suite, folder / "trapped"), environment, folder)
        possible, why_not = _namespace()
        alone = None
        if possible:
            alone = _watched([*WITHOUT_NETWORK, *_command(plain, folder / "alone")], environment, folder / "none")
        return Egress(trapped=trapped, without_network=alone, why_not=why_not)


def watch(command: list[str], environment: dict[str, str], folder: Path | None = None) -> Watched:
    """Run a Python command with the trap in it and in the workers that it starts through `folder/python`."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="bedside-egress-") as name:
            return watch(command, environment, Path(name))
    trap, noted = folder / "trap", folder / "noted.jsonl"
    trap.mkdir(mode=0o700)
    (trap / "sitecustomize.py").write_text(_HOOK.format(root=str(ROOT), noted=str(noted)), encoding="utf-8")
    python = folder / "python"
    python.write_text(_PYTHON.format(folder=trap, python=sys.executable), encoding="utf-8")
    python.chmod(0o700)
    return _watched(command, {**environment, "PYTHONPATH": str(trap)}, noted)


def _watched(command: list[str], environment: dict[str, str], noted: Path) -> Watched:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False)
        status, words = done.returncode, (done.stdout + done.stderr)[-600:]
    except subprocess.TimeoutExpired:
        status, words = TIMED_OUT, f"it had not ended after {PATIENCE_S:g} s"
    lines = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    attempts = tuple(Attempt(*json.loads(line)) for line in lines)
    return Watched(status, attempts, words)


def install(noted: str) -> None:
    """Set the trap in this process: what would go beyond this host is noted in the file and refused."""

    def trap(event: str, arguments: tuple[object, ...]) -> None:
        if event not in TRAPPED:
            return
        address = arguments[-1] if event in ("socket.connect", "socket.sendto", "socket.sendmsg") else arguments[:2]
        if outside(address):
            line = json.dumps([event, _words(address), os.getpid()]) + "\n"
            descriptor = os.open(noted, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(descriptor, line.encode())
            os.close(descriptor)
            raise PermissionError(f"{event} to {_words(address)} is refused: nothing may leave this host")

    sys.addaudithook(trap)


def outside(address: object) -> bool:
    """Does an address lead beyond this host? Names count as outside, `localhost` apart; sockets in the file system do not."""
    if not isinstance(address, tuple) or not address or address[0] is None:
        return False
    host = address[0].decode("ascii", "replace") if isinstance(address[0], bytes) else str(address[0])
    if host in ("", "localhost"):
        return False
    try:
        number = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return True
    return not (number.is_loopback or number.is_unspecified)


def _words(address: object) -> str:
    return ":".join(str(part) for part in address[:2]) if isinstance(address, tuple) else str(address)


def _command(suite: Path, out: Path) -> list[str]:
    return [sys.executable, str(ROOT / "run_bench.py"), "run", str(suite), "--out", str(out)]


def _namespace() -> tuple[bool, str]:
    try:
        tried = subprocess.run(
            [*WITHOUT_NETWORK, "true"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except OSError as error:
        return False, f"unshare: {error.strerror}"
    return tried.returncode == 0, tried.stderr.strip()


def sentences(found: Egress) -> list[str]:
    """What was seen, for the user."""
    tried = found.trapped.attempts
    said = [f"tried {a.event} to {a.address} (process {a.pid}): refused" for a in tried]
    if not tried:
        said.append("trap in every Python process: no attempt to reach another machine")
    if found.trapped.status:
        said.append(f"with the trap the run ended with status {found.trapped.status}: {found.trapped.words}")
    if found.without_network is None:
        said.append(f"not tried without a network: a namespace of one's own is not permitted here ({found.why_not})")
    elif found.without_network.status:
        words = found.without_network.words
        said.append(f"without any network interface the run ended with status {found.without_network.status}: {words}")
    else:
        said.append("without any network interface: measured, judged and reported as usual")
    return said
