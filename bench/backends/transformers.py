"""Hugging Face transformers: safetensors folders, single GGUF files and random weights, on CPUs and GPUs.

Requests in flight share every step, through the same batcher as llama.cpp's: the new tokens of all sequences stand in one row, without
padding, over one cache of `slots` times `context` cells. The library's own continuous batching (`generate_batch`) was tried and is not
used: it tells log-likelihoods only of tokens that it chose itself, knows no stop strings, and has one seed for all requests. No code of a
repository is run, no pickled weights are read, nothing is downloaded.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.backends import BackendError, BackendOutOfMemory, Chunk, Ranking, RankRequest, Request
from bench.backends.batching import Batcher
from bench.backends.hf_tokens import Tokens
from bench.backends.inflight import Piece, Writing
from bench.backends.pairs import comparing
from bench.backends.streaming import THINK_END, TextStream, Thinking, opens_thinking
from bench.backends.torch_decoder import PackedAttention, TorchDecoder, memory_watched
from bench.config import ConfigError, TransformersSettings
from bench.models import Weights, weights_at
from bench.quantisation import normal_label
from results.records import EngineInfo, EngineState

ATTENTION = "bedside_packed"
CLOSE_THINKING = f"\n{THINK_END}\n\n"
BATCH_CPU, BATCH_GPU = 512, 2048
"""Most tokens of one step: more hardly raises the speed and delays the answers that are being written."""
BRANCHES_FOR_SLOT = 8
GROUP_SIZES = (128, 64, 32)
ROUTER = re.compile(r"\.(gate|router)\.weight$")
SEED = 1
LOADING_FAILURES = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError, AssertionError)
"""What the library raises for files that it cannot use."""


class TransformersBackend:
    """Raises `BackendOutOfMemory` where memory is what is missing, else `BackendError` with the library's first line."""

    def __init__(self, settings: TransformersSettings) -> None:
        if missing := [name for name in ("torch", "transformers", "accelerate") if find_spec(name) is None]:
            raise BackendError(
                f"{', '.join(missing)} not installed for {sys.executable}; "
                "pip install -e '.[transformers]' there, or name an environment that has it with `python`"
            )
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # read once, when the library is imported
        import torch

        self._torch, self._settings = torch, settings
        self.max_concurrency = settings.slots
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._device = _device(torch, settings.device)
        self._weights = None if settings.synthetic_config else _weights(settings)
        cells = settings.slots * settings.context
        self._attention = PackedAttention(torch, cells=cells, context=settings.context)
        with _loading(settings):
            self._model = _load(torch, settings, self._device, self._attention)
            tokenizer = _tokenizer(settings)
        self._tokens = Tokens(tokenizer, self._model.config.get_text_config().vocab_size, _ends(self._model, tokenizer))
        self._decoder = TorchDecoder(
            torch,
            self._model,
            self._attention,
            self._tokens,
            cells=cells,
            batch=max(BATCH_CPU if self._device == "cpu" else BATCH_GPU, settings.slots),
            sequences=settings.slots * (1 + BRANCHES_FOR_SLOT) + 1,
        )
        self._make_cache()
        self._batcher = Batcher(self._decoder, settings.slots)

    def _make_cache(self) -> None:
        """Evaluate one token, so that every layer makes its part of the cache, or says that it cannot."""
        model, layers = self._model, self._model.config.get_text_config().num_hidden_layers
        with _loading(self._settings):
            self._decoder.decode([Piece(0, (self._tokens.first_token,), 0, 1)])
        self._decoder.forget(0)
        if len(self._attention.layers) != layers:
            raise BackendError(
                f"{type(model).__name__}: {len(self._attention.layers)} of {layers} layers keep keys and values; "
                "the transformers backend cannot run the others"
            )
        for i in self._decoder.gpus:  # what loading held for a moment is not what answering needs
            self._torch.cuda.reset_peak_memory_stats(i)

    def describe(self) -> EngineInfo:
        torch, settings, weights = self._torch, self._settings, self._weights
        parameters, weight_bytes = _count(self._model)
        gpus = self._decoder.gpus
        return EngineInfo(
            engine="transformers",
            engine_version=version("transformers"),
            device=", ".join(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in gpus) or self._device,
            model=_source(settings)[1] or Path(settings.model_path).name,
            parameters=parameters,
            quantisation=self._label(),
            bits_per_weight=8 * weight_bytes / parameters,
            weight_bytes=weight_bytes,
            cache_bytes_per_token=float(self._attention.bytes_per_cell),
            context=settings.context,
            max_concurrency=self.max_concurrency,
            weights_sha256=weights.sha256 if weights else None,
            tokenizer_sha256=weights.tokenizer_sha256 if weights else None,
            chat_template_sha256=weights.chat_template_sha256 if weights else None,
            memory={"weights": weight_bytes, "cache": self._attention.bytes_per_cell * self._decoder.cells}
            | self._peak(),
            settings={
                "dtype": str(self._model.dtype).removeprefix("torch."),
                "quantise_on_load": settings.quantise_on_load,
                "int4_group_size": _group_size(self._model.config) if settings.quantise_on_load == "int4" else None,
                "attention": ATTENTION,
                "slots": settings.slots,
                "batch": self._decoder.batch,
                "threads": torch.get_num_threads(),
            },
            versions={"transformers": version("transformers"), "torch": str(torch.__version__)},
            notes=(*self._tokens.notes, *self._notes()),
        )

    def _label(self) -> str | None:
        settings, weights = self._settings, self._weights
        if settings.quantise_on_load:
            return settings.quantise_on_load
        stored = getattr(self._model.config, "quantization_config", None)
        if weights and weights.kind == "gguf":
            return weights.label
        method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
        dtype = str(self._model.dtype).removeprefix("torch.")
        return str(getattr(method, "value", method)) if method else normal_label(dtype, gguf=False) or dtype

    def _notes(self) -> Iterator[str]:
        dtype = str(self._model.dtype).removeprefix("torch.")
        if self._weights and self._weights.kind == "gguf":
            yield f"the GGUF file ({self._weights.label}) was unpacked to {dtype} on loading; sizes are those in memory"
        if self._settings.quantise_on_load == "int4" and dtype == "float32":
            yield "int4 with float32 runs on a slow kernel; leave `dtype` out for bfloat16"
        if self._settings.synthetic_config and "quantization_config" in self._settings.synthetic_config:
            yield f"random weights in {dtype}: the quantisation that the configuration names is not rehearsed"

    def _peak(self) -> dict[str, int]:
        """Since the model was loaded, all GPUs together; empty on a CPU."""
        cuda, gpus = self._torch.cuda, self._decoder.gpus
        if not gpus:
            return {}
        return {
            "peak_allocated": sum(cuda.max_memory_allocated(i) for i in gpus),
            "peak_reserved": sum(cuda.max_memory_reserved(i) for i in gpus),
        }

    def state(self) -> EngineState | None:
        cuda, gpus = self._torch.cuda, self._decoder.gpus
        now = {
            "allocated": sum(cuda.memory_allocated(i) for i in gpus),
            "reserved": sum(cuda.memory_reserved(i) for i in gpus),
        }
        return EngineState(
            time_ns=time.monotonic_ns(),
            cache_tokens_used=self._batcher.used_cells,
            cache_tokens_total=self._decoder.cells,
            memory=now | self._peak() if gpus else {},
        )

    def stream(self, request: Request) -> Iterator[Chunk]:
        return self._batcher.stream(self._writing(request))

    def rank(self, request: RankRequest) -> Ranking:
        return self._batcher.rank(comparing(self._tokens, request, self._settings.context))

    def close(self) -> None:
        """End the thread; later requests fail."""
        self._batcher.close()

    def _writing(self, request: Request) -> Writing:
        wish, exact, room = request.sampling, request.exact_prompt_tokens, self._settings.context
        text = "" if exact is not None else self._tokens.render(request.turns, request.prefill)
        prompt = self._tokens.encode(text) if exact is None else self._tokens.arbitrary(exact, wish.seed)
        if not prompt or len(prompt) + wish.max_tokens > room:
            raise BackendError(
                f"a prompt of {len(prompt)} tokens and an answer of up to {wish.max_tokens} do not fit the context of {room}; "
                "raise `context` or lower `max_tokens`"
            )
        thinks = wish.think_budget is not None and exact is None
        banned = () if exact is None else tuple(self._tokens.ends)
        return Writing(
            prompt=prompt,
            max_tokens=wish.max_tokens,
            sampler=lambda: self._decoder.sampler(wish.temperature, wish.top_p, wish.seed, banned),
            text=TextStream(wish.stop if exact is None else ()),
            thinking=Thinking(wish.think_budget or 0, opened=opens_thinking(text)) if thinks else None,
            close_thinking=self._tokens.encode_bare(CLOSE_THINKING) if thinks else (),
            ignore_end=exact is not None,
        )


