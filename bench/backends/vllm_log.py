"""What vLLM's log says of memory while it starts, in the wording of 0.6 (V0 engine) to 0.32.

Its "GB" of older versions are GiB too (divided by 2**30). Figures are rounded to two to four decimals of a GiB.
"""

import re
from collections.abc import Callable

from msgspec import Struct, structs

GIB = 1 << 30

OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|cannot allocate memory|can't allocate memory|not enough memory|MemoryError|std::bad_alloc"
    r"|No available memory for the cache blocks|larger than the available KV cache memory"
    r"|larger than the maximum number of tokens that can be stored in KV cache|Free memory on device .* is less than",
    re.IGNORECASE,
)
"""The later ones are vLLM's own way to say that weights or context do not fit into what it may use."""


class LogFacts(Struct, frozen=True, kw_only=True):
    """Bytes are of one rank where `ranks_told` is 1 and the server has several; None: not said."""

    weights_bytes: int | None = None
    """Sum over the lines that were seen: one for each rank, or only the first rank's."""
    ranks_told: int = 0
    activation_bytes: int | None = None
    other_bytes: int | None = None
    """Outside torch: context, NCCL, library workspaces."""
    graphs_bytes: int | None = None
    cache_bytes: int | None = None
    cache_tokens: int | None = None
    cache_blocks: int | None = None
    """V0 engine: blocks, of as many tokens as the block size says."""
    max_concurrency: float | None = None
    """Requests of full length that the cache holds."""
    engine: dict[str, str] = {}
    """The engine's own settings as it echoes them."""


ECHOED = (
    "dtype",
    "max_seq_len",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "quantization",
    "kv_cache_dtype",
    "load_format",
    "enforce_eager",
    "enable_prefix_caching",
    "device_config",
)


def read_line(facts: LogFacts, line: str) -> LogFacts:
    """The facts with what this line adds."""
    for pattern, add in _LINES:
        if found := pattern.search(line):
            facts = add(facts, found)
    return facts


def _weights(facts: LogFacts, found: re.Match[str]) -> LogFacts:
    return structs.replace(
        facts, weights_bytes=(facts.weights_bytes or 0) + _bytes(found[1]), ranks_told=facts.ranks_told + 1
    )


def _profile(facts: LogFacts, found: re.Match[str]) -> LogFacts:
    """V0's summary; its weights are those of the line `Loading model weights took`."""
    return structs.replace(
        facts,
        other_bytes=_bytes(found[1]) if found[1] else None,
        activation_bytes=_bytes(found[2]),
        cache_bytes=_bytes(found[3]),
    )


def _bytes(gib: str) -> int:
    return round(float(gib) * GIB)


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _setting(field: str, convert: Callable[[str], object]) -> Callable[[LogFacts, re.Match[str]], LogFacts]:
    return lambda facts, found: structs.replace(facts, **{field: convert(found[1])})


def _engine(facts: LogFacts, found: re.Match[str]) -> LogFacts:
    told = dict(re.findall(r"\b(\w+)=([^,\s()]+)", found[1]))
    return structs.replace(
        facts, engine={name: told[name].strip("'") for name in ECHOED if told.get(name, "None") != "None"}
    )


_LINES: tuple[tuple[re.Pattern[str], Callable[[LogFacts, re.Match[str]], LogFacts]], ...] = (
    (re.compile(r"Model loading took ([\d.]+) Gi?B"), _weights),
    (re.compile(r"Loading model weights took ([\d.]+) GB"), _weights),
    (
        re.compile(
            r"model weights take [\d.]+GiB; (?:non_torch_memory takes (-?[\d.]+)GiB; )?"
            r"PyTorch activation peak memory takes ([\d.]+)GiB; .*?KV Cache is (-?[\d.]+)GiB"
        ),
        _profile,
    ),
    (re.compile(r"Available KV cache memory: (-?[\d.]+) GiB"), _setting("cache_bytes", _bytes)),
    (re.compile(r"[A-Z]+(?: \+ host)? KV cache size: ([\d,]+) tokens"), _setting("cache_tokens", _number)),
    (re.compile(r"# (?:GPU|CUDA|cuda) blocks: (\d+)"), _setting("cache_blocks", _number)),
    (re.compile(r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x"), _setting("max_concurrency", float)),
    (re.compile(r"Graph capturing finished in [\d.]+ secs?, took (-?[\d.]+) GiB"), _setting("graphs_bytes", _bytes)),
    (re.compile(r"Initializing an? (?:V\d )?LLM engine \(v[^)]*\) with config: (.*)"), _engine),
)
