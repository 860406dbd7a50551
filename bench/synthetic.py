"""Models with the true shape and random weights, to measure a machine before one byte of real weights is there.

Speed and memory depend on the shapes and types of tensors, hardly on their values, so a synthetic model of a variant rehearses it:
the same file size, the same reads for each token, the same cache. Its answers mean nothing and are never scored. What differs: text
never ends by itself, and a mixture of experts is routed at random (evenly, the worst case for batching).
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from msgspec import Struct

from bench.cache import made_once
from bench.catalogue import SYNTHETIC, Entry, Shape, by_family
from bench.config import ConfigError, Deployment
from bench.quantisation import BLOCKS, FORMATS, MIXES, gguf_types, normal_label, tensor_bytes
from bench.tensors import Tensor, shortened, tensors
from bench.vocabulary import CHAT_TEMPLATE, gguf_vocabulary, tokenizer_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED = 1
SPREAD = 0.02
"""Standard deviation of the weights, as models are initialised with."""
POOL_BYTES = 8 * 2**20
"""Random blocks are made once for each type and written again and again from different offsets: memory stays small, and the disk is
the limit."""
FORMAT_VERSION = 1
"""Raised when the same preset would be written otherwise; part of the file's name."""


class Scale(Struct, frozen=True):
    """Where a block's 16-bit scale stands and how large it must be for a spread of 1; the same for the offset of types that have one,
    which then centres the values."""

    at: int
    size: float
    offset_at: int | None = None
    offset_ratio: float = 0.0


SCALES = {
    "Q4_0": Scale(0, 0.2169), "Q4_1": Scale(0, 0.2169, 2, -7.5), "Q5_0": Scale(0, 0.1083), "Q5_1": Scale(0, 0.1083, 2, -15.5),
    "Q8_0": Scale(0, 0.01353), "IQ4_NL": Scale(0, 0.0149),
    "Q2_K": Scale(80, 0.0722, 82, 1.5), "Q3_K": Scale(108, 0.02306), "Q4_K": Scale(0, 0.00387, 2, 7.5), "Q5_K": Scale(0, 0.0019, 2, 15.5),
    "Q6_K": Scale(208, 0.000732),
    "IQ1_S": Scale(0, 0.1388), "IQ2_XXS": Scale(0, 0.01874), "IQ2_XS": Scale(0, 0.0179), "IQ2_S": Scale(0, 0.01772),
    "IQ3_XXS": Scale(0, 0.00702), "IQ3_S": Scale(0, 0.00713), "IQ4_XS": Scale(0, 0.0008),
}  # fmt: skip
"""Sizes measured by decoding random blocks with the gguf package; rough is enough."""

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "deepseek_v3": "deepseek2",
    "deepseek_v32": "deepseek32",
}
"""llama.cpp's names."""


class Preset(Struct, frozen=True, kw_only=True):
    """A synthetic model: which variant, how many of its layers, at which precision."""

    entry: Entry
    shape: Shape
    label: str
    seed: int = SEED

    @property
    def name(self) -> str:
        whole = self.entry.shape and self.entry.shape.layers == self.shape.layers
        return f"{self.entry.family}-{'' if whole else f'{self.shape.layers}-layers-'}{self.label}-seed{self.seed}-v{FORMAT_VERSION}"


def preset_of(deployment: Deployment) -> Preset:
    """Raises `ConfigError` for an unknown variant, one whose shape is not known, and a precision that the engine has not."""
    entry = by_family(deployment.model.removeprefix(SYNTHETIC))
    if entry.shape is None:
        raise ConfigError(
            f"`{deployment.model}`: the shape of {entry.family} is not in the catalogue, so it cannot be made; use another variant"
        )
    gguf = deployment.backend == "llama_cpp"
    wanted = deployment.quantise or ("F16" if gguf else entry.native)
    label = normal_label(wanted, gguf)
    if label is None or (gguf and label not in makeable()):
        raise ConfigError(
            f"deployment `{deployment.name}`: synthetic weights cannot be made as `{wanted}` for {deployment.backend}; "
            f"use one of {', '.join(makeable() if gguf else FORMATS)}"
        )
    return Preset(entry=entry, shape=shortened(entry.shape, deployment.layers), label=label)


def makeable() -> tuple[str, ...]:
    """GGUF labels whose blocks can be made."""
    return tuple(label for label, main in MIXES.items() if main in SCALES or main in ("F32", "F16", "BF16"))


def expected_bytes(preset: Preset) -> int:
    """Of the file's tensors."""
    types = gguf_types(preset.shape, preset.label)
    return sum(tensor_bytes(tensor, types[tensor.name]) for tensor in tensors(preset.shape))


def gguf_path(preset: Preset, folder: Path) -> Path:
    return folder / f"synthetic-{preset.name}.gguf"


