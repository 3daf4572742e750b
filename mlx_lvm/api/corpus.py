"""Corpora in NumPy: documents by name, with the vectors and the texts of their chunks."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlx_lvm.data import corpus as stored
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.storage.texts import texts_file
from mlx_lvm.data.storage.writer import CorpusWriter, require_free
from mlx_lvm.errors import IOFailed, LvmError, UsageError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Document:
    """A document in reading order.

    vectors: [chunks, dim] float32, rows of unit length. texts: one a chunk, or none at all.
    """

    name: str
    vectors: Array
    texts: list[str]

    def __len__(self) -> int:
        return len(self.vectors)


class Corpus:
    """Documents as vectors of their chunks. Made by `load_corpus`, `embed` or `Corpus.from_arrays`.

    >>> corpus = load_corpus("sotu")
    >>> speech = corpus["2016_barack_obama_d"]  # a Document: .name, .vectors [chunks, dim], .texts
    >>> lengths = {document.name: len(document) for document in corpus}

    `len(corpus)` counts documents. `vectors` and `texts` are those of all chunks, in the order of the
    documents.
    """

    def __init__(self, held: stored.Corpus, temporary: Path | None = None) -> None:
        """held: the corpus on the device. temporary: a folder that goes when this object does."""
        self.held, self.temporary = held, temporary
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    @classmethod
    def from_arrays(
        cls,
        vectors: npt.ArrayLike,
        documents: Sequence[Any],
        texts: Sequence[str] | None = None,
        *,
        name: str = "arrays",
        encoder: str = "",
    ) -> Corpus:
        """A corpus of vectors that are there already.

        vectors:   [chunks, dim], any floating-point type; rows are scaled to unit length
        documents: the document of each row, a name or a number; rows of a document in reading order
        texts:     the text of each row, for people to read
        encoder:   the name of what made the vectors, such as "sentence-transformers/all-MiniLM-L6-v2"

        Raises UsageError where lengths differ, InvalidFile naming every row that is zero or not finite.

        >>> Corpus.from_arrays(np.eye(3), documents=["a", "a", "b"], texts=["one", "two", "three"])
        Corpus 'arrays': 2 documents, 3 chunks of 3 dimensions
        """
        given = np.asarray(vectors)
        if given.ndim != 2 or 0 in given.shape or given.dtype.kind not in "fiu":
            raise UsageError(
                f"vectors: {given.dtype} of shape {given.shape}; expected numbers of shape [chunks, dim]"
            )
        for what, values in (("documents", documents), ("texts", texts)):
            if values is not None and len(values) != len(given):
                raise UsageError(f"{what}: {len(values)} for {len(given)} vectors; give one for each row")
        keys = [str(document) for document in documents]
        names = list(dict.fromkeys(keys))
        place = {key: number for number, key in enumerate(names)}
        number = np.array([place[key] for key in keys])
        order = np.argsort(number, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(number))])
        folder = Path(tempfile.mkdtemp(prefix="mlx-lvm-"))
        path = folder / f"{name}.safetensors"
        card = EncoderCard(model=encoder, normalised="L2", dim=given.shape[1])
        try:
            with CorpusWriter(path, offsets, names, card, {"source": "arrays"}, "F32") as writer:
                writer.put(0, given[order].astype(np.float32))
                writer.finish(None if texts is None else [texts[row] for row in order])
            return cls(stored.load_corpus(path), folder)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, LvmError):  # the file is ours, and nothing that a reader could open
                raise type(error)(str(error).replace(str(path), name)) from None
            raise

    @property
    def name(self) -> str:
        return self.held.name

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.held.dim

    @property
    def names(self) -> tuple[str, ...]:
        """Of the documents."""
        return self.held.names

    @property
    def encoder(self) -> str:
        """The name of what made the vectors; empty where nobody recorded it."""
        return self.held.card.model

    @property
    def vectors(self) -> Array:
        """Of all chunks, [chunks, dim] float32: a copy on the host."""
        return self.held.numpy()

    @property
    def texts(self) -> list[str]:
        """Of all chunks; empty where the corpus keeps none."""
        return self.held.texts or []

    def __getitem__(self, name: str) -> Document:
        """Raises UsageError naming the nearest document where none has that name."""
        return self._document(self.held.document(name))

    def __iter__(self) -> Iterator[Document]:
        return map(self._document, range(len(self)))

    def _document(self, number: int) -> Document:
        rows = slice(int(self.held.offsets[number]), int(self.held.offsets[number + 1]))
        return Document(self.held.names[number], self.held.numpy(rows), self.texts[rows])

    def __len__(self) -> int:
        return len(self.held.names)

    def __contains__(self, name: object) -> bool:
        return name in self.held.names

    def __repr__(self) -> str:
        size = f"{len(self):,} documents, {len(self.held):,} chunks of {self.dim} dimensions"
        return f"Corpus '{self.name}': {size}"

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the corpus to a .safetensors file, or a folder of shards, with its texts next to it.

        Raises UsageError where something is there without `overwrite`, IOFailed where it cannot be written.
        """
        source, target = self.held.path, Path(path)
        if source is None:
            raise UsageError(
                f"{self.name}: a part of a larger corpus; save the whole, or use `lvm data subset`"
            )
        require_free(target, overwrite)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=overwrite)
                return target
            texts = texts_file(source)
            if texts is not None:
                ending = texts.name.removeprefix(source.name.removesuffix(".safetensors"))
                shutil.copyfile(texts, target.with_name(target.name.removesuffix(".safetensors") + ending))
            shutil.copyfile(source, target)
        except OSError as error:
            raise IOFailed(f"{target}: cannot be written ({error.strerror or error})") from None
        return target


def load_corpus(reference: str | Path) -> Corpus:
    """A corpus that ships with the package, by its name (`sotu`, `moby`), or a file or folder by its path.

    Raises UsageError where nothing has that name, InvalidFile with every problem of the file, SetupInvalid
    where it does not fit in memory.

    >>> load_corpus("sotu")
    Corpus 'sotu': 233 documents, 17,595 chunks of 768 dimensions
    """
    return Corpus(stored.load_corpus(reference))


def corpus_of(given: Corpus | str | Path) -> Corpus:
    """Itself, or the one that has this name or path. Raises UsageError for anything else."""
    if isinstance(given, Corpus):
        return given
    if isinstance(given, (str, Path)):
        return load_corpus(given)
    raise UsageError(
        f"corpus: a {type(given).__name__}; expected a Corpus, a name or a path. "
        "Corpus.from_arrays(vectors, documents=...) makes one of arrays."
    )
