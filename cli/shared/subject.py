"""What `lvm eval` and `lvm predict` are given: a model or a baseline, by name."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_lvm.predictors.baselines import NAMES

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Architecture, run folder, exported folder, .safetensors file, or a baseline: "
        f"{', '.join(NAMES)}.",
    ),
]
