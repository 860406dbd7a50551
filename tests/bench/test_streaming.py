"""Text as it may be shown: characters whole, stop strings never, thinking counted."""

import pytest

from bench.backends.streaming import TextStream, Thinking, opens_thinking


def shown(pieces: list[bytes], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(stop)
    made = [stream.push(piece) for piece in pieces]
    return [*made, stream.finish()]


def test_characters_come_whole() -> None:
    heart = "心".encode()
    assert shown([b"a", heart[:1], heart[1:2], heart[2:] + b"b"]) == ["a", "", "", "心b", ""]


def test_half_a_character_at_the_end_is_marked() -> None:
    assert shown([b"a", "😀".encode()[:3]]) == ["a", "", "\ufffd"]


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        ([b"one two", b" three"], (" t",), ["one", "", ""]),
        ([b"one\n", b"\ntwo"], ("\n\n",), ["one", "", ""]),
        ([b"one\n", b"two"], ("\n\n",), ["one", "\ntwo", ""]),
        ([b"one\n"], ("\n\n",), ["one", "\n"]),
        ([b"aab", b"aac"], ("aaba", "zz"), ["", "", ""]),
        ([b"xSTOP", b"yEND"], ("END", "STOP"), ["x", "", ""]),
        ([b"a"], ("",), ["a", ""]),
    ],
)
def test_a_stop_string_is_never_shown(pieces: list[bytes], stop: tuple[str, ...], expected: list[str]) -> None:
    assert shown(pieces, stop) == expected


def test_it_is_known_that_a_stop_string_was_found() -> None:
    stream = TextStream(("x",))
    assert (stream.push(b"ab"), stream.stopped) == ("ab", False)
    assert (stream.push(b"cx"), stream.stopped) == ("c", True)


def used_up(texts: list[str], budget: int, *, opened: bool) -> list[bool]:
    thinking = Thinking(budget, opened=opened)
    return [thinking.see(text) for text in texts]


def test_thinking_over_its_budget_is_closed_once() -> None:
    assert used_up(["a", "b", "c", "d", "e"], 3, opened=True) == [False, False, True, False, False]


def test_thinking_that_the_answer_opens_is_counted_from_its_tag() -> None:
    assert used_up(["\n", "<th", "ink>", "a", "b", "c"], 3, opened=False) == [False, False, False, False, True, False]


def test_an_answer_without_thinking_has_no_budget() -> None:
    assert not any(used_up(["Answer", ": A", " <think>"] + ["x"] * 20, 2, opened=False))


def test_thinking_closed_in_time_is_left_alone() -> None:
    assert not any(used_up(["a", "</th", "ink>", "b", "c", "d"], 4, opened=True))


@pytest.mark.parametrize(
    ("prompt", "expected"), [("<|Assistant|><think>\n", True), ("<think></think>", False), ("Answer:", False)]
)
def test_the_prompt_may_open_the_thinking(prompt: str, expected: bool) -> None:
    assert opens_thinking(prompt) is expected
