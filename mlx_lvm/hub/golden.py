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
    read = mx.array(given).astype(mx.float32)
    output = np.array(model.serving(read)(read).unit)
    distance = float(np.linalg.norm(output - wanted, axis=-1).max())
    if not distance <= GOLDEN_TOLERANCE:  # NaN fails too
        raise InvalidFile(
            f"{what}: the golden input gives an output {distance:.3g} away from the recorded one (at most "
            f"{GOLDEN_TOLERANCE}). These are not the weights of this {model.config.model_type}, or the file "
            "is damaged."
        )


def read_golden(file: SafeFile, model: VectorModel) -> tuple[np.ndarray, np.ndarray]:
    """(input [2, length, dim], output [2, dim]) of a file. Raises InvalidFile where they do not parse."""
    dim = model.config.dim or GOLDEN_DIM
    try:
        given = np.frombuffer(base64.b64decode(file.metadata["golden_input"], validate=True), "<f2").reshape(
            GOLDEN_WINDOWS, -1, dim
        )
        wanted = np.frombuffer(
            base64.b64decode(file.metadata["golden_output"], validate=True), "<f4"
        ).reshape(GOLDEN_WINDOWS, dim)
        model.serving(mx.array(given)).check_context(mx.array(given))
    except (ValueError, KeyError, UsageError) as error:
        raise InvalidFile(f"{file.path}: its golden pair does not parse ({error})") from None
    return given, wanted
