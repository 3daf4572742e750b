"""`mlx_lvm.parity.check` on ports that are not ours: an honest one passes, a planted fault is named."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")

import torch

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.parity import PortReport, check

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "check_a_port.py"))
X = np.random.default_rng(0).standard_normal((2, 5, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def original() -> Any:
    torch.manual_seed(0)
    return EXAMPLE["Original"]()


def compared(original: Any, change: Callable[[Any], object] = lambda port: None) -> PortReport:
    port = EXAMPLE["ported"](original, EXAMPLE["Port"](activation=nn.silu))
    change(port)
    return check(port, original, X, EXAMPLE["NAMES"])


def test_an_honest_port_passes_and_everything_was_compared(original: Any) -> None:
    report = compared(original)
    assert report.passed and report.first == "" and str(report).endswith("equivalent")
    weights = {name for name, _ in original.named_parameters()}
    assert {c.name for c in report.of("weights")} == {f"weights/{name}" for name in weights}
    assert {c.name for c in report.of("gradients")} == {f"gradients/{n}" for n in {*weights, "input.0"}}
    taps = {f"own/{name}{mark}" for name in ("norm", *EXAMPLE["NAMES"].values()) for mark in ("", " <-")}
    assert {c.name for c in report.of("own")} == taps
    told = report.to_dict()
    assert told["passed"] and len(told["checks"]) == len(report.checks)


def nudge(port: Any) -> None:
    weight = np.array(port.w3.weight)
    weight[3, 4] = np.nextafter(weight[3, 4], np.float32(9))
    port.w3.weight = mx.array(weight)


def no_residual(port: Any) -> None:
    kind = type(port)
    port.__class__ = type("Port", (kind,), {"__call__": lambda self, x: kind.__call__(self, x) - x})


FAULTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "another activation": (lambda port: setattr(port, "activation", nn.gelu), "down_proj <-"),
    "another epsilon": (lambda port: setattr(port.norm, "eps", 1e-4), "norm"),
    "one bit of a weight": (nudge, "up_proj.weight"),
    "no residual": (no_residual, "output"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_place_of_a_fault_is_named(original: Any, fault: str) -> None:
    change, place = FAULTS[fault]
    report = compared(original, change)
    assert not report.passed and report.first == place
    assert f"first parts at: {place}" in str(report)


def test_a_wrong_gradient_alone_is_seen(original: Any) -> None:
    def change(port: Any) -> None:
        port.activation = lambda x: nn.silu(mx.stop_gradient(x)) + 0 * x

    report = compared(original, change)
    assert all(c.passed for c in report.checks if not c.name.startswith("gradients/"))
    assert report.first.startswith(("norm", "gate_proj", "input")) and not report.passed


def test_names_that_nobody_mapped_are_listed(original: Any) -> None:
    port = EXAMPLE["ported"](original, EXAMPLE["Port"](activation=nn.silu))
    report = check(port, original, X)
    (failure,) = (c for c in report.of("weights") if not c.passed)
    assert not report.passed and "w1.weight" in failure.note and "names=" in failure.note


def test_integers_tuples_and_modes() -> None:
    """Token ids go in as they are, several outputs come out by number, and both modules keep their mode."""

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(11, 32)
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, ids: Any, scale: Any) -> Any:
            x = self.drop(self.embedding(ids)) * scale
            return x.sum(dim=1), torch.tanh(x)

    class Ours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.drop = nn.Embedding(11, 32), nn.Dropout(0.5)

        def __call__(self, ids: mx.array, scale: mx.array) -> Any:
            x = self.drop(self.table(ids)) * scale
            return x.sum(axis=1), mx.tanh(x)

    theirs, ours = Theirs(), Ours()
    ours.table.weight = mx.array(theirs.embedding.weight.detach().numpy())
    given = (np.arange(8).reshape(2, 4), np.full((1,), 0.5))
    report = check(ours, theirs, given, lambda name: name.replace("table", "embedding"))
    assert report.passed, str(report)
    assert {c.name for c in report.of("outputs")} == {"outputs/0", "outputs/1"}
    assert {c.name for c in report.of("gradients")} == {"gradients/embedding.weight", "gradients/input.1"}
    assert ours.training and theirs.training


def test_importing_it_loads_neither_framework() -> None:
    code = "import sys, mlx_lvm.parity; print({'torch', 'mlx.core', 'numpy'} & {*sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "set()", out.stderr
