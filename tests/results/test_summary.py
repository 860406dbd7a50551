"""Folding a cell's records into rows."""

from typing import Any

import pytest
from made_changes import gpu
from made_records import (
    CPU_METER,
    ENGINE,
    GPU_METER,
    GUESS,
    MS,
    PROCESS,
    STEP,
    Run,
    S,
    answer,
    manifest,
    ranked,
    score,
    ticks,
)
from msgspec import structs

from results.records import CellEnded, CellStarted, EngineState, Event, Loaded, MeterInfo, StepEnded, StepStarted
from results.rows import Row
from results.summary import fold

BMC = MeterInfo(
    meter="redfish", devices=("chassis",), evidence="M2", boundary="node_ac", sensor_api="Redfish", period_s=1
)


def rows(run: Run, events: list[Event] | None = None) -> tuple[Row, ...]:
    facts = run.cell_facts()
    return fold(
        manifest(run.profile, facts, run.host),
        facts,
        run.events() if events is None else events,
        run.telemetry,
        run.scores,
    )


def row(run: Run) -> Row:
    (only,) = rows(run)
    return only


def parts(found: Row, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(found, name) for name in names)


def test_one_row_for_each_measured_step_and_none_for_the_warm_up() -> None:
    assert [r.step for r in rows(Run())] == ["qa@c1"]


def test_identity_is_what_the_engine_says_it_loaded() -> None:
    found = row(Run())
    assert parts(found, "run", "cell", "deployment", "model") == ("run", "tiny-000000", "tiny", "file:tiny.gguf")
    assert parts(found, "parameters_b", "quantisation", "bits_per_weight", "weight_bytes") == (2.0, "Q8_0", 8.5, 1000)
    assert parts(found, "engine", "engine_version", "device", "load_seconds") == ("scripted", "1", "cpu", 1.0)


def test_what_an_engine_hides_is_taken_from_the_plan_or_left_empty() -> None:
    run = Run()
    run.engine = structs.replace(ENGINE, parameters=None, quantisation=None, bits_per_weight=None, weight_bytes=None)
    run.facts = structs.replace(run.facts, parameters_b=7.6, quantisation="Q4_K_M")
    assert parts(row(run), "parameters_b", "quantisation", "bits_per_weight", "weight_bytes") == (
        7.6,
        "Q4_K_M",
        None,
        None,
    )


def test_accuracy_counts_add_up_and_an_error_is_not_a_zero() -> None:
    run = Run()
    run.records[3] = answer("q3", 16 * S, error="broken", finish="error", output_tokens=None, prompt_tokens=None)
    run.scores = [score("q0"), score("q1", 0.0), score("q2", 0.0, verdict="no_answer"), score("q3", None)]
    found = row(run)
    assert parts(found, "samples", "scored", "correct", "wrong", "no_answer", "truncated", "errors") == (
        4,
        3,
        1,
        1,
        1,
        0,
        1,
    )
    assert found.accuracy == pytest.approx(1 / 3)
    assert found.accuracy_method == "wilson"


def test_a_step_that_was_not_scored_has_no_accuracy() -> None:
    run = Run()
    run.scores = []
    found = row(run)
    assert parts(found, "scored", "correct", "accuracy", "accuracy_lo", "no_answer") == (None,) * 5
    assert found.energy_per_correct_j is None


def test_pass_at_1_is_the_mean_of_item_means() -> None:
    run = Run()
    run.step = structs.replace(STEP, items=2)
    run.records = [
        answer(q, (10 + 2 * i) * S, repeat=k) for i, (q, k) in enumerate([("a", 0), ("a", 1), ("b", 0), ("b", 1)])
    ]
    run.scores = [score("a", 1.0), score("a", 0.0, repeat=1), score("b", 1.0), score("b", 1.0, repeat=1)]
    assert parts(row(run), "items", "correct", "accuracy", "accuracy_method") == (2, 3, 0.75, "wilson_clustered")


def test_speeds_are_over_the_whole_step() -> None:
    found = row(Run())
    assert parts(found, "seconds", "prompt_tokens", "output_tokens") == (10.0, 200, 44)
    assert parts(found, "prompt_tokens_per_s", "output_tokens_per_s", "samples_per_s") == (20.0, 4.4, 0.4)
    assert found.output_tokens_mean == 11.0
    assert found.prefill_tokens_per_s == pytest.approx(500.0)


