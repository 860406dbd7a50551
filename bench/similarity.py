"""Compare summaries with their references by an encoder, when all cells have ended (docs/judge.md).

A cosine of embeddings says whether two texts are about the same things. It is insensitive to negation and to numbers, which is what
matters in a note, so three things stand beside it in every record: a text with itself (the self-test, 1), a sentence with its negation,
and references of different notes with each other.
"""

import queue
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import models
from bench.config import ConfigError, Deployment, Similarity
from bench.encode import EncodeJob, Opened, Pair, PairCompared
from bench.process import Worker, default_python, worker_environment
from bench.runner import log_tail, oom_kills, outcome_of
from bench.score import answer_of
from bench.summaries import NOT_HERE, Answers, Told, finished
from results.records import Compared, SummaryCompared
from results.store import Lines, RunDir
from tasks import Language, Task
from tasks.answers import read_reply

if TYPE_CHECKING:
    from bench.session import Prepared

NEGATIONS: dict[Language, tuple[str, str]] = {
    "en": ("The patient is allergic to penicillin.", "The patient is not allergic to penicillin."),
    "zh": ("患者对青霉素过敏。", "患者对青霉素不过敏。"),
}
SAME = 0.999
"""Least cosine of a text with itself."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the encoder's process gave, or why nothing."""

    opened: Opened | None = None
    cosines: Mapping[str, PairCompared] = {}
    weights_sha256: str | None = None
    reason: str = ""


def is_compared(task: Task) -> bool:
    return task.kind == "summary"


def compare(prepared: "Prepared", run: RunDir, told: Answers, download: bool) -> None:
    """Compare every finished summary step that was not compared yet; a reason stands where it cannot be."""
    settings = prepared.suite.similarity
    assert settings is not None
    missing = [t for t in finished(prepared, run, told, is_compared) if not _is_compared(run, t)]
    able = [t for t in missing if t.answers is not None and t.language in settings.languages]
    pairs = tuple(pair for t in able for pair in _pairs(prepared, t))
    found = _encode(prepared, settings, pairs, download) if pairs else Found(reason="no summary to compare")
    for t in missing:
        why = found.reason
        if t.language not in settings.languages:
            why = f"the encoder is not said to know {t.language} (`languages` of [similarity])"
        elif t.answers is None:
            why = NOT_HERE
        _record(prepared, run, settings, t, found, why)


def where(prepared: "Prepared") -> str:
    """For `plan`: the encoder and its size, or why it cannot be had."""
    settings = prepared.suite.similarity
    assert settings is not None
    try:
        weights = models.locate(_deployment(settings), prepared.base)
    except ConfigError as error:
        return str(error)
    size = "" if weights is None or weights.size_bytes is None else f", {weights.size_bytes / 2**20:.0f} MiB"
    return f"{settings.model or settings.backend}{size}, after the cells, for {', '.join(settings.languages)}"


def _deployment(settings: Similarity) -> Deployment:
    return Deployment(name="similarity", backend=settings.backend, model=settings.model, file=settings.file)


def _pairs(prepared: "Prepared", told: Told) -> Iterator[Pair]:
    """The step's summaries with their references, and what the cosines are to be read by."""
    references = {s.id: s.target for s in prepared.data[told.facts.task].samples}
    step = f"{told.cell.facts.id}/{told.facts.name}"
    texts = list(references.values())
    yield Pair(f"{step}:identical", texts[0], texts[0])
    yield Pair(f"{step}:negated", *NEGATIONS[told.language])
    for i, (one, other) in enumerate(pairwise(texts)):
        yield Pair(f"{step}:unrelated/{i}", one, other)
    for a in told.answers or ():
        final = read_reply(answer_of(a), told.language).final
        if a.sample in references and final:
            yield Pair(f"{step}:{a.sample}/{a.repeat}", references[a.sample], final)


