"""What a batcher works with: the decoder it drives, and the requests that are in flight with how far each has come."""

from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from bench.backends import Chunk, Ranking
from bench.backends.streaming import TextStream, Thinking


class Piece(NamedTuple):
    """Tokens of one sequence, evaluated in one step."""

    sequence: int
    tokens: Sequence[int]
    position: int
    outputs: int
    """Logits are wanted of so many of the last tokens."""


class Sampler(Protocol):
    def pick(self, row: int) -> int:
        """The next token after the token at this place of the last step."""
        ...

    def close(self) -> None: ...


class Decoder(Protocol):
    """An engine's context. Rows are places in the last step, counted over all pieces."""

    cells: int
    """Tokens that the cache holds, all sequences together."""
    batch: int
    """Most tokens of one step."""
    sequences: int

    def decode(self, pieces: Sequence[Piece]) -> None:
        """Raises `BackendError` when this step failed and `BackendOutOfMemory` when the engine is lost."""
        ...

    def logprobs(self, row: int, targets: Sequence[int]) -> list[float]: ...
    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target` share the first tokens of `source`."""
        ...

    def forget(self, sequence: int) -> None: ...
    def is_end(self, token: int) -> bool: ...
    def piece(self, token: int) -> bytes: ...


class Writing:
    """One answer being written."""

    def __init__(
        self,
        *,
        prompt: Sequence[int],
        max_tokens: int,
        sampler: Callable[[], Sampler],
        text: TextStream,
        thinking: Thinking | None = None,
        close_thinking: Sequence[int] = (),
        ignore_end: bool = False,
    ) -> None:
        self.tokens, self.max_tokens, self.ignore_end = prompt, max_tokens, ignore_end
        self.text, self.thinking, self.close_thinking = text, thinking, close_thinking
        self.make_sampler = sampler
        self.chunks: SimpleQueue[Chunk | BaseException] = SimpleQueue()
        self.cancelled = False
        self.cells = len(prompt) + max_tokens
        self.sequence = -1
        self.evaluated = 0
        self.produced = 0
        self.next_token = -1
        self.forced: deque[int] = deque()
        self.sampler: Sampler | None = None
        self.start_ns = self.first_ns = 0

    def fail(self, error: BaseException) -> None:
        self.chunks.put(error)


class Branch:
    """One continuation of a context that is being ranked."""

    def __init__(self, index: int, tokens: Sequence[int]) -> None:
        self.index, self.tokens = index, tokens
        self.sequence = -1
        self.evaluated = 0
        self.cells = 0


class Comparing:
    """One context with its continuations. `prefix` are the tokens of the text that other contexts begin with as well; `turn` of `of` as in
    `RankRequest`."""

    def __init__(
        self,
        *,
        context: Sequence[int],
        continuations: Sequence[Sequence[int]],
        prefix: Sequence[int] = (),
        turn: int = 0,
        of: int = 0,
    ) -> None:
        self.tokens, self.continuations, self.prefix = context, continuations, prefix
        self.turn, self.of = turn, of
        self.done: SimpleQueue[Ranking | BaseException] = SimpleQueue()
        self.cancelled = False
        self.longest = max(len(c) for c in continuations) - 1
        self.logprobs = [0.0] * len(continuations)
        self.sequence = -1
        self.shared = self.evaluated = 0
        self.cells = 0
        self.waiting: deque[Branch] = deque()
        self.running: list[Branch] = []

    def fail(self, error: BaseException) -> None:
        self.done.put(error)


Job = Writing | Comparing


class Prefix:
    """Tokens kept in the cache for the contexts that begin with them."""

    def __init__(self, tokens: Sequence[int], sequence: int) -> None:
        self.tokens, self.sequence = tokens, sequence
        self.evaluated = 0

    @property
    def ready(self) -> bool:
        return self.evaluated == len(self.tokens)
