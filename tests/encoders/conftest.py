"""Encoders to look at: small random ones, and all-MiniLM-L6-v2."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.encoders.encoder import TextEncoder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """The folder of a small random encoder: small("bert", 0)."""
    pytest.importorskip("tokenizers", reason="pip install 'mlx-lvm[embed]'")
    from mlx_lvm.parity.encoders.small import write_small

    made: dict[tuple[str, int], Path] = {}

    def folder(kind: str, seed: int) -> Path:
        if (kind, seed) not in made:
            made[kind, seed] = write_small(tmp_path_factory.mktemp("encoder") / f"{kind}-{seed}", kind, seed)
        return made[kind, seed]

    return folder


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> TextEncoder:
    return TextEncoder.load(minilm_folder)
