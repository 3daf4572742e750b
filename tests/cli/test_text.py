"""A text in the place of a document: predicted from, evaluated on and looked at, in the space of the corpus
it is put beside.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.ingest.encoder import MLXEncoder
from mlx_lvm.data.ingest.outside import chunking_of, scored_alone, with_documents
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.errors import InvalidFile

Lvm = Callable[..., Any]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # of libraries that are not ours


@pytest.fixture(scope="module")
def notes(minilm_folder: Path, sotu: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of thirty documents, embedded by the command: some chunks of as many addresses."""
    from mlx_lvm.data.card import EncoderCard

    from ..helpers import write_corpus

    encoder = MLXEncoder(str(minilm_folder))
    folder = tmp_path_factory.mktemp("notes")
    assert sotu.texts is not None
    texts, lengths = [], []
    for document in range(0, 210, 7):
        start = int(sotu.offsets[document])
        texts += [text[:150] for text in sotu.texts[start : start + 9]]
        lengths.append(9)
    vectors = encoder.encode(texts)
    path = folder / "notes.safetensors"
    names = [f"note {number}" for number in range(len(lengths))]
    card: EncoderCard = encoder.card
    rule = {"chunking": "careful sentences, packed greedily into chunks of 60 to 120 characters, no overlap"}
    write_corpus(path, vectors, np.cumsum([0, *lengths]), names, card, rule, "I8")
    return path


@pytest.fixture
def draft(sotu: Corpus, tmp_path: Path) -> Path:
    assert sotu.texts is not None
    start = int(sotu.offsets[100])
    (tmp_path / "draft.md").write_text("# Draft\n\n" + " ".join(sotu.texts[start : start + 3]))
    return tmp_path / "draft.md"


def test_a_text_stands_after_the_corpus_s_own_documents(notes: Path, minilm_folder: Path) -> None:
    corpus, encoder = load_corpus(notes), MLXEncoder(str(minilm_folder))
    rule = chunking_of(corpus)
    assert (rule.low, rule.high, rule.rule) == (60, 120, "careful")
    text = "Whales breathe air and must surface. " * 6
    extended = with_documents(corpus, [("note 3", text), ("other", text)], encoder)
    assert extended.names[-2:] == ("note 3 (text)", "other")
    chunks = rule.chunks(text)
    rows = np.arange(len(corpus), len(extended))
    assert len(rows) == 2 * len(chunks)
    np.testing.assert_array_equal(extended.numpy()[: len(corpus)], corpus.numpy())
    made = extended.numpy(rows)[: len(chunks)]
    cosine = (made * encoder.encode(chunks)).sum(axis=1) / np.linalg.norm(made, axis=1)
    assert cosine.min() > 0.999  # I8, as the corpus is stored
    before, after = split_corpus(corpus), split_corpus(scored_alone(corpus, extended, 0))
    np.testing.assert_array_equal(before.train, after.train)
    assert after.test.tolist() == [30, 31]


def test_another_encoder_is_refused(notes: Path, minilm_folder: Path, sotu: Corpus) -> None:
    with pytest.raises(InvalidFile, match="two different encoders"):
        with_documents(sotu, [("x", "A text.")], MLXEncoder(str(minilm_folder)))


def test_what_comes_after_a_text(lvm: Lvm, notes: Path, draft: Path, minilm_folder: Path) -> None:
    options = ["--corpus", notes, "--encoder", minilm_folder, "--rank", "prediction", "--json"]
    ran = lvm("predict", "mean", "--text", draft, *options)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["document"] == "draft" and found["candidates"] == len(load_corpus(notes))
    assert all(one["document"].startswith("note ") for one in found["steps"][0]["nearest"])


def test_from_standard_input(
    lvm: Lvm, notes: Path, draft: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--corpus", notes, "--encoder", minilm_folder, "--rank", "prediction", "--json"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(draft.read_text()))
    ran = lvm("predict", "last", "--text", "-", *options)
    assert ran.code == 0 and json.loads(ran.out)["document"] == "text"
    monkeypatch.setattr(sys, "stdin", io.StringIO("  \n"))
    assert lvm("predict", "last", "--text", "-", *options).code == 3


def test_wrong_usage(lvm: Lvm, notes: Path, draft: Path, minilm_folder: Path, tmp_path: Path) -> None:
    assert lvm("predict", "mean", "--corpus", notes).code == 2
    assert lvm("predict", "mean", "--corpus", notes, "--text", draft, "--document", 3).code == 2
    (tmp_path / "two.txt").write_text("One more text. " * 20)
    ran = lvm("predict", "mean", "--corpus", notes, "--text", tmp_path, "--encoder", minilm_folder)
    assert ran.code == 2 and "2 documents" in ran.err
    ran = lvm("predict", "mean", "--corpus", "moby", "--text", draft, "--encoder", minilm_folder)
    assert ran.code == 3 and "two different encoders" in ran.err


def test_a_text_is_scored_alone(lvm: Lvm, notes: Path, draft: Path, minilm_folder: Path) -> None:
    options = ["--corpus", notes, "--encoder", minilm_folder, "--context", 3, "--quick", "--json"]
    ran = lvm("eval", "mean", "--text", draft, *options)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["documents"] == 1 and found["metrics"]["oracle"]["cosine"] > 0.999
    assert lvm("eval", "mean", "--text", draft, *options, "--split", "val").code == 2


def test_what_a_model_looks_at_in_a_text(
    lvm: Lvm, notes: Path, draft: Path, minilm_folder: Path, tmp_path: Path
) -> None:
    small = [
        "--epochs",
        1,
        "--context",
        3,
        "--attention-dim",
        8,
        "--hidden-dim",
        16,
        "--out",
        tmp_path / "run",
    ]
    assert lvm("train", "amn", "--corpus", notes, *small).code == 0
    options = ["--corpus", notes, "--encoder", minilm_folder, "--json"]
    ran = lvm("attention", tmp_path / "run", "--text", draft, *options)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert len(found["by_position"]) == 3 and sum(found["by_position"]) == pytest.approx(1, abs=1e-5)
    assert {one["document"] for one in found["departures"]} == {"draft"}
