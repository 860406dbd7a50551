"""The batcher over a decoder whose every answer can be computed by hand from the whole history of a sequence."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.backends import BackendError, BackendOutOfMemory, Chunk, Ranking
from bench.backends.batching import Batcher, common_length
from bench.backends.inflight import Comparing, Piece, Writing
from bench.backends.streaming import TextStream, Thinking
from results.records import Continuation

VOCABULARY = 97
END = 0


def following(history: Sequence[int]) -> int:
    """The pretend model's next token depends on every token and its place."""
    return sum((place + 1) * token for place, token in enumerate(history)) % VOCABULARY


def logprob(history: Sequence[int], token: int) -> float:
    return -float((following(history) - token) % VOCABULARY) - 1.0


class HistoryDecoder:
    """Keeps the tokens of each sequence; refuses what a real cache would refuse."""

    def __init__(self, cells: int = 1000, batch: int = 16, sequences: int = 12) -> None:
        self.cells, self.batch, self.sequences = cells, batch, sequences
        self.cache: dict[int, tuple[int, ...]] = {}
        self.rows: list[tuple[int, ...]] = []
        self.wanted: list[bool] = []
        self.steps: list[list[Piece]] = []
        self.used = 0
        self.fail_at: dict[int, Exception] = {}
        self.hold = threading.Event()
        self.hold.set()

    def decode(self, pieces: Sequence[Piece]) -> None:
        assert self.hold.wait(30)
        if error := self.fail_at.get(len(self.steps)):
            self.steps.append([])
            raise error
        self.steps.append([Piece(p.sequence, tuple(p.tokens), p.position, p.outputs) for p in pieces])
        self.rows, self.wanted = [], []
        assert 0 < sum(len(p.tokens) for p in pieces) <= self.batch
        for piece in pieces:
            assert 0 <= piece.sequence < self.sequences
            history = self.cache.get(piece.sequence, ())
            assert piece.position == len(history)
            for token in piece.tokens:
                history = (*history, token)
                self.rows.append(history)
            self.wanted += [False] * (len(piece.tokens) - piece.outputs) + [True] * piece.outputs
            self.cache[piece.sequence] = history
        self.used = len({h[:n] for h in self.cache.values() for n in range(1, len(h) + 1)})
        assert self.used <= self.cells

    def pick(self, row: int) -> int:
        assert self.wanted[row]
        return following(self.rows[row])

    def logprobs(self, row: int, targets: Sequence[int]) -> list[float]:
        assert self.wanted[row]
        return [logprob(self.rows[row], t) for t in targets]

    def copy(self, source: int, target: int, length: int) -> None:
        assert target not in self.cache
        self.cache[target] = self.cache[source][:length]

    def forget(self, sequence: int) -> None:
        self.cache.pop(sequence, None)

    def is_end(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return f"{token} ".encode()


class Likeliest:
    def __init__(self, decoder: HistoryDecoder) -> None:
        self.pick = decoder.pick

    def close(self) -> None:
        """Holds nothing."""


def writing(decoder: HistoryDecoder, prompt: Sequence[int], most: int, **more: object) -> Writing:
    given = {"text": TextStream(), **more}
    return Writing(prompt=prompt, max_tokens=most, sampler=lambda: Likeliest(decoder), **given)  # type: ignore[arg-type]


def answer(batcher: Batcher, job: Writing) -> list[Chunk]:
    batcher.submit(job)
    chunks = []
    while True:
        chunk = job.chunks.get(timeout=30)
        if isinstance(chunk, BaseException):
            raise chunk
        chunks.append(chunk)
        if chunk.finish:
            return chunks


def ranking(batcher: Batcher, job: Comparing) -> Ranking:
    batcher.submit(job)
    done = job.done.get(timeout=30)
    if isinstance(done, BaseException):
        raise done
    return done


def written_alone(prompt: Sequence[int], most: int) -> tuple[str, str]:
    """Text and reason of ending, computed without any batching."""
    history, text = list(prompt), ""
    for _ in range(most):
        token = following(history)
        if token == END:
            return text, "stop"
        history.append(token)
        text += f"{token} "
    return text, "length"


def scored_alone(context: Sequence[int], continuations: Sequence[Sequence[int]]) -> tuple[Continuation, ...]:
    def score(tokens: Sequence[int]) -> float:
        whole = [*context, *tokens]
        return sum(logprob(whole[:n], whole[n]) for n in range(len(context), len(whole)))

    return tuple(Continuation(score(c), len(c)) for c in continuations)


@pytest.fixture
def decoder() -> HistoryDecoder:
    return HistoryDecoder()


def test_answers_written_together_are_those_written_alone(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=4)
    prompts = [[(7 * i + j * j) % 96 + 1 for j in range(3 + 5 * (i % 6))] for i in range(30)]
    with ThreadPoolExecutor(9) as pool:
        told = list(pool.map(lambda p: answer(batcher, writing(decoder, p, 20)), prompts))
    batcher.close()
    for prompt, chunks in zip(prompts, told, strict=True):
        text, finish = written_alone(prompt, 20)
        assert ("".join(c.text for c in chunks), chunks[-1].finish) == (text, finish)
        usage = chunks[-1].usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.cached_tokens) == (len(prompt), 0)
        assert usage.output_tokens == sum(c.tokens for c in chunks) == len(text.split()) + (finish == "stop")
    assert decoder.cache == {}


