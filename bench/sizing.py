"""What a cell should need and how fast it could be, before anything is loaded. Pure; predicted, never measured.

The bytes come from the file where there is one, else from the catalogue's shape; `Prediction.basis` says which, and what is only rough.
"""

import re
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from bench import fit
from bench.catalogue import Entry, Shape, find, unpinned
from bench.config import (
    BackendSettings,
    Deployment,
    LlamaCppSettings,
    TransformersSettings,
    VllmSettings,
)
from bench.duration import Times, Work, at_most, times_of, work_of
from bench.fit import GIB, Layout, Need, Question, Room
from bench.quantisation import MIXES, gguf_types, normal_label, stored_bytes, tensor_bytes
from bench.roofline import CACHE_BITS, Machine, cache_bytes_per_token, decode_ceiling, flops_per_token
from bench.shapes import shape_in, stores_latent_cache
from bench.tensors import parameters, shortened, streamed_parameters, streamed_share, tensors
from bench.verdict import latent_note, verdict
from hardware import Host
from results.manifest import Prediction

if TYPE_CHECKING:
    from bench.models import Weights
    from bench.plan import CellPlan

UBATCH = 512
"""Tokens that llama.cpp evaluates at once."""
GGUF_LADDER = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "IQ2_XXS", "IQ1_S")
SAFETENSORS_LADDER = ("bf16", "fp8", "int8", "awq")
REPACKED = ("Q4_0", "Q4_K", "IQ4_NL")
VLLM_CPU_CACHE_GIB = 4
"""VLLM_CPU_KVCACHE_SPACE where it is not set."""


class Model(Struct, frozen=True, kw_only=True):
    """What is known of a deployment's weights. `file_bytes` None: computed from the shape."""

    entry: Entry | None
    shape: Shape | None
    label: str | None
    weight_bytes: float | None
    decompressed: bool
    """The engine or the file knows no latent cache (MLA)."""
    basis: str

    @property
    def cache_bytes_per_token(self) -> float | None:
        """At 16 bit; None: unknown."""
        return cache_bytes_per_token(self.shape, decompressed=self.decompressed) if self.shape else None


def predict(cell: "CellPlan", settings: BackendSettings, weights: "Weights | None", host: Host) -> Prediction:
    """Memory, verdict, ceiling and rough duration of a cell. A remote server's or a recording's memory is not ours to predict."""
    if not isinstance(settings, LlamaCppSettings | TransformersSettings | VllmSettings):
        served = times_of(work_of(cell), None, None, 0.0)
        return _timed(Prediction(basis="nothing is loaded by us"), served)
    model = model_of(cell.deployment, settings, weights)
    work = work_of(cell)
    work = at_most(work, settings.slots or work.in_flight)
    if model.weight_bytes is None or model.cache_bytes_per_token is None:
        return Prediction(
            weight_bytes=None if model.weight_bytes is None else round(model.weight_bytes),
            basis=model.basis,
            advice="memory cannot be predicted: neither the file nor the catalogue tells the model's shape",
        )
    room = fit.room_of(host)
    question = question_of(model, settings, work, room)
    need = fit.need_for(question)
    latent = latent_note(model.shape, need, question.layout, decompressed=model.decompressed)
    fitting = fit.fits(need, room, question.layout.card_fraction)
    predicted = Prediction(
        weight_bytes=round(need.weight_bytes),
        cache_bytes=round(need.cache_bytes),
        overhead_bytes=round(need.overhead_bytes),
        total_bytes=round(need.total_bytes),
        available_bytes=_available(need, room, question.layout),
        fits=fitting,
        decode_tokens_per_s_ceiling=None if fitting is False else _ceiling(model, settings, question, work, host),
        basis=model.basis,
        advice=" ".join(filter(None, (verdict(question, need, room, host), latent))),
    )
    return predicted if fitting is False else _timed(predicted, _times(work, model, host))


def _times(work: Work, model: Model, host: Host) -> Times | None:
    return times_of(work, streamed_bytes(model, work.batch), model.shape, model.weight_bytes or 0.0, host)


def _timed(prediction: Prediction, times: Times | None) -> Prediction:
    return structs.replace(prediction, seconds=times.cell, step_seconds=times.steps) if times else prediction


