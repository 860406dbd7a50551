"""Where a model's bytes go on a machine, whether they fit, and what would make them fit.

Weights and cache are exact arithmetic; what an engine adds (`*_OVERHEAD` below) is measured or rough, and says which.
"""

from collections.abc import Callable, Iterator

from msgspec import Struct, structs

from bench.catalogue import Shape
from hardware import Gpu, Host

GIB = 2**30

WORKER_BYTES = 54 * 2**20
"""Measured: what is left of the worker's anonymous and file-backed memory when weights, cache and the buffers below are taken away
(llama-cpp-python 0.3.36, Python 3.11)."""
CARD_OVERHEAD = 0.55 * GIB
"""Rough: driver context and compute buffers of llama.cpp or transformers on one accelerator."""
VLLM_CARD_OVERHEAD = 2.0 * GIB
"""Rough: driver context, activations of the profile run and captured graphs of vLLM on one accelerator."""
TORCH_BYTES = 0.9 * GIB
"""Rough: an interpreter with torch and its libraries in the processor's memory; a server has two of them."""
CARD_SIZES_GIB = (24, 48, 64, 80, 96, 141)
"""Of accelerators on the market, for advice on a machine without any."""
MOST_CARDS = 16
CARD_COUNTS = (1, 2, 4, 8, 16)
"""Of tensor parallelism."""


class Need(Struct, frozen=True, kw_only=True):
    """Bytes of one deployment. With `cards` 0 all of them are in the processor's memory."""

    weight_bytes: float
    cache_bytes: float
    overhead_bytes: float
    cards: int = 0
    card_bytes: float = 0.0
    """On each accelerator."""
    host_bytes: float = 0.0

    @property
    def total_bytes(self) -> float:
        return self.weight_bytes + self.cache_bytes + self.overhead_bytes


class Layout(Struct, frozen=True, kw_only=True):
    """How an engine spreads a model: `cards` accelerators, `tensor_parallel` of them share a layer, a part may stay in host memory."""

    cards: int
    card_overhead: float
    host_overhead: float
    tensor_parallel: int = 1
    gpu_share: float = 1.0
    """Of weights and cache."""
    card_fraction: float = 1.0
    """Of an accelerator's memory that the engine may use."""
    copied_bytes: float = 0.0
    """Second copy of weights whose first one is mapped from the file: it shows as memory, and the system takes the first back when it
    needs the room."""
    takes_all: bool = False
    """The engine reserves its fraction at the start and fills the rest with cache."""


def cache_copies(shape: Shape | None, tensor_parallel: int) -> float:
    """How often each cached byte exists. Every rank needs MLA's latent vector whole; KV heads are dealt out until each rank has one."""
    if shape is None:
        return 1.0
    heads = 1 if shape.mla else shape.kv_heads
    return max(1.0, tensor_parallel / heads)


def need_of(weight_bytes: float, cache_bytes: float, shape: Shape | None, layout: Layout) -> Need:
    """`cache_bytes` is one copy."""
    cached = cache_bytes * cache_copies(shape, layout.tensor_parallel)
    movable = weight_bytes + cached
    if layout.cards == 0:
        return Need(
            weight_bytes=weight_bytes,
            cache_bytes=cached,
            overhead_bytes=layout.host_overhead + layout.copied_bytes,
            host_bytes=movable + layout.host_overhead,
        )
    return Need(
        weight_bytes=weight_bytes,
        cache_bytes=cached,
        overhead_bytes=layout.cards * layout.card_overhead,
        cards=layout.cards,
        card_bytes=movable * layout.gpu_share / layout.cards + layout.card_overhead,
        host_bytes=movable * (1 - layout.gpu_share) + layout.host_overhead,
    )


class Room(Struct, frozen=True, kw_only=True):
    """What a machine offers: accelerators of `card_bytes` each (of the smallest), and the processor's memory. None: unknown."""

    cards: int
    card_bytes: float | None
    host_bytes: float | None
    node_cards: int = 0
    """In one machine; `cards` counts those of all."""

    def available(self, cards: int) -> float | None:
        if cards == 0:
            return self.host_bytes
        return None if self.card_bytes is None else min(cards, self.cards) * self.card_bytes


def room_of(host: Host) -> Room:
    sizes = [_card_bytes(gpu) for gpu in host.gpus]
    known = [size for size in sizes if size is not None]
    free = [v for v in (host.memory_available_bytes, host.usable_memory_bytes) if v is not None]
    return Room(
        cards=len(host.gpus),
        card_bytes=min(known) if known and len(known) == len(sizes) else None,
        host_bytes=min(free, default=None),
        node_cards=sum(gpu.node == 0 for gpu in host.gpus),
    )


def _card_bytes(gpu: Gpu) -> float | None:
    return gpu.memory_bytes if gpu.memory_free_bytes is None else gpu.memory_free_bytes


