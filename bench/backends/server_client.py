"""HTTP to one model server: what may be spoken to, and every way it can fail as one sentence.

Nothing is retried and no redirect is followed. A sentence never holds the key, and holds of the server's own words only what does not
repeat the request, so that a prompt cannot reach the disk through an error.
"""

import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import httpx
import msgspec

from bench.backends import BackendError, BackendTimeout
from bench.backends.sse import EventStream, SseError

Form = TypeVar("Form")

MAX_REPLY_BYTES = 64 << 20
MAX_ERROR_BYTES = 64 << 10
SIDE_TIMEOUT_S = 2.0
"""For facts beside the measurement (`/metrics`, `/version`)."""
FINISH_S = 1.0
"""For the end of a stream behind its `[DONE]`."""
QUOTED_CHARACTERS = 200
REPEATED_CHARACTERS = 12
"""So many characters in a row that a server's words share with the request count as a repetition of it."""


class Server:
    """One server and its pool of connections; used from many threads."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None,
        remote: bool,
        connections: int,
        connect_timeout_s: float,
        stall_timeout_s: float,
    ) -> None:
        self.url = _checked(base_url, remote)
        self.root = str(self.url).rstrip("/").removesuffix("/v1")
        self.local = _is_loopback(self.url.host)
        self._key = key
        self._stall_timeout_s = stall_timeout_s
        self._stalled_at: float | None = None
        headers = {"Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(stall_timeout_s, connect=connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=connections + 2, max_keepalive_connections=connections + 2),
            trust_env=not self.local,  # a server outside may need a proxy and the hospital's certificates
        )

    def address(self, path: str) -> str:
        """`/v1/...` paths belong to the API, all others to the server's root."""
        return f"{str(self.url).rstrip('/')}{path.removeprefix('/v1')}" if path.startswith("/v1/") else self.root + path

    def look(self, path: str) -> bytes | None:
        """A fact beside the measurement; None where the server does not tell it."""
        try:
            with self._client.stream("GET", self.address(path), timeout=SIDE_TIMEOUT_S) as response:
                return _read(response, MAX_REPLY_BYTES) if response.status_code == 200 else None
        except (httpx.HTTPError, BackendError):
            return None

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body. Raises `BackendError` when the server cannot be reached."""
        try:
            with self._client.stream("GET", self.address(path)) as response:
                return response.status_code, _read(response, MAX_REPLY_BYTES)
        except httpx.HTTPError as error:
            raise BackendError(self._sentence(error)) from None

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """The body of a good reply. Raises `BackendError`, or `BackendTimeout` when the server has hung."""
        began = time.monotonic()
        content = msgspec.json.encode(body)
        try:
            with self._request(path, content) as response:
                self._check(response, body)
                reply = _read(response, MAX_REPLY_BYTES)
        except httpx.ReadTimeout:
            self._stalled(began)
        except httpx.HTTPError as error:
            raise BackendError(self._sentence(error)) from None
        self._stalled_at = None
        return reply

    def events(self, path: str, body: dict[str, Any]) -> Iterator[str]:
        """Data of each event, as it comes, up to `[DONE]` or the end of the stream. Raises as `post` does."""
        began = heard = time.monotonic()
        content, stream = msgspec.json.encode(body), EventStream()
        try:
            with self._request(path, content) as response:
                self._check(response, body)
                _check_kind(response)
                body_bytes = response.iter_bytes()
                for data in body_bytes:
                    for event in stream.feed(data):
                        if event == "[DONE]":
                            _finish(response, body_bytes)
                            return
                        self._stalled_at = None
                        yield event
                        heard = time.monotonic()
                    if time.monotonic() - heard > self._stall_timeout_s:
                        self._stalled(began)  # comments keep the connection alive, they are no sign of progress
                stream.close()
        except httpx.ReadTimeout:
            self._stalled(began)
        except httpx.HTTPError as error:
            raise BackendError(self._sentence(error)) from None
        except SseError as error:
            raise BackendError(f"{self.root}: {error}") from None

    def close(self) -> None:
        self._client.close()

    def _request(self, path: str, content: bytes) -> Any:
        return self._client.stream(
            "POST", self.address(path), content=content, headers={"Content-Type": "application/json"}
        )

    def _check(self, response: httpx.Response, body: dict[str, Any]) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in (401, 403):  # such replies like to repeat the key
            raise BackendError(f"{self.root}: HTTP {status}, the server refuses the key; name it in `api_key_env`")
        said = self.quotable(_server_words(_read(response, MAX_ERROR_BYTES, cut=True)), body)
        meaning = {429: "too many requests", 404: "no such model or address"}.get(status, "the request failed")
        raise BackendError(f"{self.root}: HTTP {status}, {meaning}{': ' + said if said else ''}")

    def quotable(self, said: str, body: dict[str, Any]) -> str:
        """A server's own words on one line, or nothing where they repeat the key or the texts of the request."""
        said = " ".join(said.split())
        if self._key and self._key in said:
            return ""
        asked = " ".join(_texts(body).split())
        pieces = (said[i : i + REPEATED_CHARACTERS] for i in range(len(said) - REPEATED_CHARACTERS + 1))
        return "" if any(piece in asked for piece in pieces) else said[:QUOTED_CHARACTERS]

    def _stalled(self, began: float) -> NoReturn:
        """One silent request is its own failure; a second one, sent after the first fell silent, means that the server has hung."""
        silent = f"{self.root}: the server was silent for {self._stall_timeout_s:g} s"
        if self._stalled_at is not None and began >= self._stalled_at:
            raise BackendTimeout(f"{silent}, twice in a row")
        if self._stalled_at is None:
            self._stalled_at = time.monotonic()
        raise BackendError(silent) from None

    def _sentence(self, error: httpx.HTTPError) -> str:
        match error:
            case httpx.ConnectTimeout():
                return f"{self.url}: no connection within the time limit; is the server running there?"
            case httpx.ConnectError():
                return f"{self.url}: no server answers there ({_reason(error)}); start it or correct `base_url`"
            case httpx.ReadTimeout():
                return f"{self.root}: the server was silent for {self._stall_timeout_s:g} s"
            case httpx.TransportError():
                return f"{self.root}: the connection broke before the answer was whole"
            case _:
                return f"{self.root}: the reply cannot be read ({type(error).__name__})"


