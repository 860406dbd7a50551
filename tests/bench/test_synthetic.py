import ctypes
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from bench import models
from bench.catalogue import Experts, Shape, by_family
from bench.config import ConfigError, Deployment, engine_settings
from bench.gguf import read_header
from bench.plan import with_weights
from bench.quantisation import BLOCKS, gguf_types
from bench.synthetic import SPREAD, Preset, expected_bytes, gguf_path, make_folder, make_gguf, model_config, preset_of
from bench.tensors import parameters, tensors
from bench.vocabulary import tokens_of

DENSE = {"layers": 3, "hidden": 512, "heads": 4, "kv_heads": 2, "head_size": 128, "intermediate": 768}
SMALL = {"vocabulary": 512, "context": 1024}
EXPERTS = Experts(count=8, active=2, shared=1, intermediate=256, dense_layers=1, groups=4, groups_used=2, scale=2.5)
LATENT: dict[str, Any] = {
    "layers": 3,
    "hidden": 512,
    "heads": 4,
    "kv_heads": 4,
    "intermediate": 768,
    "experts": EXPERTS,
}


def small(family: str, label: str) -> Preset:
    entry = by_family(family)
    assert entry.shape is not None
    changes: dict[str, Any] = SMALL | (LATENT if entry.shape.mla else DENSE)
    return Preset(entry=entry, shape=replace(entry.shape, **changes), label=label)


def deployment(model: str, backend: str = "llama_cpp", **values: Any) -> Deployment:
    return Deployment(name="d", backend=backend, model=model, **values)  # type: ignore[arg-type]


def test_a_file_has_the_tensors_types_and_bytes_of_the_true_model_at_that_label(tmp_path: Path):
    preset = small("r1-distill-qwen-7b", "Q4_K_M")
    header = read_header(make_gguf(preset, tmp_path))
    assert {t.name: t.type for t in header.tensors} == gguf_types(preset.shape, "Q4_K_M")
    assert {t.name: t.shape for t in header.tensors} == {t.name: t.dims for t in tensors(preset.shape)}
    assert header.parameters == parameters(preset.shape)
    assert header.tensor_bytes == expected_bytes(preset)