def test_cached_prompt_tokens_do_not_count_as_speed() -> None:
    run = Run()
    run.records = [answer(f"q{i}", (10 + 2 * i) * S, cached_tokens=25) for i in range(4)]
    assert parts(row(run), "prompt_tokens", "cached_tokens", "prompt_tokens_per_s") == (200, 100, 10.0)


def test_cached_tokens_told_for_some_requests_only_leave_the_speed_of_reading_unknown() -> None:
    run = Run()
    run.records = [answer(f"q{i}", (10 + 2 * i) * S, cached_tokens=25 if i else None) for i in range(4)]
    found = row(run)
    assert parts(found, "prompt_tokens", "cached_tokens", "prompt_tokens_per_s") == (200, None, None)
    assert parts(found, "prefill_tokens_per_s", "steady_prompt_tokens_per_s") == (None, None)


@pytest.mark.parametrize(
    ("text", "characters"),
    [("abc", 3), ("<think>why</think>abc", 3), ("why</think> abc", 3), ("<think>why, and why", 0), ("", 0)],
)
def test_characters_are_those_of_the_answer_without_its_thinking(text: str, characters: int) -> None:
    run = Run()
    run.records = [answer("q0", 10 * S, text=text)]
    assert row(run).characters_per_s == pytest.approx(characters / 10)


def test_power_of_a_remote_server_is_known_where_its_node_is_read_and_its_memory_never() -> None:
    run = Run()
    run.engine = structs.replace(ENGINE, device="remote")
    assert parts(row(run), "energy_j", "power_class", "host_memory_bytes") == (None, None, None)
    run.telemetry += ticks(BMC, 0, 26, power_w=700.0)
    found = row(run)
    assert parts(found, "energy_j", "power_class", "host_memory_bytes") == (pytest.approx(7000.0), "M2", None)


def test_one_unknown_token_count_makes_the_sum_and_all_that_rests_on_it_unknown() -> None:
    run = Run()
    run.records[1] = answer("q1", 12 * S, output_tokens=None, token_source=None)
    found = row(run)
    assert (
        parts(found, "output_tokens", "output_tokens_per_s", "energy_per_output_token_j", "steady_output_tokens_per_s")
        == (None,) * 4
    )


def test_latency_counts_from_the_planned_time() -> None:
    run = Run()
    run.step = structs.replace(STEP, items=11, samples=11, concurrency=None, rate_per_s=2.0)
    run.records = [answer(f"q{i}", 10 * S + i * 500 * MS, sched_ns=10 * S + i * 500 * MS - 40 * MS) for i in range(11)]
    found = row(run)
    assert parts(found, "ttft_p50_ms", "ttfat_p50_ms", "tpot_p50_ms", "e2e_p50_ms") == pytest.approx(
        (140.0, 140.0, 100.0, 1140.0)
    )
    assert parts(found, "ttft_p95_ms", "tpot_p95_ms", "e2e_p95_ms") == (None, None, None)
    assert "p95 needs 130 values, 11 were seen" in found.warnings


def test_a_ranking_has_end_to_end_times_and_prompt_speed_only() -> None:
    run = Run()
    run.step = structs.replace(STEP, items=12, samples=12, scoring="likelihood")
    run.records = [ranked(f"q{i}", 10 * S + i * 600 * MS) for i in range(12)]
    run.scores = [score(f"q{i}") for i in range(12)]
    found = row(run)
    assert parts(found, "prompt_tokens", "output_tokens", "output_tokens_per_s", "ttft_p50_ms") == (
        480,
        None,
        None,
        None,
    )
    assert parts(found, "prompt_tokens_per_s", "e2e_p50_ms") == pytest.approx((48.0, 500.0))
    assert found.steady_prompt_tokens_per_s is not None


