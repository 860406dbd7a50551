"""llama.cpp through the low-level calls of llama-cpp-python: one context, one thread, many sequences in every step.

One cache is shared by all sequences (`kv_unified`, llama-server's default as well): `slots` times `context` cells, whatever the number of
sequences, so that ranking may give every continuation a sequence of its own without more memory. llama.cpp can number 256 sequences; a slot
each, one for the shared prefix and four continuations for every slot (at least 16) are asked for.

`python -m bench.backends.llama_cpp quantise SOURCE TARGET TYPE` makes a quantisation in a process of its own.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.backends import BackendError, Chunk, Ranking, RankRequest, Request
from bench.backends.batching import Batcher
from bench.backends.inflight import Sampler, Writing
from bench.backends.llama_log import Log, buffer_bytes, devices, flash_attention, offloaded_layers
from bench.backends.llama_native import Chain, Context, Greedy, Library, Model, physical_cores
from bench.backends.pairs import comparing
from bench.backends.streaming import THINK_END, TextStream, Thinking, opens_thinking
from bench.chat_template import ChatTemplate, TemplateFailure
from bench.config import ConfigError, LlamaCppSettings
from bench.models import weights_at
from results.records import EngineInfo, EngineState

DEFAULT_SLOTS = 8
CLOSE_THINKING = f"\n{THINK_END}\n\n"
_LOG = Log()
_CALLBACKS: list[Any] = []
"""ctypes callbacks live as long as the library may call them."""


class LlamaCppBackend:
    """Raises `BackendOutOfMemory` where memory is what is missing, else `BackendError` with llama.cpp's last words."""

    def __init__(self, settings: LlamaCppSettings) -> None:
        slots = settings.slots or DEFAULT_SLOTS
        self.max_concurrency = slots
        self._closed = False
        try:
            self._weights = weights_at(Path(settings.model_path))
        except ConfigError as error:
            raise BackendError(str(error)) from error
        self._settings = settings
        library = Library(_bindings(), _LOG)
        _LOG.lines.clear()
        self._model = Model(library, settings)
        self._decoder = Context(library, self._model, settings, slots)
        self._said = tuple(_LOG.lines)
        self._notes: list[str] = self._remarks()
        self._template = self._chat_template()
        self._batcher = Batcher(self._decoder, slots)

    def describe(self) -> EngineInfo:
        lines, weights = self._said, self._weights
        memory = buffer_bytes(lines)
        cache = memory.get("cache")
        return EngineInfo(
            engine="llama_cpp",
            engine_version=version("llama-cpp-python"),
            device=", ".join(devices(lines)) or "cpu",
            model=self._model.name,
            parameters=weights.parameters,
            quantisation=weights.label,
            bits_per_weight=weights.bits_per_weight,
            weight_bytes=weights.tensor_bytes,
            cache_bytes_per_token=cache / self._decoder.cells if cache else None,
            context=self._settings.context,
            max_concurrency=self.max_concurrency,
            weights_sha256=weights.sha256,
            tokenizer_sha256=weights.tokenizer_sha256,
            chat_template_sha256=weights.chat_template_sha256,
            memory=memory,
            settings=self._decoder.echo()
            | {"flash_attention": flash_attention(lines), "n_gpu_layers": offloaded_layers(lines) or 0},
            versions={"llama-cpp-python": version("llama-cpp-python"), "llama.cpp": self._model.system_info},
            notes=tuple(self._notes),
        )

    def state(self) -> EngineState | None:
        return EngineState(
            time_ns=time.monotonic_ns(),
            cache_tokens_used=self._batcher.used_cells,
            cache_tokens_total=self._decoder.cells,
        )

    def stream(self, request: Request) -> Iterator[Chunk]:
        return self._batcher.stream(self._writing(request))

    def rank(self, request: RankRequest) -> Ranking:
        self._must_be_open()
        return self._batcher.rank(comparing(self._model, request, self._settings.context))

    def close(self) -> None:
        """End the thread and free the memory; later requests fail."""
        self._closed = True
        self._batcher.close()
        self._decoder.close()
        self._model.close()

    def _must_be_open(self) -> None:
        if self._closed:
            raise BackendError("the engine was closed")

    def _writing(self, request: Request) -> Writing:
        self._must_be_open()
        wish = request.sampling
        exact = request.exact_prompt_tokens is not None
        text = "" if exact else self._render(request)
        prompt = (
            self._model.arbitrary(request.exact_prompt_tokens or 0, wish.seed) if exact else self._model.encode(text)
        )
        room = self._settings.context
        if not prompt or len(prompt) + wish.max_tokens > room:
            raise BackendError(
                f"a prompt of {len(prompt)} tokens and an answer of up to {wish.max_tokens} do not fit the context of {room}; "
                "raise `context` or lower `max_tokens`"
            )
        thinks = wish.think_budget is not None and not exact
        return Writing(
            prompt=prompt,
            max_tokens=wish.max_tokens,
            sampler=self._sampler(wish.temperature, wish.top_p, wish.seed, exact),
            text=TextStream(() if exact else wish.stop),
            thinking=Thinking(wish.think_budget or 0, opened=opens_thinking(text)) if thinks else None,
            close_thinking=self._model.tokens(CLOSE_THINKING) if thinks else (),
            ignore_end=exact,
        )

    def _sampler(self, temperature: float, top_p: float, seed: int, ignore_end: bool) -> Callable[[], Sampler]:
        """Made in the engine's thread, when the request gets its slot."""
        banned = self._model.end_tokens if ignore_end else ()
        if temperature <= 0:
            return lambda: Greedy(self._decoder, banned)
        return lambda: Chain(self._decoder, banned, temperature, top_p, seed)

    def _remarks(self) -> list[str]:
        """What a reader of the numbers must know of the file."""
        facts = self._weights.metadata
        if facts.get("general.architecture") == "deepseek2" and "deepseek2.attention.key_length_mla" not in facts:
            return [
                "the file was made before llama.cpp knew MLA: its cache is kept decompressed and takes many times the memory"
            ]
        return []

    def _chat_template(self) -> ChatTemplate | None:
        """The file's own; None where there is none or it cannot be compiled, then llama.cpp's."""
        source = self._weights.metadata.get("tokenizer.chat_template")
        if not isinstance(source, str):
            self._notes.append("the file has no chat template; turns are written as ChatML")
            return None
        try:
            return ChatTemplate(
                source, bos=self._model.text_of(self._model.bos), eos=self._model.text_of(self._model.eos)
            )
        except TemplateFailure as error:
            self._notes.append(f"{error}; llama.cpp's stand-in is used")
            return None

    def _render(self, request: Request) -> str:
        messages = [{"role": turn.role, "content": turn.text} for turn in request.turns]
        try:
            text = self._template.render(messages) if self._template else self._model.apply_template(messages)
        except TemplateFailure as error:
            raise BackendError(str(error)) from error
        opened = request.prefill.rstrip()
        if opened and text.rstrip().endswith(opened):
            return text  # newer templates of R1 open the reply themselves
        return text + request.prefill


