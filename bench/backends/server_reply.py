"""One streamed answer of an OpenAI-compatible server, chat or completions, from its events to `Chunk`s.

The forms differ by server: reasoning as `reasoning` or `reasoning_content` (vLLM sends both for a while: it is the same text), token
ids where asked for (vLLM), `timings` (llama-server), `metrics` (vLLM with --enable-per-request-metrics), `prefill_time` and
`decode_time_arr` (MindIE), usage in an event of its own.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from bench.backends import BackendError, Chunk, Usage

Count = Annotated[int, Meta(ge=0)]
Finish = Literal["stop", "length"]
Value = TypeVar("Value", int, float)

REPEATED_CHARACTERS = 20
"""A shorter prompt could well be repeated by the model itself."""
FINISH: dict[str, Finish] = {"stop": "stop", "length": "length", "eos_token": "stop", "stop_sequence": "stop"}
"""The last two are text-generation-inference's. Any other reason means that the answer is not whole."""


class _Delta(Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _PromptDetails(Struct):
    cached_tokens: Count | None = None


class _OutputDetails(Struct):
    reasoning_tokens: Count | None = None


class ServerUsage(Struct):
    """`reasoning_tokens`: SGLang's, 0 where its server does not part them."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: Count | None = None
    """DeepSeek's own API."""
    reasoning_tokens: Count | None = None


class _Timings(Struct):
    """llama-server: `prompt_n` leaves cached tokens out."""

    prompt_n: Count | None = None
    prompt_ms: float | None = None
    predicted_n: Count | None = None
    predicted_ms: float | None = None
    cache_n: Count | None = None


class _Metrics(Struct):
    """vLLM: from scheduling to the first token; from the first token to the last."""

    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None


class _Event(Struct):
    choices: list[_Choice] | None = None
    usage: ServerUsage | None = None
    timings: _Timings | None = None
    metrics: _Metrics | None = None
    prompt_token_ids: list[int] | None = None
    prefill_time: float | None = None
    """MindIE, milliseconds."""
    decode_time_arr: list[float] | None = None
    """MindIE, milliseconds of each further token."""
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)


class ServerSaid(Exception):
    """An error event within the stream; the message is the server's own and may repeat the request."""


class Reply:
    """Folds the events of one answer; `read` gives the chunks of an event, `last` the closing one."""

    def __init__(self, prompt: str = "") -> None:
        """`prompt`: the text that a completions server must not send back."""
        self._prompt = prompt if len(prompt) >= REPEATED_CHARACTERS else ""
        self._begun = ""
        self._finish: str | None = None
        self._usage: ServerUsage | None = None
        self._timings = _Timings()
        self._metrics = _Metrics()
        self._prompt_ids: int | None = None
        self._output_ids: int | None = 0
        """None as soon as a piece of text came without its token ids."""
        self._pieces = 0

    def read(self, event: str) -> Iterator[Chunk]:
        """Raises `BackendError` for what is not of the API's form and `ServerSaid` for an error event."""
        try:
            decoded = _DECODER.decode(event)
        except msgspec.ValidationError:
            raise BackendError("the server sent an event that is not of the API's form") from None
        except msgspec.DecodeError:
            raise BackendError("the server sent an event that is not valid JSON") from None
        if decoded.error:
            raise ServerSaid(_said(decoded.error))
        self._usage = decoded.usage or self._usage
        self._timings = decoded.timings or self._timings
        self._metrics = decoded.metrics or self._metrics
        if decoded.prefill_time is not None:
            decode_ms = None if decoded.decode_time_arr is None else sum(decoded.decode_time_arr)
            self._metrics = _Metrics(time_to_first_token_ms=decoded.prefill_time, generation_time_ms=decode_ms)
        if decoded.prompt_token_ids is not None:
            self._prompt_ids = len(decoded.prompt_token_ids)
        for choice in decoded.choices or ():
            if choice.index != 0:  # the usage would count both
                raise BackendError("the server sends more than one answer to a request")
            yield from self._choice(choice)

    def last(self) -> Chunk:
        """Raises `BackendError` when the stream ended early or for another reason than `stop` or `length`."""
        if self._finish is None:
            raise BackendError(f"the stream ended without a finish reason, after {self._pieces} pieces of text")
        if self._finish not in FINISH:
            raise BackendError(f"the server ended the answer with finish reason {self._finish[:40]!r}")
        return Chunk(finish=FINISH[self._finish], usage=self._counts())

    def _choice(self, choice: _Choice) -> Iterator[Chunk]:
        self._finish = choice.finish_reason or self._finish
        if choice.prompt_token_ids is not None:
            self._prompt_ids = len(choice.prompt_token_ids)
        delta = choice.delta or _Delta()
        thought = delta.reasoning_content or delta.reasoning or ""
        text = delta.content or choice.text or ""
        ids = choice.token_ids
        if thought or text:
            self._pieces += 1
            self._output_ids = None if ids is None or self._output_ids is None else self._output_ids + len(ids)
        elif ids and self._output_ids is not None:
            self._output_ids += len(ids)
        self._refuse_echo(text)
        tokens = len(ids) if ids is not None else int(bool(thought or text))
        if thought:
            yield Chunk(text=thought, tokens=tokens, counted=ids is not None and not text, channel="reasoning")
            tokens = 0
        if text or tokens:
            yield Chunk(text=text, tokens=tokens, counted=ids is not None)

    def _refuse_echo(self, text: str) -> None:
        """An answer that begins with the whole prompt is the server's echo: its first token would come before any was made."""
        if self._prompt and len(self._begun) < len(self._prompt):
            self._begun += text
            if self._begun.startswith(self._prompt):
                raise BackendError("the server repeats the prompt before its answer; switch its echo off")

    def _counts(self) -> Usage:
        """What was told, best source first; a number of chunks is never a number of tokens."""
        usage = self._usage or ServerUsage()
        timings, metrics = self._timings, self._metrics
        details = usage.prompt_tokens_details or _PromptDetails()
        told = usage.completion_tokens if usage.completion_tokens or not self._pieces else None
        counted = self._output_ids or timings.predicted_n
        cached = _first(details.cached_tokens, usage.prompt_cache_hit_tokens, timings.cache_n)
        return Usage(
            prompt_tokens=usage.prompt_tokens or self._prompt_ids or _prompt_of(timings),
            cached_tokens=cached,
            output_tokens=told if told is not None else counted,
            think_tokens=_first(
                (usage.completion_tokens_details or _OutputDetails()).reasoning_tokens, usage.reasoning_tokens or None
            ),
            source="engine" if told is None and counted else "usage",
            prefill_ms=_first(timings.prompt_ms, metrics.time_to_first_token_ms),
            decode_ms=_first(timings.predicted_ms, metrics.generation_time_ms),
        )


def _prompt_of(timings: _Timings) -> int | None:
    return None if timings.prompt_n is None else timings.prompt_n + (timings.cache_n or 0)


def _first(*values: Value | None) -> Value | None:
    return next((value for value in values if value is not None), None)


def _said(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