def test_energy_of_an_estimate_has_its_range_and_never_ranks() -> None:
    found = row(Run())
    assert parts(found, "energy_j", "energy_low_j", "energy_high_j") == pytest.approx((200.0, 50.0, 300.0))
    assert parts(found, "power_class", "energy_boundary", "energy_method") == ("E2", "cpu_package", "integral")
    assert parts(found, "mean_power_w", "idle_power_w", "idle_loaded_power_w", "idle_after_power_w") == pytest.approx(
        (20.0, 10.0, 10.0, 10.0)
    )
    assert parts(found, "energy_per_output_token_j", "energy_per_sample_j", "energy_per_correct_j") == pytest.approx(
        (200 / 44, 50.0, 200 / 3)
    )
    assert found.energy_net_j == pytest.approx(100.0)
    assert (found.valid, found.energy_valid) == (True, False)
    assert found.energy_reasons == ("D12: power is an estimate (class E2, 50 to 300 J): no ranking of energy",)


def test_measured_energy_ranks() -> None:
    run = Run()
    run.telemetry += ticks(CPU_METER, 0, 26, energy_j=lambda t: 10 * t + max(0.0, min(t, 20) - 10) * 40)
    found = row(run)
    assert parts(found, "energy_j", "power_class", "energy_method", "energy_meters") == (
        pytest.approx(500.0),
        "M3",
        "counter",
        "rapl",
    )
    assert (found.energy_valid, found.energy_reasons) == (True, ())


def test_unknown_energy_is_empty_with_the_reason() -> None:
    run = Run()
    run.telemetry = [t for t in run.telemetry if getattr(t, "meter", "") != "estimate"]
    found = row(run)
    assert parts(found, "energy_j", "mean_power_w", "power_class", "energy_per_sample_j") == (None,) * 4
    assert found.energy_valid is False
    assert found.energy_reasons == ("D1: no energy: no power meter covers it",)
    assert found.valid


def test_no_correct_answer_has_no_energy_per_correct() -> None:
    run = Run()
    run.scores = [score(f"q{i}", 0.0) for i in range(4)]
    assert parts(row(run), "correct", "accuracy", "energy_per_correct_j") == (0, 0.0, None)


def test_host_memory_is_the_highest_sum_of_one_reading_during_the_step() -> None:
    run = Run()
    run.telemetry = ticks(
        PROCESS,
        0,
        26,
        anon_bytes=lambda t: 9000 if t < 9 else 600 if t < 15 else 500,
        file_bytes=lambda t: 1000 if t < 15 else 1200,
        shared_bytes=10,
    )
    found = row(run)
    assert parts(found, "host_memory_bytes", "host_anon_bytes", "host_file_bytes") == (1710, 600, 1200)
    assert parts(found, "vram_reserved_bytes", "vram_needed_bytes") == (None, None)


def test_compute_is_what_torch_held_at_its_peak_beyond_weights_and_cache() -> None:
    run = Run()
    gpu()(run)
    run.engine = structs.replace(run.engine, memory={"weights": 1000, "cache": 4000, "peak_allocated": 5100})
    run.states = [
        EngineState(time_ns=12 * S, cache_tokens_used=300, cache_tokens_total=400, memory={"peak_allocated": 5600})
    ]
    assert row(run).vram_needed_bytes == 1000 + 300 * 10 + 600
    run.engine = structs.replace(run.engine, memory={"weights": 1000, "peak_allocated": 5100})
    assert row(run).vram_needed_bytes is None


def test_needed_memory_is_weights_used_cache_and_compute() -> None:
    run = Run()
    run.states = [
        EngineState(time_ns=12 * S, cache_tokens_used=100),
        EngineState(time_ns=13 * S, cache_tokens_used=300, memory={"compute": 700}),
    ]
    assert row(run).host_needed_bytes == 1000 + 300 * 10 + 700
    run.engine = structs.replace(ENGINE, device="cuda:0", memory={"weights": 1000, "compute": 500})
    assert parts(row(run), "host_needed_bytes", "vram_needed_bytes") == (None, 4700)
    run.engine = structs.replace(ENGINE, memory={})
    run.states = []
    assert row(run).host_needed_bytes is None


def gpu_run(**values: Any) -> Run:
    run = Run()
    run.engine = structs.replace(ENGINE, device="cuda:0")
    two = structs.replace(GPU_METER, devices=("GPU-0", "GPU-1"))
    run.telemetry += ticks(two, 0, 26, energy_j=lambda t: 100 * t, **values)
    return run


def test_reserved_memory_is_that_of_our_processes_on_all_devices() -> None:
    run = gpu_run(memory_bytes=lambda t: 5000 if t < 15 else 6000, memory_used_bytes=9000)
    assert row(run).vram_reserved_bytes == 12000


