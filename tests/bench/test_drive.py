"""Load, stamps and thinking, with the scripted backend."""

from collections.abc import Iterator

import pytest

from bench.backends import BackendError, BackendOutOfMemory, Chunk, Ranking, RankRequest, Request, Sampling, Turn, Usage
from bench.backends.scripted import ScriptedBackend
from bench.config import Load, ScriptedSettings
from bench.drive import TokenCount, arrivals, drive
from bench.job import JobStep
from results.records import Answered, Continuation, EngineInfo, EngineState, Ranked
from tasks.thinking import Thinking, split_thinking


def request(name: str, prefill: str = "", max_tokens: int = 100) -> Request:
    return Request(id=name, turns=(Turn("user", "well ?"),), prefill=prefill, sampling=Sampling(max_tokens=max_tokens))


def answers(backend: object, load: Load, *requests: Request) -> list[Answered]:
    step = JobStep(name="s", load=load, seed=1, requests=requests)
    records = list(drive(backend, step, TokenCount()))  # type: ignore[arg-type]
    assert all(isinstance(r, Answered) for r in records)
    return [r for r in records if isinstance(r, Answered)]


class Pieces:
    """A backend that streams the given pieces."""

    max_concurrency = 8

    def __init__(self, *pieces: str, channel: str = "answer") -> None:
        self.pieces, self.channel = pieces, channel

    def describe(self) -> EngineInfo:
        return EngineInfo(engine="pieces", engine_version=None, device="cpu", model="m")

    def state(self) -> EngineState | None:
        return None

    def stream(self, request: Request) -> Iterator[Chunk]:
        for piece in self.pieces:
            yield Chunk(text=piece, tokens=1, channel=self.channel)  # type: ignore[arg-type]
        yield Chunk(finish="stop", usage=Usage(prompt_tokens=3, output_tokens=len(self.pieces)))

    def rank(self, request: RankRequest) -> Ranking:
        raise BackendError("no ranking here")

    def close(self) -> None: ...


def test_every_request_is_answered_and_stamped_in_order() -> None:
    done = answers(
        ScriptedBackend(ScriptedSettings(reply="a b c")), Load(concurrency=2), *(request(f"q{i}") for i in range(5))
    )
    assert sorted(a.sample for a in done) == ["q0", "q1", "q2", "q3", "q4"]
    for a in done:
        assert a.first_ns is not None
        assert a.last_ns is not None
        assert a.sched_ns == a.start_ns <= a.first_ns <= a.last_ns <= a.end_ns
        assert (a.text, a.output_tokens, a.prompt_tokens, a.finish) == ("a b c ", 3, 2, "stop")


def test_the_answer_begins_after_the_thinking() -> None:
    (a,) = answers(Pieces("<th", "ink>", "hm", "</thi", "nk>", "\n", "A"), Load(concurrency=1), request("q"))
    assert a.first_ns is not None
    assert a.answer_ns is not None
    assert a.answer_ns > a.first_ns
    assert a.think_tokens == 5


def test_a_prefilled_thinking_part_is_known_to_be_open() -> None:
    (a,) = answers(Pieces("hm", "</think>", "A"), Load(concurrency=1), request("q", prefill="<think>\n"))
    assert (a.text, a.think_tokens) == ("<think>\nhm</think>A", 2)


def test_thinking_in_a_channel_of_its_own_leaves_no_tag_behind() -> None:
    """A server's parser takes the opening tag too; kept, it would make every answer one whose thinking never ended."""

    class Server(Pieces):
        def stream(self, request: Request) -> Iterator[Chunk]:
            yield Chunk(text="hm", tokens=2, channel="reasoning")
            yield from super().stream(request)

    (a,) = answers(Server("Answer", ": A"), Load(concurrency=1), request("q", prefill="<think>\n"))
    assert (a.text, a.reasoning, a.think_tokens) == ("Answer: A", "hm", 2)
    assert a.answer_ns is not None
    assert split_thinking(a.text or "", a.reasoning) == Thinking("closed", "hm", "Answer: A")


def test_thinking_that_never_ends_has_no_answer_time() -> None:
    (a,) = answers(Pieces("<think>", "hm"), Load(concurrency=1), request("q"))
    assert (a.answer_ns, a.think_tokens) == (None, 2)


def test_an_answer_without_thinking_begins_at_once() -> None:
    (a,) = answers(Pieces("Answer", ": A"), Load(concurrency=1), request("q"))
    assert (a.answer_ns, a.think_tokens) == (a.first_ns, None)


def test_a_failed_request_is_a_record_and_the_others_go_on() -> None:
    done = answers(
        ScriptedBackend(ScriptedSettings(fail_every=2)), Load(concurrency=1), *(request(f"q{i}") for i in range(4))
    )
    assert [(a.sample, a.finish, a.error) for a in done if a.error] == [
        ("q1", "error", "scripted: this request fails"),
        ("q3", "error", "scripted: this request fails"),
    ]


def test_a_cut_answer_says_so() -> None:
    (a,) = answers(ScriptedBackend(ScriptedSettings(reply="a b c")), Load(concurrency=1), request("q", max_tokens=2))
    assert (a.finish, a.output_tokens) == ("length", 2)


def test_ranking_keeps_the_order_asked() -> None:
    step = JobStep(
        name="s",
        load=Load(concurrency=1),
        seed=1,
        ranks=(RankRequest(id="q", context="c", continuations=(" b", " a")),),
    )
    (record,) = drive(ScriptedBackend(ScriptedSettings()), step, TokenCount())
    assert isinstance(record, Ranked)
    assert [c.logprob for c in record.continuations] == [-2.0, -1.0]


def test_arrivals_are_the_same_for_every_system_and_have_the_asked_rate() -> None:
    times = arrivals(2000, 4.0, seed=3)
    assert times == arrivals(2000, 4.0, seed=3)
    assert times == sorted(times)
    assert times[-1] / 1e9 == pytest.approx(500, rel=0.1)


def test_an_open_loop_counts_latency_from_the_planned_time() -> None:
    backend = ScriptedBackend(ScriptedSettings(reply="a", slots=1))
    done = answers(backend, Load(rate_per_s=500.0), *(request(f"q{i}") for i in range(20)))
    assert len(done) == 20
    assert all(a.start_ns >= a.sched_ns for a in done)


def test_a_log_likelihood_that_is_no_number_is_a_failure_and_no_answer() -> None:
    class Broken(Pieces):
        def rank(self, request: RankRequest) -> Ranking:
            bad = float("nan") if request.id == "q1" else -1.0
            return Ranking(continuations=(Continuation(bad, 1), Continuation(-2.0, 1)))

    ranks = tuple(RankRequest(id=name, context="c", continuations=("a", "b")) for name in ("q0", "q1"))
    step = JobStep(name="s", load=Load(concurrency=1), seed=1, ranks=ranks)
    found = {r.sample: r for r in drive(Broken(), step, TokenCount()) if isinstance(r, Ranked)}
    assert found["q0"].error is None
    assert "no numbers" in (found["q1"].error or "")
    assert found["q1"].continuations == ()


def test_an_engine_that_is_lost_gets_no_further_requests() -> None:
    class Lost(Pieces):
        asked = 0

        def stream(self, request: Request) -> Iterator[Chunk]:
            self.asked += 1
            raise BackendOutOfMemory("gone")

    backend = Lost()
    with pytest.raises(BackendOutOfMemory):
        answers(backend, Load(rate_per_s=20.0), *(request(f"q{i}") for i in range(2000)))
    assert backend.asked < 2000
