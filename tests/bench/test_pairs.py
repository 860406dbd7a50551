"""Splitting as lm-evaluation-harness does, with a tokenizer of two-letter pieces."""

from bench.backends.pairs import encode_pairs


def by_two(text: str) -> list[int]:
    """Pieces of two characters; a blank opens a new piece."""
    pieces = [
        p for word in text.replace(" ", "| ").split("|") for p in (word[i : i + 2] for i in range(0, len(word), 2))
    ]
    return [sum(map(ord, piece)) for piece in pieces if piece]


def test_the_continuation_is_what_comes_after_the_context() -> None:
    context, tails = encode_pairs(by_two, "ab:", [" cd", " e"])
    assert context == by_two("ab:")
    assert tails == [by_two(" cd"), by_two(" e")]


def test_blanks_at_the_end_of_the_context_go_to_the_continuation() -> None:
    assert encode_pairs(by_two, "ab: ", ["cd"]) == encode_pairs(by_two, "ab:", [" cd"])


def test_a_boundary_that_melts_away_leaves_the_last_token() -> None:
    assert encode_pairs(by_two, "abc", ["d"]) == (by_two("abc"), [by_two("cd")])


def test_an_empty_context_leaves_the_whole_continuation() -> None:
    assert encode_pairs(by_two, "", ["ab"]) == ([], [by_two("ab")])
