"""Written piece by piece in any order, whole at the end or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlx_lvm.config import parse_size
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.storage.reader import open_corpus
from mlx_lvm.data.storage.rows import quantise, to_stored
from mlx_lvm.data.storage.writer import CorpusWriter, shard_cuts
from mlx_lvm.errors import InvalidFile, IOFailed, UsageError

from ..helpers import write_corpus

ROWS = np.random.default_rng(3).standard_normal((50, 24)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
OFFSETS, NAMES, CARD = np.array([0, 20, 21, 50]), ["a", "b", "c"], EncoderCard(dim=24)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "I8"])
def test_pieces_in_any_order_give_the_bytes_of_the_whole(tmp_path: Path, dtype: str) -> None:
    write_corpus(tmp_path / "whole.safetensors", ROWS, OFFSETS, NAMES, CARD, {"source": "x"}, dtype)
    with CorpusWriter(
        tmp_path / "pieces.safetensors", OFFSETS, NAMES, CARD, {"source": "x"}, dtype
    ) as writer:
        writer.put(30, ROWS[30:])
        order = np.random.default_rng(0).permutation(30)
        writer.put_rows(order, ROWS[order])
        writer.finish()
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "pieces.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pieces.safetensors", "whole.safetensors"]


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    for card in (EncoderCard(), EncoderCard(dim=23)):
        with pytest.raises(ValueError, match=f"in a corpus of {card.dim} dimensions"):
            write_corpus(tmp_path / "x.safetensors", ROWS, OFFSETS, NAMES, card, {})
    assert not list(tmp_path.iterdir())


def test_rounding_is_that_of_the_device_and_of_safetensors(tmp_path: Path) -> None:
    ties = np.concatenate(
        [ROWS, 1 + np.arange(24, dtype=np.float32)[None] * 2**-8]
    )  # half way between two, every other one
    bits, _ = to_stored(ties, "BF16")
    np.testing.assert_array_equal(bits, np.array(mx.array(ties).astype(mx.bfloat16).view(mx.uint16)))
    write_corpus(tmp_path / "h.safetensors", ROWS, OFFSETS, NAMES, CARD, {}, "F16")
    np.testing.assert_array_equal(load_file(tmp_path / "h.safetensors")["vectors"], ROWS.astype(np.float16))
    small, scales = quantise(ROWS)
    np.testing.assert_allclose(scales, np.abs(ROWS).max(axis=1) / 127, rtol=1e-6)
    assert (
        np.abs(small * scales[:, None] - ROWS).max() <= scales.max() / 2 * 1.0001
        and np.abs(small).max() == 127
    )


def test_shards_close_before_the_document_that_would_pass_the_size() -> None:
    assert shard_cuts(np.array([0, 4, 6, 9, 20, 21]), 10, 60) == [
        0,
        2,
        3,
        4,
        5,
    ]  # 4+2 rows; 3; 11 alone though larger; 1
    assert shard_cuts(np.array([0, 4]), 10, 1) == [0, 1]


def test_a_bad_row_leaves_nothing(tmp_path: Path) -> None:
    bad = ROWS.copy()
    bad[20] = np.nan
    for size in (None, 2000):
        with (
            pytest.raises(InvalidFile, match=r"row (20|0) \(document 'b', chunk 0\)"),
            CorpusWriter(tmp_path / "x", OFFSETS, NAMES, CARD, {}, "F32", shard_bytes=size) as writer,
        ):
            writer.put(0, bad)
            writer.finish()
        assert list(tmp_path.iterdir()) == []


def test_float16_cannot_hold_everything(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidFile, match=r"row 0 .*NaN or Inf"),
        CorpusWriter(tmp_path / "x", OFFSETS, NAMES, CARD, {}, "F16", as_drawn=True) as writer,
    ):
        writer.put(0, ROWS * 1e6)
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    write_corpus(path, ROWS, OFFSETS, NAMES, CARD, {})
    before = path.read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(IOFailed, match="No space left"):
        write_corpus(path, ROWS * 2, OFFSETS, NAMES, CARD, {})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        CorpusWriter(tmp_path / "x", OFFSETS, NAMES, CARD, {})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="other things than a corpus"):
        CorpusWriter(tmp_path / "folder", OFFSETS, NAMES, CARD, {}, shard_bytes=1000, overwrite=True)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"


def test_sharded_folders_are_replaced_whole(tmp_path: Path) -> None:
    for factor, shard_bytes, count in ((1, 1000, 3), (-1, 100_000, 1)):
        with CorpusWriter(
            tmp_path / "x", OFFSETS, NAMES, CARD, {}, "F32", shard_bytes=shard_bytes, overwrite=True
        ) as writer:
            writer.put(0, ROWS * factor)
            writer.finish(f"text {row}" for row in range(50))
        corpus = load_corpus(tmp_path / "x")
        np.testing.assert_array_equal(corpus.numpy(), ROWS * factor)
        assert corpus.texts == [f"text {row}" for row in range(50)]
        assert len(open_corpus(tmp_path / "x").shards) == count and [p.name for p in tmp_path.iterdir()] == [
            "x"
        ]


def test_texts_of_an_older_corpus_go_with_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for texts in ([f"text {row}" for row in range(50)], None):
        with CorpusWriter(path, OFFSETS, NAMES, CARD, {}, overwrite=True) as writer:
            writer.put(0, ROWS)
            writer.finish(texts)
        assert load_corpus(path).texts == texts


def test_sizes() -> None:
    assert [parse_size(text) for text in ("512", "1k", "2M", "1.5G", "3GiB", "1 T".replace(" ", ""))] == [
        512,
        1024,
        2 << 20,
        3 << 29,
        3 << 30,
        1 << 40,
    ]
    for text in ("", "G", "2X", "-1M", "0", "nan", "inf"):
        with pytest.raises(UsageError):
            parse_size(text)


def test_a_file_replaces_a_folder_of_shards(tmp_path: Path) -> None:
    for shard_bytes in (1000, None, 1000):
        with CorpusWriter(
            tmp_path / "x", OFFSETS, NAMES, CARD, {}, "F32", shard_bytes=shard_bytes, overwrite=True
        ) as writer:
            writer.put(0, ROWS)
            writer.finish()
        np.testing.assert_array_equal(load_corpus(tmp_path / "x").numpy(), ROWS)
        assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_more_shards_than_a_process_may_open_on_a_mac(tmp_path: Path) -> None:
    """Written, opened, checked and read by blocks where 256 open files are allowed, as macOS has it."""
    code = (
        "import resource as r, sys, numpy as np\nfrom mlx_lvm.data.card import EncoderCard\nfrom "
        "mlx_lvm.data.storage.reader import open_corpus\nfrom mlx_lvm.data.storage.stream import "
        "RowReader\nfrom mlx_lvm.data.storage.writer import CorpusWriter\nr.setrlimit(r.RLIMIT_NOFILE, (256, "
        "r.getrlimit(r.RLIMIT_NOFILE)[1]))\nrows, names = np.eye(900, 8, dtype=np.float32) + 1, [str(k) for "
        "k in range(300)]\noffsets, card = 3 * np.arange(301), EncoderCard(dim=8)\nwith "
        "CorpusWriter(sys.argv[1], offsets, names, card, {}, 'I8', shard_bytes=30) as w: w.put(0, rows); "
        "w.finish()\ncorpus = open_corpus(sys.argv[1]); print(len(corpus.shards), corpus.verify())\nreader = "
        "RowReader(corpus); vectors, scales = reader.buffers(900)\nreader.fill(np.array([0]), "
        "np.array([900]), np.array([0]), vectors, scales)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path / "c"], capture_output=True, text=True)
    assert out.stdout.split("\n")[0] == "300 []" and not out.stderr, out.stderr