def make_gguf(preset: Preset, folder: Path) -> Path:
    """The file, made now unless it is there already. Raises `ConfigError` when it cannot be written."""
    path = gguf_path(preset, folder)
    try:
        with made_once(path) as part:
            if part is not None:
                _check_disk(preset, folder)
                _write_gguf(preset, part)
    except OSError as error:
        needed = expected_bytes(preset) / 2**30
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); {needed:.1f} GiB are needed there") from error
    return path


def _check_disk(preset: Preset, folder: Path) -> None:
    needed, free = expected_bytes(preset) + 2**26, shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"{folder}: {needed / 2**30:.1f} GiB are needed for `{preset.name}`, {free / 2**30:.1f} GiB are free; make room"
        )


def _write_gguf(preset: Preset, path: Path) -> None:
    import numpy as np

    try:
        from gguf import GGMLQuantizationType, GGUFWriter
    except ImportError as error:
        raise ConfigError("synthetic weights need the package `gguf`; pip install -e '.[llama-cpp]'") from error
    table = tensors(preset.shape)
    types = gguf_types(preset.shape, preset.label)
    writer = GGUFWriter(path, ARCHITECTURES[preset.shape.architecture])
    for key, value in _metadata(preset).items():
        _add(writer, key, value)
    for key, strings in gguf_vocabulary(preset.shape.vocabulary).items():
        writer.add_array(key, strings)
    for tensor in table:
        block_type = types[tensor.name]
        elements, size = BLOCKS[block_type]
        row_bytes = tensor.dims[0] // elements * size
        writer.add_tensor_info(
            tensor.name,
            [*reversed(tensor.dims[1:]), row_bytes] if size != 4 and elements > 1 else [*reversed(tensor.dims)],
            np.dtype(np.uint8) if elements > 1 else np.dtype(np.float16),
            tensor_bytes(tensor, block_type),
            raw_dtype=GGMLQuantizationType[block_type],
        )
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    out = writer.fout[0]
    _pad(out, writer.data_alignment)
    generator = np.random.default_rng(preset.seed)
    pools: dict[str, NDArray[np.uint8]] = {}
    for tensor in table:
        block_type = types[tensor.name]
        for part in _data(tensor, block_type, generator, pools):
            out.write(part)
        _pad(out, writer.data_alignment)
    writer.close()


def _pad(out: BinaryIO, alignment: int) -> None:
    out.write(b"\0" * (-out.tell() % alignment))


