"""Readers that stop reading, and terminals that cannot show every name: no traceback, no false alarm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from mlx_lvm.data.card import EncoderCard

from ..helpers import write_corpus

LVM = [sys.executable, "-m", "mlx_lvm.cli.main"]


def test_a_reader_that_stops_reading_is_no_failure() -> None:
    """Its end of the pipe is closed before anything is written."""
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([*LVM, "data", "info", "moby"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 4))
    names = ["Zoë", "第一章"]
    write_corpus(
        tmp_path / "c.safetensors", rows, np.array([0, 20, 40]), names, EncoderCard(dim=4), {}, "F32"
    )
    (tmp_path / "第.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for option in ([], ["--json"]):
        ran = subprocess.run(
            [*LVM, "data", "info", tmp_path / "第.safetensors", *option], capture_output=True, env=environment
        )
        assert ran.returncode == 0 and b"Traceback" not in ran.stderr
        assert b"\\u7b2c" in ran.stdout
        if option:
            assert json.loads(ran.stdout)["corpus"] == "第"
    missing = subprocess.run(
        [*LVM, "data", "info", b"\xff.safetensors"], capture_output=True, env=environment
    )
    assert missing.returncode == 3 and b"Traceback" not in missing.stderr
