"""report.html of an evaluation, with what the model's own files say of its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_lvm.core.files import write_atomic
from mlx_lvm.evaluation.report.html import render
from mlx_lvm.hub.load import Loaded
from mlx_lvm.training.run import read_history, versions


def write_report(path: Path, result: dict[str, Any], loaded: Loaded | None, command: str) -> None:
    """The page of a result. loaded: the model, None for a baseline. command: what made it."""
    known: dict[str, dict[str, Any]] = {}
    history: list[dict[str, Any]] = []
    if loaded is not None:
        history = read_history(loaded.folder) if loaded.folder is not None else []
        known["Model"] = {
            "run": loaded.folder.name if loaded.folder is not None else loaded.name,
            "architecture": loaded.model.config.model_type,
            "parameters": f"{loaded.model.parameter_count():,}",
            "stored as": loaded.dtype,
        }
        known["Encoder"] = loaded.card.to_dict() if loaded.card is not None else {"card": "not recorded"}
        known["Training"] = loaded.train or {"options": "not recorded"}
    known["This evaluation"] = {"command": command, "seconds": round(result["seconds"]), **versions()}
    write_atomic(path, render(result, history, known).encode())
