"""`lvm data`: what it prints, its exit codes, and the way from another file to a corpus that can be trained
on.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core.files.safetensors import open_safetensors
from mlx_lvm.data.corpus import load_corpus

Lvm = Callable[..., Any]


def test_info_of_a_shipped_corpus(lvm: Lvm) -> None:
    ran = lvm("data", "info", "moby", "--json")
    assert ran.code == 0 and len(ran.out.splitlines()) == 1
    found = json.loads(ran.out)
    assert (found["documents"], found["vectors"], found["dim"], found["windows"], found["problems"]) == (
        114,
        1936,
        768,
        1366,
        [],
    )
    corpus = load_corpus("moby")
    rows = corpus.numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    inside = corpus.document_of(np.arange(1, len(rows))) == corpus.document_of(np.arange(len(rows) - 1))
    assert found["lag_profile"][0] == pytest.approx(
        (rows[1:] * rows[:-1]).sum(axis=1)[inside].mean(), abs=1e-5
    )
    assert sum(part["windows"] for part in found["splits"].values()) == 1366
    assert found["encoder"]["pooling"] == "mean" and found["encoder"]["probes"] is True
    text = lvm("data", "info", "moby").out
    for words in (
        "114",
        "1,936 of 768 dimensions",
        "Moby Dick",
        "r1",
        "all-mpnet-base-v2",
        "near pairs",
        "train",
    ):
        assert words in text


def test_check_of_shipped_corpora(lvm: Lvm) -> None:
    ran = lvm("data", "check", "moby", "--json")
    assert ran.code == 0 and json.loads(ran.out)["problems"] == []
    assert "No problems." in lvm("data", "check", "sotu", "--no-near").out


def test_the_approximate_search_and_its_remedy(lvm: Lvm, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = lvm("data", "check", "moby", "--approximate", "--json")
    assert ran.code == 0 and json.loads(ran.out)["duplicates"]["approximate"] is True
    assert "cosine above 0.97, approximate" in lvm("data", "info", "moby", "--approximate").out
    assert lvm("data", "check", "moby", "--approximate", "--no-near").code == 2
    monkeypatch.setitem(sys.modules, "faiss", None)
    ran = lvm("data", "check", "moby", "--approximate")
    assert ran.code == 3 and "pip install 'mlx-lvm[faiss]'" in ran.err


def test_check_tells_every_problem(lvm: Lvm, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "v.npz",
        vectors=np.random.default_rng(0).standard_normal((20, 4)),
        offsets=np.array([0, 10, 20]),
    )
    assert lvm("data", "convert", tmp_path / "v.npz", "--out", tmp_path / "v.safetensors").code == 0
    data = bytearray((tmp_path / "v.safetensors").read_bytes())
    start = open_safetensors(tmp_path / "v.safetensors").tensors["vectors"].start
    data[start + 16 * 3 : start + 16 * 4] = bytes(16)
    (tmp_path / "v.safetensors").write_bytes(data)
    ran = lvm("data", "check", tmp_path / "v.safetensors", "--json")
    problems = json.loads(ran.out)["problems"]
    assert (
        ran.code == 1
        and len(problems) == 2
        and "row 3 (document 'document-000000', chunk 3): all zero" in problems[1] + problems[0]
    )
    assert lvm("data", "info", tmp_path / "v.safetensors").code == 3
    (tmp_path / "v.safetensors").write_bytes(data[:-1])
    assert lvm("data", "check", tmp_path / "v.safetensors").code == 1
    assert lvm("data", "check", tmp_path / "none.safetensors").code == 3
    assert lvm("data", "check", "sotuu").code == 2


def test_leakage_fails_the_check_and_split_mends_it(lvm: Lvm, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((60 * 8, 8)).astype(np.float32)
    rows[8 * 8 : 30 * 8] = rows[30 * 8 : 52 * 8]
    np.savez(tmp_path / "v.npz", vectors=rows, article_ids=np.arange(480) // 8)
    lvm("data", "convert", tmp_path / "v.npz", "--out", tmp_path / "v.safetensors")
    ran = lvm("data", "check", tmp_path / "v.safetensors")
    assert ran.code == 1 and "leakage" in ran.out and "--together" in ran.out
    assert (
        lvm("data", "check", tmp_path / "v.safetensors", "--max-leakage", "1").code == 1
    )  # whole documents are copies
    assert (
        lvm(
            "data", "split", tmp_path / "v.safetensors", "--together", "--out", tmp_path / "w.safetensors"
        ).code
        == 0
    )
    assert lvm("data", "check", tmp_path / "w.safetensors").code == 0


def test_convert_windows(lvm: Lvm, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    targets = np.arange(5, 30)
    np.savez(
        tmp_path / "w.npz",
        contexts=rows[targets[:, None] + np.arange(-5, 0)],
        targets=rows[targets],
        texts=np.array([None] * 25),
    )
    ran = lvm(
        "data",
        "convert",
        tmp_path / "w.npz",
        "--out",
        tmp_path / "w.safetensors",
        "--encoder",
        "unknown",
        "--json",
    )
    found = json.loads(ran.out)
    assert (
        found["documents"],
        found["vectors"],
        found["windows"],
        found["windows_read"],
        found["alone"],
    ) == (1, 30, 25, 25, 0)
    assert (
        "pickled" in found["left_out"][0] and load_corpus(tmp_path / "w.safetensors").card.model == "unknown"
    )
    again = lvm("data", "convert", tmp_path / "w.npz", "--out", tmp_path / "w.safetensors")
    assert again.code == 2 and "--overwrite" in again.err
    assert (
        lvm("data", "convert", tmp_path / "w.npz", "--out", tmp_path / "x.safetensors", "--like", "moby").code
        == 3
    )
    assert (
        lvm("data", "convert", tmp_path / "w.npz", "--out", tmp_path / "x.safetensors", "--dtype", "f31").code
        == 2
    )
    assert not (tmp_path / "x.safetensors").exists()


def test_synth_merge_subset_split(lvm: Lvm, tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    ran = lvm("data", "synth", "--out", a, "--documents", 40, "--dim", 16, "--json")
    found = json.loads(ran.out)
    assert found["documents"] == 40 and found["bayes_measured"] == pytest.approx(
        found["bayes_squared_error"], rel=0.1
    )
    assert found["bayes_cosine"] > found["mean_cosine"]
    assert lvm("data", "merge", a, a, "--out", b).code == 3
    assert lvm("data", "merge", a, "--out", b).code == 2
    assert lvm("data", "merge", a, "moby", "--out", b).code == 3
    assert (
        json.loads(lvm("data", "subset", a, "-d", "*-0*", "-d", "*5", "--out", b, "--json").out)["documents"]
        == 13
    )
    assert json.loads(lvm("data", "merge", a, b, "--prefix", "--out", c, "--json").out)["documents"] == 53
    assert load_corpus(c).names[0] == "a/synthetic-00"
    ran = lvm("data", "split", a, "--fractions", "0.5,0.5,0", "--out", tmp_path / "d.safetensors", "--json")
    parts = json.loads(ran.out)["splits"]
    assert parts["test"]["documents"] == 0 and parts["train"]["documents"] + parts["val"]["documents"] == 40
    assert lvm("data", "subset", a, "--out", tmp_path / "s", "--shard-size", "20K").code == 0
    np.testing.assert_array_equal(load_corpus(tmp_path / "s").numpy(), load_corpus(a).numpy())


@pytest.mark.parametrize("command", ["info", "check", "convert", "synth", "merge", "subset", "split"])
def test_help_has_an_example(lvm: Lvm, command: str) -> None:
    assert f"lvm data {command}" in lvm("data", command, "--help").out.split("Example:")[1]
