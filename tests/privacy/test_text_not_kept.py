"""Marked text is planted wherever text can come from, and every byte that a run leaves anywhere is searched for it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench.cli import OK
from results.records import Answered, Ranked
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
    """Run, report and compare as a user does; then every file under the run, the cache, the temporary folder, and all that was said."""
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
        commands = [["run", str(suite), "--out", str(place / "out")], ["report"], ["verify"], ["export", "--to", "csv"]]
        for command in commands:
            more = [] if command[0] == "run" else [str(max((place / "out").iterdir()))]
            done = subprocess.run(
                [sys.executable, str(ROOT / "run_bench.py"), *command, *more],
                capture_output=True,
                cwd=place / "cwd",
                env=environment,
                timeout=PATIENCE_S,
            )
            assert b"Traceback" not in done.stderr, done.stderr.decode()
            said[f"what `{command[0]}` said"] = done.stdout + done.stderr
    places = [p for name in ("out", "cache", "tmp", "home", "cwd") for p in (place / name).rglob("*") if p.is_file()]
    files = {str(path.relative_to(place)): path.read_bytes() for path in places}
    return RunDir(max((place / "out").iterdir())), files | said


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
