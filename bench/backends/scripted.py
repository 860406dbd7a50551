"""A backend that says what it is told to, and fails in the ways real engines do; for tests, dry runs and rehearsals."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator

from bench.backends import BackendError, BackendOutOfMemory, Chunk, Ranking, RankRequest, Request, Usage
from bench.config import ScriptedSettings
from results.records import Continuation, EngineInfo, EngineState


class ScriptedBackend:
    """Answers every request with `settings.reply` or one of `replies`; ranks the continuation that sorts first as the most likely."""

    def __init__(self, settings: ScriptedSettings) -> None:
        if settings.hang_in_load:
            threading.Event().wait()
        time.sleep(settings.load_s)
        if settings.die_in_load:
            os.kill(os.getpid(), signal.SIGKILL)
        self._settings = settings
        self._served = itertools.count()
        self.max_concurrency = settings.slots

    def describe(self) -> EngineInfo:
        known = not self._settings.hidden
        return EngineInfo(
            engine="scripted",
            engine_version="1",
            device="cpu",
            model="scripted",
            parameters=1000 if known else None,
            weight_bytes=2000 if known else None,
            bits_per_weight=16.0 if known else None,
            quantisation="none" if known else None,
            context=100_000,
            max_concurrency=self.max_concurrency,
            weights_sha256="0" * 64 if known else None,
            tokenizer_sha256="0" * 64 if known else None,
            chat_template_sha256="0" * 64 if known else None,
            settings={"delay_s": self._settings.delay_s},
        )

    def state(self) -> EngineState | None:
        return None

    def stream(self, request: Request) -> Iterator[Chunk]:
        self._misbehave()
        asked = "\n".join(turn.text for turn in request.turns)
        said = next((reply for text, reply in self._settings.replies.items() if text in asked), self._settings.reply)
        words = said.split()
        if request.exact_prompt_tokens is not None:
            words = ["w"] * request.sampling.max_tokens
        told = words[: request.sampling.max_tokens]
        for word in told:
            if self._settings.delay_s:
                time.sleep(self._settings.delay_s)
            yield Chunk(text=word + " ", tokens=1)
        prompt_tokens = request.exact_prompt_tokens or sum(len(t.text.split()) for t in request.turns)
        yield Chunk(
            finish="stop" if len(told) == len(words) else "length",
            usage=Usage(prompt_tokens=prompt_tokens, cached_tokens=0, output_tokens=len(told)),
        )

    def rank(self, request: RankRequest) -> Ranking:
        self._misbehave()
        if self._settings.delay_s:
            time.sleep(self._settings.delay_s)
        order = sorted(request.continuations)
        return Ranking(
            continuations=tuple(Continuation(-1.0 - order.index(c), len(c.split())) for c in request.continuations),
            prompt_tokens=len(request.context.split()) + sum(len(c.split()) for c in request.continuations),
        )

    def close(self) -> None: ...

    def _misbehave(self) -> None:
        settings, served = self._settings, next(self._served)
        if settings.die_after is not None and served >= settings.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.hang_after is not None and served >= settings.hang_after:
            threading.Event().wait()
        if settings.oom_after is not None and served >= settings.oom_after:
            raise BackendOutOfMemory("scripted: out of memory")
        if settings.fail_every and served % settings.fail_every == settings.fail_every - 1:
            raise BackendError("scripted: this request fails")
