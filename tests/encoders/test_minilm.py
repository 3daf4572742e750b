"""all-MiniLM-L6-v2 itself: the vectors of sentence-transformers, and texts made to break a tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_lvm.data.card import PROBE_SENTENCES
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.encoders.encoder import TextEncoder

from ..helpers import reference

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # of libraries that are not ours
HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(categories=["Mn", "Me", "Cf", "Cc", "Zs", "So", "Lo", "Cs"]), max_size=40),
    st.lists(
        st.sampled_from(["[CLS]", "[SEP]", "[PAD]", "[MASK]", "##ing", "whale", " ", "é", "\u0301", "中"])
    ).map("".join),
    st.sampled_from(["", "\x00", "\ud83d", "a" * 3000, "word " * 10_000, "\u202eabc", "👩‍👩‍👧", "ﷺ"]),
)


def test_vectors_are_those_of_sentence_transformers(
    minilm: TextEncoder, minilm_folder: Path, sotu: Corpus
) -> None:
    texts = [*PROBE_SENTENCES, *(sotu.texts or [])[:: len(sotu) // 16]]
    expected = reference(minilm_folder).encode(texts, normalize_embeddings=True)
    found = minilm.encode(texts)
    assert (found * expected).sum(1).min() > 0.999999
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.fixture(scope="module")
def theirs(minilm_folder: Path) -> object:
    return reference(minilm_folder).tokenizer


def check(minilm: TextEncoder, theirs: object, texts: list[str]) -> None:
    vectors = minilm.encode(texts)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    readable = [text for text in texts if not _lone(text)]
    expected = theirs(readable, truncation=True)["input_ids"] if readable else []  # type: ignore[operator]
    assert minilm.tokens.ids(readable) == expected


def _lone(text: str) -> bool:
    """Whether the text has half of a surrogate pair, which the other tokenizer refuses."""
    return any(0xD800 <= ord(letter) < 0xE000 for letter in text)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(HOSTILE, min_size=1, max_size=4))
def test_hostile_texts(minilm: TextEncoder, theirs: object, texts: list[str]) -> None:
    check(minilm, theirs, texts)


@pytest.mark.long
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(HOSTILE)
def test_two_thousand_hostile_texts(minilm: TextEncoder, theirs: object, text: str) -> None:
    check(minilm, theirs, [text])
