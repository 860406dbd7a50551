"""Downloads from a small hub on loopback: resumed, checked, private, and never without being asked."""

import hashlib
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import hub
from bench.catalogue import by_name
from bench.config import BackendName, ConfigError, Deployment
from bench.models import commit_at

DATA = bytes(range(256)) * 40
PIN = "0123456789abcdef0123456789abcdef01234567"
MAIN = "f" * 40
FILES = {
    "m.gguf": DATA,
    "config.json": b"{}",
    "model.safetensors": DATA[:100],
    "evil.bin": b"pickle",
    "run.py": b"code",
}


class Hub(BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]]
    tells_hash: str
    tells_commit: str | None
    cut_at: int | None

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("X-Linked-Etag", f'"{self.tells_hash}"')
        if self.tells_commit:
            self.send_header("X-Repo-Commit", self.tells_commit)
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range")))
        name = self.path.rpartition("/")[2]
        if self.path in ("/api/models/o/n", f"/api/models/o/n/revision/{PIN}"):
            listed = ", ".join(f'{{"rfilename": "{f}"}}' for f in FILES)
            self._send(200, f'{{"siblings": [{listed}]}}'.encode())
        elif name not in FILES:
            self._send(404, b"")
        elif begin := int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-")):
            self._send(206, FILES[name][begin:]) if begin < len(FILES[name]) else self._send(416, b"")
        else:
            self._send(200, FILES[name])

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: type(self).cut_at])

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    told: dict[str, object] = {
        "asked": [],
        "tells_hash": hashlib.sha256(DATA).hexdigest(),
        "tells_commit": None,
        "cut_at": None,
    }
    handler = type("ThisHub", (Hub,), told)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_nothing_is_asked_of_the_network_without_being_told_to(served: type[Hub]) -> None:
    with pytest.raises(hub.NotHere, match="run with --download"):
        hub.find("o/n", "m.gguf", fetch=False)
    assert served.asked == []


def test_a_file_is_fetched_once_and_private(served: type[Hub]) -> None:
    path = hub.find("o/n", "m.gguf", fetch=True)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert hub.find("o/n", "m.gguf", fetch=True) == path
    assert served.asked == [("/o/n/resolve/main/m.gguf", None)]


def test_a_broken_download_goes_on_where_it_ended(served: type[Hub]) -> None:
    served.cut_at = 1000
    with pytest.raises(ConfigError, match="download from"):
        hub.find("o/n", "m.gguf", fetch=True)
    served.cut_at = None
    assert hub.find("o/n", "m.gguf", fetch=True).read_bytes() == DATA
    assert served.asked[-1] == ("/o/n/resolve/main/m.gguf", "bytes=1000-")


def test_what_arrives_with_another_hash_is_thrown_away(served: type[Hub]) -> None:
    served.tells_hash = "0" * 64
    with pytest.raises(ConfigError, match="another hash"):
        hub.find("o/n", "m.gguf", fetch=True)
    assert [p.name for p in (hub.cache_home() / "hf" / "o--n").iterdir()] == []


def test_of_a_folder_only_weights_and_settings_are_fetched(served: type[Hub]) -> None:
    served.tells_hash = ""
    folder = hub.find("o/n", None, fetch=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_file_that_the_hub_has_not_is_one_sentence(served: type[Hub]) -> None:
    with pytest.raises(ConfigError, match="404") as caught:
        hub.find("o/n", "gone.gguf", fetch=True)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_with_a_missing_shard_is_not_complete(served: type[Hub]) -> None:
    folder = hub.cache_home() / "hf" / "o--n"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "a.safetensors").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}')
    with pytest.raises(hub.NotHere):
        hub.find("o/n", None, fetch=False)
    (folder / "b.safetensors").write_bytes(b"")
    assert hub.find("o/n", None, fetch=False) == folder


