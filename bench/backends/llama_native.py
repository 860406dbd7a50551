"""llama.cpp's model, context and samplers behind plain methods. The bindings are handed in, so that only one file imports them."""

import ctypes
import math
import os
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from bench.backends import BackendError, BackendOutOfMemory
from bench.backends.inflight import Piece
from bench.backends.llama_log import Log, lacks_memory
from bench.backends.streaming import THINK_END, THINK_START
from bench.chat_template import TemplateFailure
from bench.config import LlamaCppSettings

LARGEST_UBATCH = 512
LAST_LINES = 8
"""Of the log: what may tell why a call has just failed."""


class Library:
    """The bindings and what they have said."""

    def __init__(self, bindings: Any, log: Log) -> None:
        self.bindings, self.log = bindings, log

    def failure(self, what: str) -> BackendError | BackendOutOfMemory:
        """The error for what has just gone wrong, by llama.cpp's last words."""
        kind = BackendOutOfMemory if lacks_memory(tuple(self.log.lines)[-LAST_LINES:]) else BackendError
        return kind(f"{what}: {self.log.last_words()}")


class Model:
    """Weights and vocabulary."""

    def __init__(self, source: Library, settings: LlamaCppSettings) -> None:
        self._library = library = source.bindings
        params = library.llama_model_default_params()
        params.n_gpu_layers = settings.n_gpu_layers
        params.load_mode = (library.LLAMA_LOAD_MODE_MMAP if settings.mmap else 0) | (
            library.LLAMA_LOAD_MODE_MLOCK if settings.mlock else 0
        )
        handle = library.llama_model_load_from_file(os.fsencode(settings.model_path), params)
        if not handle:
            raise source.failure(f"{settings.model_path}: llama.cpp cannot load it")
        self.handle = handle
        self.vocabulary = vocabulary = library.llama_model_get_vocab(handle)
        self.size = int(library.llama_vocab_n_tokens(vocabulary))
        self.bos = int(library.llama_vocab_bos(vocabulary))
        self.eos = int(library.llama_vocab_eos(vocabulary))
        self._add_bos = bool(library.llama_vocab_get_add_bos(vocabulary)) and self.bos >= 0
        self.end_tokens = tuple(t for t in range(self.size) if library.llama_vocab_is_eog(vocabulary, t))
        self._ends = frozenset(self.end_tokens)
        self._pieces: dict[int, bytes] = {}
        self.encode_kept = lru_cache(maxsize=4)(self.encode)

    @property
    def name(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._library.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def system_info(self) -> str:
        return str(self._library.llama_print_system_info().decode().strip(" |"))

    @property
    def first_token(self) -> int:
        """Stands before a context that is empty."""
        return self.bos if self.bos >= 0 else max(self.eos, 0)

    def tokens(self, text: str) -> list[int]:
        """As the text stands; names of special tokens in it are those tokens, as with the tokenizers of transformers."""
        data = text.encode("utf-8", "replace")
        count = len(data) + 8
        while True:
            buffer = (ctypes.c_int32 * count)()
            made = self._library.llama_tokenize(self.vocabulary, data, len(data), buffer, count, False, True)
            if made >= 0:
                return list(buffer[:made])
            count = -made

    def encode(self, text: str) -> list[int]:
        """With the token that opens a text where the model wants one and the text has none."""
        tokens = self.tokens(text)
        return [self.bos, *tokens] if self._add_bos and tokens[:1] != [self.bos] else tokens

    def arbitrary(self, count: int, seed: int) -> list[int]:
        """Ordinary tokens drawn by the seed."""
        draw, tokens = random.Random(f"prompt:{seed}"), list[int]()
        while len(tokens) < count:
            token = draw.randrange(self.size)
            if not self.is_end(token) and not self._library.llama_vocab_is_control(self.vocabulary, token):
                tokens.append(token)
        return tokens

    def is_end(self, token: int) -> bool:
        return token in self._ends

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; control tokens are silent, but for the tags of thinking, which are text here."""
        known = self._pieces.get(token)
        if known is None:
            known = self._piece(token, special=False)
            if not known and (tag := self._piece(token, special=True)) in (THINK_START.encode(), THINK_END.encode()):
                known = tag
            self._pieces[token] = known
        return known

    def text_of(self, token: int) -> str:
        return self._piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def _piece(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            made = self._library.llama_token_to_piece(self.vocabulary, token, buffer, size, 0, special)
            if made >= 0:
                return buffer.raw[:made]
            size = -made

    def apply_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """One of the templates that llama.cpp knows by heart, recognised from the file's; ChatML where the file has none."""
        library = self._library
        pairs = [(m["role"].encode(), m["content"].encode("utf-8", "replace")) for m in messages]
        chat = (library.llama_chat_message * len(pairs))(*(library.llama_chat_message(r, c) for r, c in pairs))
        template = library.llama_model_chat_template(self.handle, None)
        size = 256 + 2 * sum(len(r) + len(c) for r, c in pairs)
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            made = library.llama_chat_apply_template(template, chat, len(pairs), True, buffer, size)
            if 0 <= made <= size:
                return buffer.raw[:made].decode("utf-8", "replace")
            size = made
        raise TemplateFailure("the chat template is none that llama.cpp knows")

    def close(self) -> None:
        self._library.llama_model_free(self.handle)


class Context:
    """The decoder: cache, threads and the arrays that one step is written into."""

    def __init__(self, source: Library, model: Model, settings: LlamaCppSettings, slots: int) -> None:
        import numpy

        self._numpy, self._source, self._model = numpy, source, model
        self.library = library = source.bindings
        trained = int(library.llama_model_n_ctx_train(model.handle))
        if settings.context > trained > 0:
            raise BackendError(
                f"`context` {settings.context} is longer than the {trained} tokens that the model was made for"
            )
        most = int(library.llama_max_parallel_sequences())
        if slots > most - 2:
            raise BackendError(f"`slots` {slots}: llama.cpp can keep {most - 2} apart at most")
        self._cache_type = settings.cache_type
        params = self._params(settings, slots, min(most, 1 + slots + max(16, 4 * slots)))
        handle = library.llama_init_from_model(model.handle, params)
        if not handle:
            raise source.failure("llama.cpp cannot make a context")
        self.handle = handle
        self._memory = library.llama_get_memory(handle)
        self.cells = int(library.llama_n_ctx(handle))
        self.batch = int(library.llama_n_batch(handle))
        self.sequences = int(library.llama_n_seq_max(handle))
        self.is_end, self.piece = model.is_end, model.piece
        self._scratch = numpy.empty(model.size, numpy.float32)
        self._make_batch()

    def _params(self, settings: LlamaCppSettings, slots: int, sequences: int) -> Any:
        library = self.library
        params = library.llama_context_default_params()
        params.n_ctx = settings.context * slots
        params.n_batch = max(settings.batch, slots)
        params.n_ubatch = min(params.n_batch, LARGEST_UBATCH)
        params.n_seq_max = sequences
        params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = settings.threads or physical_cores()
        params.kv_unified = True
        params.type_k = params.type_v = getattr(library, f"GGML_TYPE_{settings.cache_type.upper()}")
        if settings.flash_attention is not None:
            params.flash_attn_type = int(settings.flash_attention)
        return params

    def _make_batch(self) -> None:
        numpy, size = self._numpy, self.batch
        self._tokens = numpy.zeros(size, numpy.int32)
        self._positions = numpy.zeros(size, numpy.int32)
        self._sequences = numpy.zeros(size, numpy.int32)
        self._ones = numpy.ones(size, numpy.int32)
        self._wanted = numpy.zeros(size, numpy.int8)
        integers, bytes_ = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int8)
        begin = self._sequences.ctypes.data
        self._pointers = (integers * size)(*(ctypes.cast(begin + 4 * i, integers) for i in range(size)))
        self._batch = self.library.llama_batch(
            0,
            self._tokens.ctypes.data_as(integers),
            None,
            self._positions.ctypes.data_as(integers),
            self._ones.ctypes.data_as(integers),
            self._pointers,
            self._wanted.ctypes.data_as(bytes_),
        )

    def echo(self) -> dict[str, str | int | float | bool | None]:
        """Settings as the engine reports them; the cache's type is not told and stands as asked."""
        library, handle = self.library, self.handle
        return {
            "n_ctx": self.cells,
            "n_batch": self.batch,
            "n_ubatch": int(library.llama_n_ubatch(handle)),
            "n_seq_max": self.sequences,
            "n_threads": int(library.llama_n_threads(handle)),
            "n_threads_batch": int(library.llama_n_threads_batch(handle)),
            "cache_type": self._cache_type,
            "kv_unified": True,
        }

    def decode(self, pieces: Sequence[Piece]) -> None:
        at = 0
        for sequence, tokens, position, outputs in pieces:
            end = at + len(tokens)
            self._tokens[at:end] = tokens
            self._positions[at:end] = range(position, position + len(tokens))
            self._sequences[at:end] = sequence
            self._wanted[at:end] = 0
            self._wanted[end - outputs : end] = 1
            at = end
        self._batch.n_tokens = at
        status = self.library.llama_decode(self.handle, self._batch)
        match status:
            case 0:
                return
            case 1:
                raise BackendError("the cache has no room for this step")
            case -2:
                raise BackendOutOfMemory(f"llama.cpp: {self._source.log.last_words()}")
            case _:
                raise self._source.failure(f"llama_decode gave {status}")

    def logits(self, row: int) -> Any:
        """A view that the next step overwrites."""
        pointer = self.library.llama_get_logits_ith(self.handle, row)
        if not pointer:
            raise BackendError(f"llama.cpp has no logits of row {row}")
        return self._numpy.ctypeslib.as_array(pointer, (self._model.size,))

    def sound(self, row: int, token: int) -> int:
        """The token that was chosen, if there was something to choose from: a model whose output is NaN says the first token for ever."""
        if not math.isfinite(self.logits(row)[token]):
            raise BackendError("the model's output is no number (NaN or infinite): its weights are damaged or overflow")
        return token

    def logprobs(self, row: int, targets: Sequence[int]) -> list[float]:
        numpy, logits, scratch = self._numpy, self.logits(row), self._scratch
        top = float(logits.max())
        numpy.exp(numpy.subtract(logits, logits.max(), out=scratch), out=scratch)
        total = top + float(numpy.log(scratch.sum(dtype=numpy.float64)))
        return [float(logits[t]) - total for t in targets]

    def copy(self, source: int, target: int, length: int) -> None:
        self.library.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def forget(self, sequence: int) -> None:
        self.library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        self.library.llama_free(self.handle)


