"""faiss proposes: most of what an exact search finds, the same again from its cache; and a clear word where
it is missing.
"""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import IOFailed, SetupInvalid
from mlx_lvm.ranking import search as approximate
from mlx_lvm.ranking.search import cache_folder, shortlist, shortlists

with_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="pip install 'mlx-lvm[faiss]'")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@with_faiss
def test_most_of_what_an_exact_search_finds(small: Corpus, cache: Path) -> None:
    x = small.numpy() / np.linalg.norm(small.numpy(), axis=1, keepdims=True)
    generator, recall = np.random.default_rng(0), []
    rows = generator.choice(len(small), 40, replace=False)
    queries = x[rows] + 0.1 * generator.standard_normal((40, small.dim)).astype(np.float32)
    for query, found in zip(queries, shortlists(small, queries, 20), strict=True):
        assert len(set(found.tolist())) == len(found) == 20
        assert (np.diff(x[found] @ query) <= 1e-6).all()
        recall.append(len(set(found.tolist()) & set(np.argsort(-x @ query)[:20].tolist())) / 20)
    assert np.mean(recall) > 0.8
    (kept,) = cache.iterdir()
    assert kept.name == f"{small.sha256}.faiss"


@with_faiss
def test_the_index_is_built_once(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    query = small.numpy(np.array([7]))[0]
    first = shortlist(small, query, 9)
    monkeypatch.setattr(approximate, "_build", None)
    assert (shortlist(small, query, 9) == first).all()


@with_faiss
def test_a_damaged_index_is_named(small: Corpus, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{small.sha256}.faiss").write_bytes(b"no index")
    with pytest.raises(IOFailed, match=f"{small.sha256}.faiss"):
        shortlist(small, small.numpy(np.array([7]))[0], 9)


def test_without_faiss(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SetupInvalid, match=r"pip install 'mlx-lvm\[faiss\]'"):
        shortlist(replace(small, sha256=""), small.numpy(np.array([7]))[0], 9)


@with_faiss
def test_faiss_is_never_loaded_beside_what_loads_torch(small: Corpus) -> None:
    """On macOS the OpenMP of both ends the process."""
    shortlist(small, small.numpy(np.array([7]))[0], 9)
    assert "faiss" not in sys.modules
    code = "import sys, mlx_lvm.core.faiss_process; print({'torch', 'mlx.core'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )
