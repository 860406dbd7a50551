"""Every rule: one run with its fault, one without."""

from collections.abc import Callable
from typing import Any

import pytest
from made_records import CPU_METER, ENGINE, GPU_METER, MS, PROCESS, STEP, Run, S, answer, manifest, score, ticks
from msgspec import structs

from results.records import CellEnded, EngineState, MeterInfo, StepEnded, StepStarted
from results.validity import RULES, judge, judge_step
from results.validity.base import exceeds

Change = Callable[[Run], None]


def nothing(run: Run) -> None: ...


def many(run: Run, count: int = 200, every_ms: int = 50, **values: Any) -> None:
    """A step of so many short answers, one at a time."""
    run.step = structs.replace(STEP, items=count, samples=count)
    run.records = [
        answer(
            f"q{i}",
            start,
            first_ns=start + 10 * MS,
            answer_ns=start + 10 * MS,
            last_ns=start + 40 * MS,
            end_ns=start + 40 * MS,
            **values,
        )
        for i in range(count)
        for start in [10 * S + i * every_ms * MS]
    ]
    run.scores = [score(f"q{i}") for i in range(count)]


def engine(**values: Any) -> Change:
    def change(run: Run) -> None:
        run.engine = structs.replace(run.engine, **values)

    return change


def step(**values: Any) -> Change:
    def change(run: Run) -> None:
        run.step = structs.replace(run.step, **values)

    return change


def settings(**values: Any) -> Change:
    def change(run: Run) -> None:
        run.facts = structs.replace(run.facts, settings=values)

    return change


def ended(**values: Any) -> Change:
    def change(run: Run) -> None:
        assert run.ended is not None
        run.ended = structs.replace(run.ended, **values)

    return change


def host(**values: Any) -> Change:
    def change(run: Run) -> None:
        run.host = values

    return change


def all_of(*changes: Change) -> Change:
    def change(run: Run) -> None:
        for one in changes:
            one(run)

    return change


def profile(name: str) -> Change:
    def change(run: Run) -> None:
        run.profile = name

    return change


def gpu(info: MeterInfo = GPU_METER, **values: Any) -> Change:
    """The model on a GPU that draws 60 W at rest and 300 W under load."""

    def change(run: Run) -> None:
        run.engine = structs.replace(run.engine, device="cuda:0")
        telling = {"energy_j": lambda t: 60 * t + max(0.0, min(t, 20) - 10) * 240, "memory_bytes": 2 * 2**30}
        kept = [t for t in run.telemetry if getattr(t, "meter", "") != "estimate"]
        run.telemetry = [*kept, *ticks(info, 0, run.end_s + 6, **(telling | values))]

    return change


def memory_meter(**values: Any) -> Change:
    def change(run: Run) -> None:
        reading = {
            "anon_bytes": 600,
            "file_bytes": 1000,
            "shared_bytes": 10,
            "major_faults": 3,
            "swap_bytes": 0,
            "processes": lambda t: 1 if 5 <= t <= run.end_s + 0.5 else 0,
        }
        kept = [t for t in run.telemetry if getattr(t, "meter", "") != "memory"]
        run.telemetry = [*kept, *ticks(PROCESS, 0, run.end_s + 6, **(reading | values))]

    return change


def no_warm_up(run: Run) -> None:
    run.warmup = []


def answers(**values: Any) -> Change:
    def change(run: Run) -> None:
        run.records = [structs.replace(r, **values) for r in run.records]

    return change


def short_answers(**values: Any) -> Change:
    return lambda run: many(run, **values)


def drop_one(run: Run) -> None:
    run.records = run.records[:-1]


def fail_one(run: Run) -> None:
    run.records[0] = answer("q0", 10 * S, error="broken", finish="error")


def of_200(number: int, **values: Any) -> Change:
    """200 answers, so many of them so."""

    def change(run: Run) -> None:
        many(run)
        run.records = [structs.replace(r, **values) if i < number else r for i, r in enumerate(run.records)]

    return change


def scores_200(number: int, records: dict[str, Any] | None = None, **values: Any) -> Change:
    def change(run: Run) -> None:
        many(run, **(records or {}))
        run.scores = [structs.replace(s, **values) if i < number else s for i, s in enumerate(run.scores)]

    return change


