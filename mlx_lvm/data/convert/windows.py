"""Windows of contexts and targets to the documents they were cut from. Memory holds a block, and digests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mlx_lvm.data.convert.conversion import BLOCK_BYTES, Conversion, codes_of, floats, names_of
from mlx_lvm.data.convert.folding import destinations, fold
from mlx_lvm.data.quality.duplicates import row_digests
from mlx_lvm.data.storage.rows import to_float, to_stored
from mlx_lvm.data.tables.base import Array, ArrayFile
from mlx_lvm.data.tables.columns import Columns, document_ids, flat
from mlx_lvm.errors import InvalidFile, Problems

SETS = ("", "train_", "val_", "validation_", "test_")
MANY_ALONE = 0.5  # share of windows that overlap with no other above which it is told why that may be


@dataclass(frozen=True)
class WindowSet:
    """Contexts [N, C, dim], targets [N, dim] and ids [N], where there are any, of one set of windows."""

    contexts: Array
    targets: Array
    ids: Array | None

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Contexts [n, C, dim] with their targets [n, dim]."""
        _, context, dim = self.contexts.shape
        rows = max(1, BLOCK_BYTES // (4 * context * dim))
        for left, right in zip(self.contexts.blocks(rows), self.targets.blocks(rows), strict=True):
            yield left, right.reshape(-1, dim)


def window_sets(file: ArrayFile, columns: Columns) -> list[WindowSet]:
    """Every set of windows in the file."""
    found = []
    for prefix in SETS:
        contexts, targets = (columns.find(file, role, prefix) for role in ("contexts", "targets"))
        if contexts is not None and targets is not None and contexts.kind != "text" != targets.kind:
            found.append(WindowSet(contexts, targets, columns.find(file, "documents", prefix)))
    return found


def _check_windows(file: ArrayFile, sets: list[WindowSet]) -> None:
    problems = Problems(str(file.path))
    first = sets[0].contexts
    for windows in sets:
        contexts, targets, ids = windows.contexts, windows.targets, windows.ids
        shapes = f"{contexts.name} {list(contexts.shape)}, {targets.name} {list(targets.shape)}"
        sides = targets.shape[:1] + targets.shape[2:] if targets.shape[1:2] == (1,) else targets.shape
        if len(contexts.shape) != 3 or sides != (contexts.shape[0], contexts.shape[2]):
            problems.add(f"{shapes}: expected contexts [N, C, dim] and targets [N, dim]")
        elif contexts.shape[1:] != first.shape[1:]:
            problems.add(f"{shapes}: another window than {first.name} {list(first.shape)}")
        if ids is not None and ids.shape[:1] != contexts.shape[:1]:
            problems.add(
                f"{ids.name} {list(ids.shape)}: expected one id for each of {contexts.shape[0]} windows"
            )
    problems.raise_if_any(InvalidFile)


def _ids_of(job: Conversion, sets: list[WindowSet], count: int) -> np.ndarray | None:
    """The document of every window: from the caller, else from the file where every set has ids."""
    given, path = job.ids, job.file.path
    held = [(w.ids, w.contexts.shape[0]) for w in sets if w.ids is not None]
    if given is None and len(held) == len(sets):
        parts = [flat(ids, path, rows) for ids, rows in held]
        kinds = {"text" if part.dtype.kind in "OUS" else "numbers" for part in parts}
        if len(kinds) > 1:
            raise InvalidFile(f"{path}: document ids are text in one set of windows and numbers in another")
        given = document_ids(np.concatenate(parts), f"{path}, '{held[0][0].name}'")
    if given is not None and len(given) != count:
        raise InvalidFile(f"{path}: {len(given):,} document ids for {count:,} windows")
    return given


def convert_windows(job: Conversion, sets: list[WindowSet]) -> None:
    """Write the corpus. Raises InvalidFile where shapes, ids or vectors are unfit."""
    report = job.report
    _check_windows(job.file, sets)
    report.kind = "windows"
    report.windows_read = count = sum(windows.contexts.shape[0] for windows in sets)
    _, context, dim = sets[0].contexts.shape
    arrays = [array for windows in sets for array in (windows.contexts, windows.targets)]
    job.require_floats(*arrays)
    job.expect(*arrays)
    ids = _ids_of(job, sets, count)
    codes, labels = (None, []) if ids is None else codes_of(ids)
    compared = _Comparison(arrays)
    with ThreadPoolExecutor(2) as pool:
        digests = np.concatenate([_window_digests(job, windows, compared, pool) for windows in sets])
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
    with job.target.writer(offsets, names, dim, arrays[0].dtype) as writer:
        start = 0
        for windows in sets:
            for left, right in windows.blocks():
                here = places[start : start + len(left)]
                for position in range(context):
                    new = np.flatnonzero(here[:, position] >= 0)
                    if len(new):
                        writer.put_rows(here[new, position], floats(windows.contexts, left[new, position]))
                new = np.flatnonzero(here[:, context] >= 0)
                if len(new):
                    writer.put_rows(here[new, context], floats(windows.targets, right[new]))
                start += len(left)
                job.read(left, right, passes=2)
        writer.finish()
    report.documents, report.vectors, report.dim = len(names), int(offsets[-1]), dim
    report.repeated, report.alone = folded.repeated, folded.alone
    if codes is not None and len(names) > len(labels):
        report.notes.append(
            f"{len(labels):,} documents have gaps between their windows and became {len(names):,} parts, "
            "which stay in one split"
        )
    if folded.alone > max(1, MANY_ALONE * (count - folded.repeated)):
        report.notes.append(
            f"{folded.alone:,} of {count:,} windows share no vector with another, so each is a document of "
            "its own: windows were cut without overlap, or one vector has other values as context than as "
            "target (rounded, normalised)"
        )
    if compared.rounded:
        report.notes.append(
            f"contexts and targets are of different precision and were compared as {compared.rounded}"
        )


class _Comparison:
    """Rows as they are compared: where arrays differ in precision, all at the coarsest."""

    def __init__(self, arrays: list[Array]) -> None:
        kinds = {array.kind for array in arrays}
        self.coarse = [kind for kind in ("float16", "bfloat16") if kind in kinds and len(kinds) > 1]
        self.rounded = " and ".join(self.coarse)

    def rows(self, array: Array, block: np.ndarray) -> np.ndarray:
        out = floats(array, block)
        if "float16" in self.coarse:
            with np.errstate(over="ignore"):
                out = out.astype(np.float16).astype(np.float32)
        if "bfloat16" in self.coarse:
            out = to_float(*to_stored(np.ascontiguousarray(out), "BF16"))
        return out + np.float32(0) if self.coarse else out  # -0, which rounding makes of small numbers, is 0


def _window_digests(
    job: Conversion, windows: WindowSet, compared: _Comparison, pool: ThreadPoolExecutor
) -> np.ndarray:
    """Digests [n, C + 1] of the float32 rows of each window, its target last."""
    count, context, dim = windows.contexts.shape
    out = np.empty((count, context + 1), np.uint64)
    start = 0
    for left, right in windows.blocks():
        stop, half = start + len(left), len(left) // 2
        parts = [
            pool.submit(row_digests, compared.rows(windows.contexts, part).reshape(-1, dim))
            for part in (left[:half], left[half:])
            if len(part)
        ]
        out[start:stop, context] = row_digests(compared.rows(windows.targets, right))
        out[start:stop, :context] = np.concatenate([part.result() for part in parts]).reshape(-1, context)
        start = stop
        job.read(left, right, passes=2)
    return out


def _chain_names(
    codes: np.ndarray, names: list[str], chains: list[np.ndarray], order: list[int]
) -> list[str]:
    """The document's name for its only chain, `<name>#part-<k>` for each of several."""
    of = [int(codes[chains[k][0]]) for k in order]
    several = np.bincount(of) > 1
    seen: Counter[int] = Counter()
    out = []
    for code in of:
        out.append(f"{names[code]}#part-{seen[code]}" if several[code] else names[code])
        seen[code] += 1
    return out
