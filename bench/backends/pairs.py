"""Context and continuation as tokens, as lm-evaluation-harness splits them. Pure."""

from collections.abc import Callable, Sequence
from itertools import islice

Encode = Callable[[str], list[int]]


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
