"""From sampled tokens to text as it may be shown: whole characters, nothing that may be a stop string, and where thinking ends. Pure."""

import codecs
from collections.abc import Sequence

THINK_START = "<think>"
THINK_END = "</think>"


class TextStream:
    """Turns the bytes of tokens into text; incomplete UTF-8 and what may be the beginning of a stop string are held back.

    Bytes that never become a character come out as U+FFFD, as everywhere.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped = False
        """A stop string was found; it and what follows are not shown."""

    def push(self, piece: bytes) -> str:
        """The text that can be shown after this token; may be empty."""
        return self._release(self._decoder.decode(piece), last=False)

    def finish(self) -> str:
        """What was held back, when the answer has ended otherwise."""
        return self._release(self._decoder.decode(b"", final=True), last=True)

    def _release(self, text: str, *, last: bool) -> str:
        if not self._stop or self.stopped:
            return "" if self.stopped else text
        self._held += text
        found = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            shown, self._held, self.stopped = self._held[: min(found)], "", True
            return shown
        keep = 0 if last else max(_overlap(self._held, s) for s in self._stop)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class Thinking:
    """Counts the tokens of the thinking part of an answer that opens with `<think>`.

    `opened` says that the prompt's end or the prefill has opened it already.
    """

    def __init__(self, budget: int, *, opened: bool) -> None:
        self._budget = budget
        self._inside: bool | None = True if opened else None
        self._seen = ""
        self._tokens = 0

    def see(self, text: str) -> bool:
        """Take one token's text; True when the budget is used up and the thinking part has to be closed now."""
        if self._inside is False:
            return False
        self._seen += text
        if self._inside is None:
            head = self._seen.lstrip()
            if len(head) < len(THINK_START) and THINK_START.startswith(head):
                return False
            self._inside = head.startswith(THINK_START)
            if not self._inside:
                return False
            self._seen = head[len(THINK_START) :]
        if THINK_END in self._seen:
            self._inside = False
            return False
        self._seen = self._seen[-len(THINK_END) :]
        self._tokens += 1
        if self._tokens < self._budget:
            return False
        self._inside = False
        return True


def opens_thinking(prompt: str) -> bool:
    """The prompt's last word is `<think>`: the answer begins inside the thinking part."""
    return prompt.rstrip().endswith(THINK_START)
