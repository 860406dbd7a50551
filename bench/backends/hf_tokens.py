"""What a Hugging Face tokenizer does for a backend: tokens of texts, bytes of tokens, the prompt of a conversation.

The tokenizer is handed in. Its calls are locked, because it changes its own state while it encodes.
"""

import json
import random
import re
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from bench.backends import BackendError, Turn
from bench.backends.streaming import THINK_END, THINK_START
from bench.chat_template import ChatTemplate, TemplateFailure
from bench.vocabulary import tokens_of

BYTE_OF = {name: byte for byte, name in enumerate(tokens_of(258)[:256])}
"""GPT-2's printable stand-ins."""
RAW_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
END_NAMES = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
)
"""Control tokens that end an answer whatever a configuration forgets to say; llama.cpp knows them as well."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Tokens:
    """`size` is the model's vocabulary, `ends` the tokens that its configuration names as ends."""

    def __init__(self, tokenizer: Any, size: int, ends: Iterable[int]) -> None:
        self._tokenizer, self._size = tokenizer, size
        self._lock = threading.Lock()
        self._added = {int(i): (str(t.content), bool(t.special)) for i, t in tokenizer.added_tokens_decoder.items()}
        self._kind = _spelling(tokenizer)
        named = (i for i, (content, special) in self._added.items() if special and content in END_NAMES)
        self.ends = frozenset((*ends, *named))
        self._pieces: dict[int, bytes] = {}
        self.notes: tuple[str, ...] = ()
        self._template = self._chat_template()
        self.encode_kept = lru_cache(maxsize=4)(self.encode)

    @property
    def first_token(self) -> int:
        """Stands before a context that is empty."""
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        return int(begin if begin is not None else end or 0)

    def encode(self, text: str) -> list[int]:
        """With the tokens that the tokenizer puts around a text, but never two that open it."""
        opening = self._tokenizer.bos_token
        return self._encode(text, special=not (opening and text.startswith(opening)))

    def encode_bare(self, text: str) -> list[int]:
        return self._encode(text, special=False)

    def _encode(self, text: str, *, special: bool) -> list[int]:
        with self._lock:
            return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def arbitrary(self, count: int, seed: int) -> list[int]:
        """Ordinary tokens drawn by the seed."""
        draw, tokens = random.Random(f"prompt:{seed}"), list[int]()
        while len(tokens) < count:
            token = draw.randrange(self._size)
            if token not in self.ends and not self._added.get(token, ("", False))[1]:
                tokens.append(token)
        return tokens

    def is_end(self, token: int) -> bool:
        return token in self.ends

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; control tokens are silent, but for the tags of thinking, which are text here."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._piece(token)
        return known

    def _piece(self, token: int) -> bytes:
        if token in self._added:
            content, special = self._added[token]
            return b"" if special and content not in (THINK_START, THINK_END) else content.encode()
        name = self._tokenizer.convert_ids_to_tokens(token) if token < len(self._tokenizer) else None
        if name is None:  # the model's vocabulary is often rounded up
            return b""
        match self._kind:
            case "byte_level" if all(c in BYTE_OF for c in name):
                return bytes(BYTE_OF[c] for c in name)
            case "pieces" if raw := RAW_BYTE.fullmatch(name):
                return bytes([int(raw[1], 16)])
            case "pieces":
                return str(name).replace("▁", " ").encode()
            case _:
                return str(self._tokenizer.decode([token])).encode()

    def _chat_template(self) -> ChatTemplate:
        source = self._tokenizer.chat_template
        if isinstance(source, dict):
            source = source.get("default")
        if not source:
            self.notes = ("the model has no chat template; turns are written as ChatML",)
            return ChatTemplate(CHATML)
        tokenizer = self._tokenizer
        try:
            return ChatTemplate(source, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token or "")
        except TemplateFailure as error:
            self.notes = (f"{error}; turns are written as ChatML",)
            return ChatTemplate(CHATML)

    def render(self, turns: Sequence[Turn], prefill: str) -> str:
        """The prompt as the model wants it, with the beginning of the reply. Raises `BackendError`."""
        try:
            text = self._template.render([{"role": turn.role, "content": turn.text} for turn in turns])
        except TemplateFailure as error:
            raise BackendError(str(error)) from error
        opened = prefill.rstrip()
        if opened and text.rstrip().endswith(opened):
            return text  # newer templates of R1 open the reply themselves
        return text + prefill


def _spelling(tokenizer: Any) -> str:
    """How the names of tokens stand for bytes: `byte_level` as in GPT-2, `pieces` as in SentencePiece, or else `text`."""
    if not tokenizer.is_fast:
        return "pieces"
    decoder = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder"))
    if '"ByteLevel"' in decoder:
        return "byte_level"
    return "pieces" if '"ByteFallback"' in decoder or '"Metaspace"' in decoder or "\\u2581" in decoder else "text"
