"""An emulated Mac: what a user does in the first hour goes well there, and without a mend it does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="emulates on Linux what a Mac does by itself")


def work(folder: Path, *options: str) -> dict[str, str | None]:
    """What `work.py` tells in a process of its own: the step that failed, and why."""
    environment = {k: v for k, v in os.environ.items() if k != "MLX_ENABLE_TF32"}
    ran = subprocess.run(
        [sys.executable, str(HERE / "work.py"), str(folder), *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.stdout, ran.stderr
    told: dict[str, str | None] = json.loads(ran.stdout.splitlines()[-1])
    return told


@pytest.mark.slow
def test_everything_runs_on_an_emulated_mac(tmp_path: Path) -> None:
    assert work(tmp_path) == {"step": None, "why": ""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mend", "steps", "found"),
    [
        ("subnormals", "parity", "adversarial-denormal"),
        ("tf32", "corpora,train", "products of tf32"),
        ("full-flush", "corpora", "Operation not supported"),
        ("sliced-input-and-output", "corpora", "Invalid argument"),
        ("open-files", "corpora,shards", "data subset"),
        ("one-form-of-names", "corpora,names", "decomposed"),
    ],
)
def test_a_mend_taken_out_is_found(mend: str, steps: str, found: str, tmp_path: Path) -> None:
    told = work(tmp_path, "--without", mend, "--steps", steps)
    assert told["step"] == steps.split(",")[-1]
    assert found in str(told["why"])
