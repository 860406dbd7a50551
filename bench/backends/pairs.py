"""Context and continuation as tokens, as lm-evaluation-harness splits them, and the ranking job made of them. Pure."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

from bench.backends import BackendError, RankRequest
from bench.backends.inflight import Comparing

Encode = Callable[[str], list[int]]


class Tokens(Protocol):
    """An engine's tokenizer."""

    @property
    def first_token(self) -> int:
        """Stands for an empty context."""
        ...

    def encode(self, text: str) -> list[int]: ...
    def encode_kept(self, text: str) -> list[int]: ...


def comparing(tokens: Tokens, request: RankRequest, room: int) -> Comparing:
    """The job of a batcher whose requests hold at most `room` tokens. Raises `BackendError` for what cannot be ranked."""
    if not request.continuations:
        raise BackendError("nothing to rank: the request has no continuations")
    context, continuations = encode_pairs(tokens.encode, request.context, request.continuations)
    context = context or [tokens.first_token]
    if not all(continuations):
        raise BackendError("a continuation has no tokens")
    longest = len(context) + max(map(len, continuations))
    if longest > room:
        raise BackendError(f"a context with its continuation has {longest} tokens, more than the {room} of `context`")
    # The prefix's last token is left out: what follows may melt into it.
    prefix = tokens.encode_kept(request.prefix)[:-1] if request.prefix else []
    return Comparing(context=context, continuations=continuations, prefix=prefix, turn=request.turn, of=request.of)


def encode_pairs(encode: Encode, context: str, continuations: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokens of the context, and of each continuation after it.

    lm-evaluation-harness 0.4, `TemplateLM._encode_pair`: blanks at the context's end go to the continuation, both are encoded together, and
    the continuation is what comes after as many tokens as the context has alone. Where the boundary melts into one token so that nothing is
    left (the harness would stop there), the continuation keeps its last token.
    """
    kept = context.rstrip()
    blanks = context[len(kept) :]
    ids = encode(kept)
    tails = []
    for continuation in continuations:
        whole = encode(kept + blanks + continuation)
        tails.append(list(islice(whole, min(len(ids), max(len(whole) - 1, 0)), None)))
    return ids, tails
