"""The encoder's process: read pairs of texts from stdin, write their cosines to stdout. Knows no task, and writes no text."""

import os
import sys

import msgspec
from msgspec import Struct

from bench.backends import BackendError
from bench.config import Similarity
from bench.encoders import EncoderInfo, cosine, open_encoder
from bench.job import EXIT_BAD_MODEL
from bench.worker import Pipe, die_with_parent


class Pair(Struct, frozen=True):
    name: str
    one: str
    other: str


class EncodeJob(Struct, frozen=True, kw_only=True):
    settings: Similarity
    model_path: str
    pairs: tuple[Pair, ...]


class Opened(Struct, frozen=True, tag=True):
    info: EncoderInfo


class PairCompared(Struct, frozen=True, tag=True):
    """`cut`: the other one is longer than the encoder reads."""

    name: str
    cosine: float | None
    cut: bool


def main(parent_pid: str) -> int:
    die_with_parent(int(parent_pid))
    pipe = Pipe()
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=EncodeJob)
    try:
        encoder = open_encoder(job.settings, job.model_path)
    except BackendError as error:
        print(f"cannot be used: {error}", file=sys.stderr)
        return EXIT_BAD_MODEL
    pipe.emit(Opened(encoder.describe()))
    for pair in job.pairs:
        one, other = encoder.encode(pair.one), encoder.encode(pair.other)
        pipe.emit(PairCompared(pair.name, cosine(one.vector, other.vector), other.cut))
    return 0


if __name__ == "__main__":
    code = main(sys.argv[2])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
