"""Which documents, and which split each: by pattern, by files of names, by what documents share."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mlx_lvm.data.ingest.lists import read_lines, read_text
from mlx_lvm.data.names import normal
from mlx_lvm.data.quality.duplicates import NEAR, exact_groups, group_pairs, near_pairs
from mlx_lvm.data.splits import PART, SPLITS, assign
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.errors import InvalidFile, Problems, UsageError, nearest

SAME = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}
HEADERS = ("split", "part", "set", "subset", "fold")  # of a first line that names its columns


def choose(
    corpus: MappedCorpus, patterns: Sequence[str], names_file: Path | None = None, least: int = 0
) -> np.ndarray:
    """Documents of `least` chunks whose names match a pattern (`*`, `?`, `[...]`) or are lines of a file.

    Raises UsageError naming the patterns that match nothing and the names that are not there.
    """
    chosen = np.zeros(len(corpus.names), dtype=bool)
    problems = Problems(f"subset of {corpus.name}")
    for pattern in patterns:
        pattern = normal(pattern)
        found = np.array([name == pattern for name in corpus.names])
        if not found.any():  # a name with brackets in it is no pattern
            found = np.array([fnmatch.fnmatchcase(name, pattern) for name in corpus.names])
        if not found.any():
            problems.add(f"no document matches '{pattern}'.{nearest(pattern, list(corpus.names))[:200]}")
        chosen |= found
    place = {name: number for number, name in enumerate(corpus.names)}
    for name in [] if names_file is None else map(normal, read_lines(names_file)):
        if name in place:
            chosen[place[name]] = True
        elif name:
            problems.add(f"{names_file}: no document '{name}'.{nearest(name, list(corpus.names))[:200]}")
    problems.raise_if_any(UsageError)
    if not patterns and names_file is None:
        chosen[:] = True
    return np.flatnonzero(chosen & (corpus.lengths >= least))


def read_assignment(path: Path, corpus: MappedCorpus) -> np.ndarray:
    """0, 1, 2 a document from a file: JSON {name: split} or {split: [names]}, or lines of name, tab, split.

    Splits are train, val and test; validation, valid and dev are val, whatever their capitals. Raises
    InvalidFile with every document that is missing, unknown, or of an unknown split.
    """
    text = read_text(path)
    try:
        values = _unique(_of_json(text) if path.suffix.lower() == ".json" else _of_lines(text))
    except (ValueError, RecursionError) as error:
        raise InvalidFile(
            f"{path}: neither JSON of names and splits nor lines of name, tab, split ({error})"
        ) from None
    known = set(corpus.names)
    problems = Problems(
        str(path), [f"document '{name}' has no split" for name in sorted(known - set(values))]
    )
    for name, split in values.items():
        if name not in known:
            problems.add(f"no document '{name}' in {corpus.name}.{nearest(name, list(corpus.names))[:200]}")
        elif split not in SPLITS:
            problems.add(f"document '{name}': split {str(split)[:40]!r} is not one of {', '.join(SPLITS)}")
    problems.raise_if_any(InvalidFile)
    return np.array([SPLITS.index(values[name]) for name in corpus.names], dtype=np.uint8)


def _of_json(text: str) -> Iterable[tuple[object, object]]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("not an object")
    if values and all(isinstance(names, list) for names in values.values()):
        return [(name, split) for split, names in values.items() for name in names]
    return values.items()


def _of_lines(text: str) -> Iterator[tuple[object, object]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    mark = "\t" if any("\t" in line for line in lines) else ","
    for number, line in enumerate(lines):
        name, found, split = line.rpartition(mark)
        if not found:
            raise ValueError(f"'{line[:60]}' has no tab")
        if number or split.strip().lower() not in HEADERS:
            yield name.strip().strip('"'), split.strip().strip('"')


def _unique(pairs: Iterable[tuple[object, object]]) -> dict[str, str]:
    """The split of each name, both in their normal forms."""
    values: dict[str, str] = {}
    for name, split in ((normal(str(name)), str(split).lower()) for name, split in pairs):
        split = SAME.get(split, split)
        if values.setdefault(name, split) != split:
            raise ValueError(f"document '{name}' stands in {values[name]} and in {split}")
    return values


def assign_together(
    corpus: MappedCorpus, seed: int, fractions: Sequence[float], threshold: float = NEAR
) -> np.ndarray:
    """As `splits.assign`, with documents that share a chunk, exactly or nearly, in the first name's part.

    A group that holds more chunks than the smallest part may is in the largest one, and the others are drawn
    with shares that make up for it: pages of one manual would else be all of the validation part.
    """
    leader = list(range(len(corpus.names)))

    def find(document: int) -> int:
        while leader[document] != document:
            leader[document] = leader[leader[document]]
            document = leader[document]
        return document

    exact = group_pairs(exact_groups(corpus))
    near = near_pairs(corpus, threshold)
    if near.total > len(near.rows):
        raise InvalidFile(
            f"{corpus.path}: {near.total:,} near pairs are too many to keep together; most chunks repeat "
            "others"
        )
    for a, b in corpus.document_of(np.concatenate([exact, near.rows])).tolist():
        leader[find(a)] = find(b)
    leaders = np.array([find(document) for document in range(len(leader))])
    members, chunks = np.bincount(leaders), np.bincount(leaders, corpus.lengths)
    largest, total = int(np.argmax(fractions)), float(chunks.sum())
    least = min(share for share in fractions if share > 0)
    large = ((members > 1) & (chunks > least * total))[leaders]
    names = [PART.sub("", name) for name in corpus.names]
    first: dict[int, str] = {}
    for document, name in zip(leaders.tolist(), names, strict=True):
        first[document] = min(name, first.get(document, name))
    shares = np.array(fractions)
    shares[largest] -= corpus.lengths[large].sum() / total
    shares = np.maximum(shares, 0)
    parts = assign([first[document] for document in leaders.tolist()], seed, shares / max(shares.sum(), 1e-9))
    parts[large] = largest
    return parts


def parse_fractions(text: str) -> tuple[float, float, float]:
    """'0.8,0.1,0.1' for train, val and test. Raises UsageError for other than three shares that make 1."""
    try:
        train, val, test = (float(part) for part in text.split(","))
        if min(train, val, test) >= 0 and abs(train + val + test - 1) <= 1e-6:
            return train, val, test
    except ValueError:  # other than three, or no numbers
        pass
    raise UsageError(f"--fractions {text}: expected three shares that make 1, as 0.8,0.1,0.1")
