"""The header reader: what a small file says, and that no damaged or hostile one does more than raise one sentence."""

import hashlib
import random
import struct
from pathlib import Path

import pytest
from gguf_files import U32, array, gguf, scalar, strings, text

from bench.gguf import GgufError, Tensor, read_header

KEYS = [
    text("general.architecture", "llama"),
    scalar("general.file_type", 4, "<I", 3),
    scalar("llama.rope.freq_base", 6, "<f", 10000.0),
    scalar("tokenizer.ggml.add_bos_token", 7, "<?", True),
    array("llama.attention.head_count_kv", 5, "<i", [8, 4]),
    strings("tokenizer.ggml.tokens", ["<s>", "心", "a"]),
    text("tokenizer.chat_template", "{{ messages }}"),
]
TABLE = [("token_embd.weight", (64, 2), 3, 80), ("norm.weight", (64,), 0, 256)]


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    return path


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, gguf(KEYS, TABLE)))
    assert header.metadata == {
        "general.architecture": "llama",
        "general.file_type": 3,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.add_bos_token": True,
        "llama.attention.head_count_kv": (8, 4),
        "tokenizer.chat_template": "{{ messages }}",
    }
    start = header.tensors[0].offset
    assert header.tensors == (
        Tensor("token_embd.weight", "Q4_1", (64, 2), 128, 80, start),
        Tensor("norm.weight", "F32", (64,), 64, 256, start + 96),
    )
    assert header.parameters == 192
    assert header.bits_per_weight == 8 * (80 + 256) / 192
    assert header.bytes_by_type == {"F32": 256, "Q4_1": 80}
    assert header.label == "Q4_1"
    assert header.chat_template_sha256 == hashlib.sha256(b"{{ messages }}").hexdigest()


def test_the_tokenizer_hash_is_of_the_tokenizer_alone(tmp_path: Path) -> None:
    def hashed(entries: list[bytes]) -> str | None:
        return read_header(write(tmp_path, gguf(entries, []))).tokenizer_sha256

    whole = hashed(KEYS)
    assert whole is not None
    assert hashed(KEYS[:1]) is None
    assert hashed(list(reversed(KEYS))) == whole
    assert hashed(KEYS[3:6]) == whole
    assert hashed([*KEYS[:5], strings("tokenizer.ggml.tokens", ["<s>", "心", "b"])]) != whole


def test_a_file_without_a_type_of_its_own_is_labelled_by_what_takes_most_room(tmp_path: Path) -> None:
    assert read_header(write(tmp_path, gguf(KEYS[:1], TABLE))).label == "F32"
    empty = read_header(write(tmp_path, gguf([], [])))
    assert (empty.label, empty.bits_per_weight, empty.parameters) == (None, None, 0)


HUGE = 1 << 60
HOSTILE = {
    "empty": (b"", "not a GGUF file"),
    "another format": (b"PK\x03\x04" + bytes(40), "not a GGUF file"),
    "version": (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor count": (b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0), "tensors cannot stand"),
    "metadata count": (b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE), "metadata entries cannot stand"),
    "key length": (gguf([struct.pack("<Q", HUGE)], [], pad=64), "a key of"),
    "string length": (gguf([text("a", "b")[:-9] + struct.pack("<Q", HUGE)], [], pad=64), "cut short or damaged"),
    "value type": (gguf([struct.pack("<Q", 1) + b"a" + struct.pack("<I", 99)], [], pad=64), "value type 99"),
    "array count": (gguf([array("a", 0, "<B", [])[:-8] + struct.pack("<Q", HUGE)], [], pad=64), "cannot stand"),
    "strings": (gguf([strings("a", ["x"])[:-9] + struct.pack("<Q", HUGE)], [], pad=64), "list of strings"),
    "nested arrays": (
        gguf([struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9], [], pad=64),
        "value type 9",
    ),
    "the same key": (gguf([scalar("a", *U32, 1), scalar("a", *U32, 1)], []), "stands twice"),
    "alignment": (gguf([scalar("general.alignment", *U32, 3)], []), "alignment 3"),
    "dimensions": (gguf([], [("t", (1, 1, 1, 1, 1), 0, 4)]), "5 dimensions"),
    "elements": (gguf([], [("t", (1 << 31, 1 << 31, 1 << 31), 0, 4)]), "damaged: tensor `t`"),
    "no elements": (gguf([], [("t", (0,), 0, 4)]), "damaged: tensor `t`"),
    "a row that is no block": (gguf([], [("t", (33,), 2, 18)]), "damaged: tensor `t`"),
    "tensor type": (gguf([], [("t", (32,), 250, 4)]), "has type 250"),
    "the same tensor": (gguf([], [("t", (1,), 0, 4), ("t", (1,), 0, 4)]), "name stands twice"),
    "not UTF-8": (gguf([struct.pack("<Q", 1) + b"\xff" + struct.pack("<IB", 0, 1)], []), "not UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_one_sentence(tmp_path: Path, name: str) -> None:
    data, words = HOSTILE[name]
    with pytest.raises(GgufError, match=words) as caught:
        read_header(write(tmp_path, data))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_cut_short_anywhere_is_found(tmp_path: Path) -> None:
    data = gguf(KEYS, TABLE)
    for length in range(len(data)):
        with pytest.raises(GgufError):
            read_header(write(tmp_path, data[:length]))


def test_bytes_turned_at_random_never_do_more_than_raise(tmp_path: Path) -> None:
    data, draw = gguf(KEYS, TABLE), random.Random(0)
    for _ in range(500):
        turned = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            turned[draw.randrange(len(data) - 400)] = draw.choice((0, 1, 255, draw.randrange(256)))
        try:
            read_header(write(tmp_path, bytes(turned)))
        except GgufError:
            continue
