"""The shape of a model as its own file tells it: GGUF metadata, or the scalars of a config.json.

It is preferred to the catalogue's where a file is there.
"""

from collections.abc import Mapping
from typing import Any, get_args

from bench.catalogue import Architecture, Experts, Mla, Shape
from bench.gguf import Value

GGUF_ARCHITECTURES: dict[str, Architecture] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "deepseek2": "deepseek_v3",
    "deepseek32": "deepseek_v32",
}


def shape_in(metadata: Mapping[str, Value], fallback: Shape | None) -> Shape | None:
    """None when the file does not tell enough, or its architecture is not one of ours; then the catalogue's shape serves.

    `fallback` gives what files leave out: the vocabulary's size, whether the output shares the embedding.
    """
    name = metadata.get("general.architecture")
    if isinstance(name, str):
        return _from_gguf(metadata, name, fallback)
    return _from_config(metadata, fallback)


def stores_latent_cache(metadata: Mapping[str, Value]) -> bool:
    """False for a DeepSeek GGUF made before llama.cpp knew MLA: its cache holds every head's keys and values."""
    name = metadata.get("general.architecture")
    return not (isinstance(name, str) and name.startswith("deepseek")) or f"{name}.attention.key_length_mla" in metadata


def _number(metadata: Mapping[str, Value], key: str) -> int | None:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _from_gguf(metadata: Mapping[str, Value], name: str, fallback: Shape | None) -> Shape | None:
    architecture = GGUF_ARCHITECTURES.get(name)
    if architecture is None or (architecture.startswith("deepseek") and fallback is not None):
        return fallback
    keys = {
        "layers": "block_count",
        "hidden": "embedding_length",
        "intermediate": "feed_forward_length",
        "context": "context_length",
        "heads": "attention.head_count",
    }
    found = {field: _number(metadata, f"{name}.{key}") for field, key in keys.items()}
    vocabulary = _number(metadata, f"{name}.vocab_size") or (fallback.vocabulary if fallback else None)
    known: dict[str, Any] = {field: value for field, value in found.items() if value is not None}
    if vocabulary is None or len(known) < len(found):
        return fallback
    return Shape(
        architecture=architecture,
        vocabulary=vocabulary,
        kv_heads=_number(metadata, f"{name}.attention.head_count_kv") or known["heads"],
        head_size=_number(metadata, f"{name}.attention.key_length") or known["hidden"] // known["heads"],
        tie_embeddings=fallback.tie_embeddings if fallback else False,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        mla=_mla(metadata, name),
        experts=_experts(metadata, name),
        source="the file's metadata",
        verified=True,
        **known,
    )


def _mla(metadata: Mapping[str, Value], name: str) -> Mla | None:
    """The ranks; None where one is missing."""
    q, kv = (_number(metadata, f"{name}.attention.{key}") for key in ("q_lora_rank", "kv_lora_rank"))
    rope, head, value = (
        _number(metadata, f"{name}.{key}")
        for key in ("rope.dimension_count", "attention.key_length_mla", "attention.value_length_mla")
    )
    if not (q and kv and rope and head and value):
        return None
    return Mla(q_rank=q, kv_rank=kv, nope=head - rope, rope=rope, value=value)


def _experts(metadata: Mapping[str, Value], name: str) -> Experts | None:
    count, active, width = (
        _number(metadata, f"{name}.{key}")
        for key in ("expert_count", "expert_used_count", "expert_feed_forward_length")
    )
    if not (count and active and width):
        return None
    return Experts(
        count=count,
        active=active,
        shared=_number(metadata, f"{name}.expert_shared_count") or 0,
        intermediate=width,
        dense_layers=_number(metadata, f"{name}.leading_dense_block_count") or 0,
    )


def _from_config(metadata: Mapping[str, Value], fallback: Shape | None) -> Shape | None:
    architecture = next((a for a in get_args(Architecture) if a == metadata.get("model_type")), None)
    if architecture is None or architecture.startswith("deepseek"):
        return fallback
    keys = {
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "intermediate": "intermediate_size",
        "vocabulary": "vocab_size",
        "context": "max_position_embeddings",
        "heads": "num_attention_heads",
    }
    found = {field: _number(metadata, key) for field, key in keys.items()}
    known: dict[str, Any] = {field: value for field, value in found.items() if value is not None}
    if len(known) < len(found):
        return fallback
    return Shape(
        architecture=architecture,
        kv_heads=_number(metadata, "num_key_value_heads") or known["heads"],
        head_size=_number(metadata, "head_dim") or known["hidden"] // known["heads"],
        tie_embeddings=metadata.get("tie_word_embeddings") is True,
        qkv_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        source="config.json of the folder",
        verified=True,
        **known,
    )
