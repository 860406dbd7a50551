"""What a vLLM server tells on `/metrics` (Prometheus text), by its present and its older names."""

import re
import time

from msgspec import Struct

from results.records import EngineState

_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{(.*)\})?\s+(\S+)", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""Both are fractions of 1 in spite of their names."""


class CacheFacts(Struct, frozen=True, kw_only=True):
    """Summed over the engines behind one server (data parallel); None: not told."""

    tokens: int | None = None
    """Room in the cache."""
    cache_bytes: int | None = None
    used_fraction: float | None = None
    preemptions: int | None = None


def parse(text: str) -> CacheFacts:
    """Facts of one reply of `/metrics`; a server that is not vLLM gives none."""
    tokens: list[int | None] = []
    sizes: list[int | None] = []
    used: dict[str, list[float]] = {}
    preemptions: list[float] = []
    for name, labels_text, value_text in _SAMPLE.findall(text):
        try:
            value = float(value_text)
        except ValueError:
            continue
        if name == "vllm:cache_config_info":
            labels = dict(_LABEL.findall(labels_text))
            tokens.append(_room(labels))
            sizes.append(_whole(labels.get("kv_cache_memory_bytes")))
        elif name in _USAGE:
            used.setdefault(name, []).append(value)
        elif name == "vllm:num_preemptions_total":
            preemptions.append(value)
    fractions = used.get(_USAGE[0]) or used.get(_USAGE[1]) or []
    return CacheFacts(
        tokens=_total(tokens),
        cache_bytes=_total(sizes),
        used_fraction=sum(fractions) / len(fractions) if fractions else None,
        preemptions=int(sum(preemptions)) if preemptions else None,
    )


def state_of(facts: CacheFacts) -> EngineState | None:
    """As a record, stamped now; None where nothing was told."""
    if facts == CacheFacts():
        return None
    known = facts.tokens is not None and facts.used_fraction is not None
    return EngineState(
        time_ns=time.monotonic_ns(),
        cache_tokens_used=round((facts.tokens or 0) * (facts.used_fraction or 0.0)) if known else None,
        cache_tokens_total=facts.tokens,
        preemptions=facts.preemptions,
        memory={"cache": facts.cache_bytes} if facts.cache_bytes is not None else {},
    )


def _room(labels: dict[str, str]) -> int | None:
    """Newer servers say it; older ones say how many blocks of how many tokens."""
    if (told := _whole(labels.get("kv_cache_size_tokens"))) is not None:
        return told
    blocks, block = _whole(labels.get("num_gpu_blocks")), _whole(labels.get("block_size"))
    return None if blocks is None or block is None else blocks * block


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _total(parts: list[int | None]) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None