def fits(need: Need, room: Room, card_fraction: float = 1.0) -> bool | None:
    """None when the memory that matters is unknown."""
    if need.cards == 0:
        return None if room.host_bytes is None else need.host_bytes <= room.host_bytes
    if need.cards > room.cards:
        return False
    if room.card_bytes is None:
        return None
    if need.card_bytes > room.card_bytes * card_fraction:
        return False
    return None if room.host_bytes is None else need.host_bytes <= room.host_bytes


def missing_bytes(need: Need, room: Room, card_fraction: float = 1.0) -> float | None:
    """How much memory is lacking in all, over accelerators and host; None when a size is unknown."""
    if need.cards == 0:
        return None if room.host_bytes is None else max(0.0, need.host_bytes - room.host_bytes)
    card_room = 0.0 if room.cards == 0 else room.card_bytes
    if card_room is None or room.host_bytes is None:
        return None
    usable = min(room.cards, need.cards) * card_room * card_fraction
    return max(0.0, need.cards * need.card_bytes - usable) + max(0.0, need.host_bytes - room.host_bytes)


class Question(Struct, frozen=True, kw_only=True):
    """A deployment as advice sees it: `size(label)` and `cache(context)` give bytes, None where the shape is unknown."""

    shape: Shape | None
    layout: Layout
    weight_bytes: float
    context: int
    label: str | None
    ladder: tuple[str, ...]
    """Labels of this engine, most bits first."""
    size: Callable[[str], float | None]
    cache: Callable[[int], float]
    requests: int
    """That the cache is for."""
    layer_split: bool
    """Any number of cards will do; else it must divide the heads."""


def need_for(question: Question) -> Need:
    return need_of(question.weight_bytes, question.cache(question.context), question.shape, question.layout)


def what_would_fit(question: Question, room: Room) -> list[str]:
    """The changes that would each make it fit, as parts of a sentence: less precision, less context, more cards."""
    found = [_other_label(question, room), _other_context(question, room), _part_on_host(question, room)]
    return [part for part in (*found, *_more_cards(question, room)) if part]


def _try(question: Question, room: Room) -> bool:
    return fits(need_for(question), room, question.layout.card_fraction) is True


def _other_label(question: Question, room: Room) -> str | None:
    for label in question.ladder:
        size = question.size(label)
        if label == question.label or size is None or size >= question.weight_bytes:
            continue
        if _try(structs.replace(question, weight_bytes=size), room):
            return f"{label} ({gib(size)} of weights)"
    return None


def _other_context(question: Question, room: Room) -> str | None:
    context = question.context // 2
    while context >= 512:
        if _try(structs.replace(question, context=context), room):
            return f"a context of {context:,} instead of {question.context:,} tokens"
        context //= 2
    return None


def _part_on_host(question: Question, room: Room) -> str | None:
    """llama.cpp can keep some layers in the processor's memory."""
    if not question.layer_split or question.shape is None or question.layout.cards == 0 or room.cards == 0:
        return None
    for layers in range(question.shape.layers, 0, -1):
        layout = structs.replace(question.layout, gpu_share=layers / (question.shape.layers + 1))
        if _try(structs.replace(question, layout=layout), room):
            rest = need_for(structs.replace(question, layout=layout)).host_bytes
            return f"n_gpu_layers = {layers}, which leaves {gib(rest)} in the host's memory and is much slower"
    return None


def _more_cards(question: Question, room: Room) -> Iterator[str]:
    """Of the machine's own kind; without any, or where too many were needed, each size on the market that needs fewer cards than the
    smaller ones."""
    if room.cards and room.card_bytes and (count := _fewest_cards(question, room.card_bytes)):
        if count > room.cards:
            yield f"{count} cards of {gib(room.card_bytes, 0)}"
        elif count != question.layout.cards and not question.layer_split:
            yield f"tensor_parallel_size x pipeline_parallel_size = {count} on the cards here"
        return
    best = MOST_CARDS + 1
    for size in CARD_SIZES_GIB:
        count = _fewest_cards(question, size * GIB)
        if count and count < best:
            best = count
            yield f"{count} card{'s' if count > 1 else ''} of {size} GiB"


def _fewest_cards(question: Question, card_bytes: float) -> int | None:
    """Each card with its share of weights, its copy of the cache and the engine's own memory; None: 16 are not enough."""
    counts = range(1, MOST_CARDS + 1) if question.layer_split else CARD_COUNTS
    overhead = question.layout.card_overhead or CARD_OVERHEAD
    for count in counts:
        if not question.layer_split and question.shape and question.shape.heads % count:
            continue
        parallel = 1 if question.layer_split else count
        layout = structs.replace(
            question.layout, cards=count, tensor_parallel=parallel, gpu_share=1.0, card_overhead=overhead
        )
        if need_for(structs.replace(question, layout=layout)).card_bytes <= card_bytes * layout.card_fraction:
            return count
    return None


def gib(value: float, digits: int = 1) -> str:
    return f"{value / GIB:,.{digits}f} GiB"
