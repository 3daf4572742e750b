"""`lvm parity`: exit codes, JSON, the report and the bundle of a failure."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_lvm.models import amn, architectures
from mlx_lvm.parity import run as parity_run
from mlx_lvm.parity.faults.planting import config_of
from mlx_lvm.parity.sides.sides import Subject
from mlx_lvm.parity.twins import twin_class


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn models at small widths, so that a command takes a second."""
    monkeypatch.setattr(
        parity_run, "find_subjects", lambda name, seed=0: [Subject.drawn(config_of(name), seed)]
    )


@pytest.mark.slow
def test_a_drawn_model_passes(lvm: Callable, small: None) -> None:
    ran = lvm("parity", "gru", "--check", "weights,taps", "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["passed"] and found["failed"] == 0 and found["compared"] == len(found["checks"]) > 1000
    assert {
        "name",
        "passed",
        "verdict",
        "ratio",
        "max_abs_error",
        "torch_error",
        "bound",
        "first_divergence",
    } <= set(found["checks"][0])
    assert found["setting"]["dtype"] == "float32"


@pytest.mark.slow
def test_a_broken_model_fails_and_leaves_a_bundle(
    lvm: Callable, small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = amn.normalize
    monkeypatch.setattr(amn, "normalize", lambda x: honest(x) * 1.00001)
    ran = lvm("parity", "amn", "--check", "forward", "--out", tmp_path, "--json")
    assert ran.code == 1
    assert "first parts at unit" in ran.err
    found = json.loads(ran.out)
    assert not found["passed"]
    assert {check["first_divergence"] for check in found["checks"] if not check["passed"]} == {"unit"}
    assert "**FAILED**" in (tmp_path / "parity.md").read_text()
    assert json.loads((tmp_path / "parity.json").read_text())["failed"] == found["failed"]
    bundle = json.loads((tmp_path / "failure" / "failure.json").read_text())
    assert bundle["context"][0] == 1  # the smallest input: one window
    golden = tmp_path / "failure" / "failure.safetensors"
    assert lvm("parity", "--goldens", golden).code == 1
    monkeypatch.setattr(amn, "normalize", honest)
    assert lvm("parity", "--goldens", golden).code == 0


def test_goldens_go_out_and_come_back(lvm: Callable, small: None, tmp_path: Path) -> None:
    path = tmp_path / "amn.safetensors"
    assert lvm("parity", "amn", "--write-goldens", path).code == 0
    ran = lvm("parity", "--goldens", path, "--json")
    assert ran.code == 0 and json.loads(ran.out)["passed"]
    assert lvm("parity", "--goldens", tmp_path / "none.safetensors").code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--check", "wieghts"), "Did you mean 'weights'"),
        (("--dtype", "float8"), "expected one of float32"),
        (("--steps", "0"), "at least 1"),
        (("ann",), "Did you mean 'amn'"),
    ],
)
def test_wrong_usage(lvm: Callable, arguments: tuple[str, ...], message: str) -> None:
    ran = lvm("parity", *arguments)
    assert ran.code == 2
    assert message in ran.err


def test_every_architecture_has_a_twin() -> None:
    for name in architectures():
        assert twin_class(name).model_type == name