def _available(need: Need, room: Room, layout: Layout) -> int | None:
    available = room.available(need.cards)
    return None if available is None else round(available * (layout.card_fraction if need.cards else 1.0))


def model_of(deployment: Deployment, settings: BackendSettings, weights: "Weights | None") -> Model:
    """Shape and bytes from the file if it is there and runs as it is, else from the catalogue at the deployment's precision."""
    entry = find(deployment)
    listed = shortened(entry.shape, deployment.layers) if entry and entry.shape else None
    shape = shape_in(weights.metadata, listed) if weights and weights.metadata else listed
    label = label_of(deployment, settings, entry, weights)
    size, basis = _size(deployment, settings, weights, label, entry, shape)
    return Model(
        entry=entry,
        shape=shape,
        label=label,
        weight_bytes=size,
        decompressed=_decompresses(settings, weights),
        basis=basis,
    )


def _size(
    deployment: Deployment,
    settings: BackendSettings,
    weights: "Weights | None",
    label: str | None,
    entry: Entry | None,
    shape: Shape | None,
) -> tuple[float | None, str]:
    """Bytes in memory, and where the number comes from."""
    changed = isinstance(settings, TransformersSettings) and (settings.quantise_on_load or settings.dtype != "auto")
    stored = (weights.tensor_bytes or weights.size_bytes) if weights else None
    if stored and not changed:
        return stored, "tensors of the file" if weights and weights.made else "tensors of the file to be made"
    if entry and label in entry.files_gib and shape == entry.shape:
        return entry.files_gib[label] * GIB, f"published size of {entry.family} at {label}"
    computed = size_at(entry, shape, label)
    if computed is not None:
        return computed, f"{entry.family if entry else 'the file'} at {label}, computed from its shape"
    return None, "size not known"


def _decompresses(settings: BackendSettings, weights: "Weights | None") -> bool:
    """llama.cpp stores keys and values of every head for a GGUF made before it knew MLA. transformers 5.19 to 5.23 gives its
    cache the latents (`DeepseekV3Attention.forward`), whatever the file."""
    if not isinstance(settings, LlamaCppSettings) or weights is None or not weights.metadata:
        return False
    return not stores_latent_cache(weights.metadata)


def size_at(entry: Entry | None, shape: Shape | None, label: str | None) -> float | None:
    """Bytes of all weights at a label: a published file's, else computed; None when neither is possible."""
    if label is None:
        return None
    if entry and label in entry.files_gib and shape == entry.shape:
        return entry.files_gib[label] * GIB
    known = normal_label(label)
    if shape is None or known is None:
        return None
    return sum(stored_bytes(shape, known).values())


def label_of(
    deployment: Deployment, settings: BackendSettings, entry: Entry | None, weights: "Weights | None"
) -> str | None:
    """The precision the weights will have in memory."""
    if deployment.quantise:
        return normal_label(deployment.quantise, gguf=isinstance(settings, LlamaCppSettings)) or deployment.quantise
    match settings:
        case TransformersSettings(quantise_on_load=str(chosen)):
            return chosen
        case TransformersSettings(dtype=dtype) if dtype != "auto":
            return normal_label(dtype, gguf=False)
        case VllmSettings(quantization=str(chosen)):
            return normal_label(chosen, gguf=False)
        case VllmSettings(dtype=dtype) if dtype in ("float32", "float"):
            return "fp32"
    named = label_in(deployment.file or unpinned(deployment.model), entry)
    if named is None and weights and weights.label:
        named = normal_label(str(weights.label)) or str(weights.label)
    if named is None and isinstance(settings, LlamaCppSettings):
        return "F16" if deployment.model.startswith("synthetic:") else None
    return named or (entry.native if entry else None)


def label_in(name: str, entry: Entry | None) -> str | None:
    """A GGUF label or format in a file's or repository's name; labels with a published size first (`UD-Q2_K_XL`)."""
    published = list(entry.files_gib) if entry else []
    known = sorted([*published, *MIXES], key=len, reverse=True)
    for label in known:
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(label)}(?![A-Za-z0-9_])", name, re.IGNORECASE):
            return label
    found = re.search(r"(?<![a-z])(awq|gptq|fp8|int8|int4|bf16|w8a8)(?![a-z])", name.lower())
    return normal_label(str(found[1])) if found else None


