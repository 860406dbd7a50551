"""Builds small GGUF files byte by byte, sound or not."""

import struct
from collections.abc import Sequence

U32 = (4, "<I")


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(key: str, kind: int, form: str, value: float) -> bytes:
    return _string(key) + struct.pack("<I", kind) + struct.pack(form, value)


def text(key: str, value: str) -> bytes:
    return _string(key) + struct.pack("<I", 8) + _string(value)


def array(key: str, kind: int, form: str, values: Sequence[float]) -> bytes:
    head = _string(key) + struct.pack("<IIQ", 9, kind, len(values))
    return head + b"".join(struct.pack(form, v) for v in values)


def strings(key: str, values: Sequence[str]) -> bytes:
    return _string(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(_string, values))


def gguf(entries: Sequence[bytes], tensors: Sequence[tuple[str, tuple[int, ...], int, int]], pad: int = 0) -> bytes:
    """`tensors`: name, shape, type number, bytes of data. Data is zeros at an alignment of 32."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries)
    offset, data = 0, b""
    for name, shape, kind, size in tensors:
        head += _string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        head += struct.pack("<IQ", kind, offset)
        block = bytes(-(-size // 32) * 32)
        data, offset = data + block, offset + len(block)
    return head + bytes(-len(head) % 32 if data else 0) + data + bytes(pad)
