"""Continuous batching over any decoder with a cache of sequences: one thread owns the engine, each step evaluates what is most urgent.

A step takes one token of every running answer, then continuations that are being ranked, then as much of the waiting prompts as the batch
has room for, in order of arrival. A slot that falls free is given away before the next step. Cache is promised before a request starts
(prompt and answer together), so that nothing is ever evicted or begun twice; what does not fit waits.

Ranking: a context is evaluated once in its slot; each continuation gets a sequence that shares the context's cache, and only the tokens
after the context are evaluated, many continuations of many contexts in one step. A prefix that a step's contexts share is evaluated
once into a sequence of its own and kept until an answer is to be written or another prefix comes. Contexts that have a turn are taken in
that order, and a step waits until every slot has its context: what shares a batch does not hang on how quick a thread was.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from time import monotonic_ns
from typing import Literal

from bench.backends import BackendError, Chunk, Ranking, Usage
from bench.backends.inflight import Branch, Comparing, Decoder, Job, Piece, Prefix, Writing
from results.records import Continuation

LATE_S = 1.0
"""A context that is not there by then will not come: its request failed before it reached the engine."""


class Batcher:
    """Runs jobs from many threads on one decoder. `slots` jobs are in progress at most; the others wait in order of arrival."""

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self._decoder = decoder
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._arrived: deque[Job] = deque()
        self._active: list[Job] = []
        self._most = slots
        self._slots = list(reversed(range(slots)))
        self._branches = list(reversed(range(slots + 1, decoder.sequences)))
        self._prefix: Prefix | None = None
        self._prefix_sequence = slots
        self._promised = 0
        self._to_come = 0
        self._plan: list[Piece] = []
        self._after: list[tuple[int, Callable[[int], None]]] = []
        self._rows = 0
        self._dead: BaseException | None = None
        self._door = threading.Lock()
        self.used_cells = 0
        """Tokens in the cache, as of the last step; read by other threads."""
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand a job over; what comes of it is put into its queue. Raises what has ended the engine."""
        with self._door:
            if self._dead is not None:
                raise self._dead
            self._inbox.put(job)

    def stream(self, job: Writing) -> Iterator[Chunk]:
        """Its text as it appears; who stops listening has cancelled it. Raises what failed it."""
        self.submit(job)
        try:
            while True:
                chunk = job.chunks.get()
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
                if chunk.finish:
                    return
        finally:
            job.cancelled = True

    def rank(self, job: Comparing) -> Ranking:
        """Raises what failed it."""
        self.submit(job)
        done = job.done.get()
        if isinstance(done, BaseException):
            raise done
        return done

    def close(self) -> None:
        """End the thread; jobs that are not finished fail."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._take():
                self._admit()
                self._step()
        except BaseException as error:  # noqa: BLE001 - handed to every caller, who raises it
            self._end(error)
        else:
            self._end(BackendError("the engine was closed"))

    def _end(self, error: BaseException) -> None:
        with self._door:
            self._dead = error
            while not self._inbox.empty():
                if (job := self._inbox.get()) is not None:
                    self._arrived.append(job)
        for job in (*self._active, *self._arrived):
            job.fail(error)

    def _take(self) -> bool:
        """Fetch what has arrived; waits when there is nothing to do, or a slot for a context to come. False: to be closed."""
        if not (self._active or self._arrived):
            self.used_cells = self._count_cells()
        while (waits := self._waits()) or not self._inbox.empty():
            try:
                job = self._inbox.get(timeout=LATE_S if waits == "turn" else None)
            except Empty:
                self._to_come = 0
                continue
            if job is None:
                return False
            self._arrive(job)
        return True

    def _waits(self) -> Literal["", "work", "turn"]:
        busy = len(self._active) + len(self._arrived)
        if self._to_come and busy < self._most:
            return "turn"
        return "" if busy else "work"

    def _arrive(self, job: Job) -> None:
        if not isinstance(job, Comparing) or not job.of:
            self._to_come = 0  # the step of rankings is over, whether or not each of them came
            self._arrived.append(job)
            return
        self._to_come = (self._to_come or job.of) - 1
        later = sum(isinstance(other, Comparing) and other.turn > job.turn for other in self._arrived)
        self._arrived.insert(len(self._arrived) - later, job)

    # Admission: a slot, and cells for all that the job may need.

    def _admit(self) -> None:
        for job in [j for j in self._active if j.cancelled]:
            self._release(job)
        while self._arrived and self._slots:
            job = self._arrived[0]
            if not job.cancelled and not (self._start(job) if isinstance(job, Writing) else self._start_rank(job)):
                return
            self._arrived.popleft()

    def _start(self, job: Writing) -> bool:
        if not self._drop_prefix() or not self._promise(job.cells):
            return False
        job.sequence = self._slots.pop()
        job.sampler = job.make_sampler()
        job.start_ns = monotonic_ns()
        self._active.append(job)
        return True

    def _start_rank(self, job: Comparing) -> bool:
        if job.prefix and not self._prefix_ready(job.prefix):
            return False
        shared = common_length(self._prefix.tokens, job.tokens[:-1]) if job.prefix and self._prefix else 0
        cells = len(job.tokens) - shared + job.longest
        if not self._promise(cells):
            if not self._active and self._drop_prefix():
                job.prefix = ()  # alone and still too large beside the prefix: goes without
            return False
        job.cells, job.sequence = cells, self._slots.pop()
        job.shared = job.evaluated = shared
        if shared:
            self._decoder.copy(self._prefix_sequence, job.sequence, shared)
        self._active.append(job)
        return True

    def _prefix_ready(self, tokens: Sequence[int]) -> bool:
        """False while the prefix is being evaluated, or waits for room."""
        if self._prefix is None or self._prefix.tokens != tokens:
            if not self._drop_prefix() or not self._promise(len(tokens)):
                return False
            self._prefix = Prefix(tokens, self._prefix_sequence)
        return self._prefix.ready

    def _promise(self, cells: int) -> bool:
        if self._promised + cells > self._decoder.cells:
            return False
        self._promised += cells
        return True

    def _drop_prefix(self) -> bool:
        """False while a context shares its cells: they are not free before that one has ended."""
        if self._prefix is not None:
            if any(isinstance(job, Comparing) and job.shared for job in self._active):
                return False
            self._decoder.forget(self._prefix_sequence)
            self._promised -= len(self._prefix.tokens)
            self._prefix = None
        return True

    def _release(self, job: Job) -> None:
        self._active.remove(job)
        self._promised -= job.cells
        self._decoder.forget(job.sequence)
        self._slots.append(job.sequence)
        if isinstance(job, Writing):
            if job.sampler is not None:
                job.sampler.close()
        else:
            for branch in list(job.running):
                self._release_branch(job, branch)

    # One step: plan, evaluate, hand out.

    def _step(self) -> None:
        self._plan, self._after, self._rows = [], [], 0
        for job in self._active:
            if isinstance(job, Writing) and job.produced:
                self._put(job.sequence, (job.next_token,), job.evaluated, 1, self._then_write(job, 1))
        if self._prefix is not None and not self._prefix.ready:
            self._plan_prefix(self._prefix)
        for job in self._active:
            if isinstance(job, Comparing):
                self._plan_branches(job)
        for job in self._active:
            if job.evaluated < len(job.tokens):
                self._plan_prompt(job)
        if not self._plan:
            return
        try:
            self._decoder.decode(self._plan)
        except BackendError as error:
            self._fail_all(error)
            return
        self.used_cells = self._count_cells() + self._rows
        for row, then in self._after:
            then(row)

    def _room(self) -> int:
        return self._decoder.batch - self._rows

    def _put(
        self, sequence: int, tokens: Sequence[int], position: int, outputs: int, then: Callable[[int], None]
    ) -> None:
        """`then` is called with the row of the piece's first token."""
        self._plan.append(Piece(sequence, tokens, position, outputs))
        self._after.append((self._rows, then))
        self._rows += len(tokens)

    def _plan_prefix(self, prefix: Prefix) -> None:
        begin = prefix.evaluated
        if tokens := prefix.tokens[begin : begin + self._room()]:

            def then(row: int) -> None:
                prefix.evaluated += len(tokens)

            self._put(prefix.sequence, tokens, begin, 0, then)

    def _plan_prompt(self, job: Job) -> None:
        begin = job.evaluated
        tokens = job.tokens[begin : begin + self._room()]
        if not tokens:
            return
        if begin + len(tokens) < len(job.tokens):

            def then(row: int) -> None:
                job.evaluated += len(tokens)

            self._put(job.sequence, tokens, begin, 0, then)
        elif isinstance(job, Writing):
            self._put(job.sequence, tokens, begin, 1, self._then_write(job, len(tokens)))
        else:
            self._put(job.sequence, tokens, begin, 1, self._then_compare(job, len(tokens)))

    def _plan_branches(self, job: Comparing) -> None:
        """Continuations that have begun go on; others begin while there are sequences, cells and room."""
        for branch in job.running:
            self._plan_branch(job, branch)
        while job.waiting and self._branches and self._room():
            cells = (
                len(job.waiting[0].tokens) - 1 if job.running else 0
            )  # the first is covered by the job's own promise
            if not self._promise(cells):
                return
            branch = job.waiting.popleft()
            branch.cells, branch.sequence = cells, self._branches.pop()
            self._decoder.copy(job.sequence, branch.sequence, len(job.tokens))
            job.running.append(branch)
            self._plan_branch(job, branch)

    def _plan_branch(self, job: Comparing, branch: Branch) -> None:
        begin = branch.evaluated
        if tokens := branch.tokens[begin : min(begin + self._room(), len(branch.tokens) - 1)]:
            then = self._then_score(job, branch, len(tokens))
            self._put(branch.sequence, tokens, len(job.tokens) + begin, len(tokens), then)

    def _fail_all(self, error: BackendError) -> None:
        """A step that failed leaves no sequence that could be trusted."""
        for job in list(self._active):
            job.fail(error)
            self._release(job)
        self._drop_prefix()

    def _count_cells(self) -> int:
        own = sum(job.evaluated for job in self._active) + (self._prefix.evaluated if self._prefix else 0)
        ranks = [job for job in self._active if isinstance(job, Comparing)]
        return own + sum(sum(b.evaluated for b in job.running) - job.shared for job in ranks)

    # What a row is for.

    def _then_write(self, job: Writing, count: int) -> Callable[[int], None]:
        def then(row: int) -> None:
            job.evaluated += count
            if not job.cancelled and job.sampler is not None:
                self._accept(job, job.forced.popleft() if job.forced else job.sampler.pick(row + count - 1))

        return then

    def _accept(self, job: Writing, token: int) -> None:
        job.produced += 1
        job.first_ns = job.first_ns or monotonic_ns()
        finish: Literal["stop", "length"] | None = None
        text = ""
        if not job.ignore_end and self._decoder.is_end(token):
            finish = "stop"
        else:
            text = job.text.push(self._decoder.piece(token))
            if job.text.stopped:
                finish = "stop"
            elif job.produced >= job.max_tokens:
                finish = "length"
            elif job.thinking is not None and job.thinking.see(text):
                job.forced.extend(job.close_thinking)
        job.next_token = token
        if finish is None:
            job.chunks.put(Chunk(text=text, tokens=1))
            return
        usage = Usage(
            prompt_tokens=len(job.tokens),
            cached_tokens=0,
            output_tokens=job.produced,
            prefill_ms=(job.first_ns - job.start_ns) / 1e6,
            decode_ms=(monotonic_ns() - job.first_ns) / 1e6,
        )
        self._release(job)
        job.chunks.put(Chunk(text=text + job.text.finish(), tokens=1, finish=finish, usage=usage))

    def _then_compare(self, job: Comparing, count: int) -> Callable[[int], None]:
        def then(row: int) -> None:
            job.evaluated += count
            job.logprobs = self._decoder.logprobs(row + count - 1, [c[0] for c in job.continuations])
            job.waiting.extend(Branch(i, c) for i, c in enumerate(job.continuations) if len(c) > 1)
            self._finish_rank(job)

        return then

    def _then_score(self, job: Comparing, branch: Branch, count: int) -> Callable[[int], None]:
        def then(row: int) -> None:
            for offset in range(count):
                target = branch.tokens[branch.evaluated + 1]
                job.logprobs[branch.index] += self._decoder.logprobs(row + offset, (target,))[0]
                branch.evaluated += 1
            if branch.evaluated == len(branch.tokens) - 1:
                self._release_branch(job, branch)
                self._finish_rank(job)

        return then

    def _release_branch(self, job: Comparing, branch: Branch) -> None:
        job.running.remove(branch)
        self._decoder.forget(branch.sequence)
        self._branches.append(branch.sequence)
        self._promised -= branch.cells

    def _finish_rank(self, job: Comparing) -> None:
        if job.waiting or job.running:
            return
        self._release(job)
        pairs = zip(job.logprobs, job.continuations, strict=True)
        evaluated = len(job.tokens) - job.shared + sum(len(c) - 1 for c in job.continuations)
        scored = tuple(Continuation(p, len(c)) for p, c in pairs)
        job.done.put(Ranking(continuations=scored, prompt_tokens=evaluated))


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens the two begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
