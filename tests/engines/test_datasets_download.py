"""`--download` of a data set through the library `datasets`, from a small hub on loopback; needs an environment with `datasets`."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.engines
pytest.importorskip("datasets", reason="datasets is not installed here; pip install -e '.[data]'")

Program = Callable[..., subprocess.CompletedProcess[str]]
REVISION = "a" * 40
ROWS = [
    {"question": "Which makes insulin?", "choices": ["w", "x", "y", "z"], "answer": 1, "subject": "anatomy"},
    {"question": "Which filters blood?", "choices": ["w", "x", "y", "z"], "answer": 3, "subject": "anatomy"},
]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FILE = {"type": "file", "path": "test.jsonl", "size": len(DATA), "oid": "b" * 40}


class Hub(BaseHTTPRequestHandler):
    """One data set of one file, known by its commit alone: a branch is answered with 404."""

    asked: list[str]
    refuses: bool

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        match path.rstrip("/"):
            case p if p == f"/api/datasets/o/n/revision/{REVISION}":
                self._send(200, json.dumps({"id": "o/n", "sha": REVISION, "siblings": []}).encode())
            case p if p == f"/api/datasets/o/n/tree/{REVISION}":
                self._send(200, json.dumps([FILE]).encode())
            case p if p == f"/datasets/o/n/resolve/{REVISION}/test.jsonl":
                self._send(403 if self.refuses else 200, DATA)
            case _:
                self._send(404, b"")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{FILE["oid"]}"')
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The library reads these variables when it is imported, so the program runs in a process of its own."""
    handler = type("ThisHub", (Hub,), {"asked": [], "refuses": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of this test alone, else its data would be there
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def suite(folder: Path, revision: str = REVISION) -> str:
    path = folder / "s.toml"
    path.write_text(
        f'name = "t"\nidle_s = 0.0\n[tasks.mmlu_medical]\ndata = "hf:o/n@{revision}:test"\n'
        '[[deployments]]\nname = "m"\nbackend = "scripted"\n'
    )
    return str(path)


def kept(folder: Path) -> list[Path]:
    return [
        path for path in (folder / "cache" / "bedside" / "data").rglob("*") if path.is_file() and path.suffix != ".lock"
    ]


def test_nothing_connects_without_download(served: type[Hub], tmp_path: Path, program: Program) -> None:
    done = program("run", suite(tmp_path), "--out", "runs")
    assert done.returncode != 0
    assert "or run with --download" in " ".join(done.stderr.split())
    assert served.asked == []


def test_a_split_is_fetched_once_at_its_revision(served: type[Hub], tmp_path: Path, program: Program) -> None:
    assert program("run", suite(tmp_path), "--out", "runs", "--download").returncode == 0
    (file,) = kept(tmp_path)
    assert [json.loads(line) for line in file.read_text().splitlines()] == ROWS
    assert {p for p in served.asked if "o/n" in p and REVISION not in p} == set()
    asked = len(served.asked)
    assert program("run", suite(tmp_path), "--out", "again").returncode == 0
    assert len(served.asked) == asked
    (scores,) = (tmp_path / "again").glob("*/cells/*/scores.jsonl")
    assert len(scores.read_text().splitlines()) == len(ROWS)


def test_another_revision_is_not_answered_by_this_one(served: type[Hub], tmp_path: Path, program: Program) -> None:
    done = program("run", suite(tmp_path, "c" * 40), "--out", "runs", "--download")
    assert done.returncode != 0
    assert f"hf:o/n@{'c' * 40}: cannot be fetched" in " ".join(done.stderr.split())
    assert kept(tmp_path) == []


def test_a_download_that_failed_is_made_by_the_next_run(served: type[Hub], tmp_path: Path, program: Program) -> None:
    served.refuses = True
    done = program("run", suite(tmp_path), "--out", "runs", "--download")
    assert done.returncode != 0
    assert "cannot be fetched" in done.stderr
    assert kept(tmp_path) == []
    served.refuses = False
    assert program("run", suite(tmp_path), "--out", "again", "--download").returncode == 0
    assert len(kept(tmp_path)) == 1
    assert os.stat(kept(tmp_path)[0]).st_mode & 0o077 == 0
