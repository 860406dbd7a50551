"""How many bytes a tensor takes in which format: the block types of GGUF, llama.cpp's mixes of them, and the formats of the other engines.

A GGUF label such as `Q4_K_M` is a mix: most tensors get Q4_K, some get more bits by their role and layer, and rows that are no
multiple of a block's 256 elements fall back to a type with blocks of 32. The rules are those of `llama_tensor_get_type` in llama.cpp's
`src/llama-quant.cpp` (read 2026-11-22), without an importance matrix except for the labels that cannot be made without one.
Worked example: Llama-3.1-8B at Q4_K_M comes out at 4.89 bits per weight, as published.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from bench.catalogue import Shape
from bench.gguf import TYPES
from bench.tensors import Tensor, tensors

BLOCKS = {name: (elements, size) for name, elements, size in TYPES.values()}
"""Elements and bytes of a block of each GGUF type."""

FALLBACK = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "TQ1_0": "Q4_0", "TQ2_0": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL",
    "IQ3_XXS": "IQ4_NL", "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL",
}  # fmt: skip
"""For rows that are no multiple of 256."""

MIXES = {
    "F32": "F32", "F16": "F16", "BF16": "BF16",
    "Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q5_0": "Q5_0", "Q5_1": "Q5_1", "Q8_0": "Q8_0", "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS",
    "Q2_K": "Q2_K", "Q2_K_S": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K", "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K", "Q6_K": "Q6_K",
    "IQ1_S": "IQ1_S", "IQ1_M": "IQ1_M", "IQ2_XXS": "IQ2_XXS", "IQ2_XS": "IQ2_XS", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS", "IQ3_XS": "IQ3_S", "IQ3_S": "IQ3_S", "IQ3_M": "IQ3_S", "TQ1_0": "TQ1_0", "TQ2_0": "TQ2_0",
}  # fmt: skip
"""Type that most tensors of a GGUF label get."""

BELOW_THREE_BITS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")


class Format(Struct, frozen=True):
    """A format of safetensors or of quantising on load: bits of a weight of a linear layer with its scales, and of everything else."""

    linear_bits: float
    other_bits: float
    head: bool = False
    """The output layer is quantised too."""


FORMATS = {
    "fp32": Format(32, 32),
    "bf16": Format(16, 16),
    "fp16": Format(16, 16),
    "fp8": Format(8 + 32 / (128 * 128), 16),
    "fp4+fp8": Format(4.25, 16),
    "int8": Format(8 + 16 / 4096, 16, head=True),
    "int4": Format(4 + 32 / 128, 16, head=True),
    "awq": Format(4 + (16 + 4) / 128, 16),
    "gptq": Format(4 + (16 + 4) / 128, 16),
    "bnb_8bit": Format(8 + 32 / 4096, 16),
    "bnb_4bit": Format(4 + 0.127, 16),
}
"""fp8: one float32 scale for a block of 128 x 128, as DeepSeek publishes it. int8: torchao, a scale for each row. int4: torchao, a
scale and a zero in 16 bit for 128 weights. awq, gptq: groups of 128. bnb_4bit: double quantisation (QLoRA, arXiv 2305.14314)."""

ALIASES = {
    "float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "awq_marlin": "awq", "gptq_marlin": "gptq",
    "bitsandbytes": "bnb_4bit", "w8a8": "int8", "ascend": "int8", "compressed-tensors": "fp8",
}  # fmt: skip


def normal_label(label: str, gguf: bool | None = None) -> str | None:
    """The spelling of a GGUF mix or of another format that is known here (`gguf` says which is meant; None: either); None when unknown."""
    if gguf is not False and label.upper() in MIXES:
        return label.upper()
    lower = ALIASES.get(label.lower(), label.lower())
    return lower if gguf is not True and lower in FORMATS else None


def tensor_bytes(tensor: Tensor, block_type: str) -> int:
    elements, size = BLOCKS[block_type]
    return tensor.elements // elements * size


def gguf_types(shape: Shape, label: str) -> dict[str, str]:
    """The GGUF type that each tensor of a model gets in a file of this label."""
    table = tensors(shape)
    rules = _Rules(shape, label, table)
    return {tensor.name: rules.type_of(tensor) for tensor in sorted(table, key=_file_order)}


def stored_bytes(shape: Shape, label: str) -> dict[str, float]:
    """Bytes of each tensor, in a GGUF mix or another format. Raises `KeyError` for a label that `normal_label` does not know."""
    if label in MIXES:
        types = gguf_types(shape, label)
        return {tensor.name: tensor_bytes(tensor, types[tensor.name]) for tensor in tensors(shape)}
    chosen = FORMATS[label]
    return {tensor.name: tensor.elements * _bits(tensor, chosen) / 8 for tensor in tensors(shape)}


def _bits(tensor: Tensor, chosen: Format) -> float:
    if len(tensor.dims) < 2 or tensor.name == "token_embd.weight" or "ffn_gate_inp" in tensor.name:
        return max(16.0, chosen.other_bits)
    if tensor.name == "output.weight" and not chosen.head:
        return chosen.other_bits
    return chosen.linear_bits


def bits_per_weight(shape: Shape, label: str) -> float:
    """Of the whole file: 8 x bytes of all tensors / elements of all tensors."""
    return 8 * sum(stored_bytes(shape, label).values()) / sum(tensor.elements for tensor in tensors(shape))


def _file_order(tensor: Tensor) -> tuple[int, str]:
    """The order in which llama.cpp goes through a file's tensors: those outside the layers first, then layer by layer, by name."""
    layer = int(tensor.name.split(".")[1]) if tensor.name.startswith("blk.") else -1
    return layer, tensor.name


