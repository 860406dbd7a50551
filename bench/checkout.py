"""Which code is running: the checkout's commit, and whether anything was changed since it. Unknown is None, never a guess.

git is asked where it is there. Without it the commit is read from the files of `.git`, and whether something was changed stays unknown.
"""

import os
import subprocess
from pathlib import Path

from msgspec import Struct

from bench.process import ROOT

RUNS = ("bench", "tasks", "hardware", "results", "run_bench.py", "pyproject.toml")
"""What a measurement depends on; a suite or a note that somebody keeps in the checkout is no change of the code."""
PATIENCE_S = 10.0


class Checkout(Struct, frozen=True):
    commit: str | None = None
    changed: bool | None = None
    """True where what runs differs from the commit, by an edited file or one that git does not know."""


def checkout(root: Path = ROOT) -> Checkout:
    """Of the code in `root`; nothing where it is no checkout of its own (an installed copy inside somebody else's repository)."""
    if not (root / ".git").exists():
        return Checkout()
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return Checkout(_commit_in_files(root / ".git"))
    status = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *RUNS)
    return Checkout(commit, None if status is None else bool(status))


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it is missing, refuses (another owner's files) or takes too long. Writes nothing, starts no helper."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(root), *words]
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith("GIT_")
    }  # a hook's GIT_DIR is another repository
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit_in_files(git: Path) -> str | None:
    """`.git` is a folder, or in a worktree a file that names one, whose branches stand in the main checkout's folder."""
    try:
        if git.is_file():
            git = git.parent / git.read_text().strip().removeprefix("gitdir: ")
        shared = git / "commondir"
        common = git / shared.read_text().strip() if shared.exists() else git
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head or None
        name = head.removeprefix("ref: ")
        for folder in (git, common):
            if (folder / name).exists():
                return (folder / name).read_text().strip() or None
        packed = (line.split() for line in (common / "packed-refs").read_text().splitlines())
        return next((words[0] for words in packed if words[1:] == [name]), None)
    except OSError:
        return None
