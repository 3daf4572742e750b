"""Overlapping windows back to the documents they were cut from, each vector once.

A window is the sequence of its context and its target, C + 1 rows. Window b follows window a by s where the
last C + 1 - s rows of a are the first of b. Rows are compared by digests, so the vectors themselves need not
be in memory, and windows may come in any order. Where several windows could follow, none is guessed: order in
the file decides or the chain ends there, so that no two chunks become neighbours that were not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_OVERLAP = 2  # rows that must agree where nothing else says that two windows are of one document


@dataclass(frozen=True)
class Folded:
    """Windows in chains, each a stretch of text in reading order."""

    chains: list[np.ndarray]
    shift: np.ndarray  # [n] rows that a window adds to its chain: C + 1 for the first
    repeated: int  # windows equal to an earlier one
    alone: int  # windows that overlap with no other

    @property
    def lengths(self) -> np.ndarray:
        return np.array([int(self.shift[chain].sum()) for chain in self.chains], dtype=np.int64)


def fold(digests: np.ndarray, groups: np.ndarray | None = None) -> Folded:
    """digests [n, C + 1] uint64 of each window's rows; groups [n] the document each is said to be from.

    The windows (a, b), (b, c), (c, d) of the text a b c d: one chain [0, 1, 2], with shift [2, 1, 1].
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
        tails, heads = np.flatnonzero(kept & (following < 0)), np.flatnonzero(kept & (leading < 0))
        tail_keys = _key(digests[tails, step:], tag[tails])
        head_keys = _key(digests[heads, : width - step], tag[heads])
        earlier, later = _match(tails, tail_keys, heads, head_keys)
        following[earlier], leading[later], shift[later] = later, earlier, step
    chains = [_chain(head, following) for head in np.flatnonzero(kept & (leading < 0)).tolist()]
    reached = ~kept
    for chain in chains:
        reached[chain] = True
    for head in np.flatnonzero(~reached).tolist():
        if not reached[head]:  # a text that repeats itself closed a ring: it begins with its first window
            following[leading[head]], shift[head] = -1, width
            chains.append(_chain(head, following))
            reached[chains[-1]] = True
    chains.sort(key=lambda chain: int(chain[0]))
    return Folded(chains, shift, count - len(first), sum(len(chain) == 1 for chain in chains))


def _chain(head: int, following: np.ndarray) -> np.ndarray:
    """The windows from `head` on."""
    chain = [head]
    while following[chain[-1]] >= 0:
        chain.append(int(following[chain[-1]]))
    return np.array(chain, dtype=np.int64)


def destinations(folded: Folded, order: list[int], width: int) -> np.ndarray:
    """Where each row of each window goes, [n, C + 1], chains laid end to end in `order`; -1 for a row that is
    there already: in the example of `fold`, [[0, 1], [-1, 2], [-1, 3]].
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
    tails: np.ndarray, tail_keys: np.ndarray, heads: np.ndarray, head_keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Windows (earlier, later) of one key: neighbours in the file, then those that are alone with their key
    on both sides. tails, heads: windows in the order of the file.
    """
    if not len(tails) or not len(heads):
        return tails[:0], heads[:0]
    next_in_file = np.minimum(np.searchsorted(heads, tails + 1), len(heads) - 1)
    neighbours = (heads[next_in_file] == tails + 1) & (head_keys[next_in_file] == tail_keys)
    free = np.ones(len(heads), dtype=bool)
    free[next_in_file[neighbours]] = False
    keys, earlier = _alone(tails[~neighbours], tail_keys[~neighbours])
    other_keys, later = _alone(heads[free], head_keys[free])
    _, at, other_at = np.intersect1d(keys, other_keys, assume_unique=True, return_indices=True)
    earlier, later = earlier[at], later[other_at]
    two = earlier != later  # a window may repeat its own rows
    return (
        np.concatenate([tails[neighbours], earlier[two]]),
        np.concatenate([tails[neighbours] + 1, later[two]]),
    )


def _alone(windows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(keys that one window alone has, that window)."""
    found, index, counts = np.unique(keys, return_index=True, return_counts=True)
    return found[counts == 1], windows[index[counts == 1]]


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
