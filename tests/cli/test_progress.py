"""A first run says that it compiles kernels; the next one does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.cli.shared import progress


@pytest.mark.parametrize("cold", [True, False])
def test_a_first_run_says_what_it_waits_for(
    cold: bool, lvm: Callable, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "is_cold", lambda store: cold)
    options = ("--epochs", 1, "--attention-dim", 8, "--hidden-dim", 8, "--out", tmp_path / "run")
    ran = lvm("train", "amn", "--corpus", small_file, *options)
    assert ran.code == 0, ran.err
    assert ("kernels are compiled once" in ran.err) == cold
