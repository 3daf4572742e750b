"""The golden pair: an input and its output, which tell at every load whether weights are the model's own."""

from __future__ import annotations

import base64

import numpy as np

from mlx_lvm.core.files.safetensors import SafeFile
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, UsageError
from mlx_lvm.models import VectorModel

GOLDEN_WINDOWS = 2
GOLDEN_DIM = 32  # width of the golden pair of a model that serves any
# Largest distance of a unit output from its golden: rounding of the backend (TF32 at worst) and of the stored
# dtype.
GOLDEN_TOLERANCE = 5e-3


def check_golden(model: VectorModel, golden: tuple[np.ndarray, np.ndarray], what: str) -> None:
    """Raises InvalidFile where the model does not give its recorded output."""
    given, wanted = golden
    distance = float(np.linalg.norm(answer(model, given) - wanted, axis=-1).max())
    if not distance <= GOLDEN_TOLERANCE:  # NaN fails too
        raise InvalidFile(
            f"{what}: the golden input gives an output {distance:.3g} away from the recorded one (at most "
            f"{GOLDEN_TOLERANCE}). These are not the weights of this {model.config.model_type}, or the file "
            "is damaged."
        )


def answer(model: VectorModel, given: np.ndarray) -> np.ndarray:
    """Unit predictions [2, dim] for contexts [2, length, dim]."""
    read = mx.array(given).astype(mx.float32)
    return np.array(model.serving(read)(read).unit)


def golden_entries(model: VectorModel, contexts: np.ndarray) -> dict[str, str]:
    """The pair as a file's metadata holds it: contexts in float16, and what the model answers to these."""
    given = contexts.astype("<f2")
    output = answer(model, given).astype("<f4")
    pair = {"golden_input": given, "golden_output": output}
    return {name: base64.b64encode(values.tobytes()).decode() for name, values in pair.items()}


def read_golden(file: SafeFile, model: VectorModel) -> tuple[np.ndarray, np.ndarray]:
    """(input [2, length, dim], output [2, dim]) of a file. Raises InvalidFile where they do not parse."""
    dim = model.config.dim or GOLDEN_DIM
    try:
        given, wanted = (
            np.frombuffer(base64.b64decode(file.metadata[name], validate=True), kind)
            for name, kind in (("golden_input", "<f2"), ("golden_output", "<f4"))
        )
        given, wanted = given.reshape(GOLDEN_WINDOWS, -1, dim), wanted.reshape(GOLDEN_WINDOWS, dim)
        model.serving(mx.array(given)).check_context(mx.array(given))
    except (ValueError, KeyError, UsageError) as error:
        raise InvalidFile(f"{file.path}: its golden pair does not parse ({error})") from None
    return given, wanted
