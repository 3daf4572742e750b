"""Overlapping windows back to the documents they were cut from, each vector once.

A window is the sequence of its context and its target, C + 1 rows. Window b follows window a by s where the
last C + 1 - s rows of a are the first of b. Rows are compared by digests, so the vectors themselves need not
be in memory, and windows may come in any order. Where several windows could follow, none is guessed: order in
the file decides or the chain ends there, so that no two chunks become neighbours that were not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_OVERLAP = (
    2  # rows that must agree where nothing but their equality says that two windows are of one document
)


@dataclass(frozen=True)
class Folded:
    """chains: windows of each stretch of text in reading order. first [C + 1 columns]: see `destinations`.

    shift [n]: rows that a window adds to its chain (C + 1 for the first). repeated: windows equal to an
    earlier one. alone: windows that overlap with no other.
    """

    chains: list[np.ndarray]
    shift: np.ndarray
    repeated: int
    alone: int

    @property
    def lengths(self) -> np.ndarray:
        """Rows of each chain."""
        return np.array([int(self.shift[chain].sum()) for chain in self.chains], dtype=np.int64)


def fold(digests: np.ndarray, groups: np.ndarray | None = None) -> Folded:
    """digests [n, C + 1] uint64 of each window's rows; groups [n] the document each is said to be from, or
    None.
    """
    count, width = digests.shape
    tag = np.zeros(count, np.uint64) if groups is None else _mix(groups.astype(np.uint64) + np.uint64(1))
    kept = np.zeros(count, dtype=bool)
    _, first = np.unique(_key(digests, tag), return_index=True)
    kept[first] = True
    following, leading = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    shift = np.full(count, width, np.int64)
    least = min(LEAST_OVERLAP if groups is None else 1, width - 1)
    for step in range(1, width - least + 1):
        tails = np.flatnonzero(kept & (following < 0))
        heads = np.flatnonzero(kept & (leading < 0))
        a, b = _match(
            _key(digests[tails, step:], tag[tails]),
            _key(digests[heads, : width - step], tag[heads]),
            tails,
            heads,
        )
        following[a], leading[b], shift[b] = b, a, step
    _break_cycles(kept, following, leading, shift, width)
    chains = []
    for head in np.flatnonzero(kept & (leading < 0)):
        chain, window = [], int(head)
        while window >= 0:
            chain.append(window)
            window = int(following[window])
        chains.append(np.array(chain, dtype=np.int64))
    return Folded(chains, shift, count - len(first), sum(len(chain) == 1 for chain in chains))


def destinations(folded: Folded, order: list[int], width: int) -> np.ndarray:
    """Where each row of each window goes, [n, C + 1], chains laid end to end in `order`; -1 for a row that is
    there already.
    """
    out = np.full((len(folded.shift), width), -1, np.int64)
    columns = np.arange(width)
    end = 0
    for number in order:
        chain = folded.chains[number]
        added = folded.shift[chain]
        ends = end + np.cumsum(added)
        rows = ends[:, None] - width + columns
        out[chain] = np.where(columns >= width - added[:, None], rows, -1)
        end = int(ends[-1])
    return out


def _match(
    left: np.ndarray, right: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (a, b) of equal keys: those that stand one after the other in the file, then those that are alone
    with their key.
    """
    if not len(a) or not len(b):
        return a[:0], b[:0]
    position = np.full(int(max(a.max(initial=0), b.max(initial=0))) + 2, -1, np.int64)
    position[b] = np.arange(len(b))
    next_in_file = position[a + 1]
    direct = (next_in_file >= 0) & (left == right[next_in_file])
    taken_b = np.zeros(len(b), dtype=bool)
    taken_b[next_in_file[direct]] = True
    rest_a, rest_b = np.flatnonzero(~direct), np.flatnonzero(~taken_b)
    keys_a, index_a, counts_a = np.unique(left[rest_a], return_index=True, return_counts=True)
    keys_b, index_b, counts_b = np.unique(right[rest_b], return_index=True, return_counts=True)
    shared, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    single = (counts_a[at_a] == 1) & (counts_b[at_b] == 1) if len(shared) else np.zeros(0, dtype=bool)
    more_a, more_b = a[rest_a[index_a[at_a[single]]]], b[rest_b[index_b[at_b[single]]]]
    other = more_a != more_b  # a window may repeat its own rows
    return np.concatenate([a[direct], more_a[other]]), np.concatenate(
        [b[next_in_file[direct]], more_b[other]]
    )


def _break_cycles(
    kept: np.ndarray, following: np.ndarray, leading: np.ndarray, shift: np.ndarray, width: int
) -> None:
    """A text that repeats itself can close a chain to a ring; it begins with its first window in the file
    then.
    """
    reached = ~kept
    for head in np.flatnonzero(kept & (leading < 0)):
        window = int(head)
        while window >= 0:
            reached[window] = True
            window = int(following[window])
    for head in np.flatnonzero(~reached):
        if reached[head]:
            continue
        following[leading[head]], leading[head], shift[head] = -1, -1, width
        window = int(head)
        while window >= 0:
            reached[window] = True
            window = int(following[window])


def _key(digests: np.ndarray, tag: np.ndarray) -> np.ndarray:
    """One 64-bit key of each row of digests and its tag, dependent on their order."""
    key = tag.copy()
    for column in range(digests.shape[1]):
        key = _mix(key ^ digests[:, column])
    return key


def _mix(values: np.ndarray) -> np.ndarray:
    """A permutation of the 64-bit numbers that spreads every bit (the finalizer of splitmix64)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
