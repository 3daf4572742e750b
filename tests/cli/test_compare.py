"""`lvm compare`: runs found by themselves, table, Markdown, JSON, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ with two models of one epoch; one has a summary."""
    from mlx_lvm.training.config import TrainConfig
    from mlx_lvm.training.session import start_run

    root = tmp_path_factory.mktemp("work")
    for kind, sizes in (
        ("amn", {"attention_dim": 4, "hidden_dim": 8}),
        ("lstm", {"hidden_dim": 8, "layers": 1}),
    ):
        start_run(
            kind, sizes, TrainConfig(corpus=str(small_file), epochs=1), root / "runs" / f"{kind}-1"
        ).train()
    (root / "runs/amn-1/summary.json").write_text('{"best_epoch": 1, "epochs": 1, "seconds": 3.2}')
    return root


def test_every_run_under_runs(lvm: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ran = lvm("compare", "--json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert {row["model"] for row in result["rows"]} == {"amn-1", "lstm-1"} and result["corpus"] == "small"
    for row in result["rows"]:
        assert {
            "parameters",
            "best_epoch",
            "cosine_ci",
            "gain",
            "gain_ci",
            "p_holm",
            "mrr",
            "seconds",
            "latency_ms",
        } <= set(row)
        assert row["seconds"] == (3.2 if row["model"] == "amn-1" else None)
    for row in result["rows"]:
        assert f"{row['cosine']:.4f}" in ran.err  # the table goes beside the object


def test_markdown(lvm: Callable, folder: Path) -> None:
    ran = lvm("compare", folder / "runs/lstm-1", "--markdown", "--max-windows", 40)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].startswith("| model | parameters | best epoch | cosine |") and set(lines[1]) == {"|", "-"}
    assert lines[2].startswith("| lstm-1 | ") and lines[-1 if lines[-1] else -2].startswith(
        "small, test: 40 windows"
    )


def test_mistakes(lvm: Callable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected, words, arguments in (
        (2, "no finished run under runs/", []),
        (2, "unknown model 'anm'", ["anm"]),
        (3, "no such file", ["nowhere/run"]),
        (2, "unknown split 'best'", [folder / "runs/amn-1", "--split", "best"]),
    ):
        ran = lvm("compare", *arguments, "--json")
        assert (ran.code, ran.out) == (expected, ""), ran.err
        assert words in ran.err
