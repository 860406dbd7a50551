"""Reads the header of a GGUF file: metadata and tensor table, never the weights. Nothing in the file is trusted.

Every count and length is held against what is left of the file before it is used, so a hostile header costs no more memory than the
file has bytes, and ends as a `GgufError` of one sentence. Bits per weight come from the tensor table (8 * sum of tensor bytes / sum of
elements), never from a label: Q4_1 SmolLM2-135M has 98,362,432 bytes and 5.74 bits per weight, not 5.0, since its embedding is kept
at 8 bits.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md; block sizes: ggml-common.h.
"""

import hashlib
import mmap
import struct
from collections import Counter
from pathlib import Path

from msgspec import Struct

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]

TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Tensor type: name, elements of a block, bytes of a block."""

FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
    14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0",
}  # fmt: skip
"""`general.file_type` (llama_ftype): the label under which a file was quantised."""

SCALARS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"), 4: struct.Struct("<I"),
    5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"), 10: struct.Struct("<Q"), 11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}  # fmt: skip
STRING, ARRAY = 8, 9
LENGTH = SCALARS[10]
COUNT = SCALARS[4]

MOST_DIMS = 4
MOST_NESTED = 4
LONGEST_KEY = 65_535
LONGEST_KEPT_STRING = 4 << 20
"""Longer strings (none are known) are passed over; chat templates have some ten thousand bytes."""
LONGEST_KEPT_ARRAY = 1024
"""Per-layer values are kept, vocabularies and merges are only walked over."""


class GgufError(Exception):
    """The file is not GGUF, cut short, or not sound; one sentence without the file's name."""


class Tensor(Struct, frozen=True):
    name: str
    type: str
    shape: tuple[int, ...]
    """Innermost dimension first, as stored."""
    elements: int
    size_bytes: int
    offset: int
    """From the beginning of the file."""


class Header(Struct, frozen=True, kw_only=True):
    """What the header of one file says. `metadata` has scalars, strings and short arrays; long arrays are left out."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    tokenizer_sha256: str | None
    """Of all `tokenizer.*` entries as stored, by name, the chat templates left out; None where there are none."""

    @property
    def parameters(self) -> int:
        return sum(t.elements for t in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        return sum(t.size_bytes for t in self.tensors)

    @property
    def bits_per_weight(self) -> float | None:
        """None for a file without tensors (a vocabulary)."""
        return 8 * self.tensor_bytes / self.parameters if self.parameters else None

    @property
    def bytes_by_type(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for tensor in self.tensors:
            total[tensor.type] += tensor.size_bytes
        return dict(total.most_common())

    @property
    def chat_template(self) -> str | None:
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    @property
    def chat_template_sha256(self) -> str | None:
        template = self.chat_template
        return None if template is None else hashlib.sha256(template.encode()).hexdigest()

    @property
    def label(self) -> str | None:
        """The file's own word for its quantisation, else the type that takes most bytes."""
        file_type = self.metadata.get("general.file_type")
        if isinstance(file_type, int) and file_type in FILE_TYPES:
            return FILE_TYPES[file_type]
        return next(iter(self.bytes_by_type), None)