def test_a_pinned_commit_is_fetched_and_kept_apart(served: type[Hub]) -> None:
    pinned = hub.find(f"o/n@{PIN}", "m.gguf", fetch=True)
    assert pinned == hub.cache_home() / "hf" / f"o--n@{PIN}" / "m.gguf"
    assert served.asked == [(f"/o/n/resolve/{PIN}/m.gguf", None)]
    with pytest.raises(hub.NotHere):
        hub.find("o/n", "m.gguf", fetch=False)
    assert hub.commit_of(f"o/n@{PIN}", "m.gguf") == PIN


def test_the_files_of_a_pinned_folder_are_those_of_the_commit(served: type[Hub]) -> None:
    served.tells_hash = ""
    folder = hub.find(f"o/n@{PIN}", None, fetch=True)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert served.asked[0] == (f"/api/models/o/n/revision/{PIN}", None)
    assert {path for path, _ in served.asked[1:]} == {
        f"/o/n/resolve/{PIN}/{name}" for name in ("config.json", "model.safetensors")
    }


def test_what_main_was_on_the_day_of_the_download_is_told(served: type[Hub]) -> None:
    assert hub.commit_of("o/n", "m.gguf") is None
    served.tells_commit = MAIN
    path = hub.find("o/n", "m.gguf", fetch=True)
    assert hub.commit_of("o/n", "m.gguf") == MAIN
    (path.parent / "by_hand.gguf").write_bytes(DATA)
    assert hub.commit_of("o/n", "by_hand.gguf") is None
    assert stat.S_IMODE((path.parents[1] / ".o--n.commits").stat().st_mode) == 0o600


def test_a_folder_of_two_commits_has_none(served: type[Hub]) -> None:
    served.tells_hash, served.tells_commit = "", MAIN
    hub.find("o/n", "config.json", fetch=True)
    hub.find("o/n", "model.safetensors", fetch=True)
    assert hub.commit_of("o/n", None) == MAIN
    served.tells_commit = PIN
    hub.find("o/n", "run.py", fetch=True)
    assert hub.commit_of("o/n", None) is None


def test_a_hub_that_answers_with_another_commit_is_refused(served: type[Hub]) -> None:
    served.tells_commit = MAIN
    with pytest.raises(ConfigError, match="another commit"):
        hub.find(f"o/n@{PIN}", "m.gguf", fetch=True)
    assert [path for path, _ in served.asked] == []


def test_the_hub_library_s_cache_is_asked_for_the_commit(
    served: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for commit in (PIN, MAIN):
        snapshot = tmp_path / "hub" / "models--o--n" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "m.gguf").write_bytes(DATA)
    assert hub.find(f"o/n@{PIN}", "m.gguf", fetch=False).parent.name == PIN
    (tmp_path / "hub" / "models--o--n" / "refs").mkdir()
    (tmp_path / "hub" / "models--o--n" / "refs" / "main").write_text(MAIN)
    assert hub.commit_of("o/n", "m.gguf") == MAIN


@pytest.mark.parametrize("commit", ["", "main", "v1.0", "0123456", PIN.upper(), f"{PIN}0", f"{PIN}@{PIN}", "../../x"])
def test_anything_but_a_whole_commit_is_refused_in_one_sentence(served: type[Hub], commit: str) -> None:
    with pytest.raises(ConfigError, match="40 hexadecimal digits") as caught:
        hub.find(f"o/n@{commit}", "m.gguf", fetch=True)
    assert len(str(caught.value).splitlines()) == 1
    assert served.asked == []


def test_a_pinned_model_keeps_its_place_in_the_catalogue() -> None:
    entry = by_name("hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    assert entry is not None
    assert by_name(f"hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B@{PIN}") == entry


def test_the_commit_of_a_deployment_s_model(served: type[Hub]) -> None:
    def at(model: str, backend: BackendName = "llama_cpp") -> str | None:
        return commit_at(Deployment(name="d", backend=backend, model=model, file="m.gguf"))

    assert at(f"hf:o/n@{PIN}") == PIN
    assert at("hf:o/n") is None
    assert at("file:m.gguf") is None
    assert at(f"hf:o/n@{PIN}", "scripted") is None
