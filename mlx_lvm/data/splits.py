"""Train, validation and test by document: a stable hash of its name decides, so it never changes sides.

Pieces of one document, named `<name>#part-<n>`, hash by what stands before the `#`: they stay together. A
corpus that brings its own split keeps it, whatever the seed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlx_lvm.errors import UsageError

SPLITS = ("train", "val", "test")
FRACTIONS = (0.8, 0.1, 0.1)
PART = re.compile(r"#part-\d+$")


class Documents(Protocol):
    """What a split is made from: a `Corpus` or a `MappedCorpus`."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def assigned(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Split:
    """Document indices of each part, and the seed they come from."""

    seed: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def part(self, name: str) -> np.ndarray:
        """Raises UsageError for a name other than train, val, test, all."""
        if name == "all":
            return np.sort(np.concatenate([self.train, self.val, self.test]))
        if name not in SPLITS:
            raise UsageError(f"unknown split '{name}'; expected one of {', '.join(SPLITS)}, all")
        return getattr(self, name)

    def numbers(self) -> np.ndarray:
        """0, 1 or 2 for train, val or test, a document, uint8."""
        out = np.zeros(len(self.train) + len(self.val) + len(self.test), np.uint8)
        out[self.val], out[self.test] = 1, 2
        return out


def position(name: str, seed: int) -> float:
    """Where a document falls in [0, 1): the first eight bytes of sha256("seed:name")."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(names: Sequence[str], seed: int, fractions: Sequence[float] = FRACTIONS) -> np.ndarray:
    """0, 1 or 2 for train, val or test, a name, uint8: by the hash of the name without its `#part-<n>`."""
    at = np.array([position(PART.sub("", name), seed) for name in names])
    return np.digitize(at, [fractions[0], fractions[0] + fractions[1]]).astype(np.uint8)


def split_corpus(corpus: Documents, seed: int = 0) -> Split:
    """80/10/10 by hash of the document's name: adding or reordering documents moves none to another part."""
    part = assign(corpus.names, seed) if corpus.assigned is None else corpus.assigned
    return Split(seed, *(np.flatnonzero(part == number) for number in range(len(SPLITS))))
