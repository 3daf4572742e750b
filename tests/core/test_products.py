"""TF32 is off unless asked for, asked for it must act, and a run remembers which products it began with."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.core import products
from mlx_lvm.core.mlx import TF32, mx
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.training import run as runs


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make products as wrong as TF32's from here on."""
    monkeypatch.setenv(TF32, "0")
    real = mx.eye
    return lambda: monkeypatch.setattr(mx, "eye", lambda n: real(n) * (1 - 2.0**-11))


def test_the_probe_sees_rounded_products(rounding: Callable[[], None]) -> None:
    if mx.default_device() == mx.Device(mx.cpu):
        assert not products.tf32_active()
    rounding()
    assert products.tf32_active()


@pytest.mark.parametrize(("given", "found"), [({}, "0"), ({TF32: "1"}, "1")])
def test_importing_mlx_here_leaves_tf32_off_but_where_the_user_wants_it(
    given: dict[str, str], found: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != TF32}
    code = f"import mlx_lvm.core.mlx, os; print(os.environ['{TF32}'])"
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment | given, capture_output=True, text=True
    )
    assert out.stdout.strip() == found, out.stderr


def test_what_is_chosen_must_act(rounding: Callable[[], None]) -> None:
    products.choose("float32")
    products.choose("bfloat16")
    if mx.default_device() == mx.Device(mx.cpu):
        with pytest.raises(SetupInvalid, match="--precision tf32: products stay float32"):
            products.choose("tf32")
    rounding()
    products.choose("tf32")
    assert os.environ[TF32] == "1"
    with pytest.raises(SetupInvalid, match=f"{TF32}=0"):
        products.choose("float32")
    assert runs.conditions()["products"] == "tf32"


def test_a_run_does_not_go_on_with_other_products(
    lvm: Callable, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    begun = lvm(
        "train",
        "amn",
        "--corpus",
        small_file,
        "--epochs",
        1,
        "--attention-dim",
        8,
        "--hidden-dim",
        8,
        "--out",
        run,
    )
    assert begun.code == 0, begun.err
    monkeypatch.setattr(runs, "tf32_active", lambda: True)
    again = lvm("train", "--resume", run, "--epochs", 2)
    assert again.code == 2 and "products: began with float32, here is tf32" in again.err
    refused = lvm("train", "--resume", run, "--precision", "tf32")
    assert refused.code == 2 and "--precision tf32: the run has float32" in refused.err
