"""Log-likelihoods of given continuations, from servers that were made to generate. Three ways, each proved on a short text before use.

1. `prompt_logprobs` (vLLM): the log-probability of each prompt token, by token id.
2. `echo` with `logprobs` (the old completions API): the prompt comes back in pieces with their log-probabilities.
3. `logit_bias`: one token at a time is forced and its log-probability read, which must be that before the bias (llama.cpp's servers).

The proof matters: llama-cpp-python 0.3.36 pairs an echoed token with the distribution *behind* it where the model has no BOS token.
The split into context and continuation is lm-evaluation-harness's (`lm_eval/api/model.py`, `_encode_pair`): spaces that end the
context move to the continuation, and the continuation's tokens are those of the whole beyond the number of the context's.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from bench.backends import BackendError, Ranking, RankRequest
from bench.backends.server_client import Server, decoded
from results.records import Continuation

PROBE_CONTEXT = "The capital of France is Paris. The capital of Italy is"
PROBE_CONTINUATIONS = (" Rome", " a city in the north of Germany")
SAME_LOGPROB = 0.05
"""Two readings of one log-probability may differ by what batching does to the last bits."""
FORCE = 100.0


class Ranker(Protocol):
    name: str

    def rank(self, request: RankRequest) -> Ranking: ...


class _Logprobs(Struct):
    tokens: list[str] = []
    token_logprobs: list[float | None] = []


class _PromptToken(Struct):
    logprob: float


class _Choice(Struct):
    index: int = 0
    text: str = ""
    logprobs: _Logprobs | None = None
    prompt_logprobs: list[dict[str, _PromptToken] | None] | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None


class _Completion(Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Tokens(Struct):
    tokens: list[int]


def find_ranker(server: Server, model: str) -> Ranker:
    """The first way that proves right. Raises `BackendError` with what was wrong with each."""
    found_wrong = []
    for ranker in (PromptLogprobs(server, model), Echo(server, model), Forced(server, model)):
        if (wrong := _wrong_with(ranker, server, model)) is None:
            return ranker
        found_wrong.append(f"{ranker.name}: {wrong}")
    raise BackendError(
        f"{server.root} cannot rank ({'; '.join(found_wrong)}); set `can_rank = false`, then tasks are scored by generation"
    )


def _wrong_with(ranker: Ranker, server: Server, model: str) -> str | None:
    """Rank what the server itself says next, and something else; None when both come out as they must."""
    try:
        likely = _complete(server, model, prompt=PROBE_CONTEXT, logprobs=1).choices[0]
        if not likely.text or likely.logprobs is None or not likely.logprobs.token_logprobs:
            return "no log-probabilities of generated tokens"
        request = RankRequest(id="probe", context=PROBE_CONTEXT, continuations=(likely.text, *PROBE_CONTINUATIONS))
        first, *others = ranker.rank(request).continuations
    except BackendError as error:
        return str(error).removeprefix(f"{server.root}: ")
    told = likely.logprobs.token_logprobs[0]
    if told is None or first.tokens != 1 or abs(first.logprob - told) > SAME_LOGPROB:
        return "log-probabilities of the prompt are not those of generating it"
    if others[1].logprob > -1.0:
        return "log-probabilities are those after a bias"
    return None


class PromptLogprobs:
    """All continuations in one request; ids from the server, so nothing is tokenised here."""

    name = "prompt_logprobs"

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._model = server, model

    def rank(self, request: RankRequest) -> Ranking:
        context, continuations = split_spaces(request)
        length = len(_tokenize(self._server, "/tokenize", {"model": self._model, "prompt": context}))
        reply = _complete(
            self._server, self._model, prompt=[context + c for c in continuations], temperature=0, prompt_logprobs=0
        )
        choices = _in_order(reply, len(continuations))
        return Ranking(
            continuations=tuple(self._sum(choice, length) for choice in choices),
            prompt_tokens=reply.usage.prompt_tokens if reply.usage else None,
        )

    def _sum(self, choice: _Choice, start: int) -> Continuation:
        values: list[float] = []
        for told in (choice.prompt_logprobs or [])[start:]:
            if told is None or len(told) != 1:
                raise BackendError("the server does not tell one log-probability for each prompt token")
            values.extend(token.logprob for token in told.values())
        return _summed(values)


class Echo:
    """All continuations in one request. The split is by characters, which must add up to the prompt exactly."""

    name = "echo"

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._model = server, model

    def rank(self, request: RankRequest) -> Ranking:
        context, continuations = split_spaces(request)
        prompts = [context + c for c in continuations]
        reply = _complete(self._server, self._model, prompt=prompts, temperature=0, echo=True, logprobs=1)
        choices = _in_order(reply, len(prompts))
        return Ranking(
            continuations=tuple(
                self._sum(choice, prompt, len(context)) for choice, prompt in zip(choices, prompts, strict=True)
            ),
            prompt_tokens=reply.usage.prompt_tokens if reply.usage else None,
        )

    def _sum(self, choice: _Choice, prompt: str, start: int) -> Continuation:
        told = choice.logprobs or _Logprobs()
        tokens, logprobs = told.tokens, told.token_logprobs
        text = "".join(tokens)
        if tokens and not text.startswith(prompt):  # some servers echo the BOS token
            tokens, logprobs, text = tokens[1:], logprobs[1:], text[len(tokens[0]) :]
        if not text.startswith(prompt) or len(logprobs) != len(tokens):
            raise BackendError("the echoed tokens do not add up to the prompt; its log-probabilities cannot be split")
        values: list[float | None] = []
        place = 0
        for token, logprob in zip(tokens, logprobs, strict=True):
            if place < len(prompt) and place + len(token) > start:
                values.append(logprob)
            place += len(token)
        return _summed(values)


class Forced:
    """One request for each token: slow, but right where a server only generates. Reuse of the context is the server's own."""

    name = "logit_bias"

    def __init__(self, server: Server, model: str) -> None:
        self._server, self._model = server, model

    def rank(self, request: RankRequest) -> Ranking:
        context, continuations = split_spaces(request)
        length = len(self._tokens(context))
        made = [self._one(context, c, self._tokens(context + c)[length:]) for c in continuations]
        return Ranking(continuations=tuple(continuation for continuation, _ in made), prompt_tokens=_sum(made))

    def _one(self, context: str, continuation: str, ids: Sequence[int]) -> tuple[Continuation, int | None]:
        text, before = context, None
        values: list[float | None] = []
        for token in ids:
            reply = _complete(
                self._server, self._model, prompt=text, temperature=0, logprobs=1, logit_bias={str(token): FORCE}
            )
            (choice,) = _in_order(reply, 1)
            told = choice.logprobs.token_logprobs if choice.logprobs else []
            count = reply.usage.prompt_tokens if reply.usage else None
            if len(told) != 1 or (before is not None and count != before + 1):
                raise BackendError("the server does not build the continuation token by token as it tokenises it")
            values, before, text = [*values, told[0]], count, text + choice.text
        if text != context + continuation:
            raise BackendError("the forced tokens do not add up to the continuation")
        return _summed(values), before

    def _tokens(self, text: str) -> list[int]:
        """llama-cpp-python's address; then llama-server's."""
        try:
            return _tokenize(self._server, "/extras/tokenize", {"input": text})
        except BackendError:
            return _tokenize(self._server, "/tokenize", {"content": text, "add_special": True, "parse_special": True})