def test_the_same_seed_gives_the_same_file_and_it_is_written_only_once(tmp_path: Path):
    preset = small("r1-distill-llama-8b", "Q8_0")
    first, second = make_gguf(preset, tmp_path / "a"), make_gguf(preset, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    written = first.stat().st_mtime_ns
    assert make_gguf(preset, tmp_path / "a").stat().st_mtime_ns == written
    assert [p.name for p in (tmp_path / "a").iterdir() if not p.name.startswith(".")] == [first.name]
    other = replace(preset, seed=2)
    assert gguf_path(other, tmp_path) != gguf_path(preset, tmp_path)


def test_weights_have_the_usual_spread_in_every_type():
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    from bench.synthetic import SCALES, _pool

    for block_type in SCALES:
        blocks = _pool(block_type, np.random.default_rng(0))[:4000]
        assert blocks.shape[1] == BLOCKS[block_type][1]
        values = dequantize(blocks, GGMLQuantizationType[block_type])
        assert float(values.std()) == pytest.approx(SPREAD, rel=0.05), block_type
        assert abs(float(values.mean())) < 0.15 * SPREAD, block_type


@pytest.mark.parametrize(
    "family", ["r1-distill-qwen-7b", "r1-distill-llama-8b", "r1-0528-qwen3-8b", "deepseek-v3", "deepseek-v3.2"]
)
def test_every_architecture_loads_and_decodes_in_llama_cpp(family: str, tmp_path: Path):
    logits, cache_values = decode(make_gguf(small(family, "Q4_K_M"), tmp_path))
    assert len(logits) == 512
    assert all(math.isfinite(value) for value in logits)
    assert max(logits) - min(logits) > 0.5
    assert cache_values


@pytest.mark.parametrize("label", ["F16", "Q8_0", "Q4_0", "Q5_K_M", "Q3_K_M", "Q2_K", "IQ4_XS", "IQ2_XXS", "IQ1_S"])
def test_every_kind_of_block_gives_finite_answers(label: str, tmp_path: Path):
    logits, _ = decode(make_gguf(small("r1-distill-qwen-7b", label), tmp_path))
    assert all(math.isfinite(value) for value in logits)


def decode(path: Path) -> tuple[list[float], bool]:
    """Logits after four tokens, straight through llama.cpp; and whether the byte tokenizer splits text into bytes."""
    lib = pytest.importorskip("llama_cpp")
    quiet = lib.llama_log_callback(lambda level, text, data: None)
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    parameters_of_model = lib.llama_model_default_params()
    parameters_of_model.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(str(path).encode(), parameters_of_model)
    assert model
    wanted = lib.llama_context_default_params()
    wanted.n_ctx, wanted.n_batch, wanted.n_threads = 128, 32, 1
    context = lib.llama_init_from_model(model, wanted)
    batch = lib.llama_batch_init(32, 0, 1)
    for i, token in enumerate((7, 300, 5, 9)):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, i == 3
        batch.seq_id[i][0] = 0
    batch.n_tokens = 4
    assert lib.llama_decode(context, batch) == 0
    vocabulary = lib.llama_model_get_vocab(model)
    size = lib.llama_vocab_n_tokens(vocabulary)
    row = lib.llama_get_logits_ith(context, -1)
    logits = [float(row[i]) for i in range(size)]
    pieces = (lib.llama_token * 16)()
    text = "café".encode()
    count = lib.llama_tokenize(vocabulary, text, len(text), pieces, 16, False, False)
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    lib.llama_model_free(model)
    return logits, list(pieces[:count]) == list(text)


def test_the_types_are_those_that_llama_cpp_itself_would_choose(tmp_path: Path):
    lib = pytest.importorskip("llama_cpp")
    quiet = lib.llama_log_callback(lambda level, text, data: None)
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    labels = ("Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
    for family, changes in (
        (
            "r1-distill-qwen-7b",
            {"layers": 9, "hidden": 256, "heads": 4, "kv_heads": 1, "head_size": 64, "intermediate": 512},
        ),
        (
            "smollm2-135m",
            {"layers": 9, "hidden": 192, "heads": 3, "kv_heads": 1, "head_size": 64, "intermediate": 512},
        ),
        ("deepseek-v3", {**LATENT, "layers": 9, "hidden": 256, "experts": replace(EXPERTS, count=12)}),
    ):
        entry = by_family(family)
        shape = replace(entry.shape, **(SMALL | changes))
        assert isinstance(shape, Shape)
        source = make_gguf(Preset(entry=entry, shape=shape, label="F16"), tmp_path)
        for label in labels:
            wanted = lib.llama_model_quantize_default_params()
            wanted.ftype, wanted.nthread = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{label}"), 1
            made = tmp_path / "made.gguf"
            assert lib.llama_model_quantize(str(source).encode(), str(made).encode(), ctypes.byref(wanted)) == 0
            assert {t.name: t.type for t in read_header(made).tensors} == gguf_types(shape, label), (family, label)


def test_a_vocabulary_has_the_true_size_without_a_token_twice():
    tokens = tokens_of(1000)
    assert len(set(tokens)) == 1000
    assert tokens[ord("A")] == "A"
    assert tokens[-1] == "<|endoftext|>"


def test_a_folder_has_what_transformers_and_vllm_need_and_no_weights(tmp_path: Path):
    entry = by_family("deepseek-v3")
    assert entry.shape is not None
    path = make_folder(Preset(entry=entry, shape=replace(entry.shape, vocabulary=512), label="fp8"), tmp_path)
    assert sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((path / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert (config["kv_lora_rank"], config["topk_method"], config["scoring_func"]) == (512, "noaux_tc", "sigmoid")
    assert config["quantization_config"]["weight_block_size"] == [128, 128]
    assert len(json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]) == 512


def test_a_bf16_variant_has_no_quantisation_in_its_configuration():
    entry = by_family("r1-distill-qwen-7b")
    assert entry.shape is not None
    config = model_config(Preset(entry=entry, shape=entry.shape, label="bf16"))
    assert "quantization_config" not in config
    assert (config["num_hidden_layers"], config["head_dim"], config["torch_dtype"]) == (28, 128, "bfloat16")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "synthetic:nonsense"}, "unknown model family `nonsense`"),
        ({"model": "synthetic:deepseek-v4-pro"}, "the shape of deepseek-v4-pro is not in the catalogue"),
        (
            {"model": "synthetic:r1-distill-qwen-7b", "quantise": "Q9"},
            "synthetic weights cannot be made as `Q9` for llama_cpp",
        ),
        ({"model": "synthetic:r1-distill-qwen-7b", "quantise": "IQ1_M"}, "cannot be made as `IQ1_M`"),
        ({"model": "synthetic:r1-distill-qwen-7b", "backend": "vllm", "quantise": "Q4_K_M"}, "for vllm"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_sentence(values: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        preset_of(deployment(**values))


def test_planning_makes_nothing_and_knows_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = models.locate(deployment("synthetic:r1-distill-qwen-7b", quantise="Q4_K_M"), tmp_path)
    assert found is not None
    assert (found.made, found.label, found.parameters) == (False, "Q4_K_M", 7_615_616_512)
    assert found.bits_per_weight == pytest.approx(4.913, abs=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_a_synthetic_model_runs_with_dummy_weights_in_vllm_and_a_configuration_in_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for backend in ("vllm", "transformers"):
        asked = deployment("synthetic:r1-distill-qwen-1.5b", backend, layers=2)
        weights = models.resolve(asked, tmp_path)
        assert weights is not None
        settings = with_weights(engine_settings(asked), weights, 1)
        assert (Path(settings.model_path) / "config.json").exists()  # type: ignore[union-attr]
        if backend == "vllm":
            assert settings.load_format == "dummy"  # type: ignore[union-attr]
        else:
            assert settings.synthetic_config["num_hidden_layers"] == 2  # type: ignore[union-attr, index]


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path: Path):
    entry = by_family("deepseek-r1")
    assert entry.shape is not None
    huge = Preset(entry=entry, shape=replace(entry.shape, layers=6100), label="F16")
    with pytest.raises(ConfigError, match=r"GiB are needed for .* GiB are free"):
        make_gguf(huge, tmp_path)
    assert not any(p.suffix in (".gguf", ".part") for p in tmp_path.iterdir())
