"""Goldens: inputs, outputs and taps of a float64 run in one file, to verify MLX where there is no torch.

    weights/<name>              the weights under test, in the precision under test
    <case>/context              [batch, length, dim] F32
    <case>/<kind>/<tap>/truth   F64; kind is forward, own or inherited
    <case>/<kind>/<tap>/torch   torch's own value in that precision, the measure of what the arithmetic can do
    <case>/forced/<tap>         what the submodules are fed for their own error

Metadata: format, model config, name, precision, versions. Verifying imports nothing of torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.files.disk import write_atomic
from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile
from mlx_lvm.models import as_dict, build, config_from_dict
from mlx_lvm.models.weights import set_weights
from mlx_lvm.parity.arbiter import LIMIT, judge
from mlx_lvm.parity.sides.inputs import Case
from mlx_lvm.parity.sides.setup import require_evaluation
from mlx_lvm.parity.sides.trace import FIELDS, ask, float64, mlx_trace, slack_of
from mlx_lvm.parity.verdict import Check, Compared, failed

FORMAT = "mlx-lvm-goldens"
VERSION = "1"
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def write_goldens(path: Path, subject: Any, cases: Iterable[Case], dtype: str = "float32") -> int:
    """Record a subject on some cases; returns how many values. Needs torch. The same subject gives the same
    bytes.
    """
    from importlib.metadata import version

    from mlx_lvm.parity.sides.sides import Sides, twin_outputs
    from mlx_lvm.parity.sides.taps import rounded, torch_trace

    sides = Sides(subject, dtype)
    tensors: dict[str, Any] = {
        f"weights/{name}": value.astype(DTYPES[dtype]) for name, value in subject.weights.items()
    }

    def keep(head: str, truth: dict[str, np.ndarray], torch: dict[str, np.ndarray]) -> None:
        for name, value in truth.items():
            tensors[f"{head}/{name}/truth"] = np.ascontiguousarray(value)
            tensors[f"{head}/{name}/torch"] = mx.array(torch[name].astype(np.float32)).astype(DTYPES[dtype])

    for case in cases:
        _, torch_x, truth_x = sides.context(case.context)
        tensors[f"{case.name}/context"] = case.context
        keep(f"{case.name}/forward", twin_outputs(sides.truth, truth_x), twin_outputs(sides.torch, torch_x))
        free = torch_trace(sides.truth, truth_x).values
        keep(f"{case.name}/inherited", free, torch_trace(sides.torch, torch_x).values)
        forced = {tap: rounded(value, dtype) for tap, value in free.items() if tap not in FIELDS}
        tensors.update(
            {
                f"{case.name}/forced/{tap}": mx.array(value.astype(np.float32)).astype(DTYPES[dtype])
                for tap, value in forced.items()
            }
        )
        keep(
            f"{case.name}/own",
            torch_trace(sides.truth, truth_x, forced).values,
            torch_trace(sides.torch, torch_x, forced).values,
        )
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "model": json.dumps(as_dict(subject.config), sort_keys=True),
        "name": subject.name,
        "dtype": dtype,
        "versions": json.dumps({name: version(name) for name in ("mlx", "torch")}, sort_keys=True),
    }
    write_atomic(path, to_bytes(tensors, metadata))
    return len(tensors)


def verify_goldens(path: Path) -> tuple[list[Check], dict[str, str]]:
    """Every recorded value against MLX here; and the file's metadata. Raises InvalidFile for a file that is
    no golden.
    """
    file = open_safetensors(path)
    about = file.metadata
    if about.get("format") != FORMAT or about.get("format_version") != VERSION:
        raise InvalidFile(
            f"{path}: not a file of goldens (format {about.get('format')!r}, version "
            f"{about.get('format_version')!r})"
        )
    dtype = about.get("dtype", "")
    if dtype not in LIMIT:
        raise InvalidFile(f"{path}: goldens of dtype {dtype!r}; expected one of {', '.join(LIMIT)}")
    model = build(config_from_dict(json.loads(about["model"])))
    set_weights(
        model,
        {n.removeprefix("weights/"): file.array(n) for n in file.tensors if n.startswith("weights/")},
        str(path),
    )
    model.set_dtype(DTYPES[dtype])
    require_evaluation(model.training, "MLX")
    found = []
    for case in sorted({name.split("/")[0] for name in file.tensors if not name.startswith("weights/")}):
        values = {
            n.removeprefix(f"{case}/"): _float64(file, n) for n in file.tensors if n.startswith(f"{case}/")
        }
        found += _verify_case(model, str(about.get("name")), case, values, dtype)
    return found, about


def _float64(file: Any, name: str) -> np.ndarray:
    """F64 is read as it is: MLX keeps that type on the CPU alone."""
    return np.array(file.numpy(name)) if file.tensors[name].dtype == "F64" else float64(file.array(name))


def _verify_case(
    model: Any, subject: str, case: str, values: dict[str, np.ndarray], dtype: str
) -> list[Check]:
    context = mx.array(values["context"].astype(np.float32)).astype(DTYPES[dtype])
    forced = {n.removeprefix("forced/"): v for n, v in values.items() if n.startswith("forced/")}
    found = []
    for kind, force in (("forward", None), ("own", forced), ("inherited", None)):
        truth = {
            n[len(kind) + 1 : -6]: v
            for n, v in values.items()
            if n.startswith(f"{kind}/") and n.endswith("/truth")
        }
        if kind == "forward":
            mine = {name: float64(v) for name, v in ask(model, context)._asdict().items() if v is not None}
        else:
            mine = mlx_trace(model, context, truth, force).values
        for tap, true in truth.items():
            what = Compared(subject, "goldens", run=kind, case=case, value=tap)
            if tap in mine:
                last = slice(-mine[tap].shape[1], None) if mine[tap].ndim == 3 else slice(None)
                other, target = [
                    v[:, last] if mine[tap].ndim == 3 else v for v in (values[f"{kind}/{tap}/torch"], true)
                ]
                found.append(judge(what, mine[tap], other, target, dtype, slack=slack_of(model, tap, dtype)))
            elif kind == "forward":
                found.append(failed(what, "MLX gives no such field"))
    return found
