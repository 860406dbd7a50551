"""One step of many sequences laid out as one row of tokens: which cells are written and read, and who attends to whom. Pure.

New tokens of different requests stand side by side, so that the model's matrices see them all at once and nothing is padded there. Only
attention has to tell them apart. Pieces with equally many new tokens (decoding: one each) attend together, their cells padded to the
longest; long pieces attend alone.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.backends.inflight import Piece

Numbers = NDArray[np.int64]
LONGEST_TOGETHER = 32
"""New tokens of a piece, above which padding others to its cells costs more than another call."""


class CellTable:
    """The cells of each sequence, in the order of its tokens. Who shares cells is forgotten no later than their owner's step ends."""

    def __init__(self, cells: int) -> None:
        self._free = list(range(cells - 1, -1, -1))
        self._held: dict[int, Numbers] = {}
        self._shared: dict[int, int] = {}

    def held(self, sequence: int) -> Numbers:
        return self._held.get(sequence, np.empty(0, np.int64))

    def extend(self, sequence: int, count: int) -> Numbers:
        """New cells at the sequence's end. The batcher has promised that there are enough."""
        new = np.array([self._free.pop() for _ in range(count)], np.int64)
        self._held[sequence] = np.concatenate((self.held(sequence), new))
        return new

    def share(self, source: int, target: int, length: int) -> None:
        self._held[target], self._shared[target] = self.held(source)[:length], length

    def forget(self, sequence: int) -> None:
        own = self.held(sequence)[self._shared.pop(sequence, 0) :]
        self._free.extend(own[::-1].tolist())
        self._held.pop(sequence, None)


class Group(NamedTuple):
    """Pieces that attend together; their tokens follow each other in the row, and their cells in what is read."""

    pieces: int
    new: int
    """Tokens of each piece."""
    length: int
    """Cells read for each piece, padding included."""
    causal: bool
    """Nothing stands before the new tokens: plain causal attention."""
    mask: NDArray[np.bool_] | None
    """[pieces, new, length], True where a new token sees a cell; None: it sees all, or `causal`."""


class Step(NamedTuple):
    tokens: Numbers
    positions: Numbers
    write: Numbers
    """The cell of each new token."""
    read: Numbers
    """Cells whose keys and values attention wants, group by group."""
    outputs: Numbers
    """Places in the row whose logits are wanted; one at least."""
    output_of: dict[int, int]
    """From a row as the batcher counts them to its place among the outputs."""
    groups: tuple[Group, ...]


def lay_out(pieces: Sequence[Piece], table: CellTable) -> Step:
    """Gives the new tokens their cells."""
    first_rows = list(accumulate((len(p.tokens) for p in pieces), initial=0))
    tokens: list[int] = []
    positions: list[Numbers] = []
    write: list[Numbers] = []
    read: list[Numbers] = []
    groups = []
    output_of: dict[int, int] = {}
    outputs: list[int] = []
    for members in _together(pieces):
        for index in members:
            piece, begin = pieces[index], len(tokens)
            count = len(piece.tokens)
            for offset in range(count - piece.outputs, count):
                output_of[first_rows[index] + offset] = len(outputs)
                outputs.append(begin + offset)
            tokens.extend(piece.tokens)
            positions.append(np.arange(piece.position, piece.position + count))
            write.append(table.extend(piece.sequence, count))
        group, cells = _group([pieces[index] for index in members], table)
        groups.append(group)
        read.append(cells)
    return Step(
        tokens=np.array(tokens, np.int64),
        positions=np.concatenate(positions),
        write=np.concatenate(write),
        read=np.concatenate(read),
        outputs=np.array(outputs or [0], np.int64),
        output_of=output_of,
        groups=tuple(groups),
    )


def _together(pieces: Sequence[Piece]) -> list[list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for index, piece in enumerate(pieces):
        alone = piece.position == 0 or len(piece.tokens) > LONGEST_TOGETHER
        found.setdefault((0, index) if alone else (1, len(piece.tokens)), []).append(index)
    return list(found.values())


def _group(members: Sequence[Piece], table: CellTable) -> tuple[Group, Numbers]:
    new = len(members[0].tokens)
    starts = np.array([piece.position for piece in members])
    length = int(starts.max()) + new
    cells = np.zeros((len(members), length), np.int64)  # padding reads cell 0, and the mask hides it
    for row, piece in zip(cells, members, strict=True):
        row[: piece.position + new] = table.held(piece.sequence)
    causal = length == new
    last_seen = starts[:, None] + np.arange(new)
    mask = np.arange(length) <= last_seen[:, :, None]
    return Group(len(members), new, length, causal, None if causal or mask.all() else mask), cells.ravel()