def streamed_bytes(model: Model, batch: float) -> float:
    """Bytes of weights that one decode step of `batch` sequences reads; all of them where the shape is unknown."""
    size = model.weight_bytes or 0.0
    if model.shape is None:
        return size
    label = model.label if model.label and normal_label(model.label) == model.label else None
    if label is None:
        return size * streamed_parameters(model.shape, batch) / parameters(model.shape)
    stored = stored_bytes(model.shape, label)
    streamed = sum(stored[t.name] * streamed_share(model.shape, t, batch) for t in tensors(model.shape))
    return size * streamed / sum(stored.values())


def question_of(
    model: Model, settings: LlamaCppSettings | TransformersSettings | VllmSettings, work: Work, room: Room
) -> Question:
    """What the engine will allocate, as a question that advice can vary."""
    kappa = model.cache_bytes_per_token or 0.0
    match settings:
        case LlamaCppSettings():
            requests, context = settings.slots or work.in_flight, settings.context
            ladder: tuple[str, ...] = GGUF_LADDER
            layout = _llama_layout(model, settings, room, work)
        case TransformersSettings():
            requests, context = min(settings.slots, work.in_flight), settings.context
            ladder = SAFETENSORS_LADDER
            layout = _torch_layout(settings, room, _expanded_bytes(model.shape) * requests * context)
        case VllmSettings():
            requests, context = 1, settings.max_model_len
            ladder = SAFETENSORS_LADDER
            layout = _vllm_layout(settings, room)
    per_token = kappa * _cache_factor(model, _cache_type(settings))
    fixed = _fixed_cache(settings, layout)
    return Question(
        shape=model.shape,
        layout=layout,
        weight_bytes=model.weight_bytes or 0.0,
        context=context,
        label=model.label,
        ladder=ladder,
        size=lambda label: size_at(model.entry, model.shape, label),
        cache=lambda tokens: fixed if fixed is not None else requests * tokens * per_token,
        requests=requests,
        layer_split=not isinstance(settings, VllmSettings),
    )


def _fixed_cache(settings: BackendSettings, layout: Layout) -> float | None:
    """vLLM on a processor takes a fixed amount."""
    if isinstance(settings, VllmSettings) and layout.cards == 0:
        return float((settings.cpu_kv_gib or VLLM_CPU_CACHE_GIB) * GIB)
    return None


def _cache_factor(model: Model, cache_type: str) -> float:
    """Against 16 bit; the indexer's part does not shrink."""
    bits = CACHE_BITS.get(cache_type, 16.0)
    if model.shape is None:
        return bits / 16
    whole = cache_bytes_per_token(model.shape, decompressed=model.decompressed)
    return cache_bytes_per_token(model.shape, bits, model.decompressed) / whole


def _llama_layout(model: Model, settings: LlamaCppSettings, room: Room, work: Work) -> Layout:
    """All cards of one machine, whole layers on each; without accelerators everything in the processor's memory."""
    buffers = _llama_buffers(model, settings, work)
    if room.node_cards == 0 or settings.n_gpu_layers == 0:
        copied = _repacked_bytes(model) if settings.mmap else 0.0
        return Layout(cards=0, card_overhead=0.0, host_overhead=fit.WORKER_BYTES + buffers, copied_bytes=copied)
    layers = model.shape.layers if model.shape else None
    share = 1.0 if settings.n_gpu_layers < 0 or layers is None else min(1.0, settings.n_gpu_layers / (layers + 1))
    return Layout(
        cards=room.node_cards,
        card_overhead=fit.CARD_OVERHEAD + buffers / room.node_cards,
        host_overhead=fit.WORKER_BYTES,
        gpu_share=share,
    )


def _llama_buffers(model: Model, settings: LlamaCppSettings, work: Work) -> float:
    """What llama.cpp adds to weights and cache: activations of a batch, rows of logits, the strings of the vocabulary.

    Measured on SmolLM2-135M: a row for each sequence is reserved and about two more are touched; the vocabulary takes 340 bytes an entry.
    """
    if model.shape is None:
        return 0.0
    slots = settings.slots or work.in_flight
    sequences = slots + 1 + max(16, 4 * slots)
    activations = min(settings.batch, UBATCH) * (4 * model.shape.hidden + 2 * model.shape.intermediate) * 4
    return activations + 3 * sequences * model.shape.vocabulary * 4 + 340 * model.shape.vocabulary


