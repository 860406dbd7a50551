"""How fast a model could decode or read at best: bytes over bandwidth, operations over peak. Ceilings, never expectations.

A decode step of B sequences reads the streamed weights once and the cache of each sequence, and does two operations with each active
parameter for each token; whichever of memory and arithmetic takes longer bounds it. A measured value above the ceiling means a wrong
byte count, a cache hit or speculative decoding.

Worked example: Qwen-7B at 16 bit streams 14.14 GB, so 3.35 TB/s give at most 237 tokens/s at batch 1.
"""

from msgspec import Struct

from bench.catalogue import Shape
from bench.tensors import streamed_parameters

CACHE_BITS = {
    "f32": 32.0, "float32": 32.0, "f16": 16.0, "bf16": 16.0, "bfloat16": 16.0, "float16": 16.0, "auto": 16.0,
    "q8_0": 8.5, "q4_0": 4.5, "fp8": 8.0, "fp8_e4m3": 8.0, "fp8_e5m2": 8.0, "fp8_ds_mla": 656 * 8 / 576, "int8": 8.0,
}  # fmt: skip
"""Bits of one cached value by the engines' names. fp8_ds_mla: vLLM's 656 bytes for the 576 values of a token and layer."""


class Machine(Struct, frozen=True, kw_only=True):
    """What the devices together offer to one replica. None: unknown, and no ceiling follows from it."""

    bytes_per_s: float | None
    flops: float | None


def cache_bytes_per_token(shape: Shape, bits: float = 16.0, decompressed: bool = False) -> float:
    """Of all layers. GQA: keys and values of the KV heads. MLA: the latent vector and the shared rotary part, or, `decompressed`, the keys
    and values of every head (what runtimes without MLA support store: 4.77 MiB for DeepSeek-V3 instead of 68.6 KiB).

    Sparse attention adds the indexer's key in 8 bit with one float32 scale, whatever `bits` says, as vLLM stores it.
    """
    if shape.mla is None:
        per_layer = 2 * shape.kv_heads * shape.head_size * bits / 8
    elif decompressed:
        per_layer = shape.heads * (shape.mla.nope + shape.mla.rope + shape.mla.value) * bits / 8
    else:
        per_layer = (shape.mla.kv_rank + shape.mla.rope) * bits / 8
    indexer = shape.indexer.head_size + 4 if shape.indexer else 0
    return shape.layers * (per_layer + indexer)


def flops_per_token(shape: Shape, context: float) -> float:
    """Of one token that attends to `context` earlier ones: two for each active weight, and attention (MLA in its absorbed form)."""
    return 2 * streamed_parameters(shape) + attention_flops(shape, context)


def attention_flops(shape: Shape, context: float) -> float:
    """Scores and weighted sum of all layers. With an indexer only the chosen tokens are attended to, but all are scored."""
    indexer = shape.indexer
    attended = min(context, indexer.top_k) if indexer else context
    if shape.mla:
        attention = 2 * shape.layers * shape.heads * attended * (2 * shape.mla.kv_rank + shape.mla.rope)
    else:
        attention = 4 * shape.layers * shape.heads * shape.head_size * attended
    scoring = 2 * shape.layers * indexer.heads * indexer.head_size * context if indexer else 0
    return attention + scoring


def decode_ceiling(machine: Machine, step_bytes: float, flops: float, batch: float) -> float | None:
    """Tokens per second of all sequences together; `step_bytes` and `flops` (of one token) for one step of `batch` sequences."""
    if machine.bytes_per_s is None:
        return None
    seconds = step_bytes / machine.bytes_per_s
    if machine.flops is not None:
        seconds = max(seconds, batch * flops / machine.flops)
    return batch / seconds
