"""A model server on loopback that does what it is told, also what no server should: stall, drop, cut, lie, repeat the key."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STALL = "stall"
"""Say nothing more until the server is closed or the client has gone (at most 10 s)."""
DROP = "drop"
"""Close the connection before the answer is whole."""

Piece = bytes | str


class Reply:
    def __init__(
        self, *pieces: Piece, status: int = 200, kind: str = "text/event-stream", chunked: bool = True, **headers: str
    ) -> None:
        """Headers with underscores for hyphens."""
        self.pieces, self.status, self.kind, self.chunked, self.headers = pieces, status, kind, chunked, headers


Answer = Reply | Callable[[dict[str, Any]], Reply]


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away is what these tests are about."""


class HostileServer:
    """`answers` by path; `seen` holds (path, headers, body) of every POST, `ports` where each came from."""

    def __init__(self, port: int = 0) -> None:
        self.ports: list[int] = []
        self.answers: dict[str, Answer] = {"/v1/models": as_json({"data": [{"id": "m"}]})}
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.closing = threading.Event()
        self._http = _Http(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5.0)


@contextmanager
def hostile_server() -> Iterator[HostileServer]:
    server = HostileServer()
    try:
        yield server
    finally:
        server.close()


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status=status, kind="application/json")


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """A chat event; `token_ids` goes beside the delta."""
    ids = {"token_ids": fields.pop("token_ids")} if "token_ids" in fields else {}
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish, **ids}]})


def usage(prompt: int, output: int, **more: Any) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output, **more}})


DONE = b"data: [DONE]\n\n"


def _handler(server: HostileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.seen.append((self.path, dict(self.headers), body))
            server.ports.append(self.client_address[1])
            self._answer(body)

        def _answer(self, body: dict[str, Any]) -> None:
            found = server.answers.get(self.path, as_json({"error": {"message": "nothing here"}}, status=404))
            reply = found(body) if callable(found) else found
            try:
                self._send(reply)
            except OSError:
                self.close_connection = True  # the client has gone

        def _send(self, reply: Reply) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            for name, value in reply.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header(*(("Transfer-Encoding", "chunked") if reply.chunked else ("Connection", "close")))
            self.end_headers()
            self.close_connection = not reply.chunked
            for piece in reply.pieces:
                if isinstance(piece, str):
                    self._misbehave(piece)
                    return
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked else piece)
                self.wfile.flush()
            if reply.chunked:
                self.wfile.write(b"0\r\n\r\n")

        def _misbehave(self, how: str) -> None:
            self.close_connection = True
            if how == STALL:
                server.closing.wait(10.0)

    return Handler
