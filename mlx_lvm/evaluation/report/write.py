"""report.html of an evaluation, with what the model's own files say of its origin."""

from __future__ import annotations

from pathlib import Path

from mlx_lvm.core.files.disk import write_atomic
from mlx_lvm.core.result import JsonObject
from mlx_lvm.evaluation.findings import Findings
from mlx_lvm.evaluation.report.html import render
from mlx_lvm.training.run import read_history, versions


def write_report(path: Path, found: Findings, command: str) -> None:
    """The page of an evaluation. command: what made it."""
    known: dict[str, JsonObject] = {}
    history: list[JsonObject] = []
    loaded = found.evaluation.model
    if loaded is not None:
        history = read_history(loaded.folder) if loaded.folder is not None else []
        known["Model"] = {
            "run": loaded.folder.name if loaded.folder is not None else loaded.name,
            "architecture": loaded.model.config.model_type,
            "parameters": f"{loaded.model.parameter_count():,}",
            "stored as": loaded.dtype,
        }
        known["Encoder"] = {"card": "not recorded"} if loaded.card is None else loaded.card.to_dict()
        known["Training"] = loaded.train or {"options": "not recorded"}
    known["This evaluation"] = {"command": command, "seconds": round(found.evaluation.seconds), **versions()}
    write_atomic(path, render(found, history, known).encode())