def _repacked_bytes(model: Model) -> float:
    """On a processor llama.cpp keeps a second copy of these types' matrices, laid out for its vector units (measured on x86 with AVX2)."""
    if model.shape is None or model.label not in MIXES:
        return 0.0
    types = gguf_types(model.shape, model.label)
    return sum(
        tensor_bytes(tensor, types[tensor.name])
        for tensor in tensors(model.shape)
        if types[tensor.name] in REPACKED and tensor.name != "token_embd.weight"
    )


def _expanded_bytes(shape: Shape | None) -> float:
    """What transformers makes of a token's latent in the layer that it is computing, at 16 bit: keys and values of all heads, and the
    keys once more with their rotary part (`DeepseekV3Attention.expand_kv`). Gone when the layer is done."""
    if shape is None or shape.mla is None:
        return 0.0
    mla = shape.mla
    return 2 * shape.heads * ((mla.nope + mla.value) + (mla.nope + mla.rope))


def _torch_layout(settings: TransformersSettings, room: Room, expanded: float) -> Layout:
    """device_map spreads whole layers over all cards of one machine, and one card after the other works."""
    cards = 0 if settings.device == "cpu" else room.node_cards if settings.device == "auto" else min(1, room.node_cards)
    if cards == 0:
        return Layout(cards=0, card_overhead=0.0, host_overhead=fit.TORCH_BYTES + expanded)
    return Layout(cards=cards, card_overhead=fit.CARD_OVERHEAD + expanded, host_overhead=fit.TORCH_BYTES)


def _vllm_layout(settings: VllmSettings, room: Room) -> Layout:
    cards = settings.tensor_parallel_size * settings.pipeline_parallel_size
    if room.cards == 0 and cards == 1:
        return Layout(cards=0, card_overhead=0.0, host_overhead=2 * fit.TORCH_BYTES)
    return Layout(
        cards=cards,
        card_overhead=fit.VLLM_CARD_OVERHEAD,
        host_overhead=2 * fit.TORCH_BYTES,
        tensor_parallel=settings.tensor_parallel_size,
        card_fraction=settings.gpu_memory_utilization,
        takes_all=True,
    )


def machine_of(layout: Layout, host: Host) -> Machine:
    """Of the devices that work at the same time: all ranks of tensor parallelism; one after the other where cards hold whole layers."""
    if layout.cards == 0 or layout.gpu_share < 1:
        bandwidth = host.memory_bandwidth_gb_s
        return Machine(bytes_per_s=bandwidth * 1e9 if bandwidth else None, flops=None)
    cards = host.gpus[: layout.cards]
    if len(cards) < layout.cards:
        return Machine(bytes_per_s=None, flops=None)
    bandwidths = [card.memory_bandwidth_gb_s for card in cards]
    peaks = [card.peak_tflops.get("bf16") or card.peak_tflops.get("fp16") for card in cards]
    together = layout.cards if layout.takes_all else 1
    slowest, weakest = _least(bandwidths), _least(peaks)
    return Machine(
        bytes_per_s=None if slowest is None else together * slowest * 1e9,
        flops=None if weakest is None else together * weakest * 1e12,
    )


def _least(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None


def _ceiling(model: Model, settings: BackendSettings, question: Question, work: Work, host: Host) -> float | None:
    """At the highest load. A part in the host's memory is bounded by that memory alone, which is a ceiling too."""
    machine = machine_of(question.layout, host)
    batch = work.batch
    weights = streamed_bytes(model, batch)
    if question.layout.cards:
        weights *= 1.0 if question.layout.gpu_share >= 1 else 1.0 - question.layout.gpu_share
    per_token = (model.cache_bytes_per_token or 0.0) * _cache_factor(model, _cache_type(settings))
    copies = fit.cache_copies(model.shape, question.layout.tensor_parallel)
    cache = batch * work.mean_context * per_token * copies
    flops = flops_per_token(model.shape, work.mean_context) if model.shape else 0.0
    return decode_ceiling(machine, weights + cache * question.layout.gpu_share, flops, batch) if weights else None


def _cache_type(settings: BackendSettings) -> str:
    match settings:
        case LlamaCppSettings():
            return settings.cache_type
        case VllmSettings():
            return settings.kv_cache_dtype
        case _:
            return "f16"