def key_from(variable: str | None) -> str | None:
    """The key in the environment variable of this name. Raises `BackendError`, which names the variable and never its content."""
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key:
        raise BackendError(
            f"the environment variable {variable} (`api_key_env`) is not set; put the server's key there"
        )
    if not all("!" <= character <= "~" for character in key):
        raise BackendError(f"the key in {variable} has a character that no header can carry (a space, a line end?)")
    return key


def decoded(reply: bytes, kind: type[Form]) -> Form:
    """A reply as the type it should be. Raises `BackendError`."""
    try:
        return msgspec.json.decode(reply, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BackendError("the server's reply is not of the API's form") from None


def _finish(response: httpx.Response, rest: Iterator[bytes]) -> None:
    """Read to the end of a body whose answer is whole, else its connection is thrown away and the next answer's time to the first token
    has a new handshake in it. A server that does not end it soon is left."""
    connection = response.extensions["network_stream"].get_extra_info("socket")
    watch = threading.Timer(FINISH_S, connection.shutdown, (socket.SHUT_RDWR,))
    watch.start()
    try:
        for _ in rest:
            pass
    except httpx.HTTPError:
        pass  # the answer is whole all the same
    finally:
        watch.cancel()


def _checked(base_url: str, remote: bool) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise BackendError(f"`base_url` is not an address: {error}") from None
    if url.userinfo:
        raise BackendError("`base_url` holds a name or password; put the key into a variable named by `api_key_env`")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise BackendError(f"`base_url` {base_url} must look like http://127.0.0.1:8000/v1")
    if not remote and not _is_loopback(url.host):
        raise BackendError(
            f"{url.host} is not this host: prompts would leave it; set `remote = true` in the settings if that is meant"
        )
    return url


def _is_loopback(host: str) -> bool:
    """By the address as written, without asking a name server: any other name could lead anywhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_kind(response: httpx.Response) -> None:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/event-stream", ""):
        raise BackendError(f"the server answered with {kind[:60]!r} and not with a stream of events")


def _read(response: httpx.Response, limit: int, *, cut: bool = False) -> bytes:
    """The body, at most `limit` bytes: cut there, or a `BackendError`."""
    body = bytearray()
    for data in response.iter_bytes():
        body += data
        if len(body) > limit:
            if cut:
                break
            raise BackendError(f"the server's reply is longer than {limit} bytes")
    return bytes(body[:limit])


def _texts(body: dict[str, Any]) -> str:
    """What a request says that could be a patient's: the turns or the prompts."""
    prompt = body.get("prompt", "")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    turns = [message.get("content", "") for message in body.get("messages", [])]
    return "\n".join(text for text in [*prompts, *turns] if isinstance(text, str))


def _server_words(body: bytes) -> str:
    """The message of an error reply; empty where there is none in a known form."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return error_message(reply)


def error_message(reply: Any) -> str:
    """`{"error": {"message": ...}}`, `{"error": "..."}`, `{"message": ...}`, `{"detail": "..."}`."""
    if not isinstance(reply, dict):
        return ""
    inner = reply.get("error", reply)
    said = inner if isinstance(inner, str) else None
    if isinstance(inner, dict):
        said = inner.get("message") or inner.get("detail")
    return said if isinstance(said, str) else ""


def _reason(error: httpx.ConnectError) -> str:
    """`[Errno 111] Connection refused` without its number."""
    return str(error).rpartition("] ")[2].lower()[:80] or "no reason given"