def split_spaces(request: RankRequest) -> tuple[str, tuple[str, ...]]:
    """Spaces that end the context belong to the continuation, as most tokenisers see it."""
    context = request.context.rstrip()
    spaces = request.context[len(context) :]
    return context, tuple(spaces + c for c in request.continuations)


def _complete(server: Server, model: str, **asked: Any) -> _Completion:
    body = {"model": model, "max_tokens": 1, "temperature": 0, **asked}
    return decoded(server.post("/v1/completions", body), _Completion)


def _tokenize(server: Server, path: str, body: dict[str, Any]) -> list[int]:
    return decoded(server.post(path, body), _Tokens).tokens


def _in_order(reply: _Completion, wanted: int) -> list[_Choice]:
    choices = sorted(reply.choices, key=lambda choice: choice.index)
    if [choice.index for choice in choices] != list(range(wanted)):
        raise BackendError(f"the server gave {len(choices)} answers to {wanted} prompts")
    return choices


def _summed(values: Sequence[float | None]) -> Continuation:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        raise BackendError("the server does not tell the log-probability of every token of a continuation")
    return Continuation(logprob=sum(known), tokens=len(known))


def _sum(made: Sequence[tuple[Continuation, int | None]]) -> int | None:
    """Tokens of the last prompts; what the server kept of the context between them is not told."""
    counts = [count for _, count in made]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
