"""Chunk texts next to a corpus: `<name>.chunks.jsonl` or `.jsonl.gz`, {document, chunk, text} a line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from mlx_lvm.data.names import normal
from mlx_lvm.errors import InvalidFile, IOFailed, reason

SUFFIXES = (".chunks.jsonl", ".chunks.jsonl.gz")
MAX_LINE = 16 << 20  # bytes of one line


def chunk_lines(chunks: Iterable[tuple[str, int, str]]) -> Iterator[bytes]:
    """One JSON line per (document, chunk, text), the same bytes for the same text everywhere."""
    for document, number, text in chunks:
        line = json.dumps({"document": document, "chunk": number, "text": text}, ensure_ascii=False)
        yield f"{line}\n".encode("utf-8", "replace")


def texts_file(corpus_file: Path) -> Path | None:
    """The file of chunk texts that lies next to a corpus file, or None."""
    stem = corpus_file.name.removesuffix(".safetensors")
    found = [corpus_file.with_name(stem + suffix) for suffix in SUFFIXES]
    return next((path for path in found if path.is_file()), None)


def read_texts(path: Path, names: list[str], lengths: np.ndarray) -> Iterator[str]:
    """The texts of documents `names` with `lengths` chunks, in row order.

    Raises InvalidFile naming the line where the file is damaged or its chunks are not those of the corpus.
    """
    lines, total = _lines(path), int(lengths.sum())
    for number, expected in enumerate(chunk_keys(names, lengths), 1):
        line = next(lines, None)
        if line is None:
            raise InvalidFile(f"{path}: ends after {number - 1} chunks; the corpus has {total}")
        try:
            entry = json.loads(line)
            found, text = (normal(entry["document"]), entry["chunk"]), entry["text"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidFile(
                f"{path}, line {number}: not a JSON object of document, chunk and text"
            ) from None
        if found != expected or not isinstance(text, str):
            raise InvalidFile(
                f"{path}, line {number}: chunk {found}, expected {expected}; its chunks are not those of the "
                "corpus"
            )
        yield text
    if next(lines, None) is not None:
        raise InvalidFile(f"{path}: more than the corpus's {total} chunks")


def chunk_keys(names: list[str], lengths: np.ndarray) -> Iterator[tuple[str, int]]:
    """(document, chunk) of every row."""
    return ((name, k) for name, length in zip(names, lengths, strict=True) for k in range(length))


def _lines(path: Path) -> Iterator[str]:
    """Lines of bounded length, so that a file that unpacks without end cannot fill the memory."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), b""), 1):
                if len(line) > MAX_LINE:
                    raise InvalidFile(f"{path}, line {number}: longer than {MAX_LINE:,} bytes")
                yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        at = f"{error.reason} at byte {error.start}"
        raise InvalidFile(f"{path}, line {number}: not UTF-8 ({at})") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidFile(f"{path}, after line {number}: damaged gzip ({error})") from None
    except OSError as error:
        raise IOFailed(f"{path}: cannot be read ({reason(error)})") from error
