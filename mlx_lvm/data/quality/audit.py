"""Every problem of a corpus: values, windows, texts, card, duplicates, leakage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.quality.contexts import contexts_told, lengths_told
from mlx_lvm.data.quality.duplicates import NEAR, Pairs, exact_groups, group_pairs, near_pairs
from mlx_lvm.data.splits import SPLITS, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.rows import RowCheck
from mlx_lvm.data.storage.texts import read_texts, texts_file
from mlx_lvm.errors import LvmError

SEARCHED = 100_000  # rows up to which near duplicates are searched unasked: n^2 products
MAX_LEAKAGE = 0.0025  # share of held-out chunks that may stand in another part: people quote
COPY = 0.5  # share of a document's chunks in another part above which it counts as a copy
LISTED = 10  # leaks named one by one


@dataclass(frozen=True)
class Leakage:
    """Chunks of val or test that stand, exactly or nearly, in a part before theirs (train, then val)."""

    held_out: int  # chunks of val and test
    exact: int
    near: int  # near ones, the exact among them; -1 where they were not searched
    examples: list[str]
    copies: list[str]  # documents that stand there for the greater part

    @property
    def share(self) -> float:
        return max(self.exact, self.near) / max(1, self.held_out)


@dataclass(frozen=True)
class Duplicates:
    """Rows that another row repeats, and pairs of rows above the threshold (-1: not searched)."""

    exact: int
    near: int
    near_within: int  # pairs in one document
    leakage: Leakage

    def to_dict(self) -> JsonObject:
        """What was not searched is None."""
        leakage, searched = self.leakage, self.near >= 0
        return {
            "exact": self.exact,
            "near_pairs": self.near if searched else None,
            "near_pairs_within_documents": self.near_within if searched else None,
            "leakage": {
                "held_out": leakage.held_out,
                "exact": leakage.exact,
                "near": leakage.near if searched else None,
                "share": leakage.share,
                "examples": leakage.examples,
                "copied_documents": leakage.copies,
            },
        }


FEW_DOCUMENTS = 5  # of a held-out part, below which a warning says so


@dataclass(frozen=True)
class Findings:
    """Problems make a corpus unfit; warnings do not."""

    problems: list[str]
    warnings: list[str]


def find_duplicates(
    corpus: MappedCorpus,
    seed: int,
    near: bool | None = None,
    threshold: float = NEAR,
    approximate: bool = False,
) -> Duplicates:
    """Exact duplicates always; near ones where asked, or where the corpus is small enough to do so unasked.

    `approximate` searches near ones through faiss, which may miss some. Raises SetupInvalid without faiss.
    """
    groups = exact_groups(corpus)
    wanted = near or approximate or (near is None and len(corpus) <= SEARCHED)
    pairs = near_pairs(corpus, threshold, approximate) if wanted else None
    leakage = _leakage(corpus, split_corpus(corpus, seed).numbers(), groups, pairs)
    exact = sum(len(group) - 1 for group in groups)
    if pairs is None:
        return Duplicates(exact, -1, -1, leakage)
    documents = corpus.document_of(pairs.rows)
    return Duplicates(exact, pairs.total, int((documents[:, 0] == documents[:, 1]).sum()), leakage)


def _leakage(
    corpus: MappedCorpus, part_of: np.ndarray, groups: list[np.ndarray], pairs: Pairs | None
) -> Leakage:
    part = part_of[corpus.document_of(np.arange(len(corpus)))]
    first = np.full(len(corpus), len(SPLITS), np.uint8)  # the first part that holds an exact copy of the row
    for group in groups:
        first[group] = part[group].min()
    exactly = np.flatnonzero(part > first)
    leaked = dict.fromkeys(exactly.tolist(), -1)
    every = group_pairs(groups) if pairs is None else np.concatenate([group_pairs(groups), pairs.rows])
    for a, b in every[part[every[:, 0]] != part[every[:, 1]]].tolist():
        later, earlier = (a, b) if part[a] > part[b] else (b, a)
        if leaked.get(later, -1) < 0:
            leaked[later] = earlier
    rows = np.array(sorted(leaked), dtype=np.int64)
    examples = [_leak(corpus, part, row, leaked[row]) for row in rows[:LISTED].tolist()]
    per_document = np.bincount(corpus.document_of(rows), minlength=len(corpus.names))
    copied = np.flatnonzero((per_document / corpus.lengths > COPY) & (per_document > 1))
    copies = [
        f"'{corpus.names[d]}' ({SPLITS[part_of[d]]}): {int(per_document[d])} of {corpus.lengths[d]} chunks"
        for d in copied
    ]
    return Leakage(int((part > 0).sum()), len(exactly), -1 if pairs is None else len(rows), examples, copies)


def _leak(corpus: MappedCorpus, part: np.ndarray, later: int, earlier: int) -> str:
    told = f"{corpus.where(later)} of {SPLITS[part[later]]}"
    if earlier < 0:
        return f"{told} stands in another part too"
    return f"{told} is {corpus.where(earlier)} of {SPLITS[part[earlier]]}"


def check(
    corpus: MappedCorpus,
    context: int,
    seed: int,
    near: bool | None = None,
    max_leakage: float = MAX_LEAKAGE,
    approximate: bool = False,
) -> tuple[Findings, Duplicates | None]:
    """All that is wrong with a corpus that opens: rows, checksums, texts, splits, card, duplicates, leaks."""
    rows = RowCheck(corpus.where)
    found = Findings([*corpus.verify(rows), *_texts(corpus)], lengths_told(corpus, rows))
    _windows(corpus, context, seed, found)
    _card(corpus, found)
    if found.problems:  # duplicates of damaged rows mean nothing
        return found, None
    copied, share = contexts_told(corpus, context, max_leakage)
    if copied:
        (found.problems if share > max_leakage else found.warnings).append(copied)
    duplicates = find_duplicates(corpus, seed, near, approximate=approximate)
    leakage = duplicates.leakage
    if leakage.copies:
        copies = "; ".join(leakage.copies[:LISTED])
        found.problems.append(
            f"documents of one part that stand in another for the greater part: {copies}{REMEDY}"
        )
    leaked = (
        f"{max(leakage.exact, leakage.near)} of {leakage.held_out:,} held-out chunks ({leakage.share:.2%}) "
        f"stand in another part, {max_leakage:.2%} allowed: {'; '.join(leakage.examples)}"
    )
    if leakage.share > max_leakage:
        found.problems.append(f"leakage: {leaked}{REMEDY}")
    elif leakage.share > 0:
        found.warnings.append(leaked)
    if duplicates.exact:
        found.warnings.append(f"{duplicates.exact:,} vectors repeat another one exactly")
    if duplicates.near < 0:
        found.warnings.append(
            f"near duplicates not searched among {len(corpus):,} vectors; --near searches, in time that "
            "grows with the square, --approximate in less"
        )
    return found, duplicates


REMEDY = ". `lvm data split --together` keeps documents that share chunks in one part"


def _texts(corpus: MappedCorpus) -> list[str]:
    problems = []
    for shard in corpus.shards:
        path = texts_file(shard.path)
        if path is None:
            continue
        try:
            texts = read_texts(path, shard.names, shard.lengths)
            blank = [k for k, text in enumerate(texts) if not text.strip()]
        except LvmError as error:
            problems.append(str(error))
            continue
        if blank:
            first = corpus.where(shard.first_row + blank[0])
            problems.append(f"{path.name}: {len(blank)} chunks without text, the first is {first}")
    return problems


def _windows(corpus: MappedCorpus, context: int, seed: int, found: Findings) -> None:
    split, lengths = split_corpus(corpus, seed), corpus.lengths
    if not (lengths > context).any():
        found.problems.append(f"no window of {context} + 1 chunks: the longest document has {lengths.max()}")
        return
    for name in SPLITS:
        readable = int((lengths[split.part(name)] > context).sum())
        if not readable:
            remedy = "another --split-seed or `lvm data split` fixes it"
            found.warnings.append(f"no window of {context} + 1 chunks in {name}; {remedy}")
        elif readable < FEW_DOCUMENTS and name != "train":
            found.warnings.append(
                f"{readable} document{'s' * (readable > 1)} with a window in {name}: figures of so "
                "few say little; `lvm data split --fractions 0.6,0.2,0.2` holds more out"
            )
    short = int((lengths <= context).sum())
    if short:
        found.warnings.append(
            f"{short:,} of {len(lengths):,} documents have fewer than {context} + 1 chunks and are skipped"
        )


def _card(corpus: MappedCorpus, found: Findings) -> None:
    card = corpus.card
    missing = [key for key in ("model", "revision", "pooling", "normalised") if not getattr(card, key)]
    if missing:
        found.warnings.append(f"the encoder card does not say: {', '.join(missing)}")
    if card.probes is None:
        found.warnings.append(
            "no probe vectors: whether another corpus lives in the same space can only be guessed from the "
            "card"
        )
