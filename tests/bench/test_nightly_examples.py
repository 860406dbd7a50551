"""What docs/nightly.md tells people to paste is run as it stands there: by `sh`, with next to nothing in the environment."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
SUITE = """
name = "smallest"
idle_s = 0.0
limit = 1
tasks = ["note_summary_en"]
[nightly]
blocks = 1
[[deployments]]
name = "d"
backend = "scripted"
"""


def told(path: Path, pattern: str) -> str:
    (line,) = re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    return str(line)


def shell(command: str, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """As cron does it."""
    bare = ["/usr/bin/env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "/bin/sh", "-c"]
    placed = re.sub(r"(/srv/bedside/)?\.venv/bin/python", sys.executable, command)
    placed = placed.replace("/srv/bedside", str(ROOT)).replace("/srv/bench", str(home))
    return subprocess.run([*bare, placed], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "nightly.toml").write_text(SUITE)
    return tmp_path


def test_the_line_for_cron(home: Path) -> None:
    line = told(ROOT / "docs" / "nightly.md", r"^0 2 \* \* \* (.+)$")
    done = shell(line, Path("/"), home)
    log = (home / "nightly.log").read_text()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), log
    (said,) = [json.loads(text) for text in log.splitlines() if text.startswith("{")]
    assert (said["suite"], said["verdict"]) == ("smallest", "ok")


def test_the_command_of_the_systemd_unit(home: Path) -> None:
    unit = EXAMPLES / "bedside-nightly.service"
    done = shell(
        told(unit, r"^ExecStart=(.+)$"),
        Path(told(unit, r"^WorkingDirectory=(.+)$").replace("/srv/bedside", str(ROOT))),
        home,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["ci-nightly.yml", "ci-nightly.gitlab.yml"])
def test_the_command_of_the_ci_job(home: Path, name: str) -> None:
    command = told(EXAMPLES / name, r"^ +(?:run:|-) (\.venv/bin/python .+)$")
    done = shell(command.replace("run_bench.py", str(ROOT / "run_bench.py")), home, home)
    assert done.returncode == 0, done.stderr
    assert len(list((home / "history" / "nights").glob("*/junit.xml"))) == 1
