"""Marked text is planted wherever text can come from, and every byte that a run leaves anywhere is searched for it."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import duckdb
import pytest

from bench.cli import CELL_FAILED, OK
from results.records import Answered, CellStarted, Loaded, Ranked
from results.store import RunDir

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300.0
KEY = "sk-planted-4711-0815"
NOTE = "PLANTED-NOTE"
QUESTION = "PLANTED-QUESTION"
OPTION = "PLANTED-OPTION"
RATIONALE = "PLANTED-RATIONALE"
REFERENCE = "PLANTED-REFERENCE"
FACT = "PLANTED-FACT"
ANSWER = "PLANTED-ANSWER"
REASONING = "PLANTED-REASONING"
ERROR = "PLANTED-ERROR"
Server = Callable[[], str]
OF_A_RUN = (
    ["report", "RUN"],
    ["verify", "RUN"],
    ["compare", "RUN", "RUN", "--base-deployment", "server", "--candidate-deployment", "good", "--out", "compared.md"],
    *(["export", "RUN", "--to", form] for form in ("csv", "parquet", "pytest-benchmark", "lm-eval", "junit")),
)


@contextmanager
def planted_server() -> Iterator[str]:
    """Says planted text in answer and reasoning; refuses every third request with planted text, the prompt and the key."""

    class Handler(BaseHTTPRequestHandler):
        served = 0

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            known = self.path == "/v1/models"
            self._send(200 if known else 404, json.dumps({"data": [{"id": "m"}]} if known else {}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            Handler.served += 1
            if Handler.served % 3 == 0:
                words = f"{ERROR} {self.headers['Authorization']} {body}"
                self._send(400, json.dumps({"error": {"message": words, "type": ERROR}}).encode())
                return
            events = [
                {"choices": [{"index": 0, "delta": {"reasoning_content": f"{REASONING} of it. "}}]},
                {
                    "choices": [
                        {"index": 0, "delta": {"content": f"Summary: {ANSWER} is well."}, "finish_reason": "stop"}
                    ]
                },
                {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9}},
            ]
            data = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"
            self._send(200, data, "text/event-stream")

        def _send(self, status: int, data: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_data(folder: Path) -> None:
    questions = [
        {
            "id": f"q{i}",
            "question": f"What ails {QUESTION} number {i}?",
            "options": [f"{OPTION} {i} {letter}" for letter in "abcd"],
            "answer": i % 4,
            "specialty": "cardiology",
            "difficulty": "easy",
            "rationale": f"{RATIONALE} {i}",
        }
        for i in range(6)
    ]
    fact = {"label": f"{FACT} label", "category": "diagnosis", "accept": [[f"{FACT} accepted"]], "contradict": []}
    notes = [
        {
            "id": f"n{i}",
            "kind": "discharge",
            "note": f"{NOTE} {i} was admitted with chest pain; {FACT} accepted. Aspirin 100 mg.",
            "reference": f"{REFERENCE} {i}: chest pain.",
            "drugs": [],
            "facts": [{"id": f"f{k}", **fact} for k in range(5)],
        }
        for i in range(6)
    ]
    for name, rows in (("questions", questions), ("notes", notes)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_suite(folder: Path, url: str, head: str) -> Path:
    write_data(folder)
    path = folder / "suite.toml"
    path.write_text(
        f'name = "planted"\nidle_s = 0.0\n{head}\n'
        '[tasks.clinical_qa_en]\ndata = "questions.jsonl"\n'
        '[tasks.note_summary_en]\ndata = "notes.jsonl"\n'
        '[[deployments]]\nname = "server"\nbackend = "openai_server"\n'
        f'settings = {{ base_url = "{url}", api_key_env = "PLANTED_KEY_VARIABLE" }}\n'
        '[[deployments]]\nname = "dies"\nbackend = "scripted"\nsettings = { die_after = 2 }\n'
        '[[deployments]]\nname = "good"\nbackend = "scripted"\n'
    )
    return path


def run_and_collect(place: Path, head: str) -> tuple[RunDir, dict[str, bytes]]:
    """Run, judge a night, report, compare and export as a user does; then every file that is left and all that was said."""
    for name in ("input", "out", "cache", "tmp", "home", "cwd"):
        (place / name).mkdir()
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(place / "cache"),
        "TMPDIR": str(place / "tmp"),
        "HOME": str(place / "home"),
        "PLANTED_KEY_VARIABLE": KEY,
    }
    said = {}
    with planted_server() as url:
        suite = write_suite(place / "input", url, head)
        night = ["nightly", str(suite), "--history", str(place / "out" / "history"), "--night"]
        for command in (
            ["run", str(suite), "--out", str(place / "out")],
            *([*night, n] for n in ("n1", "n2")),
            *OF_A_RUN,
        ):
            words = [str(run_in(place / "out")) if word == "RUN" else word for word in command]
            done = subprocess.run(
                [sys.executable, str(ROOT / "run_bench.py"), *words],
                capture_output=True,
                cwd=place / "cwd",
                env=environment,
                timeout=PATIENCE_S,
            )
            assert b"Traceback" not in done.stderr, done.stderr.decode()
            said[f"what `{' '.join(command)}` said"] = done.stdout + done.stderr
    places = [p for name in ("out", "cache", "tmp", "home", "cwd") for p in (place / name).rglob("*") if p.is_file()]
    files = {str(path.relative_to(place)): path.read_bytes() for path in places}
    tables = {f"rows of {name}": in_plain(place / name) for name in files if name.endswith(".parquet")}
    assert len(tables) == 2  # of the history, and the exported one
    return RunDir(run_in(place / "out")), files | said | tables


def run_in(out: Path) -> Path:
    (path,) = out.glob("*_planted")
    return path


def in_plain(parquet: Path) -> bytes:
    """What a packed table holds: a search of its bytes would not find it."""
    return repr(duckdb.read_parquet(str(parquet)).fetchall()).encode()


def holding(found: dict[str, bytes], words: str) -> list[str]:
    forms = (words.encode(), words.encode("utf-16-le"), words.encode("utf-16-be"), words.encode().hex().encode())
    return [name for name, data in found.items() if any(form in data for form in forms)]


def test_a_suite_that_keeps_no_text_leaves_none_anywhere(tmp_path: Path) -> None:
    folder, found = run_and_collect(tmp_path, "store_text = false")
    assert holding(found, "PLANTED-") == []
    assert holding(found, KEY) == []
    server = next(folder.cell(c.id) for c in folder.manifest().cells if c.deployment == "server")
    answered = [e for e in server.events() if isinstance(e, Answered | Ranked)]
    failed = [e for e in answered if e.error is not None]
    assert 0 < len(failed) < len(answered)
    assert len(list(server.scores())) == 12
    thinking = hashlib.sha256(f"{REASONING} of it. ".encode()).hexdigest()
    hashes = {e.reasoning_sha256 for e in answered if isinstance(e, Answered) and e.error is None}
    assert hashes == {thinking}


def test_redaction_takes_out_what_the_patterns_match_and_keeps_the_rest(tmp_path: Path) -> None:
    folder, found = run_and_collect(tmp_path, "redact = ['PLANT[A-Z]+-[A-Z]+']")
    assert holding(found, "PLANTED-") == []
    server = next(folder.cell(c.id) for c in folder.manifest().cells if c.deployment == "server")
    texts = {(e.text, e.reasoning) for e in server.events() if isinstance(e, Answered) and e.error is None}
    assert texts == {("Summary: [redacted] is well.", "[redacted] of it. ")}


def test_with_text_kept_the_key_is_still_nowhere(tmp_path: Path) -> None:
    _, found = run_and_collect(tmp_path, "")
    assert holding(found, KEY) == []
    assert holding(found, ANSWER)  # the search finds what is there
    assert holding(found, NOTE)


@pytest.mark.parametrize(("head", "left"), [("", True), ("store_text = false", False), ("redact = ['x']", False)])
def test_a_crash_leaves_no_core_where_no_text_may_be_kept(tmp_path: Path, head: str, left: bool) -> None:
    if Path("/proc/sys/kernel/core_pattern").read_text().strip() not in ("core", "core.%p"):
        pytest.skip("cores of this machine go elsewhere")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no process may leave a core here")
    (tmp_path / "suite.toml").write_text(
        f'name = "cut"\nidle_s = 0.0\ntasks = ["clinical_qa_en"]\n{head}\n'
        '[[deployments]]\nname = "slow"\nbackend = "scripted"\nsettings = { delay_s = 60.0 }\n'
    )
    command = [sys.executable, str(ROOT / "run_bench.py"), "run", "suite.toml", "--out", "out"]
    program = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, preexec_fn=unlimited_cores)
    limit = time.monotonic() + PATIENCE_S
    while not (pids := started_workers(tmp_path / "out")):
        assert program.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    os.kill(pids[0], signal.SIGSEGV)
    assert program.wait(PATIENCE_S) == CELL_FAILED
    assert bool(list(tmp_path.rglob("core*"))) == left


def unlimited_cores() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def started_workers(out: Path) -> list[int]:
    """Of a run that is on: those that have loaded their model."""
    events = [list(RunDir(path).cell(cell.name).events()) for path in out.glob("*") for cell in path.glob("cells/*")]
    return [
        e.pid
        for cell in events
        if any(isinstance(x, Loaded) for x in cell)
        for e in cell
        if isinstance(e, CellStarted) and e.pid
    ]


def test_every_file_and_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run_and_collect(tmp_path, "")
    finally:
        os.umask(before)
    for name in ("out", "cache"):
        for path in (tmp_path / name).rglob("*"):
            expected = 0o700 if path.is_dir() else 0o600
            assert path.stat().st_mode & 0o777 == expected, path


def test_a_run_in_progress_or_killed_is_private_too(tmp_path: Path) -> None:
    from bench.session import Lock

    before = os.umask(0)
    try:
        with Lock(RunDir(tmp_path)):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("answer", ["Li Wei", "李伟", "Smith", "A. Roe"])
def test_a_short_name_is_no_harmless_answer(answer: str) -> None:
    from bench.runner import HARMLESS_ANSWER

    assert not HARMLESS_ANSWER.fullmatch(answer)


def test_a_pattern_that_is_none_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli import USER_ERROR, main

    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "t"\ntasks = ["clinical_qa_en"]\nredact = ["("]\n[[deployments]]\nname = "a"\nbackend = "scripted"\n'
    )
    assert main(["run", str(suite)]) == USER_ERROR != OK
    assert "`redact`: '(' is no regular expression" in capsys.readouterr().err
