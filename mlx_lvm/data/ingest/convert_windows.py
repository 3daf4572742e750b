"""Windows of contexts and targets to the documents they were cut from. Memory holds a block, and C + 1 digests a window."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mlx_lvm.data.ingest.arrays import Array, ArrayFile
from mlx_lvm.data.ingest.conversion import (
    BLOCK_BYTES,
    DOCUMENTS,
    Counter,
    Report,
    Target,
    codes_of,
    first_of,
    floats,
    names_of,
    require_floats,
)
from mlx_lvm.data.ingest.folding import destinations, fold
from mlx_lvm.data.quality.duplicates import row_digests
from mlx_lvm.errors import InvalidFile, Problems

CONTEXTS = ("context_sequences", "contexts", "context", "X", "context_vectors")
TARGETS = ("target_vectors", "targets", "target", "y")
SETS = ("", "train_", "val_", "validation_", "test_")


def window_sets(file: ArrayFile) -> list[tuple[Array, Array, Array | None]]:
    """(contexts, targets, ids) of every set of windows in the file."""
    found = []
    for prefix in SETS:
        contexts, targets, ids = (
            first_of(file, tuple(prefix + name for name in names)) for names in (CONTEXTS, TARGETS, DOCUMENTS)
        )
        if contexts is not None and targets is not None:
            found.append((contexts, targets, ids))
    return found


def _check_windows(file: ArrayFile, pairs: list[tuple[Array, Array, Array | None]]) -> None:
    problems = Problems(str(file.path))
    for contexts, targets, ids in pairs:
        shapes = f"{contexts.name} {list(contexts.shape)}, {targets.name} {list(targets.shape)}"
        flat = (
            targets.shape[:1] + targets.shape[2:]
            if len(targets.shape) == 3 and targets.shape[1] == 1
            else targets.shape
        )
        if len(contexts.shape) != 3 or flat != (contexts.shape[0], contexts.shape[2]):
            problems.add(f"{shapes}: expected contexts [N, C, dim] and targets [N, dim]")
        elif contexts.shape[1:] != pairs[0][0].shape[1:]:
            problems.add(f"{shapes}: another window than {pairs[0][0].name} {list(pairs[0][0].shape)}")
        if ids is not None and ids.shape[:1] != contexts.shape[:1]:
            problems.add(
                f"{ids.name} {list(ids.shape)}: expected one id for each of {contexts.shape[0]} windows"
            )
    problems.raise_if_any(InvalidFile)
    for contexts, targets, _ in pairs:
        require_floats(file, contexts, targets)


def convert_windows(
    file: ArrayFile,
    pairs: list[tuple[Array, Array, Array | None]],
    ids: np.ndarray | None,
    target: Target,
    report: Report,
    counter: Counter,
) -> None:
    _check_windows(file, pairs)
    report.kind = "windows"
    report.windows_read = count = sum(contexts.shape[0] for contexts, _, _ in pairs)
    _, context, dim = pairs[0][0].shape
    if ids is None and all(own is not None for _, _, own in pairs):
        ids = np.concatenate([own.whole().reshape(-1) for _, _, own in pairs if own is not None])
    if ids is not None and len(ids) != count:
        raise InvalidFile(f"{file.path}: {len(ids):,} document ids for {count:,} windows")
    codes: np.ndarray | None = None
    labels: list = []
    if ids is not None:
        codes, labels = codes_of(ids)
    with ThreadPoolExecutor(2) as pool:
        digests = np.concatenate(
            [_window_digests(contexts, targets, pool, counter) for contexts, targets, _ in pairs]
        )
    folded = fold(digests, codes)
    order = sorted(
        range(len(folded.chains)),
        key=lambda k: (0 if codes is None else int(codes[folded.chains[k][0]]), int(folded.chains[k][0])),
    )
    names = (
        [f"document-{k:06d}" for k in range(len(order))]
        if codes is None
        else _chain_names(codes, names_of(labels), folded.chains, order)
    )
    offsets = np.concatenate([[0], np.cumsum(folded.lengths[order])])
    places = destinations(folded, order, context + 1)
    with target.writer(offsets, names, dim, pairs[0][0].dtype) as writer:
        start = 0
        for contexts, targets, _ in pairs:
            rows = _block_rows(contexts)
            for left, right in zip(contexts.blocks(rows), targets.blocks(rows), strict=True):
                here = places[start : start + len(left)]
                for position in range(context):
                    new = np.flatnonzero(here[:, position] >= 0)
                    if len(new):
                        writer.put_rows(here[new, position], floats(contexts, left[new, position]))
                new = np.flatnonzero(here[:, context] >= 0)
                if len(new):
                    writer.put_rows(here[new, context], floats(targets, right.reshape(len(right), dim)[new]))
                start += len(left)
                counter.add(left, 2)
                counter.add(right, 2)
        writer.finish()
    report.documents, report.vectors, report.dim = len(names), int(offsets[-1]), dim
    report.repeated, report.alone = folded.repeated, folded.alone
    if codes is not None and len(names) > len(labels):
        report.notes.append(
            f"{len(labels):,} documents have gaps between their windows and became {len(names):,} parts, which stay in one split"
        )


def _block_rows(contexts: Array) -> int:
    return max(1, BLOCK_BYTES // (4 * contexts.shape[1] * contexts.shape[2]))


def _window_digests(
    contexts: Array, targets: Array, pool: ThreadPoolExecutor, counter: Counter
) -> np.ndarray:
    """Digests [n, C + 1] of the float32 rows of each window, its target last."""
    count, context, dim = contexts.shape
    out = np.empty((count, context + 1), np.uint64)
    rows, start = _block_rows(contexts), 0
    for left, right in zip(contexts.blocks(rows), targets.blocks(rows), strict=True):
        stop, half = start + len(left), len(left) // 2
        parts = [
            pool.submit(row_digests, floats(contexts, part).reshape(-1, dim))
            for part in (left[:half], left[half:])
            if len(part)
        ]
        out[start:stop, context] = row_digests(floats(targets, right).reshape(-1, dim))
        out[start:stop, :context] = np.concatenate([part.result() for part in parts]).reshape(-1, context)
        start = stop
        counter.add(left, 2)
        counter.add(right, 2)
    return out


def _chain_names(
    codes: np.ndarray, names: list[str], chains: list[np.ndarray], order: list[int]
) -> list[str]:
    """The document's name for its only chain, `<name>#part-<k>` for each of several."""
    of = [int(codes[chains[k][0]]) for k in order]
    several = np.bincount(of) > 1
    seen: dict[int, int] = {}
    out = []
    for code in of:
        part = seen.get(code, 0)
        seen[code] = part + 1
        out.append(f"{names[code]}#part-{part}" if several[code] else names[code])
    return out
