"""`lvm predict`: the JSON object, the table, the refusals."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import assign
from mlx_lvm.hub.export import write_model
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict

from ..helpers import write_corpus


@pytest.mark.slow
def test_json(lvm: Callable, small_file: Path, small: Corpus) -> None:
    name = small.names[4]
    place = ("--corpus", small_file, "--document", name, "--at", 8, "--steps", 2, "--top", 3)
    ran = lvm("predict", "last", *place, "--rank", "prediction", "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert [len(step["nearest"]) for step in result["steps"]] == [3, 3] and result["rank"] == "prediction"
    x = small.numpy() / np.linalg.norm(small.numpy(), axis=1, keepdims=True)
    start = int(small.offsets[4])
    np.testing.assert_allclose(
        result["steps"][1]["vector"], x[start + 7], atol=1e-6
    )  # repeating the last chunk, twice
    scores = x @ x[start + 7]
    scores[start + 3 : start + 8] = -2
    nearest = result["steps"][0]["nearest"][0]
    row = int(scores.argmax())
    assert (nearest["document"], nearest["chunk"]) == (
        small.names[int(small.document_of(np.array([row]))[0])],
        row - start_of(small, row),
    )
    assert (
        nearest["score"] == pytest.approx(nearest["cosine"], abs=1e-6)
        and "probability" not in nearest
        and "set" not in result["steps"][0]
    )
    assert result["steps"][0]["truth"]["chunk"] == 8 and ran.err.count("nearest of") == 2


def test_json_of_a_ranking(lvm: Callable, small_file: Path, small: Corpus) -> None:
    place = ("--corpus", small_file, "--document", small.names[4], "--at", 8)
    ran = lvm("predict", "mean", *place, "--top", 1000, "--coverage", 0.5, "--json")
    assert ran.code == 0, ran.err
    (step,) = json.loads(ran.out)["steps"]
    assert {"document", "chunk", "score", "cosine", "probability", "in_set"} == set(step["nearest"][0])
    assert sum(one["probability"] for one in step["nearest"]) == pytest.approx(1, abs=1e-4)
    assert step["set"]["coverage"] == 0.5 and step["set"]["size"] == sum(
        one["in_set"] for one in step["nearest"]
    )
    scores = [one["score"] for one in step["nearest"]]
    assert scores == sorted(scores, reverse=True) and -1 <= step["expected_cosine"] <= 1
    asked = lvm("predict", "mean", *place, "--query", f"{small.names[4]}:12", "--json")
    assert json.loads(asked.out)["query"] == f"{small.names[4]}:12"
    assert json.loads(asked.out)["steps"][0]["nearest"] != step["nearest"][:5]


def start_of(corpus: Corpus, row: int) -> int:
    return int(corpus.offsets[int(corpus.document_of(np.array([row]))[0])])


def test_text_and_a_document_by_number(lvm: Callable) -> None:
    ran = lvm("predict", "mean", "--corpus", "moby", "--document", 3, "--at", 6)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "chunk 6 from the 5 before it" in lines[0] and lines[1].startswith("last read: ")
    assert any(line.startswith("truth, rank ") for line in lines)
    assert re.search(r"ranked by (prediction|last chunk|document so far|the prediction alone)", ran.out)
    assert "probability  cosine" in ran.out
    assert re.search(
        r"90% of the time the next chunk is among the first N: "
        r"N is [\d,]+ of 1,931 here; the truth is (not )?among them",
        ran.out,
    )
    assert re.search(
        r"cosine to be expected between the prediction and the next chunk: 0\.\d\d; it was 0\.\d\d", ran.out
    )
    sure = lvm("predict", "mean", "--corpus", "moby", "--document", 3, "--coverage", 0.99)
    assert "the validation documents are too few for that" in sure.out and "it was" not in sure.out


def test_a_corpus_without_validation_documents(lvm: Callable, tmp_path: Path, small: Corpus) -> None:
    names = [name for name, part in zip(small.names, assign(small.names, 0), strict=True) if part == 0][:3]
    path = tmp_path / "train.safetensors"
    write_corpus(path, small.numpy(np.arange(72)), np.array([0, 24, 48, 72]), names, small.card, {}, "F32")
    model = tmp_path / "model"
    weights = build(config_from_dict({"model_type": "amn", "dim": 32, "attention_dim": 4, "hidden_dim": 8}))
    write_model(Loaded(weights, "mine"), model)
    ran = lvm("predict", model, "--corpus", path, "--document", 0)
    assert ran.code == 0, ran.err
    assert (
        "note: ranked by the prediction alone" in ran.out
        and "ranked by the prediction alone" in ran.out.splitlines()[3]  # the first is a warning
    )
    ran = lvm("predict", model, "--corpus", path, "--document", 0, "--query", f"{names[1]}:3")
    assert ran.code == 2 and "nothing to fit them on" in ran.err


def test_a_released_model_needs_no_fit_and_loads_little(tmp_path: Path) -> None:
    """In a process of its own: what it imports, and that the stored ranking serves."""
    code = (
        "import json, sys\nsys.argv = ['lvm', 'predict', 'amn', '--document', '1961_john_f_kennedy_d', "
        "'--at', '20', '--json']\nfrom mlx_lvm.ranking import ranking\nranking.fit_ranking = None\nfrom "
        "mlx_lvm.cli.main import main\ntry: main()\nexcept SystemExit: "
        "pass\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (step,) = json.loads(ran.stdout)["steps"]
    assert step["truth"]["rank"] < 100 < 1000 < step["set"]["size"]
    loaded = {name.split(".")[0] for name in json.loads(ran.stderr.splitlines()[-1])}
    heavy = {
        "torch",
        "matplotlib",
        "sentence_transformers",
        "transformers",
        "faiss",
        "scipy",
        "optuna",
        "pyarrow",
        "sklearn",
    }
    assert loaded & {*heavy, "vec2text", "tensorboard", "wandb"} == set()
    assert {"mlx_lvm.training.trainer", "mlx_lvm.parity", "mlx.optimizers.schedulers"} & loaded == set()


def test_mistakes(lvm: Callable, small_file: Path, small: Corpus) -> None:
    for expected, words, arguments in (
        (2, "no document 'nobody'", ["last", "--document", "nobody"]),
        (2, "--at 99: document", ["last", "--document", small.names[0], "--at", 99]),
        (2, "unknown model 'lsat'", ["lsat", "--document", small.names[0]]),
        (2, "--document, or give one with --text", ["last"]),
        (
            2,
            "--rank best: expected one of hybrid, prediction",
            ["last", "--document", small.names[0], "--rank", "best"],
        ),
        (
            2,
            "--query belongs with --rank hybrid",
            ["last", "--document", small.names[0], "--rank", "prediction", "--query", "war"],
        ),
        (2, "--coverage", ["last", "--document", small.names[0], "--coverage", 1.5]),
        (2, "has chunks 0 to 23", ["last", "--document", small.names[0], "--query", f"{small.names[3]}:24"]),
        (3, "no .npy file that can be read", ["last", "--document", small.names[0], "--query", "none.npy"]),
        (2, "--steps", ["last", "--document", small.names[0], "--steps", 0]),
    ):
        ran = lvm("predict", *arguments, "--corpus", small_file, "--json")
        assert (ran.code, ran.out) == (expected, ""), ran.err
        assert words in ran.err
