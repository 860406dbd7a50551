"""The tensor tables of a folder of safetensors: https://github.com/huggingface/safetensors#format. Only the headers are read."""

import math
from pathlib import Path

import msgspec
from msgspec import Struct

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

PACKED = frozenset({"I32", "U32", "U8", "I8", "I64", "U16", "I16"})
"""Whole numbers hold quantised weights, often several in one: their elements are no parameters that could be counted."""
LABELS = {"F32": "f32", "F16": "f16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8"}


class SafetensorsError(Exception):
    """The folder holds no safetensors that can be read; the message is one sentence."""


class TensorFacts(Struct, frozen=True, kw_only=True):
    tensor_bytes: int
    """Of all tensors, scales of quantised ones among them."""
    parameters: int | None
    """Elements without scales; None where weights are packed."""
    label: str | None
    """`bf16`, `fp8` ...: the type that holds most bytes; None where weights are packed."""

    @property
    def bits_per_weight(self) -> float | None:
        return 8 * self.tensor_bytes / self.parameters if self.parameters else None


class _Entry(Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_folder(folder: Path) -> TensorFacts:
    """Sums over every `*.safetensors` of the folder. Raises `SafetensorsError`."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SafetensorsError(f"{folder}: no *.safetensors in this folder")
    entries = [named for file in files for named in _header(file).items()]
    size = sum(e.data_offsets[1] - e.data_offsets[0] for _, e in entries)
    weights = [e for name, e in entries if not name.endswith(("_scale", "_scale_inv", ".scales", ".zeros"))]
    by_type: dict[str, int] = {}
    for e in weights:
        by_type[e.dtype] = by_type.get(e.dtype, 0) + e.data_offsets[1] - e.data_offsets[0]
    packed = bool(PACKED & set(by_type))
    return TensorFacts(
        tensor_bytes=size,
        parameters=None if packed else sum(math.prod(e.shape) for e in weights),
        label=None if packed or not by_type else LABELS.get(max(by_type, key=lambda t: by_type[t])),
    )


def _header(file: Path) -> dict[str, _Entry]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, file.stat().st_size - 8):
                raise SafetensorsError(f"{file}: not a safetensors file, or cut short")
            raw = msgspec.json.decode(stream.read(length), type=dict[str, msgspec.Raw])
    except OSError as error:
        raise SafetensorsError(f"{file}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SafetensorsError(f"{file}: its header is not valid: {error}") from error
    try:
        entries = {name: msgspec.json.decode(r, type=_Entry) for name, r in raw.items() if name != "__metadata__"}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SafetensorsError(f"{file}: its header is not valid: {error}") from error
    end = max((e.data_offsets[1] for e in entries.values()), default=0)
    if 8 + length + end > file.stat().st_size:
        raise SafetensorsError(f"{file}: cut short, {8 + length + end - file.stat().st_size} bytes are missing")
    return entries