def test_reserved_memory_falls_back_to_the_rise_where_nobody_else_is() -> None:
    run = gpu_run(memory_used_bytes=lambda t: 400 if t < 6 else 5400, foreign_processes=0)
    assert row(run).vram_reserved_bytes == 10000
    crowded = gpu_run(memory_used_bytes=lambda t: 400 if t < 6 else 5400, foreign_processes=1)
    assert row(crowded).vram_reserved_bytes is None


def test_a_step_that_was_cut_and_run_again_counts_once() -> None:
    run = Run()
    cut: list[Event] = [
        CellStarted(time_ns=1 * S, attempt=1),
        Loaded(2 * S, 3 * S, ENGINE),
        StepStarted(STEP.name, 4 * S),
        answer("q0", 4 * S),
        answer("q1", 4 * S + 1),
    ]
    (found,) = rows(run, [*cut, *run.events()])
    assert parts(found, "samples", "output_tokens", "seconds", "load_seconds") == (4, 44, 10.0, 1.0)


@pytest.mark.parametrize("outcome", ["oom", "timeout", "crashed", "interrupted"])
def test_a_step_without_an_end_has_a_row_that_says_why(outcome: Any) -> None:
    run = Run()
    events = [e for e in run.events() if not (isinstance(e, StepEnded) and e.step == STEP.name)]
    events[-1] = CellEnded(time_ns=20 * S, outcome=outcome, detail="no memory left")
    (found,) = rows(run, events)
    assert parts(found, "outcome", "valid", "seconds", "accuracy", "energy_j") == (outcome, False, None, None, None)
    assert found.reasons == (f"the step was cut: {outcome}, no memory left",)
    assert found.weight_bytes == 1000


def test_a_run_that_was_killed_says_that_it_can_be_resumed() -> None:
    run = Run()
    run.ended = None
    events = [e for e in run.events() if not (isinstance(e, (StepEnded, StepStarted)) and e.step == STEP.name)]
    (found,) = rows(run, events)
    assert (found.outcome, found.reasons) == (
        "interrupted",
        ("the step was never started: interrupted, the run has no end; resume it",),
    )


def test_a_skipped_cell_has_rows_with_the_reason() -> None:
    run = Run()
    run.facts = structs.replace(run.facts, skipped="needs 40 GiB more")
    (found,) = rows(run, [])
    assert parts(found, "outcome", "reasons", "model", "task") == (
        "skipped",
        ("skipped: needs 40 GiB more",),
        "file:tiny.gguf",
        "qa",
    )
    late = Run()
    (found,) = rows(late, [CellEnded(time_ns=1, outcome="skipped", detail="file not found")])
    assert (found.outcome, found.reasons) == ("skipped", ("skipped: file not found",))


def test_a_finished_step_of_a_cell_that_crashed_later_is_kept_and_marked() -> None:
    run = Run()
    run.ended = CellEnded(time_ns=26 * S, outcome="crashed", detail="signal 11")
    found = row(run)
    assert (found.outcome, found.valid) == ("ok", False)
    assert "A9: the cell ended later as crashed: signal 11" in found.reasons


def test_tokens_of_thinking_are_counted_apart() -> None:
    run = Run()
    run.records = [
        answer(f"q{i}", (10 + 2 * i) * S, think_tokens=6, answer_ns=(10 + 2 * i) * S + 600 * MS) for i in range(4)
    ]
    run.scores = [score("q0", flags=("think_unclosed",)), score("q1"), score("q2", flags=("loop",)), score("q3", 0.0)]
    assert parts(row(run), "think_tokens", "think_unclosed", "think_empty", "loops") == (24, 1, 0, 1)


def test_energy_of_the_steady_window_is_divided_by_the_tokens_inside_it() -> None:
    found = row(Run())
    assert found.steady_seconds == pytest.approx(7.6)
    assert found.steady_energy_j == pytest.approx(152.0)
    # all four answers lie inside but for the first token of the first, which the window begins with
    assert found.steady_energy_per_output_token_j == pytest.approx(152 / 43)


def test_fold_does_not_depend_on_the_meters_that_are_not_energy() -> None:
    run = Run()
    run.telemetry = ticks(GUESS, 0, 26, power_w=20.0)
    assert row(run).host_memory_bytes is None
    assert row(run).energy_j == pytest.approx(200.0)
