"""Every rule finds its fault and lets what is well pass."""

from typing import Any

import pytest
from made_changes import (
    all_of,
    asked_again,
    engine,
    gpu,
    long_step,
    memory_meter,
    of_200,
    scores_200,
    steps_before,
    thinking,
)
from made_faults import BMC, CLEAN, FAULTS
from made_records import CPU_METER, ENGINE, MS, STEP, Run, S, answer, manifest, ticks
from msgspec import structs

from results.records import CellEnded, StepEnded, StepStarted
from results.validity import RULES, judge, judge_step
from results.validity.base import exceeds


@pytest.mark.parametrize("rule", FAULTS)
def test_a_rule_finds_its_fault(rule: str) -> None:
    change, severity, sentence = FAULTS[rule]
    run = Run()
    change(run)
    found = run.finding(rule)
    assert (found.verdict, found.severity) == ("fail", severity), found
    assert sentence in found.sentence
    assert found.observed
    assert found.threshold


@pytest.mark.parametrize("rule", CLEAN)
def test_a_rule_lets_what_is_well_pass(rule: str) -> None:
    run = Run()
    CLEAN[rule](run)
    found = run.finding(rule)
    assert found.verdict in ("pass", "not_applicable"), found


BY_CONSTRUCTION = {"D11": "energy is computed over the step's own window"}


def test_share_of_rules_covered(capsys: pytest.CaptureFixture[str]) -> None:
    names = {r.id for r in RULES}
    faults, clean = names & set(FAULTS), names & (set(CLEAN) | {"C10", "D2"})
    with capsys.disabled():
        print(
            f"\nvalidity rules with an injected fault: {len(faults)}/{len(names)}, with a clean run: {len(clean)}/{len(names)}"
        )
    assert names - faults == set(BY_CONSTRUCTION)
    assert clean == names


def test_warnings_where_a_share_is_only_raised() -> None:
    for rule, change in {
        "B4": of_200(7, finish="length"),
        "B5": thinking(10, "think_empty"),
        "B6": scores_200(4, flags=("loop",)),
        "F3": scores_200(6, verdict="no_answer", value=0.0),
        "D5": gpu(power_w=lambda t: 312.0 if 10 <= t <= 20 else 60.0),
        "E3": all_of(engine(memory={"weights": 2**30, "cache": 2**30 - 2**27 - 2**25, "compute": 0}), gpu()),
    }.items():
        run = Run()
        change(run)
        found = run.finding(rule)
        assert (found.rule, found.verdict, found.severity) == (rule, "fail", "W")


def test_one_odd_answer_in_twelve_decides_nothing_in_the_smoke_profile() -> None:
    assert not exceeds(1, 12, 0.05, by_bound=True)
    assert exceeds(1, 12, 0.05, by_bound=False)
    assert exceeds(4, 12, 0.05, by_bound=True)
    assert not exceeds(0, 0, 0.05, by_bound=True)


def test_repetitions_are_compared() -> None:
    run = Run("procurement")
    facts = run.cell_facts()
    names = [f"qa@c1#{i}" for i in (1, 2, 3)]
    events: list[Any] = []
    lengths = [10.0, 10.1, 12.0]
    for i, (name, seconds) in enumerate(zip(names, lengths, strict=True)):
        start = 30 * S * (i + 1)
        events += [
            StepStarted(name, start),
            *(answer(f"q{k}", start + k * S, step=name) for k in range(4)),
            StepEnded(name, start + round(seconds * S)),
        ]
    facts = structs.replace(facts, steps=tuple(structs.replace(STEP, name=n) for n in names))
    found = [f for f in judge(manifest("procurement", facts), facts, events, [], []) if f.rule == "C10"]
    assert [f.verdict for f in found] == ["fail"] * 3
    assert found[0].observed == "CV 9.9%"


def test_what_must_be_known_fails_in_the_strict_profile_only() -> None:
    for name, verdict in {"smoke": "unknown", "procurement": "fail"}.items():
        run = Run(name)
        run.ended = CellEnded(time_ns=26 * S, outcome="ok")
        assert run.finding("A1").verdict == verdict


def test_a_node_sensor_needs_ten_minutes_and_a_clock() -> None:
    run = Run("nightly")
    run.telemetry += ticks(BMC, 0, 26, power_w=500.0)
    assert run.finding("D2").threshold == ">= 600 s"
    assert run.finding("A6").verdict == "unknown"
    run.host = {"clock": {"synchronised": False}}
    assert run.finding("A6").sentence == "a node sensor was read and no time server keeps this machine's clock"
    run.host = {"clock": {"ntp_offset_ms": 900.0}}
    assert run.finding("A6").sentence == "the clock is 900.0 ms off, at most 800 ms are allowed with a node sensor"


def test_the_client_of_a_server_is_part_of_the_measuring_side() -> None:
    busy = memory_meter(cpu_seconds=lambda t: 0.8 * t, harness_cpu_seconds=lambda t: 0.01 * t, late_ms=1.0)
    for device, verdict in {"cpu": "pass", "remote": "fail"}.items():
        run = Run()
        all_of(engine(device=device), busy)(run)
        assert run.finding("C9").verdict == verdict


def test_readings_that_came_late_are_a_warning_and_unread_ones_unknown() -> None:
    run = Run()
    memory_meter(harness_cpu_seconds=lambda t: 0.01 * t, late_ms=80.0)(run)
    assert run.finding("C9").sentence == "readings were 80 ms late (p99): the measuring side did not get its turn"
    assert Run().finding("C9").verdict == "unknown"


def test_repeats_of_too_few_items_say_nothing_of_a_cache() -> None:
    run = Run()
    asked_again(10.0, items=8)(run)
    assert run.finding("B10").verdict == "unknown"
    assert Run().finding("B10").verdict == "not_applicable"


def test_cold_weights_are_told_from_warm_ones_and_a_server_has_none() -> None:
    run = Run()
    run.page_cache_share = 0.01
    assert run.finding("E6").observed == "cold, 1%"
    run.engine = structs.replace(run.engine, device="remote")
    assert run.finding("E6").verdict == "not_applicable"


def test_no_rule_is_asked_of_a_step_that_did_not_end() -> None:
    run = Run()
    run.records = []
    view = structs.replace(run.view(), measured=None)
    assert judge_step(view) == ()


def test_a_good_measured_run_is_valid_in_the_nightly_profile() -> None:
    run = Run("nightly")
    all_of(long_step, gpu(energy_j=lambda t: 60 * t + max(0.0, min(t, run.end_s) - 10) * 240), steps_before(64))(run)
    run.warmup[-1] = StepEnded("warmup", 9 * S + 900 * MS)
    run.engine = structs.replace(run.engine, settings={"temperature": 0.0})
    bad = [(f.rule, f.sentence) for f in judge_step(run.view()) if f.verdict == "fail" and f.severity != "W"]
    assert bad == [
        ("C3", "before this step the engine had served 64 requests, 1.9 s; 2 requests and 30 s are asked for")
    ]


def test_cpu_meter_of_a_gpu_run_is_added() -> None:
    run = Run()
    gpu()(run)
    run.telemetry += ticks(CPU_METER, 0, 26, energy_j=lambda t: 20 * t)
    assert run.finding("D1").observed == "M3, gpu+cpu"


def test_engine_that_hides_everything_is_only_unknown() -> None:
    run = Run()
    run.engine = structs.replace(
        ENGINE, weights_sha256=None, tokenizer_sha256=None, chat_template_sha256=None, context=None, memory={}
    )
    assert run.finding("A2").severity == "W"
    assert run.finding("B8").verdict == "unknown"
