"""A stand-in tokenizer of any size, for synthetic models: any text becomes its bytes, and the rest of the vocabulary is filler."""

from typing import Any

CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
NORMAL, CONTROL = 1, 3


def tokens_of(size: int) -> list[str]:
    """A vocabulary of the true size: one token for each byte (as GPT-2 writes bytes), one merge, fillers, and the end of text last."""
    fillers = [f"<filler {i}>" for i in range(size - 258)]
    return [*_byte_names(), "th", *fillers, "<|endoftext|>"]


def _byte_names() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]


def gguf_vocabulary(size: int) -> dict[str, list[Any]]:
    """As llama.cpp reads it."""
    tokens = tokens_of(size)
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * (size - 1) + [CONTROL],
        "tokenizer.ggml.merges": ["t h"],
    }


def tokenizer_json(size: int) -> dict[str, Any]:
    """The same vocabulary for transformers and vLLM."""
    tokens = tokens_of(size)
    end = {"id": size - 1, "content": tokens[-1], "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    bytes_of_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | flags],
        "normalizer": None,
        "pre_tokenizer": bytes_of_text,
        "post_processor": None,
        "decoder": bytes_of_text,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": [["t", "h"]]},
    }
