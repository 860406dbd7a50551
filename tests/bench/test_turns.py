"""Workers that take turns: never two at a time, none twice while another waits, and nobody waits for the dead."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from test_run import cells, ended, processes_of_ours, start_program, started_cells, wait_for

from bench.cli import main
from bench.config import load_suite
from bench.runner import Watcher
from bench.session import Wishes, execute, prepare, reopen, start
from bench.turns import Turns, set_table
from results.records import Answered, CellEnded, StepEnded, StepStarted
from results.store import RunDir

Suite = Callable[..., Path]
ROOT = Path(__file__).parents[2]
NOTES = 'tasks = ["note_summary_en"]'
Stretch = tuple[int, int, str]


def test_turns_go_round_and_never_overlap(tmp_path: Path) -> None:
    table, taken, at_work = tmp_path / "table", [], []
    set_table(table, "abc")

    def work(name: str) -> None:
        for _ in range(20):
            with Turns(table, name).turn():
                at_work.append(name)
                taken.append((name, len(at_work)))
                time.sleep(0.001)
                at_work.remove(name)

    workers = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [many for _, many in taken] == [1] * 60
    rounds = [{name for name, _ in taken[i : i + 3]} for i in range(0, 60, 3)]
    assert rounds == [{"a", "b", "c"}] * 20


def test_who_has_left_is_not_waited_for(tmp_path: Path) -> None:
    table, taken = tmp_path / "table", []
    set_table(table, "ab")
    Turns(table, "b").leave()
    for _ in range(3):
        with Turns(table, "a").turn():
            taken.append("a")
    assert taken == ["a"] * 3


def test_a_killed_worker_gives_its_turn_back(tmp_path: Path) -> None:
    table = tmp_path / "table"
    set_table(table, "ab")
    code = (
        "import sys, time; from pathlib import Path; from bench.turns import Turns\n"
        "with Turns(Path(sys.argv[1]), 'b').turn(): print('mine', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(table)], cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert other.stdout is not None
    assert other.stdout.readline().strip() == "mine"
    other.kill()
    other.communicate(timeout=30)
    with Turns(table, "a").turn():
        pass


def together(suite: Path, out: Path) -> RunDir:
    prepared = prepare(load_suite(suite), suite.parent, Wishes())
    run = start(prepared, out, None)
    execute(prepared, run, Wishes(), Watcher(), together=True)
    return run


def stretches(run: RunDir, deployment: str) -> Iterator[Stretch]:
    began: StepStarted | None = None
    for event in cells(run)[deployment].events():
        if isinstance(event, StepStarted):
            began = event
        elif isinstance(event, StepEnded) and began is not None:
            yield began.time_ns, event.time_ns, deployment


def test_cells_that_run_together_alternate_step_by_step(write_suite: Suite, tmp_path: Path) -> None:
    head = "limit = 2\nrepeats = 5"
    reply = {"reply": "Summary: well.", "delay_s": 0.02}
    run = together(write_suite(head=head, tasks=NOTES, one=reply, two=reply), tmp_path / "runs")
    assert {name: outcome for name, (outcome, _) in ended(run).items()} == {"one": "ok", "two": "ok"}
    assert run.seal_sha256() is not None
    in_order = sorted([*stretches(run, "one"), *stretches(run, "two")])
    assert all(before[1] <= after[0] for before, after in pairwise(in_order))
    names = [name for _, _, name in in_order]
    assert len(names) == 12  # five steps each, and a warm-up before the first
    assert all({a, b} == {"one", "two"} for a, b in zip(names[::2], names[1::2], strict=True))


@pytest.mark.parametrize("fault", [{"hang_after": 1}, {"hang_in_load": True}])
def test_one_that_hangs_is_ended_and_who_waited_for_it_is_not(
    write_suite: Suite, tmp_path: Path, fault: dict[str, object]
) -> None:
    head = "limit = 2\nrepeats = 3\nload_timeout_s = 3.0\nstall_timeout_s = 3.0"
    run = together(write_suite(head=head, tasks=NOTES, good={}, hangs=fault), tmp_path / "runs")
    assert {name: outcome for name, (outcome, _) in ended(run).items()} == {"good": "ok", "hangs": "timeout"}
    assert len(list(stretches(run, "good"))) == 4


@pytest.mark.parametrize("fault", [{"die_after": 2}, {"die_in_load": True}, {"oom_after": 1}])
def test_one_that_ends_badly_holds_up_no_other(write_suite: Suite, tmp_path: Path, fault: dict[str, object]) -> None:
    head = "limit = 2\nrepeats = 4"
    run = together(write_suite(head=head, tasks=NOTES, good={}, bad=fault), tmp_path / "runs")
    found = ended(run)
    assert found["good"][0] == "ok"
    assert found["bad"][0] in ("crashed", "oom")
    assert len(list(stretches(run, "good"))) == 5


def test_one_that_cannot_begin_holds_up_no_other(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(head="limit = 2\nrepeats = 2", tasks=NOTES, good={})
    with suite.open("a", encoding="utf-8") as file:
        file.write('[[deployments]]\nname = "absent"\nbackend = "llama_cpp"\nmodel = "file:nowhere.gguf"\n')
    run = together(suite, tmp_path / "runs")
    assert {name: outcome for name, (outcome, _) in ended(run).items()} == {"good": "ok", "absent": "skipped"}


def test_an_interrupted_night_of_turns_goes_on(write_suite: Suite, tmp_path: Path) -> None:
    slow = {"reply": "Summary: well.", "delay_s": 0.2}
    suite = write_suite(head="limit = 2\nrepeats = 3", tasks=NOTES, one=slow, two=slow)
    with suite.open("a", encoding="utf-8") as file:
        file.write('[nightly]\ncontrol = "one"\nblocks = 1\nspare_blocks = 0\ntogether = true\n')
    command = ("nightly", str(suite), "--history", str(tmp_path / "h"), "--night", "n1")
    child = start_program(*command)
    runs = tmp_path / "h" / "runs"
    wait_for(lambda: any(isinstance(e, Answered) for c in started_cells(runs) for e in c.events()))
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)
    assert child.returncode == 130
    assert processes_of_ours() == []
    run = RunDir(next(runs.iterdir()))
    assert {e.outcome for c in cells(run).values() for e in c.events() if isinstance(e, CellEnded)} == {"interrupted"}
    assert main(list(command)) == 0
    assert {outcome for outcome, _ in ended(run).values()} == {"ok"}


def test_a_run_of_turns_that_was_cut_is_resumed_in_turns(write_suite: Suite, tmp_path: Path) -> None:
    suite = write_suite(head="limit = 2\nrepeats = 3", tasks=NOTES, one={}, two={"die_after": 4})
    run = together(suite, tmp_path / "runs")
    assert ended(run)["two"][0] == "crashed"
    before = len(cells(run)["two"].finished_steps())
    execute(reopen(run, Wishes()), run, Wishes(), Watcher(), together=True)
    assert len(cells(run)["two"].finished_steps()) > before
    assert len(list(stretches(run, "one"))) == 4  # it had ended, and did not begin again
