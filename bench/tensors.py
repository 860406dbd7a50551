"""The tensors of a model, from its shape alone, as llama.cpp names and stores them.

Counting their elements gives the parameters, giving each a type gives the size of a file, and a synthetic file is written from
the same table. Worked example: DeepSeek-V3 has 671.03 B elements, of which 36.63 B are read for one token.
"""

from collections.abc import Iterator
from math import prod

from msgspec import Struct, structs

from bench.catalogue import Experts, Mla, Shape


class Tensor(Struct, frozen=True):
    """`dims` with the contiguous dimension first, as in GGUF. A tensor of all experts has three."""

    name: str
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.dims)

    @property
    def routed(self) -> bool:
        """Of the routed experts: only the chosen ones are read."""
        return "_exps." in self.name


def shortened(shape: Shape, layers: int | None) -> Shape:
    """The same model with only the first `layers` layers; None: all. At least the last of them keeps its experts, where there are any."""
    if layers is None or layers >= shape.layers:
        return shape
    experts = shape.experts
    if experts:
        experts = structs.replace(experts, dense_layers=min(experts.dense_layers, layers - 1))
    return structs.replace(shape, layers=layers, experts=experts)


def tensors(shape: Shape) -> tuple[Tensor, ...]:
    """All tensors in the order of a converted file: embeddings, layer by layer, output."""
    blocks = [tensor for layer in range(shape.layers) for tensor in _block(shape, layer)]
    output = () if shape.tie_embeddings else (Tensor("output.weight", (shape.hidden, shape.vocabulary)),)
    embeddings = Tensor("token_embd.weight", (shape.hidden, shape.vocabulary))
    return (embeddings, *blocks, Tensor("output_norm.weight", (shape.hidden,)), *output)


def _block(shape: Shape, layer: int) -> Iterator[Tensor]:
    for name, dims in (*_attention(shape), *_feed_forward(shape, layer)):
        yield Tensor(f"blk.{layer}.{name}", dims)


def _attention(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = shape.hidden
    yield "attn_norm.weight", (hidden,)
    if shape.mla:
        yield from _latent_attention(shape, shape.mla)
        return
    q, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    for name, rows in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
        yield f"{name}.weight", (hidden, rows)
        if shape.qkv_bias:
            yield f"{name}.bias", (rows,)
    if shape.qk_norm:
        yield "attn_q_norm.weight", (shape.head_size,)
        yield "attn_k_norm.weight", (shape.head_size,)
    yield "attn_output.weight", (q, hidden)


def _latent_attention(shape: Shape, mla: Mla) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, heads = shape.hidden, shape.heads
    yield "attn_q_a.weight", (hidden, mla.q_rank)
    yield "attn_q_a_norm.weight", (mla.q_rank,)
    yield "attn_q_b.weight", (mla.q_rank, heads * (mla.nope + mla.rope))
    yield "attn_kv_a_mqa.weight", (hidden, mla.kv_rank + mla.rope)
    yield "attn_kv_a_norm.weight", (mla.kv_rank,)
    yield "attn_k_b.weight", (mla.nope, mla.kv_rank, heads)
    yield "attn_v_b.weight", (mla.kv_rank, mla.value, heads)
    yield "attn_output.weight", (heads * mla.value, hidden)
    if shape.indexer:
        yield "indexer.attn_k.weight", (hidden, shape.indexer.head_size)
        yield "indexer.attn_q_b.weight", (mla.q_rank, shape.indexer.heads * shape.indexer.head_size)
        yield "indexer.k_norm.weight", (shape.indexer.head_size,)
        yield "indexer.k_norm.bias", (shape.indexer.head_size,)
        yield "indexer.proj.weight", (hidden, shape.indexer.heads)


def _feed_forward(shape: Shape, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, experts = shape.hidden, shape.experts
    yield "ffn_norm.weight", (hidden,)
    if experts is None or layer < experts.dense_layers:
        yield from _gated("", hidden, shape.intermediate)
        return
    yield "ffn_gate_inp.weight", (hidden, experts.count)
    yield "exp_probs_b.bias", (experts.count,)
    yield from _routed(hidden, experts)
    yield from _gated("_shexp", hidden, experts.intermediate * experts.shared)


def _gated(suffix: str, hidden: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"ffn_gate{suffix}.weight", (hidden, width)
    yield f"ffn_up{suffix}.weight", (hidden, width)
    yield f"ffn_down{suffix}.weight", (width, hidden)


def _routed(hidden: int, experts: Experts) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "ffn_gate_exps.weight", (hidden, experts.intermediate, experts.count)
    yield "ffn_up_exps.weight", (hidden, experts.intermediate, experts.count)
    yield "ffn_down_exps.weight", (experts.intermediate, hidden, experts.count)


def parameters(shape: Shape) -> int:
    """All of them, embeddings and output included; the extra layer for multi-token prediction is not."""
    return sum(tensor.elements for tensor in tensors(shape))


def _share(shape: Shape, tensor: Tensor, batch: float) -> float:
    return distinct_experts(shape.experts, batch) / shape.experts.count if tensor.routed and shape.experts else 1.0


def distinct_experts(experts: Experts, batch: float) -> float:
    """Expected number of different experts that `batch` tokens choose in a layer, U = E (1 - (1 - k/E)^B), if the routing is uniform."""
    missed: float = (1.0 - experts.active / experts.count) ** batch
    return experts.count * (1.0 - missed)


def streamed_share(shape: Shape, tensor: Tensor, batch: float) -> float:
    """The part of a tensor that one decode step of `batch` sequences reads. The input embedding is a look-up of rows: none."""
    if tensor.name == "token_embd.weight" and not shape.tie_embeddings:
        return 0.0
    return _share(shape, tensor, batch)


def streamed_parameters(shape: Shape, batch: float = 1) -> float:
    """Elements that one decode step of `batch` sequences reads."""
    return sum(t.elements * streamed_share(shape, t, batch) for t in tensors(shape))