Role = Literal["output", "embedding", "v", "k", "q", "attention_output", "down", "gate", "up", "other"]
PARTS: tuple[tuple[str, Role], ...] = (
    ("attn_v.weight", "v"), ("attn_k.weight", "k"), ("attn_q.weight", "q"), ("attn_output.weight", "attention_output"),
    ("ffn_up", "up"), ("ffn_gate", "gate"), ("ffn_down", "down"),
)  # fmt: skip


def _role(name: str) -> Role:
    if name == "output.weight":
        return "output"
    if name == "token_embd.weight":
        return "embedding"
    return next((role for part, role in PARTS if part in name), "other")


def _kept(tensor: Tensor) -> bool:
    """Vectors, norms and the router stay in 32 bit."""
    return len(tensor.dims) < 2 or "ffn_gate_inp" in tensor.name or "_norm.weight" in tensor.name


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


class _Rules:
    """llama.cpp's choice of a type for each tensor; counts tensors of a role as it does, so they must come in file order."""

    def __init__(self, shape: Shape, label: str, table: Sequence[Tensor]) -> None:
        self._label = label
        self._default = MIXES[label]
        self._tied = shape.tie_embeddings
        self._experts = shape.experts.count if shape.experts else 0
        self._layers = shape.layers
        self._gqa = shape.heads if shape.mla else shape.heads // shape.kv_heads
        self._is_70b = shape.layers == 80 and shape.kv_heads < shape.heads
        self._v_total = sum("attn_v.weight" in tensor.name for tensor in table)
        self._v_seen = 0
        self._down_seen = 0

    def type_of(self, tensor: Tensor) -> str:
        if _kept(tensor):
            return "F32"
        if self._default in ("F32", "F16", "BF16"):
            return self._default
        chosen = self._chosen(tensor)
        if tensor.dims[0] % BLOCKS[chosen][0]:
            chosen = FALLBACK.get(chosen, "F16")
            if tensor.dims[0] % BLOCKS[chosen][0]:
                chosen = "F16"
        return chosen

    def _chosen(self, tensor: Tensor) -> str:
        role = _role(tensor.name)
        if role == "output" or (role == "embedding" and self._tied):
            return self._output(tensor)
        if role == "embedding":
            return self._embedding()
        if self._label in BELOW_THREE_BITS:
            return self._below_three_bits(role)
        match role:
            case "v":
                return self._value()
            case "k" | "q":
                return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self._label, self._default)
            case "down":
                return self._down(tensor)
            case "attention_output":
                return self._attention_output()
            case "gate" | "up":
                return self._gate(tensor)
            case _:
                return self._default

    def _output(self, tensor: Tensor) -> str:
        if tensor.dims[0] % BLOCKS[self._default][0]:
            return "Q8_0"
        if self._label in (*BELOW_THREE_BITS, "IQ3_XXS"):
            return "Q5_K"
        return "Q8_0" if self._default == "Q8_0" else "Q6_K"

    def _embedding(self) -> str:
        special = {
            "IQ2_XXS": "Q2_K", "IQ2_XS": "Q2_K", "IQ1_S": "Q2_K", "IQ1_M": "Q2_K",
            "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S", "IQ3_XXS": "IQ3_S", "TQ1_0": "Q4_K", "TQ2_0": "Q4_K",
        }  # fmt: skip
        return special.get(self._label, self._default)

    def _below_three_bits(self, role: Role) -> str:
        richer = "IQ3_S" if self._label in ("IQ2_S", "IQ2_M") else "Q2_K"
        match role:
            case "v":
                return "Q4_K" if self._gqa >= 4 or self._experts >= 4 else richer
            case "down":
                self._down_seen += 1
                return richer if self._down_seen - 1 < self._layers // 8 else self._default
            case "attention_output" if self._label in ("IQ1_S", "IQ1_M"):
                return "IQ2_XXS"
            case "attention_output" if self._label in ("IQ2_S", "IQ2_M"):
                return "IQ3_S"
            case _:
                return self._default

    def _value(self) -> str:
        seen, self._v_seen = self._v_seen, self._v_seen + 1
        chosen = self._value_by_label(seen)
        return "Q5_K" if self._is_70b and chosen in ("Q3_K", "Q4_K") else chosen

    def _value_by_label(self, seen: int) -> str:
        grouped = self._gqa >= 4
        match self._label:
            case "Q2_K":
                return "Q4_K" if grouped else "Q3_K"
            case "Q2_K_S" | "IQ3_XS" | "IQ3_S" if grouped:
                return "Q4_K"
            case "IQ3_XXS" if grouped:
                return "Q4_K"
            case "IQ3_M":
                return "Q4_K"
            case "Q3_K_M":
                return "Q5_K" if seen < 2 else "Q4_K"
            case "Q3_K_L":
                return "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if grouped:
                return "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _more_bits(seen, self._v_total):
                return "Q6_K"
            case "Q4_K_S" if seen < 4:
                return "Q5_K"
            case _:
                return self._default

    def _layer(self, tensor: Tensor) -> int:
        return int(tensor.name.split(".")[1])

    def _down(self, tensor: Tensor) -> str:
        layer, layers = self._layer(tensor), self._layers
        early = layer < layers // 8
        match self._label:
            case "Q2_K":
                return "Q3_K"
            case "Q2_K_S" if early:
                return "Q4_K"
            case "Q3_K_M":
                return "Q5_K" if layer < layers // 16 else "Q4_K"
            case "IQ3_M" if early:
                return "Q4_K"
            case "Q3_K_L":
                return "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _more_bits(layer, layers):
                return "Q6_K"
            case "IQ4_NL" | "IQ4_XS" | "Q4_K_S" if early:
                return "Q5_K"
            case _:
                return self._default

    def _attention_output(self) -> str:
        special = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
        return special.get(self._label, self._default)

    def _gate(self, tensor: Tensor) -> str:
        middle = self._layers // 8 <= self._layer(tensor) < 7 * self._layers // 8
        return "IQ3_XXS" if self._label == "IQ3_XS" and middle else self._default
