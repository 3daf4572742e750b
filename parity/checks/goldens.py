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
from mlx_lvm.parity.sides.trace import Outputs, ask, float64, mlx_trace, same_places, slack_of
from mlx_lvm.parity.verdict import Check, Compared, failed

FORMAT = "mlx-lvm-goldens"
VERSION = "1"
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def write_goldens(path: Path, subject: Any, cases: Iterable[Case], dtype: str = "float32") -> int:
    """Record a subject on some cases; returns how many values. Needs torch. The same gives the same bytes."""
    from importlib.metadata import version

    from mlx_lvm.parity.sides.sides import Sides, twin_outputs
    from mlx_lvm.parity.sides.taps import references

    sides = Sides(subject, dtype)
    weights = {f"weights/{name}": value.astype(DTYPES[dtype]) for name, value in subject.weights.items()}
    tensors: dict[str, Any] = weights

    def narrow(value: np.ndarray) -> mx.array:
        return mx.array(value.astype(np.float32)).astype(DTYPES[dtype])

    def keep(head: str, torch: Outputs, truth: Outputs) -> None:
        for name, value in truth.items():
            tensors[f"{head}/{name}/truth"] = np.ascontiguousarray(value)
            tensors[f"{head}/{name}/torch"] = narrow(torch[name])

    for case in cases:
        tensors[f"{case.name}/context"] = case.context
        keep(f"{case.name}/forward", *sides.on_torch(twin_outputs, case.context))
        for kind, forced, truth, torch in references(sides, case):
            keep(f"{case.name}/{kind}", torch, truth)
            tensors |= {f"{case.name}/forced/{tap}": narrow(value) for tap, value in (forced or {}).items()}
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
    """Every recorded value against MLX here; and the file's metadata. Raises InvalidFile for another file."""
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
    weights = {name: file.array(f"weights/{name}") for name in _under("weights", file.tensors)}
    set_weights(model, weights, str(path))
    model.set_dtype(DTYPES[dtype])
    require_evaluation(model.training, "MLX")
    found = []
    for case in sorted({name.split("/")[0] for name in file.tensors} - {"weights"}):
        values = {name: _float64(file, f"{case}/{name}") for name in _under(case, file.tensors)}
        found += _verify_case(model, str(about.get("name")), case, values, dtype)
    return found, about


def _under(folder: str, names: Iterable[str]) -> list[str]:
    """What follows the name of a folder, in every name that lies in it."""
    return [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]


def _float64(file: Any, name: str) -> np.ndarray:
    """F64 is read as it is: MLX keeps that type on the CPU alone."""
    return np.array(file.numpy(name)) if file.tensors[name].dtype == "F64" else float64(file.array(name))


def _verify_case(model: Any, subject: str, case: str, values: Outputs, dtype: str) -> list[Check]:
    context = mx.array(values["context"].astype(np.float32)).astype(DTYPES[dtype])
    forced = {tap: values[f"forced/{tap}"] for tap in _under("forced", values)}
    found = []
    for kind, force in (("forward", None), ("own", forced), ("inherited", None)):
        taps = [name.removesuffix("/truth") for name in _under(kind, values) if name.endswith("/truth")]
        truth = {tap: values[f"{kind}/{tap}/truth"] for tap in taps}
        if kind == "forward":
            mine = {name: float64(value) for name, value in ask(model, context).items()}
        else:
            mine = mlx_trace(model, context, truth, force).values
        for tap in taps:
            what = Compared(subject, "goldens", run=kind, case=case, value=tap)
            if tap in mine:
                other, target = (
                    same_places(side, mine[tap]) for side in (values[f"{kind}/{tap}/torch"], truth[tap])
                )
                found.append(judge(what, mine[tap], other, target, dtype, slack=slack_of(model, tap, dtype)))
            elif kind == "forward":
                found.append(failed(what, "MLX gives no such field"))
    return found
