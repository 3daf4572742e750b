"""Windows folded back against the documents they were cut from."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_lvm.data.convert.folding import Folded, destinations, fold


def windows(documents: list[list[int]], width: int, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all windows as numbers, and the document of each."""
    rows = [
        (d[k : k + width], number)
        for number, d in enumerate(documents)
        for k in range(0, len(d) - width + 1, stride)
    ]
    return np.array([row for row, _ in rows], np.uint64).reshape(-1, width), np.array(
        [number for _, number in rows]
    )


def unfold(rows: np.ndarray, folded: Folded) -> list[list[int]]:
    """The documents that the destinations give, each place filled exactly once."""
    out: list[list[int]] = []
    order = list(range(len(folded.chains)))
    places = destinations(folded, order, rows.shape[1])
    flat = np.full(int(folded.lengths.sum()), -1)
    for place, row in zip(places.ravel(), rows.ravel(), strict=True):
        if place >= 0:
            assert flat[place] == -1
            flat[place] = row
    assert (flat >= 0).all()
    edges = np.cumsum([0, *folded.lengths])
    for start, stop in pairwise(edges):
        out.append(flat[start:stop].tolist())
    return out


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(0, 99),
    st.booleans(),
    st.integers(1, 3),
)
def test_distinct_chunks_fold_back_whatever_the_order(
    lengths: list[int], context: int, seed: int, ids: bool, stride: int
) -> None:
    edges = np.cumsum([0, *lengths])
    documents = [list(range(a, b)) for a, b in pairwise(edges)]
    stride = min(stride, context if ids else max(1, context - 1))  # an overlap that is enough to go by
    rows, groups = windows(documents, context + 1, stride)
    order = np.random.default_rng(seed).permutation(len(rows))
    folded = fold(rows[order], groups[order] if ids else None)
    covered = [
        d[: (len(d) - context - 1) // stride * stride + context + 1] for d in documents if len(d) > context
    ]
    assert sorted(unfold(rows[order], folded)) == sorted(covered)
    assert folded.repeated == 0


def test_repeated_windows_are_dropped_and_counted() -> None:
    rows, _ = windows([list(range(8))], 4)
    folded = fold(np.concatenate([rows, rows[2:4]]))
    assert unfold(np.concatenate([rows, rows[2:4]]), folded) == [list(range(8))] and folded.repeated == 2


def test_a_gap_is_not_closed() -> None:
    rows, _ = windows([list(range(12))], 4)
    kept = rows[[0, 1, 5, 6, 8]]  # 0..4 | 5..9 and 8..11, which share rows 8, 9
    assert sorted(unfold(kept, fold(kept))) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]]


def test_one_shared_row_joins_only_where_ids_agree() -> None:
    rows = np.array([[0, 1, 2], [2, 3, 4]], np.uint64)
    assert sorted(unfold(rows, fold(rows))) == [[0, 1, 2], [2, 3, 4]] and fold(rows).alone == 2
    assert unfold(rows, fold(rows, np.array([7, 7]))) == [[0, 1, 2, 3, 4]]
    assert fold(rows, np.array([7, 8])).alone == 2


def test_a_fork_is_not_guessed() -> None:
    """Two documents share a passage: shuffled and without ids nobody knows what follows it; with ids, or in
    order, all is clear.
    """
    documents = [[1, 2, 50, 51, 52, 3, 4], [5, 6, 50, 51, 52, 7, 8]]
    rows, groups = windows(documents, 4)
    assert unfold(rows, fold(rows)) == documents
    order = np.array([7, 2, 5, 0, 6, 3, 1, 4])
    assert sorted(unfold(rows[order], fold(rows[order], groups[order]))) == documents
    pieces = unfold(rows[order], fold(rows[order]))
    for piece in pieces:  # every neighbourhood is one of a document
        assert any(piece == d[k : k + len(piece)] for d in documents for k in range(len(d)))


@pytest.mark.parametrize("ids", [False, True])
def test_a_ring_is_opened_at_its_first_window(ids: bool) -> None:
    ring = np.array([[2, 3, 1], [3, 1, 2], [1, 2, 3]], np.uint64)
    folded = fold(ring, np.zeros(3, int) if ids else None)
    assert unfold(ring, folded) == [[2, 3, 1, 2, 3]]
