"""The architecture of DeepSeek-V3 and R1 gives the same log-likelihoods in transformers and in vLLM.

Needs `BEDSIDE_TRANSFORMERS_PYTHON` and `BEDSIDE_VLLM_PYTHON` (make test-engines).
"""

import os

import pytest
from agreement import compare, run, table
from in_worker import Worked, work
from make_deepseek import deepseek_folder
from make_smollm2 import transformers_python

from bench.backends import RankRequest, Request, Sampling
from bench.backends.vllm import VllmBackend
from bench.config import Load, TransformersSettings, VllmSettings
from bench.job import EXIT_BAD_MODEL, JobStep

pytestmark = pytest.mark.engines

SAME = 1e-3
TEXT = "the heart and liver of a patient with fever, cough and 38.5 degrees; given paracetamol 500 mg twice daily"
WORDS = TEXT.split()
REQUESTS = tuple(
    RankRequest(
        id=str(i),
        context=" ".join(WORDS[j % len(WORDS)] for j in range(i, 3 * i + 2)),
        continuations=(" yes", " no", " aspirin 100 mg", " see a doctor at once, please"),
    )
    for i in range(12)
)
EXACT = Request(id="exact", turns=(), sampling=Sampling(max_tokens=8, seed=1), exact_prompt_tokens=40)


@pytest.fixture(scope="module")
def worked() -> Worked:
    settings = TransformersSettings(model_path=str(deepseek_folder()), dtype="float32", context=512, slots=4)
    steps = (
        JobStep(name="rank", load=Load(concurrency=1), seed=0, ranks=REQUESTS),
        JobStep(name="speed", load=Load(concurrency=1), seed=0, requests=(EXACT,)),
    )
    return work(transformers_python(), settings, steps)


def test_transformers_loads_latent_attention_and_experts(worked: Worked) -> None:
    info = worked.engine
    latent, positions, layers, float32 = 512, 64, 3, 4
    assert info.cache_bytes_per_token == layers * (latent + positions) * float32
    assert worked.answers("speed")["exact"].output_tokens == 8


def test_experts_that_would_stay_as_they_are_are_no_int8() -> None:
    settings = TransformersSettings(
        model_path=str(deepseek_folder()), dtype="float32", quantise_on_load="int8", context=64
    )
    done = work(transformers_python(), settings)
    assert done.code == EXIT_BAD_MODEL
    assert 'quantise_on_load = "int8" leaves' in done.last_line
    assert "experts" in done.last_line


def test_log_likelihoods_tell_the_continuations_apart(worked: Worked) -> None:
    """Else agreement would mean nothing."""
    values = [c.logprob / c.tokens for continuations in worked.ranks("rank").values() for c in continuations]
    assert max(values) - min(values) > 1.0


def test_vllm_gives_the_same_log_likelihoods(worked: Worked) -> None:
    python = os.environ.get("BEDSIDE_VLLM_PYTHON")
    if not python:
        pytest.skip("BEDSIDE_VLLM_PYTHON is not set (make test-engines sets it)")
    settings = VllmSettings(
        model_path=str(deepseek_folder()),
        python=python,
        dtype="float32",
        max_model_len=512,
        enforce_eager=True,
        cpu_kv_gib=1,
        slots=4,
    )
    backend = VllmBackend(settings)
    try:
        ranks = run(backend, REQUESTS)
    finally:
        backend.close()
    found = compare(worked.ranks("rank"), ranks, REQUESTS)
    print(table({"transformers / vLLM, DeepSeek-V3, float32": found}))
    assert (found.plain, found.normalised, found.other_counts) == (0, 0, 0)
    assert found.largest < SAME
