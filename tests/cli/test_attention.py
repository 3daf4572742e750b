"""`lvm attention`: the JSON object, the heat map, the picture, the refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.data.corpus import Corpus


@pytest.fixture(scope="module")
def runs(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An AMN and an LSTM of one epoch."""
    from mlx_lvm.training.config import TrainConfig
    from mlx_lvm.training.session import start_run

    root, out = tmp_path_factory.mktemp("runs"), {}
    for kind, sizes in (
        ("amn", {"attention_dim": 4, "hidden_dim": 8}),
        ("lstm", {"hidden_dim": 8, "layers": 1}),
    ):
        out[kind] = root / kind
        start_run(kind, sizes, TrainConfig(corpus=str(small_file), epochs=1), out[kind]).train()
    return out


def test_json_and_picture(
    lvm: Callable, small_file: Path, small: Corpus, runs: dict[str, Path], tmp_path: Path
) -> None:
    name = small.names[7]
    ran = lvm(
        "attention",
        runs["amn"],
        "--corpus",
        small_file,
        "--document",
        name,
        "--out",
        tmp_path / "a.png",
        "--json",
    )
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert {"by_position", "residual_share", "by_shift", "departures"} <= set(result)
    assert (
        sum(result["by_position"]) == pytest.approx(1)
        and len(result["weights"]) == result["windows"] == small.lengths[7] - 5
    )
    assert result["chunks"] == list(range(5, int(small.lengths[7])))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_heat_map_on_a_pipe(lvm: Callable, small_file: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    ran = lvm("attention", runs["amn"], "--corpus", small_file, "--out", tmp_path / "a.svg")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert (
        lines[1].split() == ["-5", "-4", "-3", "-2", "-1"]
        and sum(line.startswith("shift ") for line in lines) == 5
    )
    assert (
        "by position (-1 is the last chunk)" in ran.out
        and "residual share" in ran.out
        and "\x1b" not in ran.out
    )
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_mistakes(lvm: Callable, small_file: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    for expected, words, arguments in (
        (2, "lstm has no attention over its context", [runs["lstm"]]),
        (2, "a picture ends in .png or .svg", [runs["amn"], "--out", tmp_path / "a.pdf"]),
        (2, "no document 'nobody'", [runs["amn"], "--document", "nobody"]),
        (4, "cannot be written", [runs["amn"], "--out", "/proc/none/a.png"]),
    ):
        ran = lvm("attention", *arguments, "--corpus", small_file, "--json")
        assert (ran.code, ran.out) == (expected, ""), ran.err
        assert words in ran.err
