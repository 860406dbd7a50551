"""The same questions through two engines: how many answers differ, and how far the log-likelihoods are apart."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from bench.backends import Backend, RankRequest
from bench.config import Load
from bench.drive import TokenCount, drive
from bench.job import JobStep
from bench.render import common_prefix
from results.records import Continuation, Ranked
from tasks import TASKS, Rank

QUESTIONS = 120
MOST_DIFFERENT = 2

Ranks = Mapping[str, tuple[Continuation, ...]]
"""By question, in the order of its options."""


class Comparison(Struct, frozen=True, kw_only=True):
    questions: int
    plain: int
    """Questions whose largest sum falls on another option."""
    normalised: int
    """The same for the sum by character, the headline."""
    largest: float
    """Difference of two log-likelihoods (natural log)."""
    mean: float
    other_counts: int
    """Continuations with another number of tokens."""


def rank_requests(questions: int = QUESTIONS) -> tuple[RankRequest, ...]:
    """The first questions of `clinical_qa_en`, as the product asks them."""
    task = TASKS["clinical_qa_en"]
    samples = list(task.load(None))[:questions]
    prompts = [task.prompt(sample, "likelihood") for sample in samples]
    ranks = [prompt for prompt in prompts if isinstance(prompt, Rank)]
    prefix = common_prefix([rank.context for rank in ranks])
    return tuple(
        RankRequest(id=sample.id, context=rank.context, continuations=rank.continuations, prefix=prefix)
        for sample, rank in zip(samples, ranks, strict=True)
    )


def run(backend: Backend, requests: Sequence[RankRequest]) -> Ranks:
    """Through the harness's own drive; a failed request is an assertion."""
    step = JobStep(name="agreement", load=Load(concurrency=1), seed=0, ranks=tuple(requests))
    found = {}
    for record in drive(backend, step, TokenCount()):
        assert isinstance(record, Ranked)
        assert record.error is None, f"{record.sample}: {record.error}"
        found[record.sample] = record.continuations
    return found


def compare(one: Ranks, other: Ranks, requests: Sequence[RankRequest]) -> Comparison:
    assert one.keys() == other.keys() == {request.id for request in requests}
    gaps = [abs(a.logprob - b.logprob) for r in requests for a, b in zip(one[r.id], other[r.id], strict=True)]
    return Comparison(
        questions=len(requests),
        plain=sum(_best(one[r.id]) != _best(other[r.id]) for r in requests),
        normalised=sum(_best(one[r.id], r) != _best(other[r.id], r) for r in requests),
        largest=max(gaps),
        mean=sum(gaps) / len(gaps),
        other_counts=sum(a.tokens != b.tokens for r in requests for a, b in zip(one[r.id], other[r.id], strict=True)),
    )


def table(comparisons: Mapping[str, Comparison]) -> str:
    head = f"{'engines':<44}{'questions':>10}{'differ':>8}{'by char':>8}{'max |d|':>10}{'mean |d|':>10}{'counts':>8}"
    lines = [
        f"{name:<44}{c.questions:>10}{c.plain:>8}{c.normalised:>8}{c.largest:>10.4f}{c.mean:>10.4f}{c.other_counts:>8}"
        for name, c in comparisons.items()
    ]
    return "\n".join(["", head, *lines])


def _best(continuations: Sequence[Continuation], request: RankRequest | None = None) -> int:
    """The first of the best; by the characters of the option where the request is given."""
    values = [c.logprob for c in continuations]
    if request is not None:
        values = [v / len(text.strip()) for v, text in zip(values, request.continuations, strict=True)]
    return max(range(len(values)), key=values.__getitem__)
