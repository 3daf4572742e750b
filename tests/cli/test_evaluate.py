"""`lvm eval`: the table, the JSON object, files and exit codes."""

import html
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.predictors.baselines import NAMES
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run

from ..helpers import write_corpus


@pytest.mark.slow
def test_json(lvm: Callable, small_file: Path, tmp_path: Path) -> None:
    ran = lvm("eval", "ridge", "--corpus", small_file, "--out", tmp_path / "e", "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert set(NAMES) < set(result["metrics"])
    for entry in result["metrics"].values():
        assert {
            "cosine",
            "cosine_ci",
            "centred_cosine",
            "recall_at_1",
            "recall_at_5",
            "recall_at_10",
            "mrr",
            "margin",
        } <= set(entry)
    assert result["metrics"]["oracle"]["mrr"] == 1
    assert result["verdict"]["headline"] in ran.err and result["verdict"]["sentence"] in ran.err
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == result
    assert {"direction", "rollout", "ablations", "difficulty", "cases"} < set(
        result
    ) and "attention" not in result
    page = (tmp_path / "e" / "report.html").read_text()
    assert (
        result["verdict"]["headline"] in page
        and "figure-rollout" in page
        and "lvm eval ridge --corpus" in page
    )


def test_table(lvm: Callable, small_file: Path) -> None:
    ran = lvm("eval", "last", "--corpus", small_file, "--max-windows", 40, "--quick")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("On 4 test documents, last predicts the next chunk ")
    assert (
        lines[1].startswith("last is ") and " the best baseline, " in lines[1] and " in cosine: " in lines[1]
    )
    begin = next(number for number, line in enumerate(lines) if line.startswith("last on small"))
    named = [line.split()[0] for line in lines[begin + 2 : begin + 7]]
    assert named[0] == "last" and named[-1] == "mean" and set(named) <= set(NAMES) and len(set(named)) == 5
    assert max(map(len, lines[begin : begin + 7])) <= 100
    assert "chance MRR" in ran.out and "note: 40 of" in ran.out and "rollout" not in ran.out


def test_the_whole_table(lvm: Callable, small_file: Path) -> None:
    ran = lvm("eval", "last", "--corpus", small_file, "--max-windows", 40, "--quick", "--all")
    lines = ran.out.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("last on small"))
    named = [line.split()[0] for line in lines[begin + 2 : begin + 15]]
    assert named == [*NAMES, "oracle", "best-in-span", "random"]
    assert "MRR (same document)" in lines[begin + 1] and "margin = " in ran.out


def test_a_model_made_for_ranking_is_shown_by_ranking(
    lvm: Callable, small_file: Path, tmp_path: Path
) -> None:
    config = TrainConfig(corpus=str(small_file), epochs=1)
    start_run("ramn", {"head": "retrieve", "rank": 8, "hidden_dim": 8}, config, tmp_path / "run").train()
    ran = lvm("eval", tmp_path / "run", "--corpus", small_file, "--quick", "--out", tmp_path / "e", "--json")
    assert ran.code == 0, ran.err
    result, lines = json.loads(ran.out), ran.err.splitlines()
    assert lines[0] == result["verdict"]["headline"] and "ranks the true next chunk" in lines[0]
    first = next(line for line in lines if line.startswith("run is "))
    assert first == result["verdict"]["sentence"] and " in MRR: " in first
    assert not any(line.startswith("run is ") and " in cosine: " in line for line in lines)
    begin = next(number for number, line in enumerate(lines) if line.startswith("run on small"))
    assert lines[begin + 1].split()[:2] == ["test", "MRR"]
    scores = [float(line.split()[1]) for line in lines[begin + 3 : begin + 6]]
    assert scores == sorted(scores, reverse=True)  # the best baselines, in MRR
    page = (tmp_path / "e" / "report.html").read_text()
    assert page.index(html.escape(first)) < page.index("<table>")
    assert "<th></th><th>MRR</th><th>Δ best baseline</th>" in page and 'aria-label="MRR"' in page


def test_the_closer_look(lvm: Callable, small_file: Path) -> None:
    ran = lvm("eval", "lag-filter", "--corpus", small_file)
    assert ran.code == 0, ran.err
    for words in (
        "direction: cosine with the chunk",
        "r1/c = ",
        "rollout, ",
        "ablations: ",
        "by difficulty",
        "better in ",
    ):
        assert words in ran.out


@pytest.mark.slow
def test_another_domain_and_the_arrow(lvm: Callable, small_file: Path, small: Corpus, tmp_path: Path) -> None:
    write_corpus(
        tmp_path / "away.safetensors",
        small.numpy()[:, ::-1],
        small.offsets,
        list(small.names),
        small.card,
        {},
        "F32",
    )
    config = TrainConfig(corpus=str(small_file), epochs=1)
    start_run("amn", {"attention_dim": 4, "hidden_dim": 8}, config, tmp_path / "run").train()
    flags = (
        "--quick",
        "--ood",
        tmp_path / "away.safetensors",
        "--arrow-of-time",
        "--arrow-epochs",
        1,
        "--out",
        tmp_path / "e",
    )
    ran = lvm("eval", tmp_path / "run", "--corpus", small_file, *flags, "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["ood"]["rows"][0]["there"]["cosine"] == result["ood"]["metrics"]["run"]["cosine"]
    page = (tmp_path / "e" / "report.html").read_text()
    whole = [
        html.escape(result["ood"]["whole"]["verdict"][metric]["sentence"])
        for metric in ("cosine", "centred.mrr")
    ]
    for words in (
        result["ood"]["verdict"]["sentence"],
        html.escape(result["arrow_of_time"]["sentence"]),
        *whole,
    ):
        assert words in page and html.unescape(words) in ran.err
    assert "figure-ood" in page


def test_mistakes(lvm: Callable, small_file: Path, tmp_path: Path) -> None:
    for expected, words, arguments in (
        (2, "unknown model 'anm'", ["anm"]),
        (2, "unknown corpus 'sotuu'. Did you mean 'sotu'", ["last", "--corpus", "sotuu"]),
        (2, "is an address: download the corpus", ["last", "--corpus", "https://hub/a.safetensors"]),
        (2, "unknown split 'best'", ["last", "--corpus", small_file, "--split", "best"]),
        (3, "no such file", ["last", "--corpus", tmp_path / "none.safetensors"]),
        (2, "--arrow-of-time trains a model", ["last", "--arrow-of-time"]),
        (
            2,
            "is the corpus that everything is fitted on",
            ["last", "--quick", "--corpus", small_file, "--ood", small_file],
        ),
        (3, "no window of 90", ["last", "--corpus", small_file, "--context", 90]),
    ):
        ran = lvm("eval", *arguments, "--json")
        assert (ran.code, ran.out) == (expected, "")
        assert words in ran.err
