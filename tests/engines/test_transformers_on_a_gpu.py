"""transformers on an NVIDIA GPU: the same log-likelihoods as on the processor, every quantisation on loading, memory, the lack of it.

    python -m pytest -m gpu tests/engines/test_transformers_on_a_gpu.py

Needs torch, transformers and accelerate in this interpreter, and nothing from a network: the models are small and random. A quantisation
whose library or card is not there is skipped. About three minutes.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from agreement import Comparison, Ranks, compare, table
from in_worker import Worked, work
from make_deepseek import CONFIG, VOCABULARY, add_tokenizer, make

from bench.backends import RankRequest, Request, Sampling, Turn
from bench.config import Deployment, Load, TransformersSettings
from bench.job import EXIT_OUT_OF_MEMORY, JobStep
from bench.synthetic import make_folder, model_config, preset_of
from results.records import EngineState

MISSING = [name for name in ("torch", "transformers", "accelerate") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}"),
]

GPU = "cuda:0"
HIDDEN, WIDE, LAYERS, KV = 1024, 2048, 2, 8
DENSE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "num_key_value_heads": KV,
    "head_dim": 128,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "initializer_range": 0.05,
    "bos_token_id": VOCABULARY - 1,
    "eos_token_id": VOCABULARY - 1,
    "torch_dtype": "bfloat16",
}
"""Widths that no kernel has to pad."""
MATRICES = LAYERS * HIDDEN * (4 * HIDDEN + 3 * WIDE)
OTHERS = 2 * VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN
WORDS = [
    "the",
    "heart",
    "and",
    "liver",
    "of",
    "a",
    "patient",
    "with",
    "fever,",
    "cough",
    "and",
    "38.5",
    "degrees;",
    "given",
    "paracetamol",
    "500",
    "mg",
    "twice",
    "daily",
]
RANKS = tuple(
    RankRequest(
        id=str(i),
        context=" ".join(WORDS[j % len(WORDS)] for j in range(i, 3 * i + 2)),
        continuations=(" yes", " no", " aspirin 100 mg", " see a doctor at once, please"),
    )
    for i in range(12)
)


def ranking() -> JobStep:
    return JobStep(name="rank", load=Load(concurrency=1), seed=0, ranks=RANKS)


def asking(name: str, concurrency: int, sampling: Sampling) -> JobStep:
    asked = tuple(Request(id=word, turns=(Turn("user", word),), sampling=sampling) for word in WORDS[:8])
    return JobStep(name=name, load=Load(concurrency=concurrency), seed=0, requests=asked)


def exact(prompt: int, output: int) -> JobStep:
    request = Request(id="exact", turns=(), sampling=Sampling(max_tokens=output, seed=1), exact_prompt_tokens=prompt)
    return JobStep(name="exact", load=Load(concurrency=1), seed=0, requests=(request,))


def run(folder: Path, device: str, steps: Sequence[JobStep], **settings: Any) -> Worked:
    wanted = {"context": 1024, "slots": 8, **settings}
    return work(sys.executable, TransformersSettings(model_path=str(folder), device=device, **wanted), steps)


@pytest.fixture(scope="module", autouse=True)
def card() -> str:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU")
    return str(torch.cuda.get_device_name(0))


def made(folder: Path, config: dict[str, Any]) -> Path:
    make(folder, config)
    add_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("dense"), DENSE)


@pytest.fixture(scope="module")
def plain(dense: Path) -> Worked:
    """In bfloat16 on the GPU."""
    return run(dense, GPU, (ranking(), exact(300, 8)), dtype="bfloat16")


def skip_without(kind: str | None) -> None:
    """The library that quantises so, or the card."""
    import torch

    library = "bitsandbytes" if kind and kind.startswith("bnb") else "torchao"
    if kind and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed here")
    if kind == "fp8" and torch.cuda.get_device_capability(0) < (8, 9):
        pytest.skip("this card has no FP8 arithmetic")


def told(name: str, one: Ranks, other: Ranks) -> Comparison:
    found = compare(one, other, RANKS)
    print(table({name: found}))
    return found


@pytest.mark.parametrize("config", [DENSE, CONFIG], ids=["grouped queries", "latent attention and experts"])
def test_a_gpu_gives_the_log_likelihoods_of_the_processor(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = made(tmp_path / "model", config)
    here, there = (run(folder, device, (ranking(),), dtype="float32").ranks("rank") for device in ("cpu", GPU))
    found = told("float32, GPU / processor", there, here)
    assert (found.plain, found.normalised, found.other_counts) == (0, 0, 0)
    assert found.largest < 5e-3
    values = [c.logprob / c.tokens for continuations in here.values() for c in continuations]
    assert max(values) - min(values) > 1.0


def test_the_record_names_the_card_and_its_memory(plain: Worked, card: str) -> None:
    info = plain.engine
    assert info.device == f"{GPU} {card}"
    assert (info.parameters, info.weight_bytes) == (MATRICES + OTHERS, 2 * (MATRICES + OTHERS))
    states = [e.memory for e in plain.events if isinstance(e, EngineState) and e.memory]
    assert states
    last = states[-1]
    assert last["peak_reserved"] >= last["peak_allocated"] >= last["allocated"]
    assert last["allocated"] >= info.weight_bytes + info.memory["cache"]


def test_lengths_hold_on_a_gpu(plain: Worked) -> None:
    answer = plain.answers("exact")["exact"]
    assert (answer.prompt_tokens, answer.output_tokens, answer.finish) == (300, 8, "length")


def test_a_seed_gives_its_answer_at_any_load(dense: Path) -> None:
    """In float32; what else is in a batch changes bfloat16's last digits."""
    drawn = Sampling(max_tokens=12, temperature=0.9, top_p=0.9, seed=5)
    done = run(dense, GPU, (asking("together", 8, drawn), asking("alone", 1, drawn)), dtype="float32")
    assert done.texts("together") == done.texts("alone")


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("int8", 8 + 16 / HIDDEN),  # a scale for each row
        ("int4", 4 + 2 * 16 / 128),  # a scale and a zero for 128
        ("fp8", 8 + 32 / HIDDEN),
        ("bnb_8bit", 8 + 32 / HIDDEN),
        ("bnb_4bit", 4 + 32 / 64),  # a scale for 64
    ],
)
def test_weights_are_quantised_on_loading(dense: Path, plain: Worked, kind: str, bits: float) -> None:
    """The gap is told; noise in place of a model would be as far away as the options are from each other."""
    skip_without(kind)
    found = run(dense, GPU, (ranking(), exact(100, 8)), dtype="bfloat16", quantise_on_load=kind)
    info = found.engine
    assert (info.quantisation, info.parameters) == (kind, MATRICES + OTHERS)
    assert info.bits_per_weight == pytest.approx((MATRICES * bits + OTHERS * 16) / (MATRICES + OTHERS), rel=0.01)
    apart = told(f"{kind} / bfloat16", found.ranks("rank"), plain.ranks("rank"))
    spread = [max(v) - min(v) for v in ([c.logprob for c in r] for r in plain.ranks("rank").values())]
    assert 0 < apart.mean < sum(spread) / len(spread) / 4
    assert found.answers("exact")["exact"].output_tokens == 8


@pytest.mark.parametrize("kind", [None, "int8", "fp8"])
def test_random_weights_of_a_true_shape_are_run(kind: str | None, tmp_path: Path) -> None:
    skip_without(kind)
    preset = preset_of(Deployment(name="s", backend="transformers", model="synthetic:r1-distill-qwen-1.5b", layers=2))
    settings = TransformersSettings(
        model_path=str(make_folder(preset, tmp_path)),
        synthetic_config=model_config(preset),
        device=GPU,
        quantise_on_load=kind,  # type: ignore[arg-type]
        context=1024,
        slots=2,
    )
    found = work(sys.executable, settings, (exact(300, 8),))
    assert found.answers("exact")["exact"].output_tokens == 8
    assert found.engine.quantisation == (kind or "bf16")


def test_memory_that_the_card_has_not_is_told_from_a_crash(dense: Path) -> None:
    """A cache of 128 times 131,072 tokens, 16 KiB each: 256 GiB."""
    found = run(dense, GPU, (), dtype="float32", context=131072, slots=128)
    assert found.code == EXIT_OUT_OF_MEMORY, found.last_line
    assert found.last_line.startswith("out of memory: ")
