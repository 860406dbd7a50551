"""Which commit a record names: of a checkout, a worktree, a packed one, and of none."""

import subprocess
from pathlib import Path

import pytest

from bench.checkout import Checkout, checkout


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "code"
    (root / "bench").mkdir(parents=True)
    (root / "bench" / "code.py").write_text("x = 1\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "first")
    return root


def test_a_clean_checkout_names_its_commit(repository: Path) -> None:
    assert checkout(repository) == Checkout(git(repository, "rev-parse", "HEAD"), changed=False)


@pytest.mark.parametrize("name", ["bench/code.py", "bench/new.py", "run_bench.py"])
def test_code_that_is_not_in_the_commit_is_told(repository: Path, name: str) -> None:
    (repository / name).write_text("x = 2\n")
    assert checkout(repository).changed is True


def test_a_suite_kept_in_the_checkout_is_no_change_of_the_code(repository: Path) -> None:
    (repository / "ours.toml").write_text("")
    assert checkout(repository).changed is False


def test_a_worktree_names_its_own_commit(repository: Path) -> None:
    other = repository.parent / "other"
    git(repository, "worktree", "add", "--quiet", "-b", "two", str(other))
    git(other, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert checkout(other) == Checkout(git(other, "rev-parse", "HEAD"), changed=False)


def test_where_git_is_missing_the_commit_is_read_from_its_files(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository.parent / "other"
    git(repository, "worktree", "add", "--quiet", "-b", "two", str(other))
    git(repository, "pack-refs", "--all")
    git(other, "commit", "--quiet", "--allow-empty", "-m", "second")
    commits = {folder: git(folder, "rev-parse", "HEAD") for folder in (repository, other)}
    git(repository, "pack-refs", "--all")
    monkeypatch.setenv("PATH", "/nowhere")
    for folder, commit in commits.items():
        assert checkout(folder) == Checkout(commit, changed=None)


def test_an_installed_copy_inside_another_repository_names_no_commit(repository: Path) -> None:
    assert checkout(repository / "bench") == Checkout()


def test_variables_of_a_git_hook_do_not_lead_to_another_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(repository.parent / "elsewhere"))
    assert checkout(repository).commit == commit
