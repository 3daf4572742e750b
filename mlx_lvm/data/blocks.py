"""The order in which windows of a corpus too large for memory are trained on: stretches drawn into blocks.

    stretch   neighbouring training documents, read in one go; a document longer than a stretch is cut into
              pieces that overlap by the context, so that no window is lost
    block     as many stretches, from anywhere in the corpus, as fit in memory; its windows are shuffled

An epoch draws the stretches into blocks and the windows of each block into an order; both are functions of
(seed, epoch), so a run is resumed in the middle of a block without anything saved. Every window comes once an
epoch. A batch that would straddle two blocks belongs to the second: the rows of the windows left over are
read once more into a margin behind it, so that all batches, and all blocks, have one shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_lvm.core.arrays import pack, ranges
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.windows import no_window
from mlx_lvm.errors import UsageError

STRETCHES = 64  # in a block, at least, where documents are short enough
LEAST_STRETCHES = 8  # below that, windows of a block would be neighbours
DRAW, SHUFFLE = 1, 2  # what a stream of random numbers is for, besides seed and epoch


@dataclass(frozen=True)
class Layout:
    """Pieces of documents, rows starts[p] .. stops[p]; stretch s is pieces edges[s] .. edges[s + 1]."""

    context: int
    batch_size: int
    block_rows: int
    starts: np.ndarray
    stops: np.ndarray
    edges: np.ndarray
    skipped: int  # documents too short for one window

    @property
    def capacity(self) -> int:
        """Rows of a block's array: the block, and the margin for what the one before left over."""
        return self.block_rows + (self.batch_size - 1) * (self.context + 1)

    @cached_property
    def stretch_rows(self) -> np.ndarray:
        return np.add.reduceat(self.stops - self.starts, self.edges[:-1])

    @cached_property
    def stretch_windows(self) -> np.ndarray:
        return np.add.reduceat(self.stops - self.starts - self.context, self.edges[:-1])

    def __len__(self) -> int:
        """Windows in all."""
        return int(self.stretch_windows.sum())


@dataclass(frozen=True)
class Block:
    """Rows starts[i] .. stops[i] of the corpus lie at places[i] of the block's array. Windows in the order
    they are trained on: targets [n] in the array, rows [n] in the corpus. first: the epoch's step they begin.
    """

    starts: np.ndarray
    stops: np.ndarray
    places: np.ndarray
    targets: np.ndarray
    rows: np.ndarray
    first: int


def lay_out(
    corpus: MappedCorpus, documents: np.ndarray, context: int, batch_size: int, block_rows: int
) -> Layout:
    """Cut documents for blocks of so many rows. Raises UsageError for too few, InvalidFile without window."""
    stretch = max(block_rows // STRETCHES, 4 * (context + 1))
    if block_rows < LEAST_STRETCHES * stretch or block_rows < 2 * batch_size:
        raise UsageError(
            f"blocks of {block_rows:,} vectors are too small to shuffle windows of {context} in; give more "
            "--memory"
        )
    firsts, lengths = corpus.offsets[:-1][documents], corpus.lengths[documents]
    kept = lengths > context
    if not kept.any():
        raise no_window(corpus, "train", context, documents)
    firsts, lengths = firsts[kept], lengths[kept]
    new = stretch - context  # rows that each further piece adds
    counts = np.where(lengths > stretch, -(-(lengths - context) // new), 1)
    document = np.repeat(np.arange(len(firsts)), counts)
    starts = firsts[document] + ranges(np.zeros(len(counts)), counts) * new
    stops = np.minimum(starts + stretch, (firsts + lengths)[document])
    edges = pack(stops - starts, stretch)
    return Layout(context, batch_size, block_rows, starts, stops, edges, int((~kept).sum()))


class Epoch:
    """One pass: which stretches make each block, and in which order their windows come."""

    def __init__(self, layout: Layout, seed: int, epoch: int) -> None:
        self.layout, self.seed, self.epoch = layout, seed, epoch
        self.drawn = self._random(DRAW).permutation(len(layout.stretch_rows))
        self.edges = pack(layout.stretch_rows[self.drawn], layout.block_rows)
        windows = np.add.reduceat(layout.stretch_windows[self.drawn], self.edges[:-1])
        self.ends = np.cumsum(windows)  # windows up to each block's end

    def __len__(self) -> int:
        """Blocks."""
        return len(self.ends)

    def _random(self, *purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, *purpose]))

    def first_step(self, block: int) -> int:
        """The first step whose last window is in this block or a later one."""
        return int(self.ends[block - 1]) // self.layout.batch_size if block else 0

    def block_of(self, step: int) -> int:
        """The block that the batch of a step is read with: the one that its last window is in."""
        last = min((step + 1) * self.layout.batch_size, int(self.ends[-1]))
        return int(np.searchsorted(self.ends, last))

    def block(self, number: int) -> Block:
        """The block's pieces, what earlier blocks left to it in the margin, and its windows in their order.

        Blocks of 8 rows, context 2, batches of 3: the pieces of rows 0 to 3 and 20 to 23 have the targets
        2, 3, 22 and 23. Drawn as 22, 2, 23, 3 they make one batch, and 3 is left over. The next block reads
        rows 1 to 3 into its margin, at 8, and begins with the target 3, which lies at 10 there.
        """
        layout, drawn, carried = self.layout, self._draw(number), self._left_over(number)
        order = self._order(number, len(drawn.targets))
        margin = layout.block_rows + (layout.context + 1) * np.arange(len(carried))
        rows = np.concatenate([carried, drawn.rows[order]])
        targets = np.concatenate([margin + layout.context, drawn.targets[order]])
        # Whole batches, the carried windows among them; in the last block the rest too.
        end, size = int(self.ends[number]), layout.batch_size
        trained = (end if number == len(self) - 1 else end // size * size) - drawn.first * size
        # Pieces that are neighbours in the corpus are read in one go.
        begins = np.flatnonzero(np.append(True, drawn.starts[1:] != drawn.stops[:-1]))
        ends = np.append(begins[1:], len(drawn.stops)) - 1
        return Block(
            starts=np.concatenate([drawn.starts[begins], carried - layout.context]),
            stops=np.concatenate([drawn.stops[ends], carried + 1]),
            places=np.concatenate([drawn.places[begins], margin]),
            targets=targets[:trained].astype(np.int32),
            rows=rows[:trained],
            first=drawn.first,
        )

    def _draw(self, number: int) -> Block:
        """The block's own pieces with all of their windows, in the order of the corpus."""
        layout, context = self.layout, self.layout.context
        stretches = self.drawn[self.edges[number] : self.edges[number + 1]]
        pieces = ranges(layout.edges[stretches], np.diff(layout.edges)[stretches])
        starts, stops = layout.starts[pieces], layout.stops[pieces]
        sizes = stops - starts
        places = np.cumsum(sizes) - sizes
        targets, rows = (ranges(firsts + context, sizes - context) for firsts in (places, starts))
        return Block(starts, stops, places, targets, rows, self.first_step(number))

    def _order(self, number: int, count: int) -> np.ndarray:
        return self._random(SHUFFLE, number).permutation(count)

    def _left_over(self, number: int) -> np.ndarray:
        """Target rows of windows that earlier blocks leave: the last of their order, less than a batch."""
        missing = int(self.ends[number - 1]) % self.layout.batch_size if number else 0
        parts: list[np.ndarray] = []
        while missing:
            number -= 1
            rows = self._draw(number).rows
            parts.insert(0, rows[self._order(number, len(rows))][-missing:])
            missing -= len(parts[0])
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