def _data(
    tensor: Tensor, block_type: str, generator: "np.random.Generator", pools: "dict[str, NDArray[np.uint8]]"
) -> Iterator[bytes | memoryview]:
    """A tensor's bytes in parts: norms are one, biases zero, everything else is random."""
    import numpy as np

    if tensor.name.endswith("_norm.weight"):
        yield np.ones(tensor.elements, np.float32).tobytes()
        return
    if len(tensor.dims) < 2:
        yield np.zeros(tensor.elements, np.float32).tobytes()
        return
    if block_type not in pools:
        pools[block_type] = _pool(block_type, generator)
    pool = pools[block_type]
    left = tensor_bytes(tensor, block_type)
    while left > 0:
        start = int(generator.integers(0, len(pool) // 2))
        part = pool[start:].reshape(-1)[:left]
        yield part.data
        left -= part.nbytes


def _pool(block_type: str, generator: "np.random.Generator") -> "NDArray[np.uint8]":
    """Random blocks of a type, one in each row, with scales that give the weights the usual spread."""
    import numpy as np

    _, size = BLOCKS[block_type]
    count = POOL_BYTES // size
    match block_type:
        case "F32":
            return generator.normal(0, SPREAD, count).astype(np.float32).view(np.uint8).reshape(count, size)
        case "F16":
            return generator.normal(0, SPREAD, count).astype(np.float16).view(np.uint8).reshape(count, size)
        case "BF16":
            upper = generator.normal(0, SPREAD, count).astype(np.float32).view(np.uint32) >> np.uint32(16)
            return upper.astype(np.uint16).view(np.uint8).reshape(count, size)
    blocks = generator.integers(0, 256, (count, size), dtype=np.uint8)
    scale = SCALES[block_type]
    blocks[:, scale.at : scale.at + 2] = _half(scale.size * SPREAD)
    if scale.offset_at is not None:
        blocks[:, scale.offset_at : scale.offset_at + 2] = _half(scale.size * SPREAD * scale.offset_ratio)
    return blocks


def _half(value: float) -> "NDArray[np.uint8]":
    import numpy as np

    return np.array([value], np.float16).view(np.uint8)


def _add(writer: Any, key: str, value: str | int | float | bool) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)


def _metadata(preset: Preset) -> dict[str, str | int | float | bool]:
    shape = preset.shape
    values: dict[str, str | int | float | bool] = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.layer_norm_rms_epsilon": shape.norm_eps,
        "attention.key_length": shape.head_size,
        "attention.value_length": shape.head_size,
        "rope.dimension_count": shape.head_size,
        "rope.freq_base": shape.rope_theta,
    }
    values |= _latent_metadata(shape) | _expert_metadata(shape)
    architecture = ARCHITECTURES[shape.architecture]
    return {
        "general.name": f"synthetic {preset.name}",
        "general.description": "random weights made by Bedside; its answers mean nothing",
        "general.quantization_version": 2,
        **{f"{architecture}.{key}": value for key, value in values.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": shape.vocabulary - 1,
        "tokenizer.ggml.bos_token_id": shape.vocabulary - 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _latent_metadata(shape: Shape) -> dict[str, str | int | float | bool]:
    """llama.cpp runs MLA as attention with one KV head of the latent size; the sizes of a true head have keys of their own."""
    mla = shape.mla
    if mla is None:
        return {}
    values: dict[str, str | int | float | bool] = {
        "attention.head_count_kv": 1,
        "attention.key_length": mla.kv_rank + mla.rope,
        "attention.value_length": mla.kv_rank,
        "attention.key_length_mla": mla.nope + mla.rope,
        "attention.value_length_mla": mla.value,
        "attention.q_lora_rank": mla.q_rank,
        "attention.kv_lora_rank": mla.kv_rank,
        "rope.dimension_count": mla.rope,
    }
    if shape.indexer:
        values |= {
            "attention.indexer.head_count": shape.indexer.heads,
            "attention.indexer.key_length": shape.indexer.head_size,
            "attention.indexer.top_k": shape.indexer.top_k,
        }
    return values


def _expert_metadata(shape: Shape) -> dict[str, str | int | float | bool]:
    experts = shape.experts
    if experts is None:
        return {}
    return {
        "leading_dense_block_count": experts.dense_layers,
        "expert_feed_forward_length": experts.intermediate,
        "expert_count": experts.count,
        "expert_used_count": experts.active,
        "expert_shared_count": experts.shared,
        "expert_weights_scale": experts.scale,
        "expert_weights_norm": True,
        "expert_gating_func": 2,
        "expert_group_count": experts.groups,
        "expert_group_used_count": experts.groups_used,
    }


CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM",
}


def model_config(preset: Preset) -> dict[str, Any]:
    """What `config.json` says: the shape, and for fp8 the quantisation that DeepSeek publishes."""
    shape = preset.shape
    config: dict[str, Any] = {
        "architectures": [CLASSES[shape.architecture]],
        "model_type": shape.architecture,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tie_embeddings,
        "hidden_act": "silu",
        "initializer_range": SPREAD,
        "bos_token_id": shape.vocabulary - 1,
        "eos_token_id": shape.vocabulary - 1,
        "torch_dtype": "float32" if preset.label == "fp32" else "bfloat16",
    }
    if shape.mla is None:
        config["head_dim"] = shape.head_size
    config |= _latent_config(shape) | _expert_config(shape)
    if preset.label == "fp8" and preset.entry.native == "fp8":
        config["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
        }
    return config


def _latent_config(shape: Shape) -> dict[str, Any]:
    mla, indexer = shape.mla, shape.indexer
    if mla is None:
        return {}
    config = {
        "q_lora_rank": mla.q_rank,
        "kv_lora_rank": mla.kv_rank,
        "qk_nope_head_dim": mla.nope,
        "qk_rope_head_dim": mla.rope,
        "v_head_dim": mla.value,
    }
    if indexer:
        config |= {"index_n_heads": indexer.heads, "index_head_dim": indexer.head_size, "index_topk": indexer.top_k}
    return config


def _expert_config(shape: Shape) -> dict[str, Any]:
    experts = shape.experts
    if experts is None:
        return {}
    return {
        "n_routed_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "n_shared_experts": experts.shared,
        "moe_intermediate_size": experts.intermediate,
        "first_k_dense_replace": experts.dense_layers,
        "n_group": experts.groups,
        "topk_group": experts.groups_used,
        "routed_scaling_factor": experts.scale,
        "norm_topk_prob": True,
        "moe_layer_freq": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    }


def folder_path(preset: Preset, folder: Path) -> Path:
    return folder / f"synthetic-{preset.name}"


def make_folder(preset: Preset, folder: Path) -> Path:
    """A model folder without weights: configuration and tokenizer, for `--load-format dummy` and for random initialisation."""
    path = folder_path(preset, folder)
    files = {
        "tokenizer.json": tokenizer_json(preset.shape.vocabulary),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "bos_token": "<|endoftext|>",
            "model_max_length": preset.shape.context,
            "chat_template": CHAT_TEMPLATE,
        },
        "config.json": model_config(preset),
    }
    for name, value in files.items():
        with made_once(path / name) as part:
            if part is not None:
                part.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path
