"""A seventh architecture in a package of its own: a file for the model and one for its twin, and nothing else
is told.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.bench.roofline import Cost
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.plugins import add_package, remove_package
from mlx_lvm.errors import SetupInvalid, UsageError
from mlx_lvm.hub.importing import infer
from mlx_lvm.models import architecture, architectures, as_dict, build, config_from_dict, registry, trained

MODEL = """
from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.models.base import ModelConfig, Prediction, Products, VectorModel, normalize
from mlx_lvm.models.layers import Linear


@dataclass(frozen=True)
class SeventhConfig(ModelConfig):
    model_type: ClassVar[str] = "seventh"
    title: ClassVar[str] = "seventh"


class Seventh(VectorModel):
    config_class = SeventhConfig
    title = "A linear map of the last chunk"
    recipes: ClassVar = {"seventh": {"epochs": 1}}
    small: ClassVar = {"dim": 32}

    def __init__(self, config):
        super().__init__(config)
        self.output_proj = Linear(config.dim, config.dim)

    def __call__(self, context):
        self.check_context(context)
        raw = self.output_proj(context[:, -1])
        return Prediction(raw, normalize(raw))

    @classmethod
    def products(cls, config, context):
        return Products(config.dim**2, config.dim**2)

    @classmethod
    def sizes_in(cls, shapes):
        match shapes:
            case {"output_proj.weight": (dim, same)} if len(shapes) == 2 and dim == same:
                return {"dim": dim}
"""
TWIN = """
from torch import nn
from torch.nn.functional import normalize

from mlx_lvm.parity.twins.base import Prediction, Twin


class Seventh(Twin):
    model_type = "seventh"
    defaults = {"dim": 768}

    def __init__(self, config=None):
        super().__init__(config)
        self.output_proj = nn.Linear(self.config.dim, self.config.dim)

    def forward(self, context):
        raw = self.output_proj(context[:, -1])
        return Prediction(raw, normalize(raw, dim=-1))
"""
# Commands one after another in one process, which imports what they need once.
SESSION = """
import io, json, sys
from contextlib import redirect_stdout
from mlx_lvm.cli.main import main

for arguments in json.loads(sys.argv[1]):
    sys.argv, out = ["lvm", *arguments, "--json"], io.StringIO()
    try:
        with redirect_stdout(out):
            main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"lvm {' '.join(arguments)} ended with {end.code}")
    print(json.dumps(json.loads(out.getvalue())), flush=True)
"""
ALONE = ("--against", "none")
FAULTS = """
from mlx_lvm.parity.faults.planting import Fault, call


def faults():
    yield Fault(
        "seventh: chunks in reverse", "seventh", ("output_proj <-",),
        call("", lambda self, original, x: original(self, x[:, ::-1])),
    )
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package `elsewhere` that holds the architecture, known while a test runs."""
    for room, text in (("models", MODEL), ("twins", TWIN), ("faults", FAULTS)):
        (tmp_path / "elsewhere" / room).mkdir(parents=True)
        (tmp_path / "elsewhere" / room / "seventh.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    add_package("elsewhere")
    yield "elsewhere"
    remove_package("elsewhere")
    registry._found.cache_clear()  # the next test's package is another one of that name
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


def test_it_is_known_while_its_package_is_added(package: str) -> None:
    assert "seventh" in architectures() and "seventh" in trained()
    remove_package(package)
    assert "seventh" not in architectures()
    with pytest.raises(UsageError, match="unknown model 'seventh'"):
        architecture("seventh")


def test_it_trains_and_its_run_loads(package: str, small_file: Path, tmp_path: Path) -> None:
    from mlx_lvm.hub.load import load_model
    from mlx_lvm.training.config import TrainConfig, preset
    from mlx_lvm.training.session import start_run

    options, _ = preset("best", architecture("seventh").config_class())
    assert options["epochs"] == 1, "its own recipe is taken"
    trainer = start_run(
        "seventh", {}, TrainConfig.from_dict({**options, "corpus": str(small_file)}), tmp_path / "run"
    )
    before = np.array(trainer.task.model.output_proj.weight)
    trainer.train()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["model_type"] == "seventh"
    loaded = load_model(tmp_path / "run")
    assert np.abs(np.array(loaded.model.output_proj.weight) - before).max() > 0


def test_its_shapes_are_recognised_and_its_work_counted(package: str) -> None:
    model = build(config_from_dict({"model_type": "seventh", "dim": 24}))
    assert as_dict(infer(model.weights())) == {"model_type": "seventh", "dim": 24}
    assert Cost.of(model, context=5).forward(3).flops == 2 * 3 * 24 * 24


def test_parity_finds_its_twin(package: str) -> None:
    pytest.importorskip("torch", reason="parity is with torch")
    from mlx_lvm.parity.checks.model import forward_checks, gradient_checks
    from mlx_lvm.parity.checks.weights import weights_checks
    from mlx_lvm.parity.sides.inputs import random_case
    from mlx_lvm.parity.sides.sides import Sides, Subject

    sides = Sides(Subject.drawn(config_from_dict({"model_type": "seventh", "dim": 32}), 0).randomised(0))
    cases = [random_case(32, 3, 5, 0)]
    checks = [*weights_checks(sides), *forward_checks(sides, cases), *gradient_checks(sides, cases)]
    assert checks and all(check.passed for check in checks)
    sides.mlx.output_proj.bias = sides.mlx.output_proj.bias + mx.array(0.5)
    assert any(not check.passed for check in forward_checks(sides, cases)), "a wrong port would be seen"


def test_its_faults_are_planted_and_caught(package: str) -> None:
    pytest.importorskip("torch", reason="parity is with torch")
    from mlx_lvm.parity.faults.every import all_faults, faults_of
    from mlx_lvm.parity.selftest import self_test

    faults = faults_of("seventh")
    names = {fault.name for fault in faults}
    assert {"seventh: chunks in reverse", "seventh: one bit of output_proj.bias"} < names
    assert names < {fault.name for fault in all_faults()}
    outcomes = self_test(faults)
    assert [o.fault.name for o in outcomes if not (o.caught and o.blamed)] == []


@pytest.mark.slow
def test_the_commands_know_it(package: str, small_file: Path, tmp_path: Path) -> None:
    """Trained, compared with its twin, exported, imported again, evaluated, predicted and timed."""
    pytest.importorskip("torch", reason="parity is with torch")

    # As an installed package is found: by an entry point of its distribution.
    about = tmp_path / "elsewhere-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[mlx_lvm.architectures]\nseventh = elsewhere\n")
    run, exported = tmp_path / "run", tmp_path / "exported"
    commands = (
        ("train", "seventh", "--corpus", small_file, "--epochs", 1, "--out", run),
        ("parity", run, "--check", "weights,forward,taps,gradients,training"),
        ("export", run, "--out", exported),
        ("eval", exported, "--corpus", small_file, "--quick"),
        ("import", exported / "model.safetensors", "--model", "seventh", "--out", tmp_path / "imported"),
        (
            "bench",
            "seventh",
            "-c",
            small_file,
            "--batches",
            1,
            "--tasks",
            "forward",
            "--seconds",
            0.01,
            *ALONE,
        ),
    )
    told = subprocess.run(
        [sys.executable, "-c", SESSION, json.dumps([list(map(str, command)) for command in commands])],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    answers = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(answers) == len(commands) and answers[1]["passed"]


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(SetupInvalid, match="no package 'nowhere_at_all'"):
        add_package("nowhere_at_all")
