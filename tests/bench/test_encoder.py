"""`lvm bench encoder`: texts of the length asked for, both sides timed, and what it says of wrong usage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from mlx_lvm.bench.encoder import kernels_per_layer, measure, texts_of
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.errors import UsageError
from mlx_lvm.parity.encoders.small import write_small

Lvm = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("default")  # of libraries that are not ours


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("encoder") / "small", "bert", 0)


def test_texts_have_the_length_asked_for(folder: Path) -> None:
    encoder = TextEncoder.load(folder)
    texts = texts_of(encoder, 30, 5)
    assert len(set(texts)) == 5 and all(25 < length <= 30 for length in encoder.tokens.lengths(texts))
    with pytest.raises(UsageError, match="reads up to 40"):
        texts_of(encoder, 41, 1)


def test_each_side_is_called_in_turn(folder: Path) -> None:
    calls: list[int] = []
    row = measure(TextEncoder.load(folder), lambda texts: calls.append(len(texts)), 3, 20, 0)
    assert calls == [3] * 4  # once to warm up
    assert row.ratio == pytest.approx(row.torch_ms / row.mlx_ms)
    assert row.mlx_rate == pytest.approx(3000 / row.mlx_ms)


def test_kernels_are_counted(folder: Path) -> None:
    """Six products with weights, two of the attention and two norms are the least; views are none."""
    assert 10 <= kernels_per_layer(TextEncoder.load(folder), 16, 2) < 80


@pytest.mark.slow
def test_the_command(lvm: Lvm, folder: Path) -> None:
    pytest.importorskip("sentence_transformers")
    ran = lvm(
        "bench",
        "encoder",
        folder,
        "--batches",
        "1,4",
        "--tokens",
        20,
        "--seconds",
        0,
        "--device",
        "cpu",
        "--json",
    )
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["rows"]
    assert [row["batch"] for row in rows] == [1, 4] and all(row["torch_ms"] > 0 for row in rows)
    assert lvm("bench", "encoder", folder, "--batches", "x").code == 2
    assert lvm("bench", "encoder", folder, "--against", "jax").code == 2
