"""The order of a streamed epoch: every window once, whatever the sizes, and blocks that hold the rows their
windows read.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_lvm.core.arrays import pack
from mlx_lvm.data.blocks import Epoch, lay_out
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile, UsageError


def of_lengths(lengths: list[int]) -> MappedCorpus:
    """Documents of these lengths, and no vectors."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return MappedCorpus(
        "bare", Path("bare"), (), offsets, tuple(map(str, range(len(lengths)))), EncoderCard(dim=1), {}, None
    )


def check(
    corpus: MappedCorpus, documents: np.ndarray, context: int, batch: int, block_rows: int, seed: int
) -> None:
    layout = lay_out(corpus, documents, context, batch, block_rows)
    expected = windows(corpus, documents, context).targets  # type: ignore[arg-type]
    assert len(layout) == len(expected)
    order, seen, step = Epoch(layout, seed, 1), [], 0
    steps = -(-len(layout) // batch)
    while step < steps:
        number = order.block_of(step)
        block = order.block(number)
        assert block.first == step == order.first_step(number)
        held = np.full(layout.capacity, -1, np.int64)  # which row of the corpus lies where
        for start, stop, place in zip(block.starts, block.stops, block.places, strict=True):
            assert (held[place : place + stop - start] == -1).all(), "rows overwrite rows"
            held[place : place + stop - start] = np.arange(start, stop)
        for back in range(context + 1):
            np.testing.assert_array_equal(held[block.targets - back], block.rows - back)
        seen.append(block.rows)
        step += -(-len(block.rows) // batch)
        assert len(block.rows) % batch == 0 or step == steps, "only the epoch's last batch may be short"
        for inside in range(block.first, step):
            assert order.block_of(inside) == number
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), expected)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(0, 400),
    st.integers(0, 99),
)
def test_every_window_once(lengths: list[int], context: int, batch: int, more: int, seed: int) -> None:
    corpus = of_lengths(lengths)
    documents = np.flatnonzero(np.random.default_rng(seed).random(len(lengths)) < 0.8)
    if not (corpus.lengths[documents] > context).any():
        with pytest.raises(InvalidFile, match="no window"):
            lay_out(corpus, documents, context, batch, 10**6)
        return
    check(corpus, documents, context, batch, max(8 * 4 * (context + 1), 2 * batch) + more, seed)


def test_batches_larger_than_blocks_of_short_documents() -> None:
    """Two windows a document: most blocks leave their windows to later ones, over several blocks."""
    check(of_lengths([7] * 300), np.arange(300), 5, 100, 200, 3)


def test_blocks_mix_the_corpus() -> None:
    """Neighbours in a batch come from far apart, and two epochs share no order."""
    corpus = open_corpus(find_corpus("sotu"))
    layout = lay_out(corpus, split_corpus(corpus).train, 5, 32, 4000)
    first, second = (Epoch(layout, 0, epoch) for epoch in (0, 1))
    for order in (first, second):
        for number in range(len(order)):
            batches = order.block(number).rows[: 32 * 10].reshape(-1, 32)
            documents = [len(set(corpus.document_of(batch).tolist())) for batch in batches]
            assert np.mean(documents) > 15, "of 32 windows most have a document of their own"
            assert np.ptp(batches, axis=1).mean() > len(corpus) / 2
    assert set(first.drawn[: first.edges[1]].tolist()) != set(second.drawn[: second.edges[1]].tolist())
    again = Epoch(layout, 0, 1).block(2)
    np.testing.assert_array_equal(again.rows, second.block(2).rows)
    assert (Epoch(layout, 1, 1).block(2).rows[:32] != again.rows[:32]).any(), "the seed decides"


def test_a_block_that_cannot_be_shuffled_is_refused() -> None:
    with pytest.raises(UsageError, match="more --memory"):
        lay_out(of_lengths([50] * 9), np.arange(9), 5, 8, 100)
    with pytest.raises(UsageError, match="more --memory"):
        lay_out(of_lengths([50] * 9), np.arange(9), 5, 200, 300)


def test_packing() -> None:
    assert pack(np.array([3, 3, 3, 9, 1, 1]), 9).tolist() == [0, 3, 4, 6]
    assert pack(np.array([9]), 9).tolist() == [0, 1]