def test_contexts_ranked_together_score_as_alone_and_share_steps(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=4)
    jobs = [([i + 1] * (2 + i), [[5], [6, 7], list(range(1, 4 + i)), [9, 9, 9, 9], [1, 2], [3, 4]]) for i in range(10)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda j: ranking(batcher, Comparing(context=j[0], continuations=j[1])), jobs))
    batcher.close()
    for (context, continuations), ranked in zip(jobs, made, strict=True):
        assert ranked.continuations == scored_alone(context, continuations)
        assert ranked.prompt_tokens == len(context) + sum(len(c) - 1 for c in continuations)
    assert decoder.cache == {}


def test_a_context_is_evaluated_once_for_all_its_continuations(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=2)
    ranking(batcher, Comparing(context=[1, 2, 3], continuations=[[4], [5, 6], [7, 8, 9]]))
    batcher.close()
    assert [[(p.tokens, p.position, p.outputs) for p in step] for step in decoder.steps] == [
        [((1, 2, 3), 0, 1)],
        [((5,), 3, 1), ((7, 8), 3, 2)],
    ]


def test_a_shared_prefix_is_evaluated_once_and_scores_stay_the_same(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=3)
    prefix = list(range(1, 41))
    contexts = [[*prefix, 50 + i, 3] for i in range(8)] + [[*prefix[:38], 9, 9]]
    with ThreadPoolExecutor(3) as pool:
        made = list(
            pool.map(
                lambda c: ranking(batcher, Comparing(context=c, continuations=[[5, 6], [7]], prefix=prefix)), contexts
            )
        )
    batcher.close()
    for context, ranked in zip(contexts, made, strict=True):
        assert ranked.continuations == scored_alone(context, [[5, 6], [7]])
    assert [r.prompt_tokens for r in made] == [3] * 9
    assert sum(len(p.tokens) for step in decoder.steps for p in step) == 40 + 9 * 3


def test_answers_free_the_prefix_and_another_prefix_replaces_it(decoder: HistoryDecoder) -> None:
    decoder.cells = 50
    batcher = Batcher(decoder, slots=2)
    for start in (1, 30):
        prefix = list(range(start, start + 30))
        ranked = ranking(batcher, Comparing(context=[*prefix, 2], continuations=[[3, 4]], prefix=prefix))
        assert ranked.continuations == scored_alone([*prefix, 2], [[3, 4]])
    chunks = answer(batcher, writing(decoder, [1] * 30, 20))
    batcher.close()
    assert "".join(c.text for c in chunks) == written_alone([1] * 30, 20)[0]


