"""What the transformers backend does without torch: its settings, the layout of a step, and what a tokenizer's tokens stand for."""

import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.backends import BackendError, Turn, open_backend
from bench.backends.hf_tokens import Tokens
from bench.backends.inflight import Piece
from bench.backends.torch_batching import LONGEST_TOGETHER, CellTable, Step, lay_out
from bench.config import ConfigError, Deployment, TransformersSettings, engine_settings


def deployment(**settings: Any) -> Deployment:
    return Deployment(name="d", backend="transformers", model="file:m", settings=settings)


def test_settings_are_read_from_a_deployment() -> None:
    made = engine_settings(deployment(dtype="float32", quantise_on_load="int8", slots=4))
    assert made == TransformersSettings(dtype="float32", quantise_on_load="int8", slots=4)


def test_an_unknown_quantisation_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="quantise_on_load"):
        engine_settings(deployment(quantise_on_load="int2"))


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed here")
def test_a_missing_library_is_named_with_its_interpreter() -> None:
    with pytest.raises(BackendError) as caught:
        open_backend(TransformersSettings(model_path="m"))
    assert str(caught.value) == (
        f"torch, transformers, accelerate not installed for {sys.executable}; "
        "pip install -e '.[transformers]' there, or name an environment that has it with `python`"
    )


# The layout of a step.


def piece(sequence: int, tokens: Sequence[int], position: int = 0, outputs: int = 1) -> Piece:
    return Piece(sequence, tokens, position, outputs)


def mask_rows(step: Step, group: int) -> list[list[str]]:
    mask = step.groups[group].mask
    assert mask is not None
    return [["".join("x" if seen else "." for seen in row) for row in member] for member in mask]


def test_prompts_stand_side_by_side_and_attend_alone() -> None:
    step = lay_out([piece(0, [5, 6, 7]), piece(1, [8, 9], outputs=0)], CellTable(8))
    assert step.tokens.tolist() == [5, 6, 7, 8, 9]
    assert step.positions.tolist() == [0, 1, 2, 0, 1]
    assert step.write.tolist() == step.read.tolist() == [0, 1, 2, 3, 4]
    assert step.groups == ((1, 3, 3, True, None), (1, 2, 2, True, None))
    assert step.outputs.tolist() == [2]
    assert step.output_of == {2: 0}


def test_tokens_that_are_decoded_attend_together_padded_to_the_longest() -> None:
    table = CellTable(10)
    lay_out([piece(0, [1]), piece(1, [1, 2, 3])], table)
    step = lay_out([piece(0, [4], 1), piece(1, [5], 3)], table)
    assert step.write.tolist() == [4, 5]
    assert step.read.tolist() == [0, 4, 0, 0, 1, 2, 3, 5]
    assert step.groups[0][:4] == (2, 1, 4, False)
    assert mask_rows(step, 0) == [["xx.."], ["xxxx"]]
    assert step.output_of == {0: 0, 1: 1}


def test_one_sequence_alone_needs_no_mask_to_see_all() -> None:
    table = CellTable(4)
    lay_out([piece(0, [1, 2])], table)
    assert lay_out([piece(0, [3], 2)], table).groups == ((1, 1, 3, False, None),)


def test_continuations_share_their_contexts_cells() -> None:
    table = CellTable(10)
    lay_out([piece(0, [1, 2])], table)
    table.share(0, 1, 2)
    table.share(0, 2, 2)
    step = lay_out([piece(1, [7, 8], 2, outputs=2), piece(2, [9, 10], 2, outputs=2)], table)
    assert step.read.tolist() == [0, 1, 2, 3, 0, 1, 4, 5]
    assert mask_rows(step, 0) == [["xxx.", "xxxx"]] * 2
    assert step.output_of == {0: 0, 1: 1, 2: 2, 3: 3}


def test_rows_are_found_again_where_groups_change_their_order() -> None:
    table = CellTable(20)
    lay_out([piece(0, [1]), piece(1, [1])], table)
    step = lay_out([piece(0, [2], 1), piece(2, [3, 4, 5]), piece(1, [6], 1)], table)
    assert step.tokens.tolist() == [2, 6, 3, 4, 5]
    assert step.outputs.tolist() == [0, 1, 4]
    assert step.output_of == {0: 0, 4: 1, 3: 2}


def test_a_long_piece_after_others_attends_alone() -> None:
    table = CellTable(200)
    long = list(range(LONGEST_TOGETHER + 1))
    lay_out([piece(0, [1]), piece(1, [1])], table)
    step = lay_out([piece(0, long, 1), piece(1, long, 1)], table)
    assert [group.pieces for group in step.groups] == [1, 1]


