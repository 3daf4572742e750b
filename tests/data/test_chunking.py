"""Chunks and sentences against cases worked by hand, and what no text may lose."""

# ruff: noqa: RUF001

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.ingest.chunking import Chunking, careful_sentences, simple_sentences
from mlx_lvm.errors import UsageError

from ..helpers import script

make_corpora = script("make_corpora")
CHUNKING, documents = make_corpora.CHUNKING, make_corpora.documents


def test_simple_sentences_by_hand() -> None:
    text = 'Mr. Smith came.  He said "Go." Then (he left.) Nobody saw! 1 was odd? "Yes." no.'
    assert simple_sentences(text) == [
        "Mr. Smith came.",
        'He said "Go.',
        "Then (he left.",
        "Nobody saw! 1 was odd?",
        '"Yes." no.',
    ]
    assert simple_sentences("The U.S. Army met Gov. Lee. End.") == ["The U.S. Army met Gov. Lee.", "End."]
    assert simple_sentences(" \n\t ") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith went. He came.", ["Mr. Smith went.", "He came."]),
        ("J. R. R. Tolkien wrote it. We read.", ["J. R. R. Tolkien wrote it.", "We read."]),
        ("At 5 p.m. The bell rang.", ["At 5 p.m.", "The bell rang."]),
        ("Pi is 3.14. Yes.", ["Pi is 3.14.", "Yes."]),
        ("Well... I do. It was … and so on.", ["Well...", "I do.", "It was … and so on."]),
        ("“Go,” he said. “Now!” She went.", ["“Go,” he said.", "“Now!”", "She went."]),
        ("See Fig. 3 and No. 7. Good.", ["See Fig. 3 and No. 7.", "Good."]),
        ("On p. 7 stands Mt. Fuji. It is high.", ["On p. 7 stands Mt. Fuji.", "It is high."]),
        ("Élan vital. École d'été. 1984 came.", ["Élan vital.", "École d'été.", "1984 came."]),
        ("他走了。她来了！", ["他走了。", "她来了！"]),
        ("A Heading\n\nIts text. More.", ["A Heading", "Its text.", "More."]),
        ("The U.S. Senate met in the U.S. The end.", ["The U.S. Senate met in the U.S.", "The end."]),
        ("e.g. this one. Inc. magazine.", ["e.g. this one.", "Inc. magazine."]),
    ],
)
def test_careful_sentences(text: str, expected: list[str]) -> None:
    assert careful_sentences(text) == expected


def test_packing_by_hand() -> None:
    sentences = ["A" * 29 + ".", "B" * 29 + ".", "C" * 49 + ".", "D" * 69 + ".", "E" * 9 + "."]
    rule = Chunking(50, 80, "simple")
    # A + B = 61 >= 50 closes; C = 50 closes; D = 70 closes; E is the short end
    assert [len(chunk) for chunk in rule.chunks(" ".join(sentences))] == [61, 50, 70, 10]
    # A (30) + D (70) would pass 80, so A closes short
    assert [len(chunk) for chunk in rule.chunks(f"{sentences[0]} {sentences[3]}")] == [30, 70]


def test_a_sentence_longer_than_a_chunk() -> None:
    assert [len(chunk) for chunk in Chunking(500, 1000, "simple").chunks("word " * 1000)] == [4999]
    chunks = Chunking(500, 1000, "careful").chunks("word " * 1000)
    assert max(map(len, chunks)) <= 1000 and " ".join(chunks) == ("word " * 1000).strip()
    assert [len(chunk) for chunk in Chunking(2, 4).chunks("x" * 10)] == [4, 4, 2]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab AB.!?…\"'”()。\n1", max_size=400), st.integers(1, 60), st.integers(0, 60))
def test_careful_chunks_lose_nothing_but_white_space(text: str, low: int, more: int) -> None:
    chunks = Chunking(low, low + more).chunks(text)
    assert re.sub(r"\s", "", "".join(chunks)) == re.sub(r"\s", "", text)
    assert all(chunk and len(chunk) <= low + more + 1 for chunk in chunks)


def test_bad_sizes() -> None:
    with pytest.raises(UsageError, match="low = 9 is above high = 5"):
        Chunking(9, 5)
    with pytest.raises(UsageError, match="careful, simple"):
        Chunking(rule="best")


def test_shipped_texts_are_chunks_of_the_recorded_rule(sotu: Corpus) -> None:
    """Every chunk but a document's last has 500 characters or is followed by one that would not have
    fitted.
    """
    assert sotu.texts is not None and CHUNKING.describe() == sotu.provenance["chunking"]
    last = set((sotu.offsets[1:] - 1).tolist())
    for row, text in enumerate(sotu.texts):
        if len(text) < 500 and row not in last:
            assert len(text) + len(simple_sentences(sotu.texts[row + 1])[0]) > 1000
    # packing the text of an address anew gives its chunks again, where no sentence lost its closing quote
    first = sotu.texts[: sotu.offsets[1]]
    assert CHUNKING.chunks(" ".join(first)) == first


def test_documents_too_short_or_whole_books_are_left_out(tmp_path: Path) -> None:
    for name, sentences in (("short", 6), ("kept", 7), ("book", 1000)):
        (tmp_path / f"{name}.txt").write_text(" ".join(["X" * 600 + "."] * sentences))
    assert {name: len(chunks) for name, chunks in documents(tmp_path).items()} == {"kept": 7}
