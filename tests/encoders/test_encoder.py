"""Vectors of small random encoders against sentence-transformers, whatever the batch they stand in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.encoders import encoder as encoder_module
from mlx_lvm.encoders import parallel
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.encoders.mpnet import FURTHEST
from mlx_lvm.encoders.positions import buckets
from mlx_lvm.errors import NonFiniteError, UsageError

from ..helpers import reference

Small = Callable[[str, int], Path]
pytestmark = pytest.mark.filterwarnings("default")  # of libraries that are not ours
TEXTS = [
    "The whale sings.",
    "",
    "money",
    "deep cold sea in of a to the " * 20,
    "a 😀 rose",
    "<pad> [PAD] the [CLS] </s> <s> [SEP]",
    "ירח مرحبا",
    *(f"money rose {n} times" for n in range(20)),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "mpnet", "t5"])
@pytest.mark.parametrize("seed", range(4))
def test_vectors_are_those_of_sentence_transformers(small: Small, kind: str, seed: int) -> None:
    ours, theirs = TextEncoder.load(small(kind, seed)), reference(small(kind, seed))
    assert ours.tokens.ids(TEXTS) == theirs.tokenizer(TEXTS, truncation=True)["input_ids"]
    expected = theirs.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode(TEXTS), expected, atol=2e-6)
    assert ours.dim == expected.shape[1]


@pytest.mark.slow
def test_buckets_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    mpnet = pytest.importorskip("transformers.models.mpnet.modeling_mpnet").MPNetEncoder
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5").T5Attention
    offsets = torch.arange(600)[None, :] - torch.arange(600)[:, None]
    expected = mpnet.relative_position_bucket(offsets, num_buckets=32, max_distance=FURTHEST).numpy()
    np.testing.assert_array_equal(buckets(600, 32, FURTHEST), expected)
    for count, furthest in ((32, 128), (16, 20), (64, 256), (8, 50)):
        expected = t5._relative_position_bucket(offsets, True, count, furthest).numpy()
        np.testing.assert_array_equal(buckets(600, count, furthest), expected)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "t5"])
def test_a_text_has_its_vector_in_any_company(small: Small, kind: str) -> None:
    encoder = TextEncoder.load(small(kind, 1))
    together = encoder.encode(TEXTS)
    for row in (0, 1, 3):
        np.testing.assert_allclose(encoder.encode([TEXTS[row]])[0], together[row], atol=1e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[::-1], together, atol=1e-6)
    encoder.batch_size = 1
    np.testing.assert_allclose(encoder.encode(TEXTS), together, atol=1e-6)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_same_bytes_again_with_a_stream_for_each_core(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [4]

    def blas_threads(count: int | None = None) -> int:
        before = threads[-1]
        if count is not None:
            threads.append(count)
        return before

    monkeypatch.setattr(parallel, "blas_threads", blas_threads)
    monkeypatch.setattr(encoder_module, "CPU_TOKENS", 64)
    encoder = TextEncoder.load(small("mpnet", 0))
    with mx.stream(mx.cpu):
        found = encoder.encode(TEXTS * 5)
        np.testing.assert_array_equal(encoder.encode(TEXTS * 5), found)
    np.testing.assert_allclose(found[: len(TEXTS)], encoder.encode(TEXTS), atol=1e-6)
    if mx.default_device() == mx.Device(mx.cpu):
        assert 1 in threads and threads[-1] == 4  # lent while it lasts, given back after


def test_streams_get_their_pieces_in_turn() -> None:
    started: list[tuple[int, int]] = []

    def job(number: int, pieces: int) -> Iterator[mx.array]:
        for piece in range(pieces):
            started.append((piece, number))
            yield mx.array([number, piece])

    streams = [mx.default_stream(mx.default_device())] * 3
    last = parallel.by_turns([job(0, 3), job(1, 1), job(2, 2)], streams)
    assert started == sorted(started)
    assert [array.tolist() for array in last] == [[0, 2], [1, 0], [2, 1]]


@pytest.mark.parametrize("kind", ["bert", "mpnet", "t5"])
@pytest.mark.parametrize(("dtype", "close"), [("float16", 0.9999), ("bfloat16", 0.998)])
def test_half_precision_is_near(small: Small, kind: str, dtype: str, close: float) -> None:
    full, half = TextEncoder.load(small(kind, 0)), TextEncoder.load(small(kind, 0), dtype)
    assert (full.encode(TEXTS) * half.encode(TEXTS)).sum(1).min() > close
    assert half.model.dtype == getattr(mx, dtype)


@pytest.mark.slow
def test_prompts_stand_before_the_text_and_may_be_left_out_of_the_mean(small: Small, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "prompted"
    shutil.copytree(small("bert", 0), folder)
    settings = {"prompts": {"query": "money rose: ", "document": "sea: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    for include in (True, False):
        pooling = json.loads((folder / "1_Pooling" / "config.json").read_text()) | {"include_prompt": include}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        ours, theirs = TextEncoder.load(folder), reference(folder)
        for prompt in (None, "sea: "):
            expected = theirs.encode(TEXTS[:1] + TEXTS[4:], normalize_embeddings=True, prompt=prompt)
            np.testing.assert_allclose(ours.encode(TEXTS[:1] + TEXTS[4:], prompt), expected, atol=2e-6)


def test_numbers_that_break_are_said(small: Small) -> None:
    encoder = TextEncoder.load(small("bert", 0))
    layer = encoder.model.blocks[0].intermediate.dense
    layer.weight = mx.full(layer.weight.shape, mx.nan)
    with pytest.raises(NonFiniteError, match="NaN"):
        encoder.encode(["the whale"])


def test_an_unknown_dtype_is_named(small: Small) -> None:
    with pytest.raises(UsageError, match="float8"):
        TextEncoder.load(small("bert", 0), "float8")


def test_too_long_counts_what_is_cut(small: Small) -> None:
    encoder = TextEncoder.load(small("bert", 0))
    assert encoder.too_long(["the " * 38, "the " * 39, "x"]) == 1  # two of the 40 tokens are special
