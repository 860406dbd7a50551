"""What is read from llama.cpp's log, on lines as it writes them."""

import pytest

from bench.backends.llama_log import (
    Log,
    buffer_bytes,
    devices,
    flash_attention,
    lacks_memory,
    offloaded_layers,
)

CPU = """\
load_tensors:   CPU_Mapped model buffer size =   256.63 MiB
llama_context: flash_attn            = auto
llama_context:        CPU  output buffer size =    12.00 MiB
llama_kv_cache:        CPU KV buffer size =    90.00 MiB
resolve_fused_ops: Flash Attention enabled
sched_reserve:        CPU compute buffer size =    98.25 MiB
""".splitlines()
GPU = """\
llama_model_load_from_file_impl: using device CUDA0 (NVIDIA H100 80GB HBM3) (0000:00:04.0) - 80000 MiB free
load_tensors: offloaded 29/29 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   292.36 MiB
load_tensors:        CUDA0 model buffer size =  4168.09 MiB
llama_kv_cache:      CUDA0 KV buffer size =   112.00 MiB
llama_context:  CUDA_Host  output buffer size =     0.58 MiB
llama_context:      CUDA0 compute buffer size =   304.00 MiB
llama_context:  CUDA_Host compute buffer size =    15.01 MiB
llama_context: flash_attn            = disabled
""".splitlines()


def mib(number: float) -> int:
    return round(number * (1 << 20))


def test_buffers_on_a_cpu() -> None:
    assert buffer_bytes(CPU) == {
        "weights": mib(256.63), "output": mib(12), "cache": mib(90), "compute": mib(98.25),
    }  # fmt: skip
    assert (flash_attention(CPU), offloaded_layers(CPU), devices(CPU)) == (True, None, [])


def test_buffers_on_a_gpu_are_told_in_all_and_by_device() -> None:
    memory = buffer_bytes(GPU)
    assert memory["weights"] == mib(292.36) + mib(4168.09)
    assert memory["weights:CUDA0"] == mib(4168.09)
    assert memory["cache"] == memory["cache:CUDA0"] == mib(112)
    assert flash_attention(GPU) is False
    assert offloaded_layers(GPU) == 29
    assert devices(GPU) == ["CUDA0 NVIDIA H100 80GB HBM3"]


def test_what_the_log_does_not_say_is_unknown() -> None:
    assert (buffer_bytes([]), flash_attention([]), offloaded_layers([])) == ({}, None, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4168.09 MiB on device 0: cudaMalloc failed: out of memory", True),
        ("alloc_tensor_range: failed to allocate CPU buffer of size 99999999999", True),
        ("llama_model_load: error loading model: mmap failed: Cannot allocate memory", True),
        ("llama_model_load: error loading model: std::bad_alloc", True),
        ("llama_model_load: error loading model: unknown model architecture: 'x'", False),
    ],
)  # fmt: skip
def test_missing_memory_is_told_from_other_mistakes(line: str, expected: bool) -> None:
    assert lacks_memory([line]) is expected


def test_debug_lines_are_dropped_and_pieces_joined(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    for level, text in [(1, "debug"), (5, " more\n"), (2, "one "), (5, "two\n"), (4, "bad\n..."), (5, ".\n")]:
        log.write(level, text)
    assert list(log.lines) == ["one two", "bad"]
    assert log.last_words(1) == "bad"
    assert capsys.readouterr().err == "one two\nbad\n....\n"
    assert Log().last_words() == "llama.cpp gave no reason"