def open_loop(lag_ms: float = 1.0, service_ms: Callable[[int], float] = lambda i: 40.0, count: int = 100) -> Change:
    """Requests meant for every 100 ms; each is sent late by the lag and served in its time."""

    def change(run: Run) -> None:
        run.step = structs.replace(STEP, items=count, samples=count, concurrency=None, rate_per_s=10.0)
        run.records = []
        for i in range(count):
            due = 10 * S + i * 98 * MS
            sent = due + round(lag_ms * MS)
            end = sent + round(service_ms(i) * MS)
            run.records.append(
                answer(
                    f"q{i}",
                    sent,
                    sched_ns=due,
                    first_ns=end - 20 * MS,
                    answer_ns=end - 20 * MS,
                    last_ns=end,
                    end_ns=end,
                )
            )
        run.scores = [score(f"q{i}") for i in range(count)]

    return change


def predicted(**values: Any) -> Change:
    return lambda run: run.predict(**values)


def thinking(number: int, flag: str) -> Change:
    return scores_200(number, {"think_tokens": 5}, flags=(flag,))


def sampled(items: int, samples: int) -> Change:
    def change(run: Run) -> None:
        run.step = structs.replace(STEP, items=items, samples=samples, sampling={"temperature": 0.6})
        run.records = [
            answer(f"q{i % items}", 10 * S + i * S, repeat=i // items, think_tokens=4) for i in range(samples)
        ]
        run.scores = [score(f"q{i % items}", repeat=i // items) for i in range(samples)]

    return change


def two_scorers(run: Run) -> None:
    run.scores[0] = structs.replace(run.scores[0], scorer="qa/2")


def error_as_zero(run: Run) -> None:
    run.scores[0] = structs.replace(run.scores[0], value=0.0, verdict="error")


def shared_clusters(name: str) -> Change:
    def change(run: Run) -> None:
        run.scores = [structs.replace(s, cluster=name) for s in run.scores]

    return change


def positions(recall_of_a: float) -> Change:
    def change(run: Run) -> None:
        many(run)
        run.scores = [
            score(f"q{i}", 1.0 if target == "B" or i < 200 * recall_of_a else 0.0, target=target)
            for i in range(200)
            for target in ["AB"[i % 2]]
        ]

    return change


def graded(run: Run) -> None:
    run.scores = [score("q0", 0.5)]


def steps_before(count: int) -> Change:
    def change(run: Run) -> None:
        run.warmup = [
            StepStarted("warmup", 8 * S),
            *(answer(f"w{i}", 8 * S, step="warmup") for i in range(count)),
            StepEnded("warmup", 9 * S),
        ]

    return change


def long_step(run: Run) -> None:
    """Five minutes of steady answers."""
    many(run, 600, 500)
    run.end_s = 310.0


BMC = MeterInfo(meter="redfish", devices=("chassis",), evidence="M2", boundary="node_ac", sensor_api="Redfish")
ENOUGH = all_of(long_step, steps_before(8))

FAULTS: dict[str, tuple[Change, str, str]] = {
    "A1": (
        ended(fingerprint_end="g" * 64, changed=("driver",)),
        "I",
        "the environment changed during the cell: driver",
    ),
    "A2": (
        all_of(profile("nightly"), engine(weights_sha256=None)),
        "I",
        "which model this was cannot be proved: no hash of weights",
    ),
    "A3": (settings(device="cuda:0"), "I", "asked for cuda:0, ran on cpu"),
    "A4": (
        gpu(foreign_processes=lambda t: 1 if 12 < t < 13 else 0),
        "I",
        "other processes computed on GPU-0 during the step",
    ),
    "A5": (
        memory_meter(cpu_seconds=lambda t: max(0.0, t - 6), host_cpu_percent=80.0),
        "W",
        "other processes used 2.20 of 4 cores",
    ),
    "A6": (answers(last_ns=1), "I", "times run backwards in 4 requests, first in `q0`"),
    "A7": (
        host(cpu={"governor": "powersave"}),
        "W",
        "the CPU's governor is `powersave`, not `performance`: clocks may change with the load",
    ),
    "A8": (
        gpu(power_limit_w=lambda t: 700.0 if t < 15 else 500.0),
        "I",
        "power limit, clocks, ECC or MIG changed during the run: GPU-0",
    ),
    "A9": (ended(outcome="crashed", detail="signal 6"), "I", "the cell ended later as crashed: signal 6"),
    "A10": (gpu(ecc_uncorrected=lambda t: 0 if t < 15 else 2), "I", "2 uncorrectable memory errors during the step"),
    "B1": (fail_one, "I", "1 of 4 requests failed"),
    "B2": (answers(token_source=None), "I", "the engine told the tokens of 0 of 4 answers only"),
    "B4": (
        of_200(30, finish="length"),
        "I",
        "30 of 200 answers were cut at the token limit: their accuracy is the limit's, not the model's",
    ),
    "B5": (thinking(30, "think_unclosed"), "I", "30 of 200 finished answers never closed their thinking"),
    "B6": (scores_200(30, flags=("loop",)), "I", "30 of 200 answers repeat themselves endlessly"),
    "B7": (
        engine(settings={"temperature": 0.7}),
        "I",
        "the engine sampled otherwise than planned (temperature: asked 0.0, used 0.7)",
    ),
    "B8": (engine(context=120), "I", "prompt and answer (50 + 100 tokens) do not fit the context of 120"),
    "B9": (
        answers(cached_tokens=40),
        "I",
        "80.0% of the prompt tokens came from a cache: prefill looks faster than it is",
    ),
    "B11": (
        engine(settings={"draft_model": "tiny"}),
        "W",
        "speculative decoding is on: times between tokens mean little",
    ),
    "B12": (
        lambda run: run.states.append(EngineState(time_ns=13 * S, preemptions=3)),
        "R",
        "3 requests were preempted: more in flight than the cache holds",
    ),
    "C1": (profile("nightly"), "I", "the steady state is 7.6 s long, 60 s are asked for"),
    "C2": (profile("nightly"), "I", "4 requests cannot back p95, 130 are needed"),
    "C3": (
        no_warm_up,
        "W",
        "before this step the engine had served 0 requests, 0.0 s; 2 requests and 30 s are asked for",
    ),
    "C4": (profile("nightly"), "I", "speed was not steady: five parts of the window differ by 79%"),
    "C5": (open_loop(lag_ms=60), "I", "requests left 60 ms late (p99): the load was lighter than planned"),
    "C6": (
        open_loop(service_ms=lambda i: 40.0 + 15 * i),
        "I",
        "more requests came than were served: queue and TTFT grew throughout",
    ),
    "C7": (answers(first_ns=None), "I", "4 answers have tokens and no time of a first one, e.g. `q0`"),
    "C8": (
        predicted(decode_tokens_per_s_ceiling=2.0),
        "I",
        "5.7 tokens/s is more than memory bandwidth allows (2.0): a count is wrong",
    ),
    "C10": (profile("procurement"), "W", "1 repetitions, 3 are asked for"),
    "C11": (gpu(energy_j=None, power_w=lambda t: 300.0 if t < 12 or t > 16 else None), "I", ""),
    "D1": (lambda run: run.telemetry.clear(), "I", "no energy: no power meter covers it"),
    "D2": (all_of(profile("nightly"), gpu()), "I", "energy over 10.0 s; 60 s keep the edges' error small"),
    "D3": (
        gpu(
            structs.replace(GPU_METER, devices=("GPU-0", "GPU-1")),
            device_values={"GPU-1": {"energy_j": None, "error": "lost"}},
        ),
        "I",
        "energy is unknown: nvml: no energy of GPU-1 (power: never read)",
    ),
    "D4": (
        gpu(energy_j=lambda t: 60 * t if t < 15 else 0.0, power_w=300.0),
        "I",
        "the counter cannot be trusted: nvml GPU-0: counter went back: reset during the window",
    ),
    "D5": (gpu(power_w=200.0), "I", "counter and sampled power differ by 33.3%"),
    "D6": (gpu(power_limit_w=200.0), "I", "300.0 W is more than the enforced limit of 200.0 W allows"),
    "D7": (
        gpu(throttle=lambda t: 0x40 if 12 < t < 12.35 else 0),
        "I",
        "the hardware slowed its clocks (heat, power brake) in 3 of 101 readings",
    ),
    "D9": (
        all_of(profile("nightly"), gpu(energy_j=lambda t: 60 * t + max(0.0, t - 10) * 240)),
        "I",
        "the draw at rest was 60.0 W before and 300.0 W after",
    ),
    "D10": (
        gpu(structs.replace(GPU_METER, scope="MIG")),
        "I",
        "a slice of an accelerator has no power of its own: the whole board's draw is not its",
    ),
    "D12": (nothing, "R", "power is an estimate (class E2, 50 to 300 J): no ranking of energy"),
    "D13": (
        gpu(),
        "W",
        "the sensors were not compared with a wall meter: absolute values are as the maker states them",
    ),
    "D14": (
        gpu(structs.replace(GPU_METER, scope="MODULE")),
        "R",
        "the watts include the CPU of the module: not to be compared with those of a GPU alone",
    ),
    "E1": (gpu(memory_bytes=None), "I", "accelerator memory is unknown: no device memory was read"),
    "E2": (
        all_of(engine(engine="vllm"), lambda run: run.states.clear()),
        "I",
        "vllm reserves its cache in advance and did not tell how much of it was used",
    ),
    "E3": (
        all_of(engine(memory={"weights": 2**30, "cache": 2**28, "compute": 0}), gpu()),
        "I",
        "the engine's own figures and the reserved memory differ by 37.5%",
    ),
    "E4": (predicted(total_bytes=1000), "I", "measured 0 MiB, the plan foresaw 0 MiB (+61%)"),
    "E5": (
        all_of(profile("nightly"), memory_meter(major_faults=lambda t: int(t * 10))),
        "I",
        "the model was not wholly in memory while it was measured (100 faults, 0 MiB swapped)",
    ),
    "F1": (lambda run: run.scores.pop() and None, "I", "3 of 4 answers to 3 of 4 items were scored"),
    "F2": (
        all_of(profile("nightly"), sampled(4, 4)),
        "I",
        "1 answers to each item of a sampled reasoning model; 4 tell the run's own scatter (single-sample result)",
    ),
    "F3": (scores_200(30, verdict="no_answer", value=0.0), "I", "no answer could be found in 30 of 200"),
    "F4": (two_scorers, "I", "answers were judged by different versions: qa/1, qa/2"),
    "F5": (graded, "I", "no interval can be given: too few independent items"),
    "F6": (shared_clusters(""), "I", "the items' clusters are not declared"),
    "F9": (positions(0.5), "W", "recall depends on the position of the right option (A 50%, B 100%)"),
    "F11": (error_as_zero, "I", "an error has a score or a verdict has none, e.g. `q0`"),
    "F13": (
        step(public=True),
        "W",
        "the items were public before the models were trained: levels are no evidence of clinical ability",
    ),
}

CLEAN: dict[str, Change] = {
    "A1": nothing,
    "A2": profile("nightly"),
    "A3": settings(device="auto"),
    "A4": gpu(foreign_processes=0),
    "A5": nothing,
    "A6": nothing,
    "A7": nothing,
    "A8": gpu(power_limit_w=700.0),
    "A9": nothing,
    "A10": gpu(ecc_uncorrected=3),
    "B1": nothing,
    "B2": nothing,
    "B4": of_200(3, finish="length"),
    "B5": thinking(3, "think_unclosed"),
    "B6": scores_200(1, flags=("loop",)),
    "B7": engine(settings={"temperature": 0.0}),
    "B8": nothing,
    "B9": nothing,
    "B11": nothing,
    "B12": nothing,
    "C1": ENOUGH,
    "C2": all_of(profile("nightly"), long_step),
    "C3": nothing,
    "C4": all_of(profile("nightly"), ENOUGH),
    "C5": open_loop(),
    "C6": open_loop(),
    "C7": nothing,
    "C8": predicted(decode_tokens_per_s_ceiling=100.0),
    "C11": nothing,
    "D1": nothing,
    "D3": nothing,
    "D4": gpu(),
    "D5": gpu(power_w=lambda t: 300.0 if 10 <= t <= 20 else 60.0),
    "D6": gpu(power_limit_w=700.0),
    "D7": gpu(throttle=0x4),
    "D9": gpu(),
    "D12": gpu(),
    "D13": gpu(structs.replace(GPU_METER, note="calibrated 2026-10-01")),
    "D14": gpu(),
    "E1": gpu(),
    "E2": engine(engine="vllm"),
    "E3": all_of(engine(memory={"weights": 2**30, "cache": 2**30, "compute": 0}), gpu()),
    "E4": predicted(total_bytes=1600),
    "E5": nothing,
    "E6": engine(settings={"page_cache": "warm"}),
    "F1": nothing,
    "F2": sampled(4, 16),
    "F3": scores_200(3, verdict="no_answer", value=0.0),
    "F4": nothing,
    "F5": nothing,
    "F6": shared_clusters("one of a pair"),
    "F9": positions(1.0),
    "F11": nothing,
    "F13": nothing,
    "D10": nothing,
    "D11": nothing,
}


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
NOTHING_TO_FAIL = {"E6": "says unknown where the page cache's state was not recorded"}


def test_share_of_rules_covered(capsys: pytest.CaptureFixture[str]) -> None:
    names = {r.id for r in RULES}
    faults, clean = names & set(FAULTS), names & (set(CLEAN) | {"C10", "D2"})
    with capsys.disabled():
        print(
            f"\nvalidity rules with an injected fault: {len(faults)}/{len(names)}, with a clean run: {len(clean)}/{len(names)}"
        )
    assert names - faults == set(BY_CONSTRUCTION) | set(NOTHING_TO_FAIL)
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
    run.host = {"clock": {"ntp_offset_ms": 900.0}}
    assert run.finding("A6").sentence == "the clock is 900.0 ms off, at most 800 ms are allowed with a node sensor"


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
