"""`lvm eval`: the table, the JSON object, files and exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

from mlx_lvm.evaluation.baselines import NAMES


def test_json(lvm: Callable, small_file: Path, tmp_path: Path) -> None:
    ran = lvm("eval", "ridge", "--corpus", small_file, "--out", tmp_path / "e", "--json")
    assert ran.code == 0
    result = json.loads(ran.out)
    assert set(NAMES) < set(result["metrics"])
    for entry in result["metrics"].values():
        assert {"cosine", "cosine_ci", "centred_cosine", "recall_at_1", "recall_at_5", "recall_at_10", "mrr", "margin"} <= set(entry)
    assert result["metrics"]["oracle"]["mrr"] == 1
    assert result["verdict"]["sentence"] in ran.err
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == result


def test_table(lvm: Callable, small_file: Path) -> None:
    ran = lvm("eval", "last", "--corpus", small_file, "--max-windows", 40)
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()[2:15]] == [*NAMES, "oracle", "best-in-span", "random"]
    assert "last is " in ran.out and "best closed form in cosine" in ran.out and "chance R@1" in ran.out
    assert "note: 40 of" in ran.out


def test_mistakes(lvm: Callable, small_file: Path, tmp_path: Path) -> None:
    for expected, words, arguments in (
        (2, "unknown model 'anm'", ["anm"]),
        (2, "unknown corpus 'sotuu'. Did you mean 'sotu'", ["last", "--corpus", "sotuu"]),
        (2, "unknown split 'best'", ["last", "--corpus", small_file, "--split", "best"]),
        (3, "no such file", ["last", "--corpus", tmp_path / "none.safetensors"]),
        (3, "no window of 90", ["last", "--corpus", small_file, "--context", 90]),
    ):
        ran = lvm("eval", *arguments, "--json")
        assert (ran.code, ran.out) == (expected, "")
        assert words in ran.err
