"""Documents to a corpus: chunked, embedded part by part, and put together at the end.

Work in progress lies in `<out>.partial/`: the chunks, the plan (what is embedded, how, with what), and a file
for every finished part of PART chunks. A part depends on nothing but its own texts, so a run that was killed
goes on with the next part and ends with the bytes an undisturbed one has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_lvm.core.files.disk import read_json, sync, write_atomic, write_json
from mlx_lvm.core.files.disk import sha256 as digest_of
from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.ingest.documents import list_documents, read_documents
from mlx_lvm.data.ingest.encoder import Encoder
from mlx_lvm.data.names import check_names
from mlx_lvm.data.storage.rows import RowCheck, Stored, to_stored
from mlx_lvm.data.storage.texts import chunk_lines, read_texts
from mlx_lvm.data.storage.writer import CorpusWriter, Writing, remove, require_free
from mlx_lvm.errors import InvalidFile, LvmError, Problems, UsageError, writing

if TYPE_CHECKING:
    from typing_extensions import Unpack

EMBED_DTYPES = ("I8", "F16", "F32")
PART = 256  # chunks embedded and stored together: what a kill can cost


@dataclass
class Embedded:
    """What came of it. `resumed` chunks were there from an earlier run; the encoder cut `too_long` ones."""

    documents: int = 0
    chunks: int = 0
    dim: int = 0
    resumed: int = 0
    too_long: int = 0
    blank: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Chunked:
    """The chunks of all documents, in `file`."""

    file: Path
    names: list[str]
    lengths: np.ndarray
    sha256: str

    def texts(self) -> Iterator[str]:
        return read_texts(self.file, self.names, self.lengths)


Progress = Callable[[int, int], None]  # chunks done, chunks in all


def embed(
    paths: list[Path],
    out: Path,
    encoder: Encoder,
    chunking: Chunking,
    dtype: str = "I8",
    *,
    texts: bool = True,
    provenance: dict[str, str] | None = None,
    restart: bool = False,
    progress: Progress = lambda done, total: None,
    **how: Unpack[Writing],
) -> Embedded:
    """Embed documents to the corpus `out`.

    Raises InvalidFile with every problem of the documents before any work is done, UsageError where `out` is
    there, or where unfinished work for it was begun with other settings.
    """
    begun = time.perf_counter()
    require_free(out, how.get("overwrite", False))
    listing = list_documents(paths)
    result = Embedded(left_out=listing.left_out)
    work = out.with_name(f"{out.name}.partial")
    with writing(work):
        if restart:
            remove(work)
        work.mkdir(parents=True, exist_ok=True)
        chunked = _chunk(read_documents(listing.files), chunking, work / "chunks.jsonl", result)
    _keep_plan(work, chunked, encoder, chunking, dtype)
    names, card = chunked.names, encoder.card
    result.documents, result.chunks, result.dim = len(names), int(chunked.lengths.sum()), card.dim
    _embed_parts(work, chunked, encoder, dtype, result, progress)

    offsets = np.concatenate([[0], np.cumsum(chunked.lengths)])
    described = {"source": ", ".join(path.name for path in paths), "licence": "", **(provenance or {})}
    described["chunking"] = chunking.describe()
    with CorpusWriter(out, offsets, names, card, described, dtype, **how) as writer:
        for number, start in enumerate(range(0, result.chunks, PART)):
            writer.put(start, Stored.read(open_safetensors(_part_file(work, number))))
        writer.finish(chunked.texts() if texts else None)
    remove(work)
    result.seconds = time.perf_counter() - begun
    return result


def _chunk(documents: Iterable[tuple[str, str]], chunking: Chunking, file: Path, result: Embedded) -> Chunked:
    """Chunks of every document to `file`; blank documents are noted and left out."""
    names, lengths, digest, problems = [], [], sha256(), Problems("documents")
    with open(file, "wb") as out:
        try:
            for name, text in documents:
                chunks = chunking.chunks(text)
                if not chunks:
                    result.blank.append(name)
                    continue
                for line in chunk_lines((name, number, chunk) for number, chunk in enumerate(chunks)):
                    out.write(line)
                    digest.update(line)
                names.append(name)
                lengths.append(len(chunks))
        except LvmError as error:
            problems.add(str(error))
        sync(out.fileno())
    check_names(names, problems)
    if not names and not problems.found:
        problems.add(f"no text in any of {len(result.blank)} documents")
    problems.raise_if_any(InvalidFile)
    return Chunked(file, names, np.array(lengths, dtype=np.int64), digest.hexdigest())


def _keep_plan(work: Path, chunked: Chunked, encoder: Encoder, chunking: Chunking, dtype: str) -> None:
    """Records what is being done, or holds it against what was begun."""
    probes = b"" if encoder.card.probes is None else np.round(encoder.card.probes, 3).tobytes()
    plan = {
        "chunks": chunked.sha256,
        "chunking": chunking.describe(),
        "encoder": encoder.card.to_dict(),
        "probes": digest_of(probes),
        "dtype": dtype,
        "part": PART,
    }
    file = work / "plan.json"
    if not file.exists():
        write_json(file, plan)
        return
    begun = read_json(file)
    if begun != plan:
        different = sorted(key for key in plan if not isinstance(begun, dict) or begun.get(key) != plan[key])
        raise UsageError(
            f"{work}: unfinished work with other {', '.join(different)}. Finish it with the same options and "
            "documents, or pass --restart to throw it away."
        )


def _embed_parts(
    work: Path, chunked: Chunked, encoder: Encoder, dtype: str, result: Embedded, progress: Progress
) -> None:
    texts = chunked.texts()
    for number, start in enumerate(range(0, result.chunks, PART)):
        part = list(islice(texts, PART))
        result.too_long += encoder.too_long(part)
        path = _part_file(work, number)
        if _is_whole(path, len(part), dtype):
            result.resumed += len(part)
        else:
            vectors = encoder.encode(part)
            check = RowCheck("chunk {}".format)
            check.add(start, vectors, None)
            if check.problems():
                raise InvalidFile("the encoder gave vectors that are unfit: " + "; ".join(check.problems()))
            stored = to_stored(vectors, dtype)._asdict()
            tensors = {name: values for name, values in stored.items() if values is not None}
            write_atomic(path, to_bytes(tensors, {"sha256": _digest(tensors), "dtype": dtype}))
        progress(start + len(part), result.chunks)


def _part_file(work: Path, number: int) -> Path:
    return work / f"part-{number:06d}.safetensors"


def _digest(tensors: dict[str, np.ndarray]) -> str:
    return digest_of(json.dumps([digest_of(tensors[name]) for name in sorted(tensors)]).encode())


def _is_whole(path: Path, rows: int, dtype: str) -> bool:
    """Whether a part is there and what it was when it was written."""
    try:
        file = open_safetensors(path)
        tensors = {name: file.numpy(name) for name in file.tensors}
        written = {"dtype": dtype, "sha256": _digest(tensors)}
        return file.metadata == written and len(tensors["vectors"]) == rows
    except (LvmError, KeyError):
        return False
