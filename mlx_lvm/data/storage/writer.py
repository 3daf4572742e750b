"""Writing a corpus piece by piece, rows in any order, in bounded memory; nobody sees it until it is whole.

Everything but the vectors is known when writing begins, so the file is laid out first and rows go where they
belong. Under a hidden name next to the target it is filled, hashed, flushed to the disk and then renamed; the
next writer replaces what a killed one leaves there. A corpus gives the same bytes however it was written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import TypedDict

import numpy as np

from mlx_lvm.core.arrays import pack
from mlx_lvm.core.files.disk import allow_open_files, sync, sync_folder, write_json
from mlx_lvm.core.files.safetensors import DTYPES
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.names import normal
from mlx_lvm.data.storage.corpus_file import CorpusFile
from mlx_lvm.data.storage.reader import INDEX, INDEX_FORMAT, VECTOR_DTYPES, VERSION, check_documents
from mlx_lvm.data.storage.rows import Stored, across
from mlx_lvm.data.storage.texts import SUFFIXES, chunk_keys, chunk_lines
from mlx_lvm.errors import InvalidFile, Problems, UsageError, writing


class Writing(TypedDict, total=False):
    """Where a corpus goes besides its path: see `CorpusWriter`."""

    shard_bytes: int | None
    overwrite: bool


class CorpusWriter:
    """A corpus of known documents, filled row by row, made visible by `finish`; a context that cleans up.

    One file at `path`, or with `shard_bytes` a folder of files of about that size, each of whole documents.
    Rows become of unit length, unless they shall be `as_drawn` by a synthetic process.
    Raises UsageError where `path` is there and `overwrite` is not set, InvalidFile where documents are unfit.
    """

    def __init__(
        self,
        path: str | Path,
        offsets: np.ndarray,
        names: Sequence[str],
        card: EncoderCard,
        provenance: dict[str, str],
        dtype: str = "I8",
        *,
        assigned: np.ndarray | None = None,
        shard_bytes: int | None = None,
        overwrite: bool = False,
        as_drawn: bool = False,
    ) -> None:
        self.path, self.dim = Path(path), card.dim
        self.offsets, self.names = np.asarray(offsets, dtype=np.int64), [normal(name) for name in names]
        if dtype not in VECTOR_DTYPES:
            raise UsageError(f"dtype '{dtype}' is not one of {', '.join(VECTOR_DTYPES)}")
        require_free(self.path, overwrite)
        problems = Problems(f"corpus {self.path}")
        check_documents(self.offsets, self.names, int(self.offsets[-1]) if len(self.offsets) else 0, problems)
        problems.raise_if_any(InvalidFile)
        self.folder: Path | None = None
        self.files: list[CorpusFile] = []
        cuts = [0, len(self.names)]
        if shard_bytes is not None:
            self.folder = self.path.with_name(f".{self.path.name}.partial")
            remove(self.folder)
            cuts = shard_cuts(self.offsets, DTYPES[dtype][0] * card.dim + 4 * (dtype == "I8"), shard_bytes)
        allow_open_files(len(cuts), f"corpus {self.path}")
        self.edges: list[int] = self.offsets[cuts].tolist()
        try:
            for number, (a, b) in enumerate(pairwise(cuts)):
                target = self.path if self.folder is None else self.folder / f"shard-{number:05d}.safetensors"
                part = None if assigned is None else assigned[a:b]
                piece = self.offsets[a : b + 1] - self.offsets[a]
                file = CorpusFile(target, piece, self.names[a:b], card, provenance, dtype, part, as_drawn)
                self.files.append(file)
        except BaseException:
            self.abandon()
            raise

    def put(self, start: int, rows: np.ndarray | Stored) -> None:
        """Float rows [n, dim], or rows in the stored form, to rows start .. start + n of the corpus.

        Raises ValueError where they are not as wide as the card says: they would lie over one another.
        """
        if not isinstance(rows, Stored):
            rows = Stored(np.ascontiguousarray(rows, dtype=np.float32))
        if rows.vectors.shape[1:] != (self.dim,):
            raise ValueError(f"rows of shape {rows.vectors.shape} in a corpus of {self.dim} dimensions")
        for number, own, here in across(self.edges, start, start + len(rows.vectors)):
            self.files[number].put(own.start, rows.part(here))

    def put_rows(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Float rows [n, dim] to rows `rows` [n] of the corpus, a write for each run of consecutive ones."""
        edges = np.flatnonzero(np.diff(rows) != 1) + 1
        for a, b in pairwise([0, *edges.tolist(), len(rows)]):
            if b > a:
                self.put(int(rows[a]), vectors[a:b])

    def finish(self, texts: Iterable[str] | None = None) -> None:
        """Makes the corpus visible, with a file of chunk texts next to each file where `texts` gives them."""
        digests = [file.finish() for file in self.files]
        rest = iter(texts) if texts is not None else None
        with writing(self.path):
            texts_written = [None if rest is None else self._write_texts(file, rest) for file in self.files]
            sync(self.files[-1].descriptor)  # one flush to the disk itself takes all that was written before
            if self.folder is None:
                for suffix in SUFFIXES:
                    sibling(self.path, suffix).unlink(missing_ok=True)
                aside = self._set_aside() if self.path.is_dir() else None  # a file cannot replace a folder
            for file, written in zip(self.files, texts_written, strict=True):
                if written is not None:
                    os.replace(written, sibling(file.path, SUFFIXES[0]))
                file.place()
            if self.folder is not None:
                self._place_folder(digests)
            elif aside is not None:
                remove(aside)
            sync_folder(self.path.parent)

    def _write_texts(self, file: CorpusFile, texts: Iterator[str]) -> Path:
        target = file.path.with_name(f".{file.path.name}.texts.partial")
        keys, own = chunk_keys(file.names, np.diff(file.offsets)), islice(texts, int(file.offsets[-1]))
        with open(target, "wb") as out:
            out.writelines(chunk_lines((*key, text) for key, text in zip(keys, own, strict=True)))
            out.flush()
            os.fsync(out.fileno())
        return target

    def _place_folder(self, digests: list[str]) -> None:
        assert self.folder is not None
        shards = [
            {"file": f.path.name, "documents": len(f.names), "vectors": int(f.offsets[-1]), "sha256": digest}
            for f, digest in zip(self.files, digests, strict=True)
        ]
        write_json(self.folder / INDEX, {"format": INDEX_FORMAT, "format_version": VERSION, "shards": shards})
        sync_folder(self.folder)
        old = self._set_aside()
        os.replace(self.folder, self.path)
        remove(old)

    def _set_aside(self) -> Path:
        """Renames what is there; the name it has then."""
        old = self.path.with_name(f".{self.path.name}.old")
        remove(old)
        if self.path.exists():
            os.replace(self.path, old)
        return old

    def abandon(self) -> None:
        """Removes what was written; nothing of it was visible."""
        for file in self.files:
            file.abandon()
            file.path.with_name(f".{file.path.name}.texts.partial").unlink(missing_ok=True)
        if self.folder is not None:
            remove(self.folder)

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.abandon()


def shard_cuts(offsets: np.ndarray, row_bytes: int, shard_bytes: int) -> list[int]:
    """First document of each shard, and the count of documents: a shard closes before it passes the size."""
    return pack(np.diff(offsets), max(1, shard_bytes // row_bytes)).tolist()


def require_free(path: Path, overwrite: bool) -> None:
    """Raises UsageError where something is there already, or a folder that is no corpus would be replaced."""
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"{path}: is there already; choose another name or pass --overwrite")
    if path.is_dir() and not (path / INDEX).is_file() and any(path.iterdir()):
        raise UsageError(f"{path}: a folder that holds other things than a corpus; choose another name")


def sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name.removesuffix(".safetensors") + suffix)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
