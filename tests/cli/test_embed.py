"""`lvm embed` with a real model where there is one, and its messages where there is none."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.ranking.query import read_query

Lvm = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("default")  # of libraries that are not ours

TEXT = {
    "whales": "Whales breathe air. They surface to do so. Some dive for an hour. The sea is deep and cold "
    "there.",
    "money": "Interest rates rose in March. Banks lend less then. Prices fell a little. Nobody was surprised "
    "by it.",
}


@pytest.fixture
def model(minilm_folder: Path) -> Path:
    return minilm_folder


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
    """Needs the encoder of the shipped corpora (440 MB) and, for a rule that loses closing quotes, their
    source texts.
    """
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


@pytest.mark.parametrize(("library", "extra"), [("tokenizers", "embed"), ("huggingface_hub", "embed")])
def test_without_the_library(
    lvm: Lvm,
    docs: Path,
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    encoder = model if library == "tokenizers" else "sentence-transformers/no-such-model"
    ran = lvm("embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", encoder)
    assert ran.code == 3 and f"pip install 'mlx-lvm[{extra}]'" in ran.err


def test_the_other_engine(
    lvm: Lvm, docs: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    command = ["embed", docs, "--encoder", model, "--dtype", "f32", "--chunk-min", 20, "--chunk-max", 60]
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    assert lvm(*command, "--out", ours).code == 0
    assert lvm(*command, "--out", theirs, "--engine", "torch", "--device", "cpu").code == 0
    a, b = load_corpus(ours), load_corpus(theirs)
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-6)
    assert a.card == b.card and not a.card.differences(b.card)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    ran = lvm(*command, "--out", tmp_path / "c.safetensors", "--engine", "torch")
    assert ran.code == 3 and "pip install 'mlx-lvm[embed-torch]'" in ran.err
    assert lvm(*command, "--out", tmp_path / "c.safetensors", "--engine", "onnx").code == 2


def test_a_corpus_of_the_same_encoder_is_compared(lvm: Lvm, docs: Path, tmp_path: Path, model: Path) -> None:
    """A folder that calls itself the shipped corpora's encoder and is another one."""
    named = tmp_path / "all-mpnet-base-v2"
    shutil.copytree(model, named)
    ran = lvm("embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", named, "--json")
    found = json.loads(ran.out)
    assert {"sotu", "moby"} <= set(found["other_space"]) and not found["same_space"]
    assert "but other vectors" in ran.err and "dim 384 against 768" in ran.err


def test_without_network_and_model(
    lvm: Lvm, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub", reason="pip install 'mlx-lvm[embed]'")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    ran = lvm("embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", "nobody/no-such-model")
    assert ran.code == 3 and "--encoder FOLDER" in ran.err and "nobody/no-such-model" in ran.err
    (tmp_path / "hollow").mkdir()
    ran = lvm("embed", docs, "--out", tmp_path / "c.safetensors", "--encoder", tmp_path / "hollow")
    assert ran.code == 3 and "config.json: no such file" in ran.err


def test_wrong_usage(lvm: Lvm, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.safetensors"
    assert lvm("embed", docs).code == 2
    assert lvm("embed", docs, "--out", out, "--dtype", "f64").code == 2
    assert lvm("embed", docs, "--out", out, "--chunk-min", "900", "--chunk-max", "100").code == 2
    assert lvm("embed", docs, "--out", out, "--encoder", tmp_path / "nowhere").code == 3
    out.write_text("mine")
    assert lvm("embed", docs, "--out", out).code == 2 and out.read_text() == "mine"
    assert "Examples:" in lvm("embed", "--help").out