@contextmanager
def _loading(settings: TransformersSettings) -> Iterator[None]:
    """The user's file, not our code, is what usually goes wrong here; what the library says is told in one line."""
    try:
        with memory_watched():
            yield
    except LOADING_FAILURES as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackendError(
            f"{settings.model_path}: transformers cannot load it: {type(error).__name__}: {lines[0][:400]}"
        ) from error


def _source(settings: TransformersSettings) -> tuple[str, str | None]:
    """Folder, and the GGUF file in it if there is one. `model_path` may be the file itself."""
    path = Path(settings.model_path)
    if path.suffix == ".gguf":
        return str(path.parent), path.name
    return str(path), settings.gguf_file


def _weights(settings: TransformersSettings) -> Weights:
    folder, gguf = _source(settings)
    try:
        return weights_at(Path(folder) / gguf if gguf else Path(folder))
    except ConfigError as error:
        raise BackendError(str(error)) from error


def _device(torch: Any, wanted: str) -> str:
    """`cpu`, `auto` (several GPUs) or one device by name. Raises `BackendError` for one that is not there."""
    if wanted == "auto":
        match torch.cuda.device_count() if torch.cuda.is_available() else 0:
            case 0:
                return "cpu"
            case 1:
                return "cuda:0"
            case _:
                return "auto"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise BackendError(f'device = "{wanted}" cannot be used here: {str(error).splitlines()[0]}') from error
    return wanted


