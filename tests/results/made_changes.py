"""What may be done to a made run: each function gives a change that a test applies."""

from collections.abc import Callable, Sequence
from typing import Any

from made_records import GPU_METER, MS, PROCESS, STEP, Run, S, answer, score, ticks
from msgspec import structs

from results.anytime import e_value
from results.manifest import StoppingRule
from results.records import Judged, LabelJudged, MeterInfo, StatementJudged, StepEnded, StepStarted, Stopped

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


RULE = StoppingRule(baseline="whole", baseline_cell="whole-000000", look_every=25, fewest_items=25, futility_margin=0.2)


def stopped(rule: StoppingRule | None = RULE, **values: Any) -> Change:
    """A step of 400 items, ended after 50 of them, seven of which only the baseline answered; two later answers are there too."""

    def change(run: Run) -> None:
        many(run, 52)
        run.step = structs.replace(run.step, items=400, samples=400, stopping=rule)
        told: dict[str, Any] = {
            "items": 50, "answered": 52, "decision": "different", "e_value": e_value(0, 7), "pairs": 50, "only_candidate": 0,
            "only_baseline": 7, "lo": -0.4, "hi": -0.02,
        }  # fmt: skip
        run.stopped = Stopped(**(told | values))

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


LABELS = ("supported", "contradicted", "not_stated")


def judged(**changes: Any) -> Change:
    """A judge that hits all 72 labels and finds one statement supported, but for these changes."""

    def change(run: Run) -> None:
        made = Judged(
            time_ns=27 * S,
            step=run.step.name,
            judge="judge",
            names=("hf:acme/Granite-8B",),
            candidates=("hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",),
            language="en",
            labels=labels(),
            statements=(StatementJudged(sample="q0", statement=0, verdict="supported"),),
            summaries=1,
        )
        run.judged = [structs.replace(made, **changes)]

    return change


def labels(wrong: Sequence[int] = (), said: str | None = None) -> tuple[LabelJudged, ...]:
    """72 of them, three about each note; those with these numbers are missed, or all get the same verdict."""
    return tuple(
        LabelJudged(id=f"l{i}", note=f"n{i // 3}", label=LABELS[i % 3], verdict=said or LABELS[(i + (i in wrong)) % 3])
        for i in range(72)
    )


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


def in_page_cache(share: float) -> Change:
    def change(run: Run) -> None:
        run.page_cache_share = share

    return change


def in_flight(count: int) -> Change:
    """200 answers of 40 ms with so many at a time, under a load that should keep all four slots of the engine busy."""

    def change(run: Run) -> None:
        many(run, 200, 40 // count)
        run.step = structs.replace(run.step, concurrency=4)

    return change


def asked_again(later_ms: float, items: int = 20) -> Change:
    """Four requests to each item, one at a time; the first has its first token after 100 ms, the others after so many."""

    def change(run: Run) -> None:
        run.step = structs.replace(STEP, items=items, samples=4 * items)
        run.records = []
        for i in range(4 * items):
            start, taken = 10 * S + i * 120 * MS, 100 if i < items else later_ms
            times = {name: start + round(taken * MS) for name in ("first_ns", "answer_ns", "last_ns", "end_ns")}
            run.records.append(answer(f"q{i % items}", start, repeat=i // items, **times))
        run.scores = [score(f"q{i % items}", repeat=i // items) for i in range(4 * items)]

    return change