def test_a_step_without_wanted_logits_asks_for_one() -> None:
    step = lay_out([piece(0, [1, 2], outputs=0)], CellTable(4))
    assert (step.outputs.tolist(), step.output_of) == ([0], {})


def test_cells_come_back_once() -> None:
    table = CellTable(4)
    table.extend(0, 2)
    table.share(0, 1, 2)
    table.extend(1, 2)
    assert table.held(1).tolist() == [0, 1, 2, 3]
    table.forget(1)
    table.forget(0)
    table.forget(0)
    assert sorted(table.extend(2, 4).tolist()) == [0, 1, 2, 3]
    assert np.array_equal(table.held(0), [])


# What tokens stand for.


class PretendTokenizer:
    """As much of a tokenizer as is used: every character of a text is a token, or a name in angle brackets."""

    is_fast = True
    bos_token: str | None = "<s>"
    eos_token = "</s>"
    bos_token_id: int | None = 0
    eos_token_id = 1

    def __init__(self, names: Sequence[str], decoder: str, template: str | None = None) -> None:
        self.names, self.chat_template = list(names), template
        self.backend_tokenizer = SimpleNamespace(to_str=lambda: json.dumps({"decoder": {"type": decoder}}))
        special = ("<s>", "</s>", "<think>")
        self.added_tokens_decoder = {
            i: SimpleNamespace(content=name, special=name in special)
            for i, name in enumerate(self.names)
            if name in (*special, "<tool>")
        }

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        opening = [0] if add_special_tokens else []
        if text.startswith("<s>"):
            opening, text = [*opening, 0], text.removeprefix("<s>")
        return {"input_ids": opening + [self.names.index(c) for c in text]}

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.names[token]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.names[t] for t in tokens).upper()


NAMES = ("<s>", "</s>", "<think>", "<tool>", "a", "Ġb", "Ã", "▁c", "<0x0A>")


def made(decoder: str = "ByteLevel", template: str | None = None, ends: tuple[int, ...] = (1,)) -> Tokens:
    return Tokens(PretendTokenizer(NAMES, decoder, template), 12, ends)


def test_byte_level_names_stand_for_bytes() -> None:
    pieces = [made().piece(token) for token in range(12)]
    assert pieces == [b"", b"", b"<think>", b"<tool>", b"a", b" b", b"\xc3", "▁C".encode(), b"<0x0A>", b"", b"", b""]


def test_names_of_sentence_pieces_stand_for_text_and_raw_bytes() -> None:
    tokens = made("ByteFallback")
    assert [tokens.piece(token) for token in (4, 7, 8)] == [b"a", b" c", b"\n"]


def test_other_tokenizers_are_asked() -> None:
    assert made("WordPiece").piece(4) == b"A"


def test_a_text_is_opened_once() -> None:
    assert (made().encode("aa"), made().encode("<s>a"), made().encode_bare("a")) == ([0, 4, 4], [0, 4], [4])


def test_ends_are_told_or_known_by_name() -> None:
    names = PretendTokenizer([*NAMES, "<|im_end|>"], "ByteLevel")
    names.added_tokens_decoder[9] = SimpleNamespace(content="<|im_end|>", special=True)
    assert Tokens(names, 12, [1]).ends == {1, 9}


def test_arbitrary_tokens_are_ordinary_and_the_same_for_a_seed() -> None:
    drawn = made().arbitrary(50, 7)
    assert drawn == made().arbitrary(50, 7) != made().arbitrary(50, 8)
    assert len(drawn) == 50
    assert set(drawn) <= {3, 4, 5, 6, 7, 8, 9, 10, 11}


def test_a_model_without_a_template_gets_chatml_and_says_so() -> None:
    tokens = made()
    assert tokens.notes == ("the model has no chat template; turns are written as ChatML",)
    assert tokens.render((Turn("user", "a"),), "") == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"


def test_a_reply_is_opened_once() -> None:
    opened = made(template="{{ messages[0].content }}|<think>")
    assert opened.render((Turn("user", "a"),), "<think>\n") == "a|<think>"
    assert made(template="{{ messages[0].content }}|").render((Turn("user", "a"),), "<think>\n") == "a|<think>\n"


def test_a_template_that_refuses_fails_the_request() -> None:
    with pytest.raises(BackendError, match="no system prompt"):
        made(template="{{ raise_exception('no system prompt') }}").render((Turn("user", "a"),), "")
