"""Small corpora of real vectors, made once."""

from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus, load_corpus, write_corpus


@pytest.fixture(scope="session")
def sotu() -> Corpus:
    return load_corpus("sotu")


@pytest.fixture(scope="session")
def small_file(sotu: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty addresses cut to 24 chunks and 32 dimensions: real directions, quick to train on."""
    documents = range(0, 200, 5)
    rows = [np.arange(sotu.offsets[d], sotu.offsets[d + 1])[:24] for d in documents]
    vectors = sotu.numpy(np.concatenate(rows))[:, :32]
    path = tmp_path_factory.mktemp("corpus") / "small.safetensors"
    names = [sotu.names[d] for d in documents]
    write_corpus(path, vectors, np.cumsum([0, *map(len, rows)]), names, type(sotu.card)(model="cut", dim=32), {}, "F32")
    return path


@pytest.fixture(scope="session")
def small(small_file: Path) -> Corpus:
    return load_corpus(small_file)