class Greedy:
    """The likeliest token, of those that are not banned; the first of equals."""

    def __init__(self, context: Context, banned: Sequence[int]) -> None:
        self._context, self._banned = context, list(banned)

    def pick(self, row: int) -> int:
        logits = self._context.logits(row)
        if self._banned:
            logits[self._banned] = -float("inf")
        return self._context.sound(row, int(logits.argmax()))

    def close(self) -> None:
        """Holds nothing."""


class Chain:
    """llama.cpp's own samplers: temperature, then top-p (the order of transformers and vLLM), then a draw by the request's seed."""

    def __init__(self, context: Context, banned: Sequence[int], temperature: float, top_p: float, seed: int) -> None:
        self._context, self._banned = context, list(banned)
        self._library = library = context.library
        self._chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        parts = [library.llama_sampler_init_temp(temperature)]
        if top_p < 1:
            parts.append(library.llama_sampler_init_top_p(top_p, 1))
        for part in (*parts, library.llama_sampler_init_dist(seed & 0xFFFFFFFF)):
            library.llama_sampler_chain_add(self._chain, part)

    def pick(self, row: int) -> int:
        if self._banned:
            self._context.logits(row)[self._banned] = -float("inf")
        return self._context.sound(row, int(self._library.llama_sampler_sample(self._chain, self._context.handle, row)))

    def close(self) -> None:
        self._library.llama_sampler_free(self._chain)


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads not counted where the machine tells."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))
