"""The measured boundary: a backend turns one request into a stream of text, or ranks continuations of a context.

Four methods; the rest of the program knows nothing of an engine. `scripted` is the honest fake that ships beside the real ones.
"""

from collections.abc import Iterator
from typing import Literal, Protocol

from msgspec import Struct

from bench.config import (
    BackendSettings,
    LlamaCppSettings,
    OpenAIServerSettings,
    RecordedSettings,
    ScriptedSettings,
    TransformersSettings,
    VllmSettings,
)
from results.records import Continuation, EngineInfo, EngineState


class BackendError(Exception):
    """A request failed; the message is recorded with the sample, the run goes on."""


class BackendOutOfMemory(Exception):
    """The engine could not get the memory it needs; the cell ends as `oom`."""


class BackendTimeout(Exception):
    """The whole engine has hung (or did not get ready in time), not just one request; the cell ends as `timeout`."""


class Turn(Struct, frozen=True):
    role: Literal["system", "user", "assistant"]
    text: str


class Sampling(Struct, frozen=True, kw_only=True):
    """`temperature` 0 is greedy. `seed` is of this request."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    think_budget: int | None = None
    """Most tokens of thinking; the engine closes the thinking part there if it can (None: no budget)."""


class Request(Struct, frozen=True, kw_only=True):
    """`prefill` opens the reply (`<think>\\n` for R1) and counts as its first text.

    With `exact_prompt_tokens` the turns are ignored: the backend sends that many arbitrary tokens (made from `sampling.seed`),
    ignores end of text, and produces exactly `sampling.max_tokens`.
    """

    id: str
    repeat: int = 0
    turns: tuple[Turn, ...]
    sampling: Sampling
    prefill: str = ""
    exact_prompt_tokens: int | None = None


class RankRequest(Struct, frozen=True, kw_only=True):
    """`context` and each continuation are joined as they stand; tokenised together, split as lm-evaluation-harness does.

    `prefix` is a beginning of `context` that the whole step shares (instructions, few-shot examples); may be empty.
    `turn` counts the requests of a step, `of` them in all (0: it stands alone), sent in this order. An engine that batches waits for those
    that are to come, so that the same contexts share a batch each time: what else is in a batch changes the last digits of a float, and
    where activations are rounded to 8 bits a log-likelihood by a tenth.
    """

    id: str
    repeat: int = 0
    context: str
    continuations: tuple[str, ...]
    prefix: str = ""
    turn: int = 0
    of: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Counts of one finished request. `None` is "not told". `output_tokens` includes thinking."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    think_tokens: int | None = None
    """Where the engine tells them apart; needed where chunks are not `counted`."""
    source: Literal["engine", "usage", "retokenised"] = "engine"
    prefill_ms: float | None = None
    decode_ms: float | None = None


class Chunk(Struct, frozen=True, kw_only=True):
    """A piece of the answer as it appears. The last chunk of a request has `finish` and `usage`.

    `channel` is `reasoning` only for text that came in a channel of its own; `<think>` in the answer stays in `text`.
    """

    text: str = ""
    tokens: int = 0
    """Tokens that this piece stands for; the sum need not be exact, `usage` is."""
    counted: bool = True
    """False: `tokens` is a sign of life (1 for a piece of unknown length) and no count may be made of it."""
    channel: Literal["answer", "reasoning"] = "answer"
    finish: Literal["stop", "length"] | None = None
    usage: Usage | None = None


class Ranking(Struct, frozen=True, kw_only=True):
    continuations: tuple[Continuation, ...]
    """In the order of the request."""
    prompt_tokens: int | None = None
    """Tokens evaluated for this request, the shared prefix left out."""


class Backend(Protocol):
    """`stream` and `rank` are called from up to `max_concurrency` threads; the engine batches what is in flight.

    `stream` and `rank` raise `BackendError` when one request failed and `BackendOutOfMemory` when memory ran out.
    """

    max_concurrency: int

    def describe(self) -> EngineInfo: ...
    def state(self) -> EngineState | None:
        """Cache use, preemptions, memory at this moment; None where the engine tells nothing."""
        ...

    def stream(self, request: Request) -> Iterator[Chunk]: ...
    def rank(self, request: RankRequest) -> Ranking: ...
    def close(self) -> None: ...


def open_backend(settings: BackendSettings) -> Backend:
    """Load the engine named by the type of the settings. Heavy libraries are imported here and nowhere else."""
    match settings:
        case ScriptedSettings():
            from bench.backends.scripted import ScriptedBackend

            return ScriptedBackend(settings)
        case LlamaCppSettings():
            from bench.backends.llama_cpp import LlamaCppBackend

            return LlamaCppBackend(settings)
        case TransformersSettings():
            from bench.backends.transformers import TransformersBackend

            return TransformersBackend(settings)
        case OpenAIServerSettings():
            from bench.backends.openai_server import OpenAIServerBackend

            return OpenAIServerBackend(settings)
        case VllmSettings():
            from bench.backends.vllm import VllmBackend

            return VllmBackend(settings)
        case RecordedSettings():
            from bench.backends.recorded import RecordedBackend

            return RecordedBackend(settings)