def test_prompts_are_taken_in_pieces_beside_running_answers(decoder: HistoryDecoder) -> None:
    decoder.hold.clear()
    batcher = Batcher(decoder, slots=2)
    short, long = writing(decoder, [5, 6], 6), writing(decoder, [7] * 40, 2)
    batcher.submit(short)
    batcher.submit(long)
    decoder.hold.set()
    for job in (short, long):
        while not (c := job.chunks.get(timeout=30)).finish:  # type: ignore[union-attr]
            assert isinstance(c, Chunk)
    batcher.close()
    mixed = [[len(p.tokens) for p in step] for step in decoder.steps]
    assert [1, 15] in mixed
    assert all(sum(step) <= 16 for step in mixed)


def test_what_does_not_fit_the_cache_waits_for_its_turn(decoder: HistoryDecoder) -> None:
    decoder.cells = 60
    batcher = Batcher(decoder, slots=4)
    prompts = [[i + 1] * 20 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda p: answer(batcher, writing(decoder, p, 10)), prompts))
    batcher.close()
    assert ["".join(c.text for c in chunks) for chunks in told] == [written_alone(p, 10)[0] for p in prompts]


def test_more_continuations_than_sequences_or_cells_are_scored_in_turns() -> None:
    decoder = HistoryDecoder(cells=40, sequences=4)
    batcher = Batcher(decoder, slots=2)
    continuations = [[i + 1] * 9 for i in range(7)]
    ranked = ranking(batcher, Comparing(context=[1] * 20, continuations=continuations))
    batcher.close()
    assert ranked.continuations == scored_alone([1] * 20, continuations)


def test_a_prefix_too_large_to_be_kept_beside_its_context_is_done_without() -> None:
    decoder = HistoryDecoder(cells=50)
    batcher = Batcher(decoder, slots=1)
    prefix, context = list(range(1, 31)), [*range(1, 5), *([9] * 36)]
    ranked = ranking(batcher, Comparing(context=context, continuations=[[1, 2]], prefix=prefix))
    batcher.close()
    assert ranked.continuations == scored_alone(context, [[1, 2]])


def test_an_abandoned_answer_gives_its_slot_away(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=1)
    endless = writing(decoder, [3], 900, ignore_end=True)
    batcher.submit(endless)
    assert isinstance(endless.chunks.get(timeout=30), Chunk)
    endless.cancelled = True
    chunks = answer(batcher, writing(decoder, [1, 2], 5))
    batcher.close()
    assert "".join(c.text for c in chunks) == written_alone([1, 2], 5)[0]


def test_a_failed_step_fails_what_was_in_it_and_the_engine_goes_on(decoder: HistoryDecoder) -> None:
    decoder.fail_at = {0: BackendError("no room")}
    batcher = Batcher(decoder, slots=1)
    with pytest.raises(BackendError, match="no room"):
        answer(batcher, writing(decoder, [1, 2], 5))
    chunks = answer(batcher, writing(decoder, [1, 2], 5))
    batcher.close()
    assert "".join(c.text for c in chunks) == written_alone([1, 2], 5)[0]


@pytest.mark.parametrize("error", [BackendOutOfMemory("gone"), AssertionError("ours")])
def test_a_lost_engine_fails_everyone_now_and_later(decoder: HistoryDecoder, error: Exception) -> None:
    decoder.fail_at = {1: error}
    decoder.hold.clear()
    batcher = Batcher(decoder, slots=1)
    jobs = [writing(decoder, [1, 2], 5), writing(decoder, [3], 5)]
    for job in jobs:
        batcher.submit(job)
    decoder.hold.set()
    for job in jobs:
        got = [job.chunks.get(timeout=30)]
        while not isinstance(got[-1], BaseException):
            got.append(job.chunks.get(timeout=30))
        assert got[-1] is error
    with pytest.raises(type(error)):
        batcher.submit(writing(decoder, [1], 1))
    batcher.close()


def test_closing_fails_what_is_unfinished(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=1)
    endless = writing(decoder, [3], 900, ignore_end=True)
    batcher.submit(endless)
    endless.chunks.get(timeout=30)
    batcher.close()
    got = [endless.chunks.get(timeout=30)]
    while isinstance(got[-1], Chunk):
        got.append(endless.chunks.get(timeout=30))
    assert str(got[-1]) == "the engine was closed"


