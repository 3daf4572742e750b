"""The released weights that serve any encoder: their size, their card, and how a corpus's own file is made of
them.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm import weights
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.evaluation.export import export
from mlx_lvm.hub.load import for_corpus, load_model
from mlx_lvm.parity.run import find_subjects

NAMES = ["emn", "emn-rank"]


@pytest.mark.parametrize("name", NAMES)
def test_one_small_file_for_any_width(name: str, small: Corpus) -> None:
    loaded, folder = load_model(name), weights.released()[name]
    assert (folder / "model.safetensors").stat().st_size <= 100_000
    assert loaded.model.config.dim == 0 and not loaded.notes  # its golden pair was checked
    bound = for_corpus(loaded, small)
    context = small.take(np.arange(10))[None]
    assert bound.model(context).unit.shape == (1, small.dim)
    assert any("statistics of" in note for note in bound.notes)
    assert for_corpus(bound, small) is bound
    card = (folder / "README.md").read_text()
    assert "Zero-shot" in card and "books-minilm" in card and "Use" in card


@pytest.mark.parametrize("name", NAMES)
def test_exported_for_a_corpus_it_needs_none(
    name: str, small: Corpus, small_file: Path, tmp_path: Path
) -> None:
    export(name, tmp_path / "mine", corpus=str(small_file), measure=False)
    mine = load_model(tmp_path / "mine")
    context = mx.array(small.numpy(slice(0, 12))[None])
    expected = for_corpus(load_model(name), small).model(context).unit
    assert np.abs(np.array(mine.model(context).unit) - np.array(expected)).max() < 1e-5
    assert json.loads((tmp_path / "mine/config.json").read_text())["dim"] == small.dim
    export(name, tmp_path / "again")
    assert load_model(tmp_path / "again").model.config.dim == 0


@pytest.mark.parametrize("name", NAMES)
def test_parity_compares_it_at_some_width(name: str) -> None:
    (subject,) = find_subjects(name)
    assert subject.config.dim == 384 and "mean" in subject.weights
