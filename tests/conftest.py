"""What the tests share: a home of their own, a suite file, and the whole program run in this process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and run folders of a test never touch the user's; quantised files are shared within a session."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture
def write_suite(tmp_path: Path) -> Callable[..., Path]:
    """A suite of scripted deployments: `write_suite(good={}, dies={"die_after": 1})`."""

    def write(*, head: str = "", tasks: str = 'tasks = ["clinical_qa_en"]', **deployments: dict[str, object]) -> Path:
        lines = ['name = "t"', "idle_s = 0.0", head, tasks]
        for name, settings in deployments.items():
            table = ", ".join(f"{k} = {json.dumps(v)}" for k, v in settings.items())
            lines += ["[[deployments]]", f'name = "{name}"', 'backend = "scripted"', f"settings = {{ {table} }}"]
        path = tmp_path / "suite.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_bench.py` as a user starts it, in a folder of its own."""

    def start(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run_bench.py"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **options.pop("env", {})},  # type: ignore[dict-item]
            **options,  # type: ignore[call-overload]
        )

    return start
