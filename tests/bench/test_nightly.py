"""Nights from end to end with scripted models: blocks, history, verdicts, files, exit statuses."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import junitparser
import msgspec
import pytest
from hostile_server import DONE, HostileServer, Reply, delta, hostile_server, usage

from bench.cli import GATE_FAILED, OK, USER_ERROR, main
from bench.config import Suite, load_suite
from bench.nightly import run_probe
from bench.probe import PROMPTS, TOKENS, probe_suite
from bench.runner import Watcher
from bench.session import Wishes, prepare
from results.nightly import history
from results.nightly.history import Entry
from results.nightly.night import ratios
from results.nightly.probe import Probe, probes
from results.records import StepEnded, StepStarted, Tick
from results.store import CellDir, RunDir

SUITE = """
name = "tiny"
idle_s = 0.0
limit = 4
tasks = ["clinical_qa_en"]
[nightly]
control = "control"
blocks = 2
[[deployments]]
name = "control"
backend = "scripted"
[[deployments]]
name = "candidate"
backend = "scripted"
settings = { %s }
"""


def night(folder: Path, label: str, settings: str = "slots = 32") -> int:
    suite = folder / "suite.toml"
    suite.write_text(SUITE % settings)
    return main(["nightly", str(suite), "--history", str(folder / "history"), "--night", label])


def test_a_night_leaves_its_files_and_a_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    said = json.loads(capsys.readouterr().out)
    assert (said["suite"], said["night"], said["verdict"], said["regressions"]) == ("tiny", "2026-01-01", "ok", [])
    made = {p.name for p in (tmp_path / "history" / "nights" / "2026-01-01").iterdir()}
    assert made == {"nightly.md", "nightly.html", "nightly.json", "junit.xml", "benchmark.json"}
    suite = junitparser.JUnitXml.fromfile(str(tmp_path / "history" / "nights" / "2026-01-01" / "junit.xml"))
    assert suite.failures == 0
    assert len(list((tmp_path / "history" / "runs").iterdir())) == 2


def test_every_repeat_of_a_block_counts(tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text((SUITE % "slots = 32").replace("limit = 4", "limit = 4\nrepeats = 3"))
    assert main(["nightly", str(suite), "--history", str(tmp_path / "history"), "--night", "2026-01-01"]) == OK
    entries = history.read(tmp_path / "history" / "history.parquet")
    figures = [(e.deployment, e.block, e.repeat) for e in entries if e.metric == "samples_per_s"]
    assert sorted(figures) == [(d, b, r) for d in ("candidate", "control") for b in (1, 2) for r in (0, 1, 2)]


def test_blocks_in_turns_are_an_epoch_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    suite = tmp_path / "suite.toml"
    suite.write_text(suite.read_text().replace("blocks = 2", "blocks = 2\ntogether = true"))
    capsys.readouterr()
    assert main(["nightly", str(suite), "--history", str(tmp_path / "history"), "--night", "2026-01-02"]) == OK
    assert "candidate: a new epoch begins tonight" in " ".join(json.loads(capsys.readouterr().out)["events"])


def test_a_block_is_one_ratio_the_middle_of_its_repeats() -> None:
    candidate = {1: {0: 1.0, 1: 1.2, 2: 1.4}, 2: {0: 1.5}, 3: {0: 1.0}}
    control = {1: {0: 1.0, 1: 1.0, 2: 1.0}, 2: {0: 1.0, 1: 7.0}}
    assert ratios(candidate, control) == pytest.approx([0.2, 0.5])  # block 3 has no control
    assert ratios(candidate, None) == pytest.approx([1.2, 1.5, 1.0])


def test_the_page_leads_to_the_runs_of_every_night(tmp_path: Path) -> None:
    for label in ("2026-01-01", "2026-01-02"):
        assert night(tmp_path, label) == OK
    page = tmp_path / "history" / "nights" / "2026-01-02" / "nightly.html"
    led = {(page.parent / address).resolve() for address in re.findall(r'href="([^"]+)"', page.read_text())}
    runs = set((tmp_path / "history" / "runs").iterdir())
    assert led == {r for r in runs if "2026-01-02" in r.name or r.name.endswith("-b1")}


def disturb(folder: Path, block: int) -> None:
    """As if another process had kept half of the machine busy during one block of the only night."""
    (run,) = (folder / "history" / "runs").glob(f"*-b{block}")
    for path in run.glob("cells/*"):
        (start,) = (e.time_ns for e in CellDir(path).events() if isinstance(e, StepStarted) and "warmup" not in e.step)
        (end,) = (e.time_ns for e in CellDir(path).events() if isinstance(e, StepEnded) and "warmup" not in e.step)
        times = [start + (end - start) * k // 4 for k in range(5)]
        ticks = [Tick(time_ns=t, meter="memory", device="host", cpu_seconds=0.0, host_cpu_percent=50.0) for t in times]
        (path / "telemetry.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(ticks))


def test_disturbed_blocks_are_told_and_made_up_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    disturb(tmp_path, 1)
    (tmp_path / "history" / "history.parquet").unlink()
    capsys.readouterr()
    assert night(tmp_path, "2026-01-01") == OK
    assert len(list((tmp_path / "history" / "runs").iterdir())) == 3
    told = "1 of 3 blocks were disturbed by other processes and counted all the same, since only 2 were quiet"
    assert said(capsys)["events"] == [told]


def test_a_night_that_was_run_is_not_run_again(tmp_path: Path) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    runs = sorted(p.name for p in (tmp_path / "history" / "runs").iterdir())
    assert night(tmp_path, "2026-01-01") == OK
    assert sorted(p.name for p in (tmp_path / "history" / "runs").iterdir()) == runs


def test_each_night_asks_the_next_part_of_the_pool(tmp_path: Path) -> None:
    for label in ("2026-01-01", "2026-01-02"):
        assert night(tmp_path, label) == OK
    entries = history.read(tmp_path / "history" / "history.parquet")
    asked = {label: {e.item for e in entries if e.item and e.night == label} for label in ("2026-01-01", "2026-01-02")}
    assert len(asked["2026-01-01"]) == len(asked["2026-01-02"]) == 4
    assert not asked["2026-01-01"] & asked["2026-01-02"]


def test_a_deployment_that_fails_for_the_first_time_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    assert night(tmp_path, "2026-01-02", "die_after = 3") == GATE_FAILED
    assert "candidate ended crashed, which it did not the night before" in capsys.readouterr().err


def test_the_history_file_is_made_again_from_the_runs(tmp_path: Path) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    kept = tmp_path / "history" / "history.parquet"
    before = sorted(history.read(kept), key=repr)
    kept.write_bytes(b"not parquet")
    assert night(tmp_path, "2026-01-01") == OK
    assert sorted(history.read(kept), key=repr) == before
    older = tmp_path / "older.parquet"
    duckdb.execute(f"COPY (SELECT * EXCLUDE (weights, asked) FROM '{kept}') TO '{older}' (FORMAT parquet)")
    older.replace(kept)
    assert night(tmp_path, "2026-01-01") == OK
    assert sorted(history.read(kept), key=repr) == before


def test_a_broken_run_in_the_history_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "2026-01-01") == OK
    (tmp_path / "history" / "history.parquet").unlink()
    broken = min((tmp_path / "history" / "runs").iterdir())
    (broken / "manifest.json").write_text("{")
    capsys.readouterr()
    assert night(tmp_path, "2026-01-02") == OK
    assert any(broken.name in event for event in json.loads(capsys.readouterr().out)["events"])


def test_an_unknown_control_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text((SUITE % "slots = 32").replace('control = "control"', 'control = "nobody"'))
    assert main(["nightly", str(suite), "--history", str(tmp_path / "h"), "--night", "n"]) == USER_ERROR
    assert "control `nobody` is no deployment" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["a/b", "../n", "..", "x-night-y", "[n]", "n\n"])
def test_a_name_that_no_run_can_bear_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], label: str) -> None:
    assert night(tmp_path, label) == USER_ERROR
    assert capsys.readouterr().err.startswith(f"error: --night {label!r}: ")
    assert not (tmp_path / "history").exists()


@pytest.fixture
def server() -> Iterator[HostileServer]:
    """A model whose answers a test can change without a trace in the fingerprint."""
    with hostile_server() as running:
        says(running, set())
        yield running


def says(server: HostileServer, changed: set[str]) -> None:
    """The same to every prompt, but for those in `changed`."""

    def answer(body: dict[str, object]) -> Reply:
        words = "Answer: B" if json.dumps(body["messages"]) in changed else "Answer: A"
        return Reply(delta(content=words), delta("stop"), usage(9, 3), DONE)

    server.answers["/v1/chat/completions"] = answer


def probed_prompts(server: HostileServer) -> list[str]:
    return [json.dumps(body["messages"]) for _, _, body in server.seen if body["max_tokens"] == TOKENS]


def probe_night(folder: Path, server: HostileServer, label: str, head: str = "") -> int:
    suite = folder / "served.toml"
    suite.write_text(
        f'name = "served"\nidle_s = 0.0\nlimit = 1\n{head}\ntasks = ["note_summary_en", "clinical_qa_en"]\n'
        "[nightly]\nblocks = 1\n"
        f'[[deployments]]\nname = "s"\nbackend = "openai_server"\nsettings = {{ base_url = "{server.url}" }}\n'
    )
    return main(["nightly", str(suite), "--history", str(folder / "history"), "--night", label])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("head", ["", "store_text = false"])
def test_changed_probe_answers_are_an_event_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: HostileServer, head: str
) -> None:
    assert probe_night(tmp_path, server, "2026-01-01", head) == OK
    assert said(capsys)["probe"] == {"s": f"{PROMPTS} probe answers, none compared (first night of this epoch)"}
    first = probed_prompts(server)
    assert len(first) == len(set(first)) == PROMPTS
    assert probe_night(tmp_path, server, "2026-01-02", head) == OK
    assert said(capsys)["probe"] == {"s": f"0 of {PROMPTS} probe answers changed since 2026-01-01"}
    assert probed_prompts(server) == first * 2
    says(server, set(first[:3]))
    assert probe_night(tmp_path, server, "2026-01-03", head) == OK
    told = said(capsys)
    sentence = f"3 of {PROMPTS} probe answers changed since 2026-01-02"
    assert told["probe"] == {"s": sentence}
    assert f"s: {sentence}, with nothing known to have changed" in told["events"]  # type: ignore[operator]
    page = (tmp_path / "history" / "nights" / "2026-01-03" / "nightly.html").read_text()
    assert sentence in page


def test_the_probe_keeps_hashes_and_no_text_where_none_may_be_kept(tmp_path: Path, server: HostileServer) -> None:
    assert probe_night(tmp_path, server, "n", "store_text = false") == OK
    entries = [e for e in history.read(tmp_path / "history" / "history.parquet") if e.arm == "p" and e.item]
    assert [len(e.text_hash) for e in entries] == [16] * PROMPTS
    files = [p for p in (tmp_path / "history").rglob("*") if p.is_file()]
    assert not [p.name for p in files if b"Answer: A" in p.read_bytes()]


@pytest.mark.parametrize("head", ["", "store_text = false"])
def test_thinking_of_its_own_channel_is_compared_whether_or_not_text_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: HostileServer, head: str
) -> None:
    for label, thought in (("n1", "Let me see."), ("n2", "Let me see."), ("n3", "Well.")):
        thinking = Reply(delta(reasoning=thought), delta("length"), usage(9, 3), DONE)
        server.answers["/v1/chat/completions"] = lambda body, reply=thinking: reply
        assert probe_night(tmp_path, server, label, head) == OK
    told = [json.loads(line)["probe"]["s"] for line in capsys.readouterr().out.splitlines()]
    assert told[1:] == [
        f"0 of {PROMPTS} probe answers changed since n1",
        f"{PROMPTS} of {PROMPTS} probe answers changed since n2",
    ]


def test_a_probe_that_was_cut_goes_on_with_what_is_missing(tmp_path: Path, server: HostileServer) -> None:
    assert probe_night(tmp_path, server, "n") == OK
    before = probed_prompts(server)
    (probe,) = (tmp_path / "history" / "runs").glob("*-p1")
    (events,) = probe.glob("cells/*/events.jsonl")
    lines = events.read_bytes().splitlines(keepends=True)
    half = next(
        i
        for i, line in enumerate(lines)
        if b"StepEnded" in line and b"note_summary_en" in line and b"warmup" not in line
    )
    events.write_bytes(b"".join(lines[: half + 1]))
    (probe / "seal.json").unlink()
    server.seen.clear()
    assert (
        run_probe(
            load_suite(tmp_path / "served.toml"),
            tmp_path,
            tmp_path / "history",
            probe.name.split("_", 1)[1],
            Wishes(),
            Watcher(),
        )
        == ""
    )
    assert probed_prompts(server) == before[PROMPTS // 2 :]
    assert len([e for e in history.read_run(RunDir(probe)) if e.item]) == PROMPTS


def test_a_suite_without_generated_text_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert night(tmp_path, "n") == OK
    assert said(capsys)["probe"] == "no generated text to probe"
    assert "no generated text to probe" in (tmp_path / "history" / "nights" / "n" / "nightly.md").read_text()


def test_the_probe_is_greedy_short_and_one_at_a_time_and_leaves_out_recorded_answers(tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "t"\nlimit = 3\nrepeats = 2\nsmallest_memory = true\nload = [{ concurrency = 8 }]\n'
        'tasks = ["note_summary_en", "clinical_qa_en", "note_summary_zh", "speed"]\n'
        '[[deployments]]\nname = "a"\nbackend = "scripted"\nsampling = { temperature = 0.7 }\n'
        '[[deployments]]\nname = "r"\nbackend = "recorded"\nsettings = { path = "answers.jsonl" }\n'
    )
    probe = probe_suite(prepare(load_suite(suite), tmp_path, Wishes()))
    assert isinstance(probe, Suite)
    assert not probe.smallest_memory
    (cell,) = prepare(probe, tmp_path, Wishes()).cells
    facts = [(s.facts.task, s.facts.load, s.facts.items, s.facts.max_tokens) for s in cell.steps]
    assert facts == [("note_summary_en", "c1", 10, TOKENS), ("note_summary_zh", "c1", 10, TOKENS)]
    assert {r.sampling.temperature for s in cell.steps for r in s.job.requests} == {0.0}


def test_a_deployment_that_cannot_be_had_takes_no_probe_from_the_others(tmp_path: Path) -> None:
    missing = '[[deployments]]\nname = "gone"\nbackend = "llama_cpp"\nmodel = "file:nowhere.gguf"\n'
    suite = tmp_path / "suite.toml"
    suite.write_text('name = "t"\ntasks = ["note_summary_en"]\n' + missing)
    assert probe_suite(prepare(load_suite(suite), tmp_path, Wishes())) == "no deployment to probe"
    suite.write_text(suite.read_text() + '[[deployments]]\nname = "there"\nbackend = "scripted"\n')
    probe = probe_suite(prepare(load_suite(suite), tmp_path, Wishes()))
    assert isinstance(probe, Suite)
    assert [d.name for d in probe.deployments] == ["there"]


def answer(night: str, item: str, text_hash: str, epoch: str = "e", outcome: str = "ok") -> Entry:
    return Entry(
        suite="s", night=night, arm="p", block=1, run=night, deployment="d", outcome=outcome, epoch=epoch,
        task="t" if item else "", item=item, text_hash=text_hash,
    )  # fmt: skip


def test_a_probe_is_compared_with_the_latest_answers_of_its_own_epoch() -> None:
    entries = [
        *(answer("1", i, h) for i, h in (("", ""), ("a", "x"), ("b", "y"))),
        *(answer("2", i, h, epoch="other") for i, h in (("", ""), ("a", "z"), ("b", "z"))),
        *(answer("3", i, h) for i, h in (("", ""), ("a", "x"), ("b", "w"), ("c", "v"))),
    ]
    assert probes(entries, "2") == (
        Probe(deployment="d", asked=2, compared=0, changed=0, reason="first night of this epoch"),
    )
    assert probes(entries, "3") == (
        Probe(
            deployment="d",
            asked=3,
            compared=2,
            changed=1,
            since="1",
            reason="1 without an earlier answer in this epoch",
        ),
    )


def test_a_probe_without_text_or_without_an_end_says_why() -> None:
    before = [answer("1", "", ""), answer("1", "a", "x")]
    (silent,) = probes([*before, answer("2", "", ""), answer("2", "a", "")], "2")
    assert silent.words == "1 probe answers, none compared (no text in 1)"
    (cut,) = probes([*before, answer("2", "", "", outcome="crashed")], "2")
    assert cut.words == "0 probe answers, none compared (the probe ended crashed)"


def test_a_history_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text('name = "t"\ntasks = ["clinical_qa_en"]\n[[deployments]]\nname = "d"\nbackend = "scripted"\n')
    (tmp_path / "file").write_text("")
    assert main(["nightly", str(suite), "--history", str(tmp_path / "file")]) == USER_ERROR
    said = capsys.readouterr().err
    assert (
        said == f"error: {tmp_path / 'file'}: cannot be written (Not a directory); give another folder with --history\n"
    )
