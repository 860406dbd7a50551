"""A transformers model as a decoder for the batcher: a cache of cells, attention over it, and the choice of the next token.

The model runs with one row that holds the new tokens of all sequences (see torch_batching). Two of its own parts are replaced by public
means: its cache object, and its attention function (the library's attention interface). What the model gives its cache is what is kept:
keys and values of every head, or for MLA the compressed latents where the library caches those. torch is handed in.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.backends import BackendError, BackendOutOfMemory
from bench.backends.hf_tokens import Tokens
from bench.backends.inflight import Piece, Sampler
from bench.backends.torch_batching import CellTable, Group, Step, lay_out

NO_MEMORY = re.compile(
    r"not enough memory|cannot allocate memory|out of memory|DefaultCPUAllocator|ALLOC_FAILED", re.IGNORECASE
)
LIKELY = 1024
"""Tokens among which the nucleus is looked for first; sorting a whole vocabulary costs as much as a layer."""
Tensor = Any


@contextmanager
def memory_watched() -> Iterator[None]:
    """Whatever way torch or the system says that memory is missing, it becomes `BackendOutOfMemory`."""
    try:
        yield
    except MemoryError as error:
        raise BackendOutOfMemory(str(error) or "the host's memory ran out") from error
    except (RuntimeError, OSError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if NO_MEMORY.search(str(error)):
            raise BackendOutOfMemory(str(error).splitlines()[0]) from error
        raise


class PackedAttention:
    """Keys and values of every layer, and attention of one step. Stands where the model expects its cache."""

    def __init__(self, torch: Any, *, cells: int, context: int) -> None:
        self._torch, self._cells, self._context = torch, cells, context
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._step: Step
        self._placed: dict[Any, Tensor] = {}

    @property
    def bytes_per_cell(self) -> int:
        return sum(t.element_size() * t[0].numel() for pair in self.layers.values() for t in pair)

    def begin(self, step: Step) -> None:
        self._step, self._placed = step, {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep what is new and give back what the step reads; called by the model's attention layers."""
        pools = self.layers.get(layer_idx) or self._make_pools(layer_idx, keys, values)
        write, read = self._at("write", keys.device), self._at("read", keys.device)
        found = []
        for pool, states in zip(pools, (keys, values), strict=True):
            pool.index_copy_(0, write, states[0].transpose(0, 1))
            found.append(pool.index_select(0, read).transpose(0, 1)[None])
        return found[0], found[1]

    def _make_pools(self, layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros, because what padding reads must be finite."""
        keys, values = (s.new_zeros((self._cells, s.shape[1], s.shape[3])) for s in states)
        self.layers[layer] = keys, values
        return keys, values

    def attend(
        self,
        module: Any,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        sliding_window: int | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """The library's attention interface. Raises `BackendError` for what it would silently do wrong."""
        strange = [name for name in ("softcap", "s_aux", "position_bias", "indices") if options.get(name) is not None]
        if attention_mask is not None or strange or (sliding_window is not None and sliding_window < self._context):
            what = ", ".join(strange) or ("a mask of its own" if sliding_window is None else "a sliding window")
            raise BackendError(f"{type(module).__name__} attends with {what}, which the transformers backend cannot do")
        parts, token, cell = [], 0, 0
        for index, group in enumerate(self._step.groups):
            tokens, cells = group.pieces * group.new, group.pieces * group.length
            one = self._attend_group(
                index,
                group,
                _apart(query, token, tokens, group.pieces),
                _apart(keys, cell, cells, group.pieces),
                _apart(values, cell, cells, group.pieces),
                scaling,
            )
            parts.append(one.transpose(1, 2).flatten(0, 1))
            token, cell = token + tokens, cell + cells
        return self._torch.cat(parts)[None], None

    def _attend_group(self, index: int, group: Group, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """[pieces, heads, new, size]. Query heads that share a key head become further rows of it: nothing is copied for them."""
        attend = self._torch.nn.functional.scaled_dot_product_attention
        heads, share = k.shape[1], q.shape[1] // k.shape[1]
        if group.causal and group.new > 1:
            return attend(q, k, v, is_causal=True, scale=scaling, enable_gqa=share > 1)
        rows = q.unflatten(1, (heads, share)).flatten(2, 3)
        out = attend(rows, k, v, attn_mask=self._mask(index, group, share, q.device), scale=scaling)
        return out.unflatten(2, (share, group.new)).flatten(1, 2)

    def _mask(self, index: int, group: Group, share: int, device: Any) -> Tensor | None:
        if group.mask is None:
            return None
        key = (index, share, device)
        if key not in self._placed:
            mask = self._torch.from_numpy(group.mask).to(device)[:, None, None]
            self._placed[key] = mask.expand(-1, -1, share, -1, -1).flatten(2, 3)
        return self._placed[key]

    def _at(self, name: str, device: Any) -> Tensor:
        key = (name, device)
        if key not in self._placed:
            self._placed[key] = self._torch.from_numpy(getattr(self._step, name)).to(device)
        return self._placed[key]


def _apart(states: Tensor, begin: int, count: int, pieces: int) -> Tensor:
    """[1, heads, tokens, size] -> [pieces, heads, tokens of each, size] of one group."""
    return states[0, :, begin : begin + count].unflatten(1, (pieces, -1)).transpose(0, 1)


class TorchDecoder:
    """`cells` tokens of cache for `sequences`; a step evaluates `batch` tokens at most."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        attention: PackedAttention,
        tokens: Tokens,
        *,
        cells: int,
        batch: int,
        sequences: int,
    ) -> None:
        self._torch, self._model, self._attention = torch, model, attention
        self.cells, self.batch, self.sequences = cells, batch, sequences
        self.is_end, self.piece = tokens.is_end, tokens.piece
        self._table = CellTable(cells)
        named = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"  # renamed in transformers 5.24
        self._device = model.get_input_embeddings().weight.device
        self.gpus = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
        self._output_of: dict[int, int] = {}
        self._logits: Tensor = None
        self._normaliser: Tensor = None
        self._best: list[int] | None = None

    def decode(self, pieces: Sequence[Piece]) -> None:
        torch = self._torch
        with memory_watched(), torch.inference_mode():
            step = lay_out(pieces, self._table)
            self._attention.begin(step)
            row = torch.from_numpy(step.tokens).to(self._device)[None]
            positions = torch.from_numpy(step.positions).to(self._device)[None]
            logits = self._model(
                input_ids=row,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=torch.from_numpy(step.outputs),
                **{self._cache_name: self._attention},
            ).logits[0]
            self._logits = logits.float()
            for gpu in self.gpus:
                torch.cuda.synchronize(gpu)
        self._output_of, self._normaliser, self._best = step.output_of, None, None

    def logprobs(self, row: int, targets: Sequence[int]) -> list[float]:
        with self._torch.inference_mode():
            if self._normaliser is None:
                self._normaliser = self._logits.logsumexp(-1)
            at = self._output_of[row]
            found: list[float] = (self._logits[at, list(targets)] - self._normaliser[at]).tolist()
            return found

    def best(self, row: int) -> int:
        """The most likely token; found for all rows at once."""
        if self._best is None:
            self._best = self._logits.argmax(-1).tolist()
        return self._best[self._output_of[row]]

    def logits(self, row: int) -> Tensor:
        return self._logits[self._output_of[row]]

    def copy(self, source: int, target: int, length: int) -> None:
        self._table.share(source, target, length)

    def forget(self, sequence: int) -> None:
        self._table.forget(sequence)

    def sampler(self, temperature: float, top_p: float, seed: int, banned: Sequence[int]) -> Sampler:
        """`banned` tokens are never chosen."""
        if temperature <= 0:
            return Greedy(self, banned)
        return Drawn(self._torch, self, banned, temperature=temperature, top_p=top_p, seed=seed)


class Greedy:
    def __init__(self, decoder: TorchDecoder, banned: Sequence[int]) -> None:
        self._decoder, self._banned = decoder, list(banned)

    def pick(self, row: int) -> int:
        best = self._decoder.best(row)
        if best not in self._banned:
            return best
        return int(_without(self._decoder.logits(row), self._banned).argmax())

    def close(self) -> None: ...


class Drawn:
    """Temperature, then the nucleus: the fewest most likely tokens whose probabilities reach `top_p` (Holtzman et al. 2020)."""

    def __init__(
        self, torch: Any, decoder: TorchDecoder, banned: Sequence[int], *, temperature: float, top_p: float, seed: int
    ) -> None:
        self._torch, self._decoder, self._banned = torch, decoder, list(banned)
        self._temperature, self._top_p, self._seed = temperature, top_p, seed
        self._generator: Any = None

    def pick(self, row: int) -> int:
        torch = self._torch
        logits = _without(self._decoder.logits(row), self._banned)
        if self._generator is None:
            self._generator = torch.Generator(logits.device).manual_seed(self._seed)
        with torch.inference_mode():
            chances = torch.softmax(logits / self._temperature, -1)
            if self._top_p >= 1.0:
                return int(torch.multinomial(chances, 1, generator=self._generator))
            likely, tokens = chances.topk(min(LIKELY, len(chances)))
            if float(likely.sum()) < self._top_p:
                likely, tokens = chances.sort(descending=True)
            kept = likely * (likely.cumsum(0) - likely < self._top_p)
            return int(tokens[torch.multinomial(kept, 1, generator=self._generator)])

    def close(self) -> None: ...


def _without(logits: Tensor, banned: list[int]) -> Tensor:
    if not banned:
        return logits
    allowed = logits.clone()
    allowed[banned] = float("-inf")
    return allowed
