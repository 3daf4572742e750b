"""What MLX may keep of freed arrays, and corpora that a device cannot hold in one array."""

from pathlib import Path
from typing import Any

import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.data import memory
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits that MLX's cache is given."""
    seen: list[int] = []
    monkeypatch.setattr(mx, "set_cache_limit", seen.append)
    return seen


def test_the_cache_is_a_part_of_what_may_be_used(limits: list[int], small_file: Path, tmp_path: Path) -> None:
    usual = memory.machine_memory() // 8
    load_corpus(small_file)
    load_or_sample(small_file)
    load_or_sample(small_file, memory=1 << 30)
    assert limits == [usual, usual, 1 << 28]
    limits.clear()
    sizes = {"attention_dim": 4, "hidden_dim": 4}
    for allowed in ("auto", "64M", "100K"):  # the last one is streamed
        start_run("amn", sizes, TrainConfig(corpus=str(small_file), memory=allowed), tmp_path / allowed)
    assert limits == [usual, 16 << 20, 25 << 10]


def test_a_corpus_is_one_array_of_the_device(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_corpus(small_file)
    real = mx.device_info()

    def small_gpu() -> dict[str, Any]:
        return real | {"max_buffer_length": 100_000}

    monkeypatch.setattr(mx, "device_info", small_gpu)
    assert memory.roomy() == memory.largest_array() == 100_000
    with pytest.raises(SetupInvalid, match="in one array"):
        load_corpus(small_file)
    assert len(load_or_sample(small_file)) < len(whole)
    assert len(load_or_sample(small_file, memory=1 << 30)) < len(whole)
