"""Goldens verify where there is no torch, and notice a changed model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile
from mlx_lvm.models import architectures
from mlx_lvm.parity.checks.goldens import verify_goldens, write_goldens
from mlx_lvm.parity.faults.planting import config_of
from mlx_lvm.parity.sides.inputs import random_case
from mlx_lvm.parity.sides.sides import Subject

NO_TORCH = """
import sys
sys.modules["torch"] = None
from mlx_lvm.parity.sides.setup import prepare
prepare()
from pathlib import Path
from mlx_lvm.parity.checks.goldens import verify_goldens
checks, about = verify_goldens(Path(sys.argv[1]))
assert checks and all(check.passed for check in checks), [check for check in checks if not check.passed]
print(len(checks))
"""


@pytest.fixture(scope="module", params=architectures())
def goldens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject.drawn(config_of(request.param), 0).randomised(0)
    path = tmp_path_factory.mktemp("goldens") / f"{request.param}.safetensors"
    write_goldens(path, subject, [random_case(48, 2, 5, 0)])
    return path


@pytest.mark.slow
def test_verify_without_torch(goldens: Path) -> None:
    done = subprocess.run([sys.executable, "-c", NO_TORCH, str(goldens)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > (3 if goldens.stem == "filter" else 40)


def test_the_truth_is_float64_and_a_changed_weight_is_noticed(goldens: Path) -> None:
    file = open_safetensors(goldens)
    assert {info.dtype for name, info in file.tensors.items() if name.endswith("/truth")} == {"F64"}
    tensors = {name: file.numpy(name) for name in file.tensors}
    name = max(
        (n for n in tensors if n.startswith("weights/") and "bias" not in n),
        key=lambda n: (tensors[n].ndim, n),
    )
    tensors[name] = np.array(tensors[name])
    tensors[name][: (len(tensors[name]) + 1) // 2] *= np.float32(
        1.0001
    )  # half of it: a filter made a unit vector has no scale
    other = goldens.with_name("changed.safetensors")
    other.write_bytes(to_bytes(tensors, file.metadata))
    assert not all(check.passed for check in verify_goldens(other)[0])


def test_the_same_subject_gives_the_same_bytes(tmp_path: Path) -> None:
    subject = Subject.drawn(config_of("amn"), 0)
    for name in ("a", "b"):
        write_goldens(tmp_path / name, subject, [random_case(48, 2, 5, 0)], "bfloat16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert all(check.passed for check in verify_goldens(tmp_path / "a")[0])


def test_not_a_golden(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(to_bytes({"a": mx.zeros((2,))}, {"format": "pt"}))
    with pytest.raises(InvalidFile, match="not a file of goldens"):
        verify_goldens(path)
