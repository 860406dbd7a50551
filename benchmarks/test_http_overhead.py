"""What the HTTP path adds at load 8: the time between first and last token as we stamp it, against the server's own decode time.

Against a paced server always (its pace is far above a CPU's), against vLLM where `BEDSIDE_VLLM_PYTHON` and
`BEDSIDE_TRANSFORMERS_PYTHON` name environments. Bound: 3 %.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.backends import Backend, Request, Sampling, Turn
from bench.backends.openai_server import OpenAIServerBackend
from bench.backends.vllm import VllmBackend
from bench.config import Load, OpenAIServerSettings, VllmSettings
from bench.drive import TokenCount, drive
from bench.job import JobStep
from results.records import Answered

LOAD = 8
TOKENS = 200
INTERVAL_MS = 10.0
MOST_OVERHEAD = 0.03
HERE = Path(__file__).parent


@pytest.fixture
def paced() -> Iterator[OpenAIServerBackend]:
    command = [sys.executable, str(HERE / "paced_server.py"), str(TOKENS), str(INTERVAL_MS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        backend = OpenAIServerBackend(OpenAIServerSettings(base_url=f"http://127.0.0.1:{port}/v1", slots=LOAD))
        yield backend
        backend.close()
        server.terminate()


@pytest.fixture
def vllm() -> Iterator[VllmBackend]:
    sys.path.insert(0, str(HERE.parent / "tests" / "engines"))
    from make_smollm2 import smollm2_folder

    python = os.environ.get("BEDSIDE_VLLM_PYTHON")
    if not python:
        pytest.skip("BEDSIDE_VLLM_PYTHON is not set")
    settings = VllmSettings(
        model_path=str(smollm2_folder()),
        python=python,
        dtype="float32",
        max_model_len=1024,
        enforce_eager=True,
        cpu_kv_gib=1,
        slots=LOAD,
        extra_args=("--enable-per-request-metrics",),
    )
    backend = VllmBackend(settings)
    yield backend
    backend.close()


def answers(backend: Backend, tokens: int) -> list[Answered]:
    turns, sampling = (Turn("user", "Tell me about the heart."),), Sampling(max_tokens=tokens)
    requests = tuple(Request(id=f"q{i}", turns=turns, sampling=sampling) for i in range(2 * LOAD))
    step = JobStep(name="s", load=Load(concurrency=LOAD), seed=0, requests=requests)
    return [record for record in drive(backend, step, TokenCount()) if isinstance(record, Answered)]


def overhead(backend: Backend, benchmark: Any, tokens: int) -> float:
    """Share by which our decode times exceed the server's, summed over the answers; printed and kept with the benchmark."""
    answers(backend, min(tokens, 8))
    cpu_s, wall_s = time.process_time(), time.monotonic()
    done = benchmark.pedantic(answers, args=(backend, tokens), rounds=1, iterations=1)
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    assert [a.error for a in done] == [None] * len(done)
    ours_ms = sum((a.last_ns - a.first_ns) / 1e6 for a in done)
    servers_ms = sum(a.engine_decode_ms for a in done)
    counted = sum(a.output_tokens for a in done)
    share = ours_ms / servers_ms - 1
    benchmark.extra_info |= {"ours_ms": ours_ms, "servers_ms": servers_ms, "overhead": share, "tokens": counted}
    print(
        f"\nload {LOAD}: {counted} tokens in {wall_s:.2f} s; decode time {ours_ms:.1f} ms here, {servers_ms:.1f} ms at the server: "
        f"overhead {100 * share:+.2f} %; client CPU {1e6 * cpu_s / counted:.0f} us a token"
    )
    return share


def test_overhead_against_a_paced_server(paced: OpenAIServerBackend, benchmark: Any) -> None:
    assert abs(overhead(paced, benchmark, TOKENS)) < MOST_OVERHEAD


def test_overhead_against_vllm(vllm: VllmBackend, benchmark: Any) -> None:
    assert abs(overhead(vllm, benchmark, 64)) < MOST_OVERHEAD
