"""What several tests make: corpora of given lengths, the windows of a corpus by a plain loop, a script as a
module.
"""

import importlib.util
import os
import resource
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core.linux_cpu import COMPILER
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.storage.writer import CorpusWriter

# A g++ of ours stands first on PATH and says nothing of the machine's.
COMPILERS = os.pathsep.join(place for place in os.environ["PATH"].split(os.pathsep) if place != COMPILER)
fuses = pytest.mark.skipif(
    sys.platform == "linux" and not mx.cuda.is_available() and shutil.which("g++", path=COMPILERS) is None,
    reason="without g++ a Linux CPU fuses no kernels (Debian: apt-get install g++)",
)
LENGTHS = (30, 4, 17, 6, 9, 40, 5, 23, 7, 12, 33, 2, 8, 19, 6, 14)


def make_corpus(vectors: np.ndarray, lengths: tuple[int, ...] | list[int]) -> Corpus:
    offsets = np.cumsum([0, *lengths])
    names = tuple(f"document {d}" for d in range(len(lengths)))
    return Corpus(
        "made", mx.array(vectors.astype(np.float32)), None, offsets, names, EncoderCard(dim=vectors.shape[1])
    )


def write_corpus(
    path: Path,
    vectors: np.ndarray,
    offsets: np.ndarray,
    names: list[str],
    card: EncoderCard,
    provenance: dict[str, str],
    dtype: str = "I8",
) -> None:
    with CorpusWriter(path, offsets, names, card, provenance, dtype, overwrite=True) as writer:
        writer.put(0, vectors)
        writer.finish()


def positions(corpus: Corpus, documents: np.ndarray, context: int) -> list[tuple[int, int]]:
    """(target row, first row of its document) of every window, by a plain loop."""
    out = []
    for d in documents:
        start, end = int(corpus.offsets[d]), int(corpus.offsets[d + 1])
        out += [(t, start) for t in range(start + context, end)]
    return out


def script(name: str) -> ModuleType:
    """The script `name` of benchmarks/, as a module."""
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def reference(folder: Path, **options: Any) -> Any:
    """The same folder as sentence-transformers loads it."""
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu", **options)


def peak() -> int:
    """Most bytes of memory that this process has had; the system counts kilobytes on Linux and bytes on
    macOS.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
