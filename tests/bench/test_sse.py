"""Events out of bytes that may be cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.backends.sse import EventStream, SseError

STREAM = ': hello\r\n\r\ndata: {"a": "Ödem 水肿"}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata\r\rid: 3\n\ndata: [DONE]\n\n'
EVENTS = ['{"a": "Ödem 水肿"}', "two\nlines", "", "[DONE]"]


def read(*pieces: bytes, **limits: int) -> list[str]:
    stream = EventStream(**limits)
    events = [event for piece in pieces for event in stream.feed(piece)]
    stream.close()
    return events


def test_lines_end_in_any_way_and_comments_are_no_events() -> None:
    assert read(STREAM.encode()) == EVENTS


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=8))
def test_where_the_bytes_are_cut_does_not_matter(cuts: list[int]) -> None:
    data, edges = STREAM.encode(), [0, *sorted(cuts), len(STREAM.encode())]
    assert read(*(data[a:b] for a, b in pairwise(edges))) == EVENTS


def test_one_byte_at_a_time() -> None:
    assert read(*(bytes([b]) for b in STREAM.encode())) == EVENTS


def test_a_byte_order_mark_is_no_text() -> None:
    assert read(b"\xef\xbb\xbfdata: a\n\n") == ["a"]


@pytest.mark.parametrize("half", [b"data: a", b"data: a\n", b"data: a\n\ndata"])
def test_half_an_event_at_the_end_is_an_error(half: bytes) -> None:
    with pytest.raises(SseError, match="ended within an event"):
        read(half)


def test_half_a_comment_at_the_end_is_no_loss() -> None:
    assert read(b"data: a\n\n: pin") == ["a"]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"data: " + b"x" * 50, "a line is longer than 40"), (b"data: 123456789\n" * 9, "an event is longer than 60")],
)
def test_what_is_held_back_is_bounded(data: bytes, words: str) -> None:
    for size in (1, 7, len(data)):
        with pytest.raises(SseError, match=words):
            read(*(data[i : i + size] for i in range(0, len(data), size)), max_line_bytes=40, max_event_bytes=60)


def test_bytes_that_are_no_text_are_an_error() -> None:
    with pytest.raises(SseError, match="UTF-8"):
        read(b"data: \xff\n\n")
