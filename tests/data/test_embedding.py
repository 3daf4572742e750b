"""Documents read, chunked and embedded with a stand-in for the model; resumed to the byte; bad documents
refused.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.ingest import embedding
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.ingest.documents import list_documents, plain, read_documents
from mlx_lvm.data.ingest.embedding import embed
from mlx_lvm.errors import InvalidFile, UsageError

RULE = Chunking(20, 40)


class LengthEncoder:
    """A vector from the text itself, so that a test can say what belongs where."""

    def __init__(self, fail_after: int | None = None, model: str = "lengths") -> None:
        self.card = EncoderCard(model=model, dim=3, probes=np.eye(16, 3, dtype=np.float32) + 1)
        self.left, self.calls = fail_after, 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return np.array(
            [[len(text), text.count("a") + 1, sum(map(ord, text)) % 97 + 1] for text in texts],
            dtype=np.float32,
        )

    def too_long(self, texts: Sequence[str]) -> int:
        return sum(len(text) > 35 for text in texts)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.txt").write_text("\ufeffA first sentence. " + "Then another one. " * 9, "utf-8")
    (folder / "deep" / "two.md").write_text(
        "---\ntitle: x\n---\n# Heading\n\nSee [the page](http://x.y) and ![a picture](z.png). Fine."
    )
    entries = [
        {"id": "three", "text": "Short."},
        {"id": 4, "text": "Numbers name too. " * 4},
        {"id": "blank", "text": " \n"},
    ]
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    (folder / ".hidden.txt").write_text("Not this.")
    return folder


def run(
    paths: list[Path], out: Path, encoder: LengthEncoder | None = None, **options: Any
) -> embedding.Embedded:
    return embed(paths, out, encoder or LengthEncoder(), RULE, options.pop("dtype", "F32"), **options)


def test_documents_to_a_corpus(docs: Path, tmp_path: Path) -> None:
    result = run([docs], tmp_path / "c.safetensors", provenance={"licence": "mine"})
    corpus = load_corpus(tmp_path / "c.safetensors")
    assert (
        corpus.names == ("deep/two", "three", "4", "one")
        and result.blank == ["blank"]
        and result.left_out == {".jpg": 1}
    )
    assert corpus.texts is not None
    assert corpus.texts[:3] == ["Heading See the page and a picture.", "Fine.", "Short."]
    rows = LengthEncoder().encode(corpus.texts)
    np.testing.assert_allclose(corpus.numpy(), rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-6)
    assert corpus.provenance == {"source": "docs", "licence": "mine", "chunking": RULE.describe()}
    assert replace(corpus.card, normalised="") == replace(
        LengthEncoder().card, normalised=""
    ) and result.too_long == sum(len(text) > 35 for text in corpus.texts)
    assert (result.documents, result.chunks, result.dim) == (4, len(corpus), 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.chunks.jsonl", "c.safetensors", "docs"]


@pytest.mark.parametrize("dtype", ["F32", "F16", "I8"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(embedding, "PART", 3)
    run([docs], tmp_path / "whole.safetensors", dtype=dtype)
    with pytest.raises(KeyboardInterrupt):
        run([docs], tmp_path / "again.safetensors", LengthEncoder(fail_after=2), dtype=dtype)
    assert not (tmp_path / "again.safetensors").exists()
    part = tmp_path / "again.safetensors.partial" / "part-000001.safetensors"
    damaged = bytearray(part.read_bytes())
    damaged[-1] ^= 1  # one bit: the part is made again
    part.write_bytes(damaged)
    encoder = LengthEncoder()
    result = run([docs], tmp_path / "again.safetensors", encoder, dtype=dtype)
    assert result.resumed == 3 and encoder.calls == -(-result.chunks // 3) - 1
    for suffix in (".safetensors", ".chunks.jsonl"):
        assert (tmp_path / f"whole{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    assert not part.parent.exists()


def test_unfinished_work_of_other_settings_is_not_mixed_in(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PART", 3)
    out = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run([docs], out, LengthEncoder(fail_after=1))
    with pytest.raises(UsageError, match=r"other encoder.*--restart"):
        run([docs], out, LengthEncoder(model="another"))
    with pytest.raises(UsageError, match="other dtype"):
        run([docs], out, dtype="I8")
    (docs / "new.txt").write_text("A new document.")
    with pytest.raises(UsageError, match="other chunks"):
        run([docs], out)
    assert run([docs], out, restart=True).resumed == 0


def test_without_text_and_in_shards(docs: Path, tmp_path: Path) -> None:
    run([docs], tmp_path / "c", texts=False, shard_bytes=60)
    corpus = load_corpus(tmp_path / "c")
    assert corpus.texts is None and len(list((tmp_path / "c").glob("shard-*"))) > 1
    run([docs], tmp_path / "one.safetensors", texts=False)
    np.testing.assert_array_equal(corpus.numpy(), load_corpus(tmp_path / "one.safetensors").numpy())
    with pytest.raises(UsageError, match="--overwrite"):
        run([docs], tmp_path / "c")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("bad.txt", b"caf\xe9", r"bad.txt: not UTF-8 \(byte 3 is 0xe9\)"),
        ("utf16.txt", "x".encode("utf-16"), "not UTF-8"),
        ("empty.txt", b"", "no text in any"),
        ("blank.txt", b" \n\t\n", "no text in any"),
        ("x.jsonl", b'{"id": 1, "text": "a."}\n{"id"', "line 2: not JSON"),
        ("x.jsonl", b'{"id": 1}\n', 'line 1: expected {"id"'),
        ("x.jsonl", b"[1]\n", "line 1: expected"),
        ("x.jsonl", b'{"id": [1], "text": "a."}\n', "neither text nor a whole number"),
        ("x.jsonl", b'{"id": 1, "text": "a."}\n{"id": "1", "text": "b."}\n', "used twice: '1'"),
        ("x.jsonl", b'{"id": "a\\nb", "text": "a."}\n', "control character"),
        ("x.jsonl", b'{"id": "", "text": "a."}\n', "is empty"),
        ("x.jsonl", b'{"id": "\\ud800", "text": "a."}\n', "surrogate"),
        ("x.jsonl", b'{"id": 1, "text": "\xff"}\n', "line 1: not UTF-8"),
        ("x.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("x.pdf", b"%PDF", "ending '.pdf' is not one of"),
        ("na\nme.txt", b"A text.", "control character"),
    ],
)
def test_bad_documents_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    encoder = LengthEncoder()
    with pytest.raises(InvalidFile, match=message):
        run([tmp_path / name], tmp_path / "c.safetensors", encoder)
    assert encoder.calls == 0 and not (tmp_path / "c.safetensors").exists()


def test_a_lone_surrogate_in_a_text_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 1, "text": "odd \\ud800 one."}\n')
    run([tmp_path / "x.jsonl"], tmp_path / "c.safetensors")
    assert load_corpus(tmp_path / "c.safetensors").texts == ["odd ? one."]


def test_paths_that_are_not_documents(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no such file or folder"):
        list_documents([tmp_path / "none"])
    with pytest.raises(InvalidFile, match=r"no \.txt"):
        list_documents([tmp_path])
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    with pytest.raises(InvalidFile, match="no regular file"):
        list_documents([tmp_path / "loop.txt"])


def test_a_loop_of_folders_ends(docs: Path) -> None:
    os.symlink(docs, docs / "deep" / "up")
    os.symlink(docs / "deep", docs / "deep" / "self")
    assert [name for name, _ in list_documents([docs]).files] == ["deep/two", "more", "one"]


def test_documents_of_one_name(docs: Path, tmp_path: Path) -> None:
    (docs / "one.md").write_text("Another.")
    with pytest.raises(InvalidFile, match="used twice: 'one'"):
        run([docs], tmp_path / "c.safetensors")


def test_markdown_keeps_every_word() -> None:
    assert plain("# A *b*\ntext [l](u)\n## C ##\n![i](p) `code`") == "\nA *b*\n\ntext l\n\nC\n\ni `code`"
    assert list(read_documents([])) == []


def test_unfit_vectors_are_refused(docs: Path, tmp_path: Path) -> None:
    class Broken(LengthEncoder):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts), 3), np.float32)

    with pytest.raises(InvalidFile, match="chunk 0: all zero"):
        run([docs], tmp_path / "c.safetensors", Broken())