def _load(torch: Any, settings: TransformersSettings, device: str, attention: PackedAttention) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.AttentionInterface.register(ATTENTION, attention.attend)
    dtype = "auto" if settings.dtype == "auto" else getattr(torch, settings.dtype)
    if settings.quantise_on_load in ("int4", "fp8") and dtype == "auto":
        dtype = (
            torch.bfloat16
        )  # int4: the only type with a fast kernel on CPUs and GPUs; fp8 by rows: the only one at all
    if settings.synthetic_config is not None:
        model = _random_model(torch, transformers, settings, device, dtype)
    else:
        model = _stored_model(transformers, settings, device, dtype)
    if settings.quantise_on_load and (left := _not_quantised(model)):
        raise BackendError(
            f'quantise_on_load = "{settings.quantise_on_load}" leaves {len(left)} matrices of {type(model).__name__} as they are, '
            f"such as {left[0]}; leave it out, or use weights that are quantised already"
        )
    if strays := {str(place) for place in getattr(model, "hf_device_map", {}).values()} & {"cpu", "disk"} - {device}:
        raise BackendOutOfMemory(f"the model does not fit the GPUs: layers were put on {', '.join(sorted(strays))}")
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and settings.context > limit:
        raise BackendError(
            f"`context` {settings.context} is longer than the {limit} tokens that the model was made for"
        )
    return model.eval()


def _stored_model(transformers: Any, settings: TransformersSettings, device: str, dtype: Any) -> Any:
    folder, gguf = _source(settings)
    if gguf and settings.quantise_on_load:
        raise BackendError("a GGUF file is quantised already; `quantise_on_load` needs a folder of safetensors")
    config = transformers.AutoConfig.from_pretrained(
        folder, gguf_file=gguf, local_files_only=True, trust_remote_code=False
    )
    quantisation = transformers.GgufConfig(dequantize=True) if gguf else None
    if settings.quantise_on_load:
        quantisation = _quantisation(transformers, settings.quantise_on_load, config, device)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=gguf,
        dtype=dtype,
        device_map=device,
        attn_implementation=ATTENTION,
        quantization_config=quantisation,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )


def _random_model(torch: Any, transformers: Any, settings: TransformersSettings, device: str, dtype: Any) -> Any:
    """The true shape, without a file of weights."""
    if device == "auto":
        raise BackendError('random weights go to one device: set `device = "cuda:0"`')
    values = {k: v for k, v in (settings.synthetic_config or {}).items() if k != "quantization_config"}
    config = transformers.AutoConfig.for_model(**values)
    torch.manual_seed(SEED)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=config.dtype if dtype == "auto" else dtype, attn_implementation=ATTENTION
        )
    if settings.quantise_on_load:
        wanted = _quantisation(transformers, settings.quantise_on_load, config, device)
        if settings.quantise_on_load.startswith("bnb"):
            raise BackendError("bitsandbytes quantises while it loads files; random weights can be int8, int4 or fp8")
        from torchao.quantization import quantize_

        output = model.get_output_embeddings()  # stays as it is when files are loaded, and so here
        quantize_(model, wanted.quant_type, filter_fn=lambda m, _: isinstance(m, torch.nn.Linear) and m is not output)
    return model


