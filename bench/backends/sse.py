"""Server-sent events, read as bytes arrive: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.

Lines end in LF, CRLF or CR and may be cut anywhere, also within a character; what is held back is bounded.
"""

import re

MAX_LINE_BYTES = 1 << 20
MAX_EVENT_BYTES = 4 << 20

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseError(Exception):
    """The stream is not one of events, or it was cut within one; the message is one clause."""


class EventStream:
    """Feed it what the socket gave; it returns the data of every event that has become complete."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_line_bytes, self._max_event_bytes = max_line_bytes, max_event_bytes
        self._partial = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._first = True

    def feed(self, data: bytes) -> list[str]:
        """Data of the events that end within these bytes, in order. Raises `SseError`."""
        if not data:
            return []
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]  # the second half of a CRLF that was cut
        self._after_cr = data.endswith(b"\r")
        *ended, rest = _LINE_END.split(data)
        events = []
        for piece in ended:
            self._hold(piece)
            line = bytes(self._partial)
            self._partial.clear()
            if (event := self._line(line)) is not None:
                events.append(event)
        self._hold(rest)
        return events

    def close(self) -> None:
        """Raises `SseError` when the stream ended within an event; a half comment is no loss."""
        if self._data or (self._partial and not self._partial.startswith(b":")):
            raise SseError("the stream ended within an event")

    def _hold(self, piece: bytes) -> None:
        if len(self._partial) + len(piece) > self._max_line_bytes:
            raise SseError(f"a line is longer than {self._max_line_bytes} bytes")
        self._partial += piece

    def _line(self, line: bytes) -> str | None:
        if self._first:
            line, self._first = line.removeprefix(_BYTE_ORDER_MARK), False
        if not line:
            return self._finish()
        field, _, value = line.partition(b":")
        if field == b"data":  # an empty field is a comment; event, id and retry do not matter here
            value = value.removeprefix(b" ")
            self._data_bytes += len(value) + 1
            if self._data_bytes > self._max_event_bytes:
                raise SseError(f"an event is longer than {self._max_event_bytes} bytes")
            self._data.append(value)
        return None

    def _finish(self) -> str | None:
        if not self._data:
            return None
        joined = b"\n".join(self._data)
        self._data, self._data_bytes = [], 0
        try:
            return joined.decode("utf-8")
        except UnicodeDecodeError:
            raise SseError("an event is not valid UTF-8") from None