def test_thinking_over_its_budget_is_closed_by_force(decoder: HistoryDecoder) -> None:
    batcher = Batcher(decoder, slots=1)
    job = writing(decoder, [2, 3], 9, thinking=Thinking(3, opened=True), close_thinking=(90, 91), ignore_end=True)
    chunks = answer(batcher, job)
    batcher.close()
    tokens = [int(t) for c in chunks for t in c.text.split()]
    history = [2, 3, *tokens]
    assert tokens[3:5] == [90, 91]
    assert [history[n] for n in (2, 3, 4, 7, 8, 9, 10)] == [following(history[:n]) for n in (2, 3, 4, 7, 8, 9, 10)]
    assert len(tokens) == 9


def test_stop_strings_end_an_answer_before_themselves(decoder: HistoryDecoder) -> None:
    text, _ = written_alone([5, 6], 30)
    third = text.split()[2]
    batcher = Batcher(decoder, slots=1)
    chunks = answer(batcher, writing(decoder, [5, 6], 30, text=TextStream((f" {third} ",))))
    batcher.close()
    assert "".join(c.text for c in chunks) == text[: text.index(f" {third} ")]
    assert chunks[-1].finish == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.output_tokens == 3


def test_the_cache_in_use_is_told_while_it_is_in_use(decoder: HistoryDecoder) -> None:
    seen: list[int] = []

    class Looking:
        def close(self) -> None:
            """Holds nothing."""

        def pick(self, row: int) -> int:
            seen.append(batcher.used_cells)
            return decoder.pick(row)

    batcher = Batcher(decoder, slots=2)
    job = Writing(prompt=[1, 2], max_tokens=5, sampler=Looking, text=TextStream(), ignore_end=True)
    answer(batcher, job)
    batcher.close()
    assert seen == [2, 3, 4, 5, 6]
    assert batcher.used_cells == 0


def test_common_length() -> None:
    assert [common_length([1, 2, 3], other) for other in ([1, 2, 4], [1, 2, 3, 4], [1], [], [2])] == [2, 3, 1, 0, 0]


def late(seconds: float) -> None:
    threading.Event().wait(seconds)


def steps_of_a_ranking(seed: int, broken: int | None = None) -> list[list[Piece]]:
    """What the decoder is asked for when three threads send twelve contexts of different length, each thread late by chance."""
    decoder, dice = HistoryDecoder(), random.Random(seed)
    contexts = [[1 + (7 * i + j) % 90 for j in range(3 + i % 5)] for i in range(12)]
    batcher, turns, lock = Batcher(decoder, 3), iter(range(12)), threading.Lock()

    def send() -> None:
        while True:
            with lock:
                turn, pause = next(turns, None), dice.random() / 100
            if turn is None:
                return
            late(pause)
            if turn != broken:
                job = Comparing(context=contexts[turn], continuations=[[5], [6, 7], [8, 9, 10]], turn=turn, of=12)
                batcher.submit(job)
                assert isinstance(job.done.get(), Ranking)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    return decoder.steps


def test_what_shares_a_batch_does_not_hang_on_how_quick_a_thread_was() -> None:
    first = steps_of_a_ranking(1)
    assert all(steps_of_a_ranking(seed) == first for seed in range(2, 8))
    assert max(len({piece.sequence for piece in step}) for step in first) >= 3


@pytest.mark.parametrize("broken", [0, 5, 11])
def test_a_context_that_never_comes_is_not_waited_for_for_ever(broken: int) -> None:
    assert steps_of_a_ranking(1, broken)


def test_an_answer_does_not_wait_for_a_context_that_never_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.backends.batching.LATE_S", 3600.0)
    decoder = HistoryDecoder()
    batcher = Batcher(decoder, 2)
    jobs = [Comparing(context=[1, 2, 3], continuations=[[5]], turn=turn, of=3) for turn in (0, 1)]
    for job in jobs:
        batcher.submit(job)
    assert all(isinstance(job.done.get(timeout=30), Ranking) for job in jobs)
    written = writing(decoder, [1, 2], 3)
    batcher.submit(written)
    assert isinstance(written.chunks.get(timeout=30), Chunk)
    batcher.close()
