"""From texts or files to a corpus, by any encoder that runs in MLX or in sentence-transformers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlx_lvm.api.corpus import Corpus
from mlx_lvm.data import corpus as stored
from mlx_lvm.data.ingest import embedding
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.ingest.documents import LINES, MARKDOWN, TEXT
from mlx_lvm.data.ingest.encoder import DEFAULT, load_encoder
from mlx_lvm.errors import InvalidFile, UsageError


def embed(
    sources: str | Path | Sequence[str | Path] | Mapping[str, str],
    encoder: str = DEFAULT,
    *,
    out: str | Path | None = None,
    engine: str = "mlx",
    precision: str = "float32",
    chunk_min: int = 500,
    chunk_max: int = 1000,
    overwrite: bool = False,
) -> Corpus:
    """Split documents into chunks and embed them.

    sources: files (.txt, .md, .jsonl) and folders of them, by their paths; or texts, each a document, in a
             list (named text-1, text-2, ...) or by name in a dict. What ends like a path and is none is an
             error.
    encoder: a local folder of a sentence-transformers model, or its id on the Hub
    out:     a .safetensors file to keep; without one the corpus is gone with the object
    engine:  "mlx" (BERT, MPNet, T5) or "torch" (whatever sentence-transformers runs; extra `embed-torch`)
    precision: "float32", "float16" or "bfloat16", what the encoder runs in
    chunk_min, chunk_max: characters; a chunk is closed at the first, and a sentence that would pass the
             second begins the next

    Raises InvalidFile with every problem of the documents, UsageError for an unknown engine or where `out` is
    there already, SetupInvalid where the encoder cannot be had.

    >>> corpus = embed(["notes/"], encoder="all-MiniLM-L6-v2")
    >>> corpus = embed({"monday": "It rained. ...", "tuesday": "The sun came out. ..."})
    """
    paths, texts = _sort(sources)
    model = load_encoder(encoder, engine, dtype=precision)
    folder = Path(tempfile.mkdtemp(prefix="mlx-lvm-"))
    target = folder / "embedded.safetensors" if out is None else Path(out)
    kept = False
    try:
        if texts:
            given = folder / "texts.jsonl"
            lines = (json.dumps({"id": name, "text": text}) for name, text in texts.items())
            given.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            paths = [given]
        chunking = Chunking(chunk_min, chunk_max)
        embedding.embed(paths, target, model, chunking, "F32" if out is None else "I8", overwrite=overwrite)
        kept = out is None
        return Corpus(stored.load_corpus(target), folder if kept else None)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _sort(
    sources: str | Path | Sequence[str | Path] | Mapping[str, str],
) -> tuple[list[Path], dict[str, str]]:
    """(paths, texts by name), one of the two empty. Raises UsageError for both, or for none."""
    if isinstance(sources, Mapping):
        paths, texts = [], {str(name): text for name, text in sources.items()}
    else:
        given = [sources] if isinstance(sources, (str, Path)) else list(sources)
        paths = [Path(one) for one in given if _is_path(one)]
        texts = {f"text-{k}": str(one) for k, one in enumerate(given, 1) if not _is_path(one)}
    if bool(paths) == bool(texts):
        both = f"texts and paths together ({', '.join(map(str, paths[:3]))})"
        raise UsageError(f"{both if paths else 'nothing to embed'}; give files and folders, or texts")
    wrong = [name for name, text in texts.items() if not isinstance(text, str)]
    if wrong:
        raise UsageError(f"{wrong[0]}: a {type(texts[wrong[0]]).__name__}; expected a text")
    return paths, texts


def _is_path(given: str | Path) -> bool:
    """Whether this names a file or folder. Raises InvalidFile for what looks like one and is not there."""
    if isinstance(given, Path):
        return True
    looks = "\n" not in given and len(given) < 1000 and not given.isspace()
    if looks and given and Path(given).exists():
        return True
    if looks and given.lower().endswith(("/", *TEXT, *MARKDOWN, *LINES)) and " " not in given:
        raise InvalidFile(f"{given}: no such file or folder")
    return False
