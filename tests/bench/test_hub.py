"""Downloads from a small hub on loopback: resumed, checked, private, and never without being asked."""

import hashlib
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import hub
from bench.config import ConfigError

DATA = bytes(range(256)) * 40
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
    cut_at: int | None

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("X-Linked-Etag", f'"{self.tells_hash}"')
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range")))
        name = self.path.rpartition("/")[2]
        if self.path == "/api/models/o/n":
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
    handler = type("ThisHub", (Hub,), {"asked": [], "tells_hash": hashlib.sha256(DATA).hexdigest(), "cut_at": None})
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
