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
    stopped,
    thinking,
)
from made_faults import BMC, CLEAN, FAULTS
from made_records import CPU_METER, ENGINE, GPU_METER, MS, STEP, Run, S, answer, manifest, ticks
from msgspec import structs

from results.anytime import e_value
from results.records import CellEnded, StepEnded, StepStarted
from results.summary import row_of
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


def test_energy_of_another_window_than_the_tokens_is_found() -> None:
    """D11. The program computes both over the step, so the fault is put into what was measured."""
    view = Run().view()
    other = structs.replace(view.result, energy=structs.replace(view.result.energy, seconds=9.0))
    found = next(f for f in judge_step(structs.replace(view, measured=other)) if f.rule == "D11")
    assert (found.verdict, found.sentence) == ("fail", "energy and tokens are not of the same window")


BY_HAND = {"D11"}
"""Rules whose fault no record can hold; a test above puts it into what was measured."""


def test_share_of_rules_covered(capsys: pytest.CaptureFixture[str]) -> None:
    names = {r.id for r in RULES}
    faults, clean = names & (set(FAULTS) | BY_HAND), names & (set(CLEAN) | {"C10", "D2"})
    with capsys.disabled():
        print(
            f"\nvalidity rules with an injected fault: {len(faults)}/{len(names)}, with a clean run: {len(clean)}/{len(names)}"
        )
    assert faults == names
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


def test_a_limit_is_asked_of_each_board_whatever_else_is_counted() -> None:
    run = Run()
    two = structs.replace(GPU_METER, devices=("gpu0", "gpu1"))
    hot = {"gpu1": {"energy_j": lambda t: 900 * t, "power_limit_w": 700.0}}
    gpu(two, energy_j=lambda t: 100 * t, power_limit_w=700.0, device_values=hot)(run)
    run.telemetry += ticks(CPU_METER, 0, 26, energy_j=lambda t: 20 * t)
    assert run.finding("D6").sentence == "gpu1: 900.0 W is more than the enforced limit of 700.0 W allows"


def test_an_instant_beyond_what_the_board_is_rated_for_is_a_wrong_reading() -> None:
    run = Run()
    gpu(
        structs.replace(GPU_METER, devices=("gpu0",)),
        power_w=lambda t: 1300.0 if t == 12 else 300.0,
        power_limit_w=300.0,
    )(run)
    run.host = {"gpus": [{"index": 0, "tdp_w": 700.0, "power_limit_default_w": None}]}
    assert run.finding("D6").sentence == "gpu0: a reading of 1300.0 W, the board is rated 700.0 W"
    run.host = {"gpus": [{"index": 0, "tdp_w": 1000.0}]}
    assert run.finding("D6").verdict == "pass"


def test_what_an_accelerator_in_use_does_not_tell_is_unknown() -> None:
    run = Run()
    gpu()(run)
    assert {rule: run.finding(rule).verdict for rule in ("A4", "A8", "D7")} == dict.fromkeys(
        ("A4", "A8", "D7"), "unknown"
    )
    run.engine = structs.replace(run.engine, device="cpu")
    assert {run.finding(rule).verdict for rule in ("A4", "A8", "D7")} == {"not_applicable"}


def test_a_disk_that_is_nearly_full_is_a_warning() -> None:
    run = Run()
    run.host |= {"disk_free_bytes": 4_200_000_000}
    assert run.finding("A5").sentence == "4.2 GB of disk were free when the run began"


def test_a_comparison_with_a_wall_meter_grows_old() -> None:
    run = Run()
    gpu(structs.replace(GPU_METER, note="calibrated 2025-11-01 against a wall meter"))(run)
    assert run.finding("D13").sentence == "the sensors were last compared with a wall meter on 2025-11-01"


def test_a_ceiling_says_nothing_of_speculative_decoding() -> None:
    run = Run()
    run.predict(decode_tokens_per_s_ceiling=2.0)
    run.engine = structs.replace(run.engine, settings={"draft_model": "tiny"})
    assert run.finding("C8").verdict == "not_applicable"


def test_the_client_of_a_server_is_part_of_the_measuring_side() -> None:
    busy = memory_meter(cpu_seconds=lambda t: 0.8 * t, harness_cpu_seconds=lambda t: 0.01 * t, late_ms=1.0)
    for backend, verdict in {"llama_cpp": "pass", "vllm": "pass", "openai_server": "fail"}.items():
        run = Run()
        run.facts = structs.replace(run.facts, backend=backend)
        busy(run)
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


def early(**values: Any) -> Run:
    run = Run()
    stopped(**values)(run)
    return run


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"items": 49}, "49 items are none of its looks"),
        ({"items": 0, "pairs": 0}, "0 items are none of its looks"),
        ({"pairs": 51}, "0 and 7 discordant of 51 pairs in 50 items do not fit"),
        ({"e_value": 99.0}, "0 and 7 discordant items give an e-value of 26.8, not 99"),
        ({"only_baseline": 6, "e_value": e_value(0, 6)}, "an e-value of 14.4 is below 20"),
        ({"decision": "futile"}, "the interval does not lie within its margin"),
        ({"decision": "futile", "lo": None}, "the interval does not lie within its margin"),
    ],
)
def test_an_early_end_must_follow_from_its_own_counts(told: dict[str, Any], sentence: str) -> None:
    found = early(**told).finding("F8")
    assert (found.verdict, found.severity) == ("fail", "I")
    assert sentence in found.sentence


def test_an_early_end_is_complete_under_its_rule_and_only_then() -> None:
    run = early()
    assert [run.finding(rule).verdict for rule in ("B1", "F1", "F8")] == ["pass", "pass", "pass"]
    without = early(rule=None)
    assert [without.finding(rule).verdict for rule in ("B1", "F1", "F8")] == ["fail", "fail", "fail"]
    lost = early()
    lost.records, lost.scores = lost.records[:-3], lost.scores[:-3]
    assert [lost.finding(rule).verdict for rule in ("B1", "F1")] == ["fail", "fail"]


def test_answers_ahead_of_an_early_end_are_counted_and_part_of_no_estimate() -> None:
    run = early()
    run.scores = [structs.replace(s, value=0.0, verdict="wrong") if s.sample == "q51" else s for s in run.scores]
    row = row_of(run.view())
    assert (row.samples, row.scored, row.correct, row.wrong, row.items, row.accuracy) == (52, 52, 51, 1, 50, 1.0)
    assert (row.accuracy_method, row.accuracy_n, row.stopped_items, row.stopped_decision) == (
        "anytime",
        50,
        50,
        "different",
    )
    assert "ended early after 50 of 400 items: different from whole (e-value 26.8)" in row.warnings