def _encode(prepared: "Prepared", settings: Similarity, pairs: Sequence[Pair], download: bool) -> Found:
    """The encoder in a process of its own; texts go through a pipe and never to the disk."""
    try:
        weights = models.resolve(_deployment(settings), prepared.base, download=download)
    except ConfigError as error:
        return Found(reason=str(error))
    suite, digest = prepared.suite, weights.sha256 if weights else None
    job = EncodeJob(settings=settings, model_path=str(weights.path) if weights else "", pairs=tuple(pairs))
    plain = suite.store_text and not suite.redact
    with tempfile.TemporaryDirectory(prefix="bedside-") as folder:
        path = Path(folder) / "encoder.log"
        with path.open("wb") as file:
            log = file if plain else subprocess.DEVNULL
            kills = oom_kills()
            worker = Worker(
                default_python(), "-", msgspec.json.encode(job), log, worker_environment(), module="bench.encode"
            )
            try:
                found = _follow(worker, suite.load_timeout_s, suite.stall_timeout_s)
                if found.reason:
                    return found
                outcome, detail = outcome_of(worker.wait(30.0), path, oom_kills() > kills)
            finally:
                worker.end()
        if outcome != "ok":
            return Found(reason=f"the encoder ended as {outcome}: {detail or log_tail(path)}".strip(": "))
    return msgspec.structs.replace(found, weights_sha256=digest)


def _follow(worker: Worker, load_timeout_s: float, stall_timeout_s: float) -> Found:
    decoder = msgspec.json.Decoder(Opened | PairCompared)
    opened: Opened | None = None
    cosines: dict[str, PairCompared] = {}
    while True:
        patience_s = stall_timeout_s if opened else load_timeout_s
        try:
            line = worker.lines.get(timeout=patience_s)
        except queue.Empty:
            return Found(reason=f"the encoder gave no sign of progress for {patience_s:g} s")
        if line is None:
            return Found(opened=opened, cosines=cosines)
        match decoder.decode(line):
            case Opened() as opened:
                pass
            case PairCompared() as pair:
                cosines[pair.name] = pair


def _is_compared(run: RunDir, told: Told) -> bool:
    events = run.cell(told.cell.facts.id).events()
    return any(isinstance(e, Compared) and e.step == told.facts.name and not e.reason for e in events)


def _record(prepared: "Prepared", run: RunDir, settings: Similarity, told: Told, found: Found, why: str) -> None:
    step = f"{told.cell.facts.id}/{told.facts.name}"
    identical, negated = (_cosine(found, f"{step}:{name}") for name in ("identical", "negated"))
    between = [c.cosine for name, c in found.cosines.items() if name.startswith(f"{step}:unrelated/")]
    known = [c for c in between if c is not None]
    if not why and (identical is None or identical < SAME):
        why = f"the encoder fails its self-test: a text with itself gives {identical}, not 1"
    info = found.opened.info if found.opened else None
    record = Compared(
        time_ns=time.monotonic_ns(),
        step=told.facts.name,
        model=settings.model or settings.backend,
        engine=info.engine if info else None,
        engine_version=info.engine_version if info else None,
        weights_sha256=found.weights_sha256,
        pooling=info.pooling if info else None,
        dimension=info.dimension if info else None,
        context=info.context if info else None,
        prefix=settings.prefix,
        language=told.language,
        identical=identical,
        negated=negated,
        unrelated=statistics.fmean(known) if known else None,
        summaries=() if why else tuple(_compared(found, step, told)),
        reason=why,
    )
    with Lines(run.cell(told.cell.facts.id).path / "events.jsonl") as events:
        events.append(record)
        events.sync()


def _cosine(found: Found, name: str) -> float | None:
    pair = found.cosines.get(name)
    return pair.cosine if pair else None


def _compared(found: Found, step: str, told: Told) -> Iterator[SummaryCompared]:
    for a in told.answers or ():
        pair = found.cosines.get(f"{step}:{a.sample}/{a.repeat}")
        cosine, cut = (pair.cosine, pair.cut) if pair else (None, False)
        yield SummaryCompared(sample=a.sample, repeat=a.repeat, cosine=cosine, cut=cut)