def _quantisation(transformers: Any, kind: str, config: Any, device: str) -> Any:
    """What `from_pretrained` takes. Raises `BackendError` where a library or a GPU is missing."""
    package = "bitsandbytes" if kind.startswith("bnb") else "torchao"
    if find_spec(package) is None:
        raise BackendError(f'quantise_on_load = "{kind}" needs {package}; pip install {package} into this environment')
    if device == "cpu" and kind not in ("int8", "int4"):
        raise BackendError(f'quantise_on_load = "{kind}" needs a GPU; on a CPU int8 and int4 are possible')
    match kind:
        case "int8":
            from torchao.quantization import Int8WeightOnlyConfig

            return transformers.TorchAoConfig(Int8WeightOnlyConfig())
        case "int4":
            return transformers.TorchAoConfig(_int4(_group_size(config), device))
        case "fp8":
            from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

            return transformers.TorchAoConfig(Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))
        case "bnb_8bit":
            return transformers.BitsAndBytesConfig(load_in_8bit=True)
        case _:
            return transformers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16"
            )


def _int4(group_size: int, device: str) -> Any:
    """On GPUs the layout of torch's own kernel, which needs no further library; on CPUs torchao has one for now as a prototype."""
    if device == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group_size, set_inductor_config=False)
    from torchao.quantization import Int4WeightOnlyConfig

    return Int4WeightOnlyConfig(
        group_size=group_size, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )


def _group_size(config: Any) -> int:
    """The largest that divides the widths of the model: torchao silently leaves a matrix as it is where it does not."""
    text = config.get_text_config()
    widths = [w for name in ("hidden_size", "intermediate_size") if (w := getattr(text, name, None))]
    fitting = [size for size in GROUP_SIZES if all(width % size == 0 for width in widths)]
    if not fitting:
        raise BackendError(f"int4 needs widths that {GROUP_SIZES[-1]} divides; this model has {widths}")
    return fitting[0]


def _tokenizer(settings: TransformersSettings) -> Any:
    import transformers

    folder, gguf = _source(settings)
    return transformers.AutoTokenizer.from_pretrained(
        folder, gguf_file=gguf, local_files_only=True, trust_remote_code=False
    )


def _ends(model: Any, tokenizer: Any) -> list[int]:
    told = [getattr(model.generation_config, "eos_token_id", None), model.config.eos_token_id, tokenizer.eos_token_id]
    return [int(i) for value in told if value is not None for i in (value if isinstance(value, list) else [value])]


def _not_quantised(model: Any) -> list[str]:
    """Matrices that are still plain numbers, embedding, output and the choice of experts aside: quantisers look for linear layers, and a
    library may keep experts otherwise. A label over such a model would be untrue."""
    kept = {id(e.weight) for e in (model.get_input_embeddings(), model.get_output_embeddings()) if e is not None}
    return [
        name
        for name, weight in model.named_parameters()
        if weight.dim() > 1
        and weight.is_floating_point()
        and not hasattr(weight, "__tensor_flatten__")
        and id(weight) not in kept
        and not ROUTER.search(name)
    ]


def _count(model: Any) -> tuple[int, int]:
    """Parameters and their bytes in memory, those of packed formats and of their scales included; shared ones once."""
    elements = size = 0
    for parameter in model.parameters():
        packed = getattr(parameter, "quant_state", None)  # bitsandbytes: two weights in a byte
        elements += packed.shape.numel() if packed is not None else parameter.numel()
        size += sum(part.element_size() * part.numel() for part in _parts(parameter))
    scales = (part for module in model.modules() for part in _scales(module))
    return elements, size + sum(part.element_size() * part.numel() for part in scales)


def _scales(module: Any) -> Iterator[Any]:
    """What bitsandbytes keeps beside a matrix: at 8 bits a scale a row (with the weight, then with the layer once it was used), at 4 bits
    one for 64 weights, perhaps quantised once more."""
    weight = getattr(module, "weight", None)
    for keeper in (weight, getattr(module, "state", None)):
        if (rows := getattr(keeper, "SCB", None)) is not None:
            yield rows
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (part for part in (state.absmax, state.code, state.offset) if part is not None)
        state = state.state2


def _parts(tensor: Any) -> Iterator[Any]:
    """A tensor of torchao is made of several."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))
