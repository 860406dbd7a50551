"""Tasks of lm-evaluation-harness as steps of a suite; needs an environment with `lm-eval` (and no model: the answers are scripted)."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config import ConfigError, TaskOptions
from bench.lm_eval_adapter import lm_eval_tasks, replay
from tasks import Answer, Generate, Rank, Sample, Score, Task

pytestmark = pytest.mark.engines
pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed here; pip install -e '.[lm-eval]'")

HEAD = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
"""
CLOZE = """output_type: multiple_choice
doc_to_text: "Question: {{question.strip()}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true},{metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""
SAYS = """output_type: generate_until
doc_to_text: "Q: {{q}}\\nA:"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 12}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
HEADS = """output_type: multiple_choice
doc_to_text: "{{answer}}"
doc_to_target: "{{tail}}"
doc_to_choice: "{{heads}}"
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
QUESTIONS = [
    {"question": "Which makes insulin?", "choices": ["Liver", "Pancreas"], "answer": 1},
    {"question": "Which filters blood?", "choices": ["A kidney", "Hair"], "answer": 0},
    {"question": "Which pumps?", "choices": ["Heart", "Skin"], "answer": 0},
]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Task]:
    """A task from its YAML file and its questions."""

    def build(name: str, body: str, rows: list[dict[str, Any]], shots: int = 0) -> Task:
        (tmp_path / f"{name}.yaml").write_text(HEAD.format(name=name) + body)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        wanted = {f"lm_eval:{name}": TaskOptions(data=str(tmp_path), shots=shots), "speed": TaskOptions()}
        return lm_eval_tasks(wanted, tmp_path, download=False)[f"lm_eval:{name}"]

    return build


def judged(task: Task, answers: dict[str, Answer]) -> list[Score]:
    assert task.together is not None
    return list(task.together([(s, answers[s.id]) for s in task.load(None) if s.id in answers]))


def test_the_answers_of_a_question_become_one_request(make: Callable[..., Task]) -> None:
    task = make("cloze", CLOZE, QUESTIONS)
    samples = task.load(None)
    assert [s.id for s in samples] == ["0", "1", "2"]
    assert task.prompt(samples[0], "likelihood") == Rank(
        context="Question: Which makes insulin?\nAnswer:", continuations=(" Liver", " Pancreas")
    )
    assert (task.kind, task.metric, task.scorings, task.language) == ("choice", "acc", ("likelihood",), "en")


def test_the_harness_scores_items_and_the_set(make: Callable[..., Task]) -> None:
    task = make("cloze2", CLOZE, QUESTIONS)
    answers = {
        "0": Answer(logprobs=(-2.0, -1.0)),
        "1": Answer(logprobs=(-8.0, -5.0)),
        "2": Answer(logprobs=(-1.0, -3.0)),
    }
    whole = {"lm_eval_acc": pytest.approx(2 / 3), "lm_eval_acc_norm": 1.0}
    assert [(s.value, s.verdict, s.metrics) for s in judged(task, answers)] == [
        (1.0, "correct", {"acc": 1.0, "acc_norm": 1.0, **whole}),
        (0.0, "wrong", {"acc": 0.0, "acc_norm": 1.0, **whole}),
        (1.0, "correct", {"acc": 1.0, "acc_norm": 1.0, **whole}),
    ]


def test_only_questions_that_were_answered_are_scored(make: Callable[..., Task]) -> None:
    task = make("cloze3", CLOZE, QUESTIONS)
    (score,) = judged(task, {"2": Answer(logprobs=(-1.0, -3.0))})
    assert (score.verdict, score.metrics["lm_eval_acc"]) == ("correct", 1.0)


def test_examples_are_the_harness_own_and_the_same_each_time(make: Callable[..., Task]) -> None:
    first, again = (make("few", CLOZE, QUESTIONS, shots=1).load(None) for _ in range(2))
    assert [s.input for s in first] == [s.input for s in again]
    assert first[0].input.count("Question:") == 2


def test_a_generation_is_cut_where_the_task_says_and_after_the_thinking(make: Callable[..., Task]) -> None:
    task = make("says", SAYS, [{"q": "1+1?", "a": "2"}, {"q": "2+2?", "a": "4"}])
    samples = task.load(None)
    prompt = task.prompt(samples[0], "generate")
    assert isinstance(prompt, Generate)
    assert (prompt.messages[0].text, prompt.max_tokens, prompt.stop) == ("Q: 1+1?\nA:", 12, ("\n",))
    answers = {"0": Answer(text="<think>3?\nno</think>2\nQ: next"), "1": Answer(text="5")}
    assert [s.verdict for s in judged(task, answers)] == ["correct", "wrong"]


def test_a_question_of_several_contexts_needs_all_of_them(make: Callable[..., Task]) -> None:
    rows = [{"heads": ["The cat. It", "The dog. It"], "tail": " ate.", "answer": 1}]
    task = make("heads", HEADS, rows)
    samples: list[Sample] = list(task.load(None))
    assert [(s.id, s.cluster, s.input) for s in samples] == [("0/0", "0", "The cat. It"), ("0/1", "0", "The dog. It")]
    answers = {"0/0": Answer(logprobs=(-3.0,)), "0/1": Answer(logprobs=(-1.0,))}
    assert [s.verdict for s in judged(task, answers)] == ["correct", "correct"]
    assert [s.verdict for s in judged(task, {"0/0": Answer(logprobs=(-3.0,))})] == ["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            SAYS.replace("generate_until", "loglikelihood_rolling").replace("exact_match", "word_perplexity"),
            "perplexity of running text",
        ),
        (CLOZE.replace("metric: acc_norm", "metric: exact_match"), "needs to know whether an answer is the greedy one"),
        (SAYS + "repeats: 3\n", "it repeats each request"),
    ],
)
def test_what_no_backend_can_answer_is_refused(make: Callable[..., Task], body: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("bad", body, [{"q": "1", "a": "2", "question": "1", "choices": ["1", "2"], "answer": 0}])


def test_running_perplexity_is_refused_by_the_model_too() -> None:
    with pytest.raises(NotImplementedError, match="perplexity"):
        replay([], {}).loglikelihood_rolling([])


def test_an_unknown_task_and_a_missing_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be the folder of its YAML file"):
        lm_eval_tasks({"lm_eval:x": TaskOptions(data="none")}, tmp_path, download=False)
    with pytest.raises(ConfigError, match="the harness knows no bedside_no_such_task"):
        lm_eval_tasks({"lm_eval:bedside_no_such_task": TaskOptions(data=str(tmp_path))}, tmp_path, download=False)


def test_nothing_is_imported_for_suites_without_such_a_task() -> None:
    code = (
        "import sys; from pathlib import Path; from bench.config import TaskOptions; from bench.lm_eval_adapter import lm_eval_tasks;"
        "print(lm_eval_tasks({'speed': TaskOptions()}, Path(), False), 'lm_eval' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["{}", "False"]


def test_a_step_has_speed_and_both_scores(
    make: Callable[..., Task], tmp_path: Path, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    make("run", CLOZE, QUESTIONS)
    suite = tmp_path / "s.toml"
    suite.write_text(
        f'name = "t"\nidle_s = 0.0\n[tasks."lm_eval:run"]\ndata = "{tmp_path}"\n[[deployments]]\nname = "m"\nbackend = "scripted"\n'
    )
    assert program("run", str(suite), "--out", "runs").returncode == 0
    (scores,) = (tmp_path / "runs").glob("*/cells/*/scores.jsonl")
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    assert len(lines) == 3
    mean = sum(line["metrics"]["acc"] for line in lines) / 3
    assert [line["metrics"]["lm_eval_acc"] for line in lines] == pytest.approx([mean] * 3)
