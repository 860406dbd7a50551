"""Answers made elsewhere, judged like any model's: JSON lines with `id` and either `text` or `choice`.

Optional: `repeat` (0 without it), `reasoning`, `finish` (`stop` or `length`), `prompt_tokens`, `output_tokens`, `seconds`. A choice `B`
becomes the text `Answer: B`; a null one means that no answer was given. The names of medagents-benchmark's published predictions
(`our_id`, `predicted`, `completion_tokens`, `api_seconds`) are understood as well; other keys are ignored.

Speed is as recorded: `seconds` of the whole request become `engine_decode_ms`; the run's own time stamps are those of reading a list.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from bench.backends import BackendError, Chunk, Ranking, RankRequest, Request, Usage
from bench.config import RecordedSettings
from results.records import EngineInfo, EngineState

ALSO_NAMED = {"our_id": "id", "predicted": "choice", "completion_tokens": "output_tokens", "api_seconds": "seconds"}
IN_FLIGHT = 64
Count = Annotated[int, Meta(ge=0)]


class Recording(Struct, frozen=True, kw_only=True):
    """One line. Exactly one of `text` and `choice` is there, `choice` perhaps as null."""

    id: str
    repeat: Count = 0
    text: str | msgspec.UnsetType = msgspec.UNSET
    choice: str | msgspec.UnsetType | None = msgspec.UNSET
    reasoning: str | None = None
    finish: Literal["stop", "length"] = "stop"
    prompt_tokens: Count | None = None
    output_tokens: Count | None = None
    seconds: Annotated[float, Meta(ge=0)] | None = None

    @property
    def answer(self) -> str:
        if self.text is not msgspec.UNSET:
            return self.text
        return f"Answer: {self.choice}" if self.choice else ""


class RecordedBackend:
    """Reads the whole file at once; every mistake in it is a `BackendError` with the line."""

    def __init__(self, settings: RecordedSettings) -> None:
        path = Path(settings.path).expanduser()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BackendError(f"{path}: cannot be read ({error.strerror}); check `path` in the settings") from None
        self._recordings = _read(path, content)
        self._path, self._sha256 = path, hashlib.sha256(content).hexdigest()
        self._model = settings.model_name or path.stem
        self.max_concurrency = IN_FLIGHT

    def describe(self) -> EngineInfo:
        return EngineInfo(
            engine="recorded",
            engine_version=None,
            device="recorded",
            model=self._model,
            max_concurrency=self.max_concurrency,
            settings={"answers": len(self._recordings), "answers_sha256": self._sha256, "file": self._path.name},
            notes=(
                "answers were recorded elsewhere: the run's time stamps, memory and power are not the model's",
                "engine_decode_ms is the recorded duration of the whole request",
            ),
        )

    def state(self) -> EngineState | None:
        return None

    def stream(self, request: Request) -> Iterator[Chunk]:
        if request.exact_prompt_tokens is not None:
            raise BackendError("recorded answers have no speed that could be measured")
        found = self._recordings.get((request.id, request.repeat))
        if found is None:
            again = f", repeat {request.repeat}" if request.repeat else ""
            raise BackendError(f"{self._path.name} has no answer to `{request.id}`{again}")
        if found.reasoning:
            yield Chunk(text=found.reasoning, tokens=1, counted=False, channel="reasoning")
        if found.answer:
            yield Chunk(text=found.answer, tokens=1, counted=False)
        usage = Usage(
            prompt_tokens=found.prompt_tokens,
            output_tokens=found.output_tokens,
            source="usage",
            decode_ms=None if found.seconds is None else 1000.0 * found.seconds,
        )
        yield Chunk(finish=found.finish, usage=usage)

    def rank(self, request: RankRequest) -> Ranking:
        raise BackendError("recorded answers cannot be ranked")

    def close(self) -> None: ...


def _read(path: Path, content: bytes) -> dict[tuple[str, int], Recording]:
    """Split at line feeds only: a text may hold other line ends, such as U+2028."""
    found: dict[tuple[str, int], Recording] = {}
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        recording = _recording(line, f"{path}, line {number}")
        key = (recording.id, recording.repeat)
        if key in found:
            raise BackendError(f"{path}, line {number}: `{recording.id}` is there twice; give each answer its `repeat`")
        found[key] = recording
    if not found:
        raise BackendError(f"{path}: no answers in this file")
    return found


def _recording(line: bytes, where: str) -> Recording:
    try:
        raw: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        named = {ALSO_NAMED.get(name, name): value for name, value in raw.items()}
        recording = msgspec.convert(named, Recording)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackendError(f"{where}: {error}") from None
    if (recording.text is msgspec.UNSET) == (recording.choice is msgspec.UNSET):
        raise BackendError(f"{where}: give either `text` or `choice`")
    return recording