def read_header(path: Path) -> Header:
    """Read one file's header. Raises `GgufError` for what is not a sound GGUF file and `OSError` for what cannot be read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 4:
            raise GgufError("not a GGUF file (empty or a few bytes)")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _parse(_Cursor(view, size))


class _Cursor:
    """A place in the file; every step forward is checked against the end."""

    def __init__(self, view: mmap.mmap, size: int) -> None:
        self.view, self.size, self.at = view, size, 0

    def take(self, count: int) -> int:
        """Move on by `count` bytes; returns where they begin."""
        begin = self.at
        if count < 0 or count > self.size - begin:
            raise GgufError(f"cut short or damaged: {count} bytes wanted at byte {begin} of {self.size}")
        self.at = begin + count
        return begin

    def scalar(self, kind: struct.Struct) -> Scalar:
        value: Scalar = kind.unpack_from(self.view, self.take(kind.size))[0]
        return value

    def number(self, kind: struct.Struct) -> int:
        value: int = kind.unpack_from(self.view, self.take(kind.size))[0]
        return value

    def count(self, what: str, least_bytes: int) -> int:
        """A number of things that take at least so many bytes each."""
        value = self.number(LENGTH)
        if value > (self.size - self.at) // least_bytes:
            raise GgufError(
                f"cut short or damaged: {value} {what} cannot stand in the {self.size - self.at} bytes left"
            )
        return value

    def text(self, what: str, longest: int) -> str:
        length = self.number(LENGTH)
        if length > longest:
            raise GgufError(f"damaged: {what} of {length} bytes")
        begin = self.take(length)
        try:
            return self.view[begin : begin + length].decode("utf-8")
        except UnicodeDecodeError:
            raise GgufError(f"damaged: {what} that is not UTF-8") from None


def _parse(cursor: _Cursor) -> Header:
    magic = cursor.view[cursor.take(4) : 4]
    if magic != b"GGUF":
        raise GgufError(f"not a GGUF file (begins with {magic!r})")
    version = cursor.number(COUNT)
    if version not in (2, 3):
        big_endian = version in (2 << 24, 3 << 24)
        raise GgufError("a big-endian GGUF file" if big_endian else f"GGUF version {version}, only 2 and 3 are known")
    tensor_count = cursor.count("tensors", 24)
    metadata, spans = _metadata(cursor, cursor.count("metadata entries", 13))
    table = _tensor_table(cursor, tensor_count, _alignment(metadata))
    return Header(
        version=version, metadata=metadata, tensors=table, tokenizer_sha256=_tokenizer_hash(cursor.view, spans)
    )


def _metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Value], dict[str, tuple[int, int]]]:
    """Values by key, and where each entry stands in the file."""
    values: dict[str, Value] = {}
    spans: dict[str, tuple[int, int]] = {}
    for _ in range(count):
        key = cursor.text("a key", LONGEST_KEY)
        if key in spans:
            raise GgufError(f"damaged: key `{key[:80]}` stands twice")
        begin = cursor.at
        value = _value(cursor, cursor.number(COUNT), 0)
        spans[key] = (begin, cursor.at)
        if value is not None:
            values[key] = value
    return values, spans


def _value(cursor: _Cursor, kind: int, depth: int) -> Value | None:
    """The value, or None for one that is walked over."""
    if kind in SCALARS:
        return cursor.scalar(SCALARS[kind])
    if kind == STRING:
        length = LENGTH.unpack_from(cursor.view, cursor.take(8))[0]
        begin = cursor.take(length)
        if length > LONGEST_KEPT_STRING:
            return None
        return cursor.view[begin : begin + length].decode("utf-8", "replace")
    if kind != ARRAY or depth >= MOST_NESTED:
        raise GgufError(f"damaged: value type {kind} at byte {cursor.at}")
    return _array(cursor, depth)


def _array(cursor: _Cursor, depth: int) -> Value | None:
    kind = cursor.number(COUNT)
    if kind in SCALARS:
        scalar = SCALARS[kind]
        count = cursor.count("array elements", scalar.size)
        begin = cursor.take(count * scalar.size)
        if count > LONGEST_KEPT_ARRAY:
            return None
        return tuple(v[0] for v in scalar.iter_unpack(cursor.view[begin : cursor.at]))
    if kind == STRING:
        _skip_strings(cursor, cursor.count("strings", 8))
        return None
    for _ in range(cursor.count("arrays", 12)):
        _value(cursor, kind, depth + 1)
    return None


def _skip_strings(cursor: _Cursor, count: int) -> None:
    """A vocabulary has some 150,000; the loop is kept bare for that reason."""
    view, at, size, unpack = cursor.view, cursor.at, cursor.size, LENGTH.unpack_from
    try:
        for _ in range(count):
            at += 8 + unpack(view, at)[0]
    except (struct.error, OverflowError):  # beyond the end, or beyond what an offset can be
        at = size + 1
    if at > size:
        raise GgufError("cut short or damaged: a list of strings runs past the end of the file")
    cursor.at = at


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise GgufError(f"damaged: alignment {alignment!r}")
    return alignment


def _tensor_table(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    rows = [_tensor(cursor, alignment) for _ in range(count)]
    if len({row.name for row in rows}) < len(rows):
        raise GgufError("damaged: a tensor's name stands twice")
    start = -(-cursor.at // alignment) * alignment
    placed = tuple(Tensor(t.name, t.type, t.shape, t.elements, t.size_bytes, start + t.offset) for t in rows)
    for tensor in placed:
        if tensor.offset + tensor.size_bytes > cursor.size:
            missing = tensor.offset + tensor.size_bytes - cursor.size
            raise GgufError(f"cut short: tensor `{tensor.name}` ends {missing} bytes beyond the end of the file")
    return placed


def _tensor(cursor: _Cursor, alignment: int) -> Tensor:
    name = cursor.text("a tensor's name", LONGEST_KEY)
    dims = cursor.number(COUNT)
    if not 0 < dims <= MOST_DIMS:
        raise GgufError(f"damaged: tensor `{name[:80]}` has {dims} dimensions")
    shape = tuple(cursor.number(LENGTH) for _ in range(dims))
    kind = cursor.number(COUNT)
    offset = cursor.number(LENGTH)
    if kind not in TYPES:
        raise GgufError(f"tensor `{name[:80]}` has type {kind}, which is not known here")
    label, block, block_bytes = TYPES[kind]
    elements = 1
    for length in shape:
        elements *= length
    if not 0 < elements < 1 << 62 or shape[0] % block or offset % alignment:
        raise GgufError(f"damaged: tensor `{name[:80]}` of shape {shape} and type {label} at {offset}")
    return Tensor(name, label, shape, elements, elements // block * block_bytes, offset)


def _tokenizer_hash(view: mmap.mmap, spans: dict[str, tuple[int, int]]) -> str | None:
    keys = sorted(k for k in spans if k.startswith("tokenizer.") and not k.startswith("tokenizer.chat_template"))
    if not keys:
        return None
    digest = hashlib.sha256()
    for key in keys:
        begin, end = spans[key]
        digest.update(len(key.encode()).to_bytes(8, "little") + key.encode() + view[begin:end])
    return digest.hexdigest()
