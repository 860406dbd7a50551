"""What a reasoning model thought, apart from what it answered, and whether it got stuck.

The state of the thinking part is kept with every answer, because accuracy hides it: a model whose thinking never ended
has given no answer, however often the right letter stands in it; a model that skipped its thinking (the documented
empty `<think></think>` bypass of DeepSeek-R1) was not tested as a reasoning model.
"""

import re
import zlib
from typing import Literal

from msgspec import Struct

ThinkState = Literal["none", "closed", "unclosed", "empty"]

_OPEN = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_CLOSE = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_WORD = re.compile(r"[\u3400-\u9fff]|\w+|[^\w\s]+")

LOOP_TOKENS = 30
LOOP_TIMES = 4
LOOP_TAIL_CHARS = 2000
LOOP_MIN_CHARS = 200
LOOP_RATIO = 0.1


class Thinking(Struct, frozen=True):
    """`final` is what follows the closed thinking part; empty while the thinking is unclosed."""

    state: ThinkState
    thinking: str
    final: str


def split_thinking(text: str, reasoning: str | None) -> Thinking:
    """Cut an answer into thinking and final text.

    `reasoning` is a channel of its own, `None` where the server has none. A closing tag without an opening one counts:
    the opening tag is often sent as the beginning of the reply and lost. With several thinking parts the last one
    decides.
    """
    closing = list(_CLOSE.finditer(text))
    close = closing[-1] if closing else None
    before, final = (text[: close.start()], text[close.end() :]) if close else ("", text)
    if opened := _OPEN.search(final):
        inside = (reasoning or "") + before + final[: opened.start()] + final[opened.end() :]
        return Thinking("unclosed", _OPEN.sub("", inside), "")
    thought = (reasoning or "") + _OPEN.sub("", before)
    if close is None and reasoning is None:
        return Thinking("none", "", final)
    if close is None and thought.strip() and not final.strip():
        return Thinking("unclosed", thought, "")
    return Thinking("closed" if thought.strip() else "empty", thought, final)


def is_looping(text: str) -> bool:
    """Whether the text repeats itself: a run of 30 words (Chinese: characters) stands in it four times without overlap,
    or its last 2,000 characters compress to less than a tenth. Short texts (under 200 characters) never loop.
    """
    if len(text) < LOOP_MIN_CHARS:
        return False
    tail = text[-LOOP_TAIL_CHARS:].encode()
    if len(zlib.compress(tail)) / len(tail) < LOOP_RATIO:
        return True
    words = _WORD.findall(text)
    seen: dict[tuple[str, ...], tuple[int, int]] = {}
    for start in range(len(words) - LOOP_TOKENS + 1):
        run = tuple(words[start : start + LOOP_TOKENS])
        last, times = seen.get(run, (-LOOP_TOKENS, 0))
        if start - last >= LOOP_TOKENS:
            seen[run] = (start, times + 1)
            if times + 1 >= LOOP_TIMES:
                return True
    return False
