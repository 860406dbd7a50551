"""Send requests under a load and stamp the clock. The only code that times a model.

Closed loop: `concurrency` requests are always in flight. Open loop: requests leave at Poisson times drawn from the step's seed,
whether or not earlier ones have finished, and latency counts from the planned time (no coordinated omission). Nothing is retried,
scored, printed or written to disk between the stamps.
"""

import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from time import monotonic_ns

from msgspec import structs

from bench.backends import Backend, BackendError, RankRequest, Request, Usage
from bench.job import JobStep
from results.records import Answered, Ranked

THINK_END = "</think>"
THINK_START = "<think>"

Outcome = Answered | Ranked


class TokenCount:
    """Counts tokens as they appear, over all requests; read by another thread for the sign of life."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.tokens = 0

    def add(self, tokens: int) -> None:
        with self._lock:
            self.tokens += tokens


def drive(backend: Backend, step: JobStep, seen: TokenCount) -> Iterator[Outcome]:
    """Run one step; yields each record when its request has finished, in order of finishing.

    Raises what the backend raises for the whole engine (`BackendOutOfMemory`, a crash); a request that failed is a record.
    """
    todo: list[Callable[[], Outcome]]
    if step.ranks:
        placed = (structs.replace(r, turn=i, of=len(step.ranks)) for i, r in enumerate(step.ranks))
        todo = [partial(_rank, backend, step.name, ranking) for ranking in placed]
        yield from _closed_loop(todo, backend.max_concurrency)
    elif step.load.rate_per_s:
        yield from _open_loop(backend, step, seen, arrivals(len(step.requests), step.load.rate_per_s, step.seed))
    else:
        todo = [partial(_answer, backend, step.name, seen, request) for request in step.requests]
        yield from _closed_loop(todo, min(step.load.concurrency or 1, backend.max_concurrency))


def arrivals(count: int, rate_per_s: float, seed: int) -> list[int]:
    """Poisson arrival times, nanoseconds after the start, the same for every system under test."""
    draw = random.Random(f"arrivals:{seed}")
    times, now = [], 0.0
    for _ in range(count):
        now += draw.expovariate(rate_per_s)
        times.append(int(now * 1e9))
    return times


def _closed_loop(todo: Sequence[Callable[[], Outcome]], concurrency: int) -> Iterator[Outcome]:
    """`concurrency` threads, each taking the next request when its last has finished."""
    done: SimpleQueue[Outcome | BaseException] = SimpleQueue()
    remaining = iter(todo)
    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            with lock:
                call = next(remaining, None)
            if call is None:
                return
            try:
                done.put(call())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                done.put(error)
                return

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(concurrency, len(todo)))]
    for thread in threads:
        thread.start()
    for _ in todo:
        outcome = done.get()
        if isinstance(outcome, BaseException):
            stop.set()
            raise outcome
        yield outcome


def _open_loop(backend: Backend, step: JobStep, seen: TokenCount, times: Sequence[int]) -> Iterator[Outcome]:
    """Every request is handed to its own thread at its time, up to what the engine takes at once."""
    done: SimpleQueue[Future[Answered]] = SimpleQueue()
    with ThreadPoolExecutor(backend.max_concurrency) as pool:
        start_ns, stop = monotonic_ns(), threading.Event()

        def send() -> None:
            for request, offset_ns in zip(step.requests, times, strict=True):
                due_ns = start_ns + offset_ns
                if stop.wait(max(0, due_ns - monotonic_ns()) / 1e9):
                    return
                pool.submit(_answer, backend, step.name, seen, request, due_ns).add_done_callback(done.put)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            for _ in step.requests:
                yield done.get().result()
        finally:  # an engine that is lost gets no further requests
            stop.set()
            sender.join()


class _Watch:
    """Stamps of one request as its text appears, and where the thinking part ends."""

    def __init__(self, prefill: str) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.first_ns: int | None = None
        self.answer_ns: int | None = None
        self.last_ns: int | None = None
        self.tokens = 0
        self.think_tokens: int | None = None
        self.counted = True
        self._tail = ""
        self._thinking: bool | None = True if THINK_START in prefill else None

    def see(self, text: str, tokens: int, channel: str) -> None:
        now = monotonic_ns()
        self.tokens += tokens
        if not text:
            return
        self.first_ns = self.first_ns or now
        self.last_ns = now
        if channel == "reasoning":
            self._thinking = False  # the server took the opening tag with it, also one that was sent as a prefill
            self.reasoning.append(text)
            self.think_tokens = (self.think_tokens or 0) + tokens
            return
        self.text.append(text)
        if self.answer_ns is None:
            self._look_for_answer(text, now)

    def _look_for_answer(self, text: str, now: int) -> None:
        """The answer begins with the first visible text after `</think>`, or at once where no thinking was opened."""
        self._tail += text
        if self._thinking is None and self._tail.strip():
            head = self._tail.lstrip()
            if THINK_START.startswith(head[: len(THINK_START)]) and len(head) < len(THINK_START):
                return  # perhaps the beginning of the tag
            self._thinking = head.startswith(THINK_START)
        if self._thinking:
            cut = self._tail.find(THINK_END)
            if cut < 0:
                self._tail = self._tail[-len(THINK_END) :]
                return
            self._thinking = False
            self.think_tokens = self.tokens
            self._tail = self._tail[cut + len(THINK_END) :]
        if self._tail.strip():
            self.answer_ns = now

    def all_think_tokens(self, usage: Usage | None) -> int | None:
        """Of a finished or a cut thinking part; where pieces are not counted only what the engine itself tells."""
        unfinished = self._thinking and self.think_tokens is None
        if self.counted:
            return self.tokens if unfinished else self.think_tokens
        if usage is None:
            return None
        return usage.output_tokens if unfinished else usage.think_tokens


def _answer(backend: Backend, step: str, seen: TokenCount, request: Request, sched_ns: int | None = None) -> Answered:
    watch = _Watch(request.prefill)
    usage = finish = error = None
    start_ns = monotonic_ns()
    try:
        for chunk in backend.stream(request):
            if chunk.text or chunk.tokens:
                watch.see(chunk.text, chunk.tokens, chunk.channel)
                watch.counted = watch.counted and chunk.counted
                seen.add(chunk.tokens)
            finish = chunk.finish or finish
            usage = chunk.usage or usage
    except BackendError as failure:
        error = str(failure)
    end_ns = monotonic_ns()
    if error is None and finish is None:
        error = "the stream ended without saying why"
    return Answered(
        step=step,
        sample=request.id,
        repeat=request.repeat,
        sched_ns=start_ns if sched_ns is None else sched_ns,
        start_ns=start_ns,
        first_ns=watch.first_ns,
        answer_ns=watch.answer_ns,
        end_ns=end_ns,
        last_ns=watch.last_ns,
        text=("" if watch.reasoning else request.prefill) + "".join(watch.text),
        reasoning="".join(watch.reasoning) if watch.reasoning else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        think_tokens=watch.all_think_tokens(usage),
        token_source=usage.source if usage else None,
        finish="error" if error else (finish or "stop"),
        error=error,
        engine_prefill_ms=usage.prefill_ms if usage else None,
        engine_decode_ms=usage.decode_ms if usage else None,
    )


def _rank(backend: Backend, step: str, request: RankRequest) -> Ranked:
    ranking, error = None, None
    start_ns = monotonic_ns()
    try:
        ranking = backend.rank(request)
        if not all(math.isfinite(c.logprob) for c in ranking.continuations):
            raise BackendError(
                "the engine's log-likelihoods are no numbers (NaN or infinite): the weights are damaged or overflow"
            )
    except BackendError as failure:
        ranking, error = None, str(failure)
    return Ranked(
        step=step,
        sample=request.id,
        repeat=request.repeat,
        start_ns=start_ns,
        end_ns=monotonic_ns(),
        continuations=ranking.continuations if ranking else (),
        prompt_tokens=ranking.prompt_tokens if ranking else None,
        error=error,
    )
