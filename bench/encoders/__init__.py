"""Text encoders: a text becomes a vector. Not the measured boundary; they compare summaries when everything has been measured."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from bench.config import Similarity


class EncoderInfo(Struct, frozen=True, kw_only=True):
    engine: str
    engine_version: str | None
    dimension: int
    pooling: str
    context: int


class Encoding(Struct, frozen=True):
    """`cut`: the text is longer than the encoder reads, and its end was left out."""

    vector: tuple[float, ...]
    cut: bool


class Encoder(Protocol):
    def describe(self) -> EncoderInfo: ...
    def encode(self, text: str) -> Encoding: ...


def open_encoder(settings: Similarity, model_path: str) -> Encoder:
    """Load the encoder. Raises `bench.backends.BackendError` for a file that is none."""
    match settings.backend:
        case "scripted":
            return ScriptedEncoder(settings)
        case "llama_cpp":
            from bench.encoders.llama_cpp import LlamaEncoder

            return LlamaEncoder(settings, model_path)


class ScriptedEncoder:
    """Counts words in 256 bins: as blind to order and negation as the real ones, for tests and rehearsals."""

    def __init__(self, settings: Similarity) -> None:
        self._settings = settings

    def describe(self) -> EncoderInfo:
        return EncoderInfo(
            engine="scripted", engine_version="1", dimension=256, pooling="sum", context=self._settings.context
        )

    def encode(self, text: str) -> Encoding:
        words = (self._settings.prefix + text).lower().split()
        bins = [0.0] * 256
        for word in words[: self._settings.context]:
            bins[hashlib.sha256(word.encode()).digest()[0]] += 1.0
        return Encoding(tuple(bins), len(words) > self._settings.context)


def cosine(a: Sequence[float], b: Sequence[float]) -> float | None:
    """None where one of them is the zero vector."""
    length = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(x * x for x in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / length if length else None