def _bindings() -> Any:
    """The bindings, with the log taken over on first use."""
    import llama_cpp.llama_cpp as library

    if not _CALLBACKS:
        _CALLBACKS.append(library.llama_log_callback(_log))
        library.llama_log_set(_CALLBACKS[0], None)
        library.llama_backend_init()
    return library


def _log(level: int, text: bytes, _: object) -> None:
    _LOG.write(level, text.decode("utf-8", "replace"))


def quantise(source: Path, target: Path, kind: str) -> None:
    """Write `source` anew in another type; also from a file that is quantised already. Raises `BackendError`."""
    library = _bindings()
    params = library.llama_model_quantize_default_params()
    prefix = "LLAMA_FTYPE_ALL_" if kind == "F32" else "LLAMA_FTYPE_MOSTLY_"
    params.ftype = getattr(library, prefix + kind)
    params.allow_requantize = True
    params.nthread = physical_cores()
    if library.llama_model_quantize(os.fsencode(source), os.fsencode(target), params):
        raise BackendError(_LOG.last_words(1))


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["quantise", source, target, kind]:
            try:
                quantise(Path(source), Path(target), kind)
            except BackendError as error:
                print(error, file=sys.stderr)
                return 1
            return 0
        case _:
            print("usage: python -m bench.backends.llama_cpp quantise SOURCE TARGET TYPE", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
