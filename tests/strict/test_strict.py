"""An emulated Mac: what a user does in the first hour goes well there, and without a mend it does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="emulates on Linux what a Mac does by itself")


# where each mend shows that is taken out, and by what words
FOUND = {
    "full-flush": ("corpora", "Operation not supported"),
    "sliced-input-and-output": ("corpora", "Invalid argument"),
    "open-files": ("shards", "data subset"),
    "one-form-of-names": ("names", "decomposed"),
    "subnormals": ("parity", "adversarial-denormal"),
}
BEFORE_MLX = {"tf32": ("train", "products of tf32")}  # holds for as long as the process lives


def work(folder: Path, *options: str) -> list[dict[str, str | None]]:
    """What `work.py` tells in a process of its own: the step that failed, and why."""
    environment = {k: v for k, v in os.environ.items() if k != "MLX_ENABLE_TF32"}
    ran = subprocess.run(
        [sys.executable, str(HERE / "work.py"), str(folder), *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_everything_runs_on_an_emulated_mac(tmp_path: Path) -> None:
    assert work(tmp_path) == [{"step": None, "why": ""}]


@pytest.mark.slow
@pytest.mark.parametrize("mends", [FOUND, BEFORE_MLX], ids=["in-turn", "before-mlx"])
def test_a_mend_taken_out_is_found(mends: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    told = {str(one["mend"]): one for one in work(tmp_path, "--without", *mends)}
    assert {name: one["step"] for name, one in told.items()} == {
        name: step for name, (step, _) in mends.items()
    }
    for name, (_, words) in mends.items():
        assert words in str(told[name]["why"]), name
