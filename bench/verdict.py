"""Whether a deployment fits a machine, by how much it does not, and what would: in words, from the figures of `bench.fit`."""

from bench import fit
from bench.catalogue import Shape
from bench.fit import Layout, Need, Question, Room, gib
from bench.roofline import cache_bytes_per_token
from hardware import Host


def verdict(question: Question, need: Need, room: Room, host: Host) -> str:
    """Empty when it fits without more to say."""
    layout = question.layout
    fitting = fit.fits(need, room, layout.card_fraction)
    if fitting:
        return _rest_of_cards(question, need, room)
    if fitting is None:
        return f"needs {gib(need.total_bytes)}; the memory of {host.name} is not known"
    sentence = f"does not fit: needs {_where(need, layout)}, {_offer(need, room)}{_missing(need, room, layout)}"
    options = fit.what_would_fit(question, room)
    return f"{sentence}. " + (f"Would fit: {'; or '.join(options)}." if options else "Nothing smaller would fit.")


def _where(need: Need, layout: Layout) -> str:
    whole = _whole(need)
    engine = whole - need.weight_bytes - need.cache_bytes
    total = f"{gib(whole)} ({gib(need.weight_bytes)} weights, {gib(need.cache_bytes)} cache, {gib(engine)} engine)"
    if need.cards == 0:
        copied = f" (and fills {gib(layout.copied_bytes)} more if they are there)" if layout.copied_bytes else ""
        return f"{total} of memory{copied}"
    share = f" at {layout.card_fraction:.0%} use" if layout.card_fraction < 1 else ""
    on_host = f" and {gib(need.host_bytes)} in the host's memory" if layout.gpu_share < 1 else ""
    return f"{total} on {need.cards} card{'s' if need.cards > 1 else ''}, {gib(need.card_bytes)} each{share}{on_host}"


def _whole(need: Need) -> float:
    """What the verdict is about: without the second copy of mapped weights, which gives way."""
    return need.total_bytes if need.cards else need.host_bytes


def _offer(need: Need, room: Room) -> str:
    if need.cards == 0:
        return "this machine's memory is not known" if room.host_bytes is None else f"{gib(room.host_bytes)} are free"
    if room.cards == 0:
        return "there is no accelerator"
    size = "unknown size" if room.card_bytes is None else gib(room.card_bytes)
    return f"there are {room.cards} of {size}" if room.cards > 1 else f"there is 1 of {size}"


def _missing(need: Need, room: Room, layout: Layout) -> str:
    """In cards and GiB; a part that is not lacking, or not known, is left out."""
    cards = max(0, need.cards - room.cards)
    lacking = fit.missing_bytes(need, room, layout.card_fraction)
    parts = [f"{cards} card{'s' if cards > 1 else ''}"] if cards else []
    if lacking:
        parts.append(gib(lacking))
    return f", {' and '.join(parts)} missing" if parts else ""


def _rest_of_cards(question: Question, need: Need, room: Room) -> str:
    """For an engine that fills its share with cache: how many requests of full length that holds."""
    layout = question.layout
    if not layout.takes_all or not need.cards or room.card_bytes is None:
        return ""
    left = (room.card_bytes * layout.card_fraction - need.card_bytes) * need.cards + need.cache_bytes
    if not need.cache_bytes:
        return ""
    return f"The cache has room for {left / need.cache_bytes:,.0f} requests of {question.context:,} tokens."


def latent_note(shape: Shape | None, need: Need, layout: Layout, *, decompressed: bool) -> str:
    """How much the latent cache saves, for models that have it."""
    if shape is None or shape.mla is None:
        return ""
    ratio = cache_bytes_per_token(shape, decompressed=True) / cache_bytes_per_token(shape)
    if decompressed:
        return (
            f"Decompressed keys and values are stored; a latent cache (MLA) would need {gib(need.cache_bytes / ratio)}."
        )
    other = need.cache_bytes / fit.cache_copies(shape, layout.tensor_parallel) * ratio
    total = _whole(need) - need.cache_bytes + other
    return (
        f"MLA's cache needs {gib(need.cache_bytes)}; a runtime that stores decompressed keys and values would need {gib(other)} "
        f"({gib(total)} in all, {total / 1e9:,.0f} GB)."
    )
