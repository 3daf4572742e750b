"""Queries: a text through the corpus's encoder, a vector from a file, a chunk of the corpus; and what is none
of them.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.ingest import encoder
from mlx_lvm.errors import InvalidFile, SetupInvalid, UsageError
from mlx_lvm.ranking.query import read_query

from ..helpers import make_corpus

PROBES = np.random.default_rng(0).standard_normal((16, 12)).astype(np.float32)


def test_a_chunk_of_the_corpus(uneven: Corpus) -> None:
    found = read_query("document 5:39", uneven)
    assert found.row == uneven.offsets[6] - 1 and found.text == "document 5:39"
    assert_allclose(found.vector, uneven.numpy(np.array([found.row]))[0])
    with pytest.raises(UsageError, match="'document 5' has chunks 0 to 39"):
        read_query("document 5:40", uneven)


def test_a_vector_from_a_file(uneven: Corpus, tmp_path: Path) -> None:
    for shape in ((12,), (1, 12)):
        np.save(tmp_path / "q.npy", np.arange(12, dtype=np.float64).reshape(shape))
        found = read_query(str(tmp_path / "q.npy"), uneven)
        assert_allclose(found.vector, np.arange(12))
        assert found.row is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones(11), r"float64 \[11\]; expected one vector of 12"),
        (np.ones((2, 6)).astype(int), r"int64 \[2, 6\]"),
        (np.zeros(12), "zero or not finite"),
        (np.full(12, np.nan), "zero or not finite"),
        (np.array([{}] * 12), "no .npy file"),
    ],
)
def test_files_that_hold_no_vector(uneven: Corpus, tmp_path: Path, values: np.ndarray, words: str) -> None:
    np.save(tmp_path / "q.npy", values, allow_pickle=True)
    with pytest.raises(InvalidFile, match=words):
        read_query(str(tmp_path / "q.npy"), uneven)


def test_a_file_that_is_not_there_or_empty(uneven: Corpus, tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    for name in ("none.npy", "empty.npy"):
        with pytest.raises(InvalidFile, match=r"no \.npy file that can be read"):
            read_query(str(tmp_path / name), uneven)


class Stand:
    """An encoder of a given space that says which name it was asked for."""

    probes = PROBES
    asked: list[str] = []  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.asked.append(name)
        self.card = EncoderCard(model=name, dim=12, probes=self.probes)

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.full((1, 12), len(texts[0]), np.float32)


def test_a_text_is_embedded_in_the_corpus_s_own_space(
    uneven: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus(uneven.numpy(), list(uneven.lengths))
    with pytest.raises(UsageError, match="does not say which encoder"):
        read_query("war at sea", corpus)
    object.__setattr__(corpus, "card", EncoderCard(model="the-encoder", dim=12, probes=PROBES))
    monkeypatch.setattr(encoder, "load_encoder", Stand)
    found = read_query("document 5: war", corpus)  # no chunk, though it begins like one
    assert (
        Stand.asked[-1] == "the-encoder" and found.row is None and found.vector[0] == len("document 5: war")
    )
    read_query("war", corpus, "folder")
    assert Stand.asked[-1] == "folder"
    monkeypatch.setattr(Stand, "probes", PROBES[::-1])
    with pytest.raises(InvalidFile, match="two different encoders"):
        read_query("war", corpus)
    with pytest.raises(UsageError, match="blank"):
        read_query(" ", corpus)


def test_without_tokenizers(sotu: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SetupInvalid, match=r"pip install 'mlx-lvm\[embed\]'"):
        read_query("war at sea", sotu)
