"""`lvm predict`: the JSON object, the table, the refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlx_lvm.data.corpus import Corpus


def test_json(lvm: Callable, small_file: Path, small: Corpus) -> None:
    name = small.names[4]
    ran = lvm("predict", "last", "--corpus", small_file, "--document", name, "--at", 8, "--steps", 2, "--top", 3, "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert [len(step["nearest"]) for step in result["steps"]] == [3, 3]
    x = small.numpy() / np.linalg.norm(small.numpy(), axis=1, keepdims=True)
    start = int(small.offsets[4])
    np.testing.assert_allclose(result["steps"][1]["vector"], x[start + 7], atol=1e-6)  # repeating the last chunk, twice
    scores = x @ x[start + 7]
    scores[start + 3 : start + 8] = -2
    nearest = result["steps"][0]["nearest"][0]
    row = int(scores.argmax())
    assert (nearest["document"], nearest["chunk"]) == (small.names[int(small.document_of(np.array([row]))[0])], row - start_of(small, row))
    assert result["steps"][0]["truth"]["chunk"] == 8 and ran.err.count("nearest of") == 2


def start_of(corpus: Corpus, row: int) -> int:
    return int(corpus.offsets[int(corpus.document_of(np.array([row]))[0])])


def test_text_and_a_document_by_number(lvm: Callable) -> None:
    ran = lvm("predict", "mean", "--corpus", "moby", "--document", 3, "--at", 6)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "chunk 6 from the 5 before it" in lines[0] and lines[1].startswith("last read: ")
    assert any(line.startswith("truth, rank ") for line in lines)


def test_mistakes(lvm: Callable, small_file: Path, small: Corpus) -> None:
    for expected, words, arguments in (
        (2, "no document 'nobody'", ["last", "--document", "nobody"]),
        (2, "--at 99: document", ["last", "--document", small.names[0], "--at", 99]),
        (2, "unknown model 'lsat'", ["lsat", "--document", small.names[0]]),
        (2, "Missing option '--document'", ["last"]),
        (2, "--steps", ["last", "--document", small.names[0], "--steps", 0]),
    ):
        ran = lvm("predict", *arguments, "--corpus", small_file, "--json")
        assert (ran.code, ran.out) == (expected, ""), ran.err
        assert words in ran.err
