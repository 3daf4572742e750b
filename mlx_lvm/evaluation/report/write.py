"""report.html of an evaluation, with what the model's own files say of its origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_lvm.core.files import write_atomic
from mlx_lvm.evaluation.report.html import render
from mlx_lvm.hub.load import Loaded
from mlx_lvm.training.run import read_history, versions


def write_report(path: Path, result: dict[str, Any], loaded: Loaded | None, command: str) -> None:
    """The page of a result. loaded: the model, None for a baseline. command: what made it."""
    known: dict[str, str] = {}
    history: list[dict[str, Any]] = []
    if loaded is not None:
        history = read_history(loaded.folder) if loaded.folder is not None else []
        card = loaded.card.to_dict() if loaded.card is not None else {}
        encoder = ", ".join(f"{key} {value}" for key, value in card.items() if value)
        kind, count = loaded.model.config.model_type, loaded.model.parameter_count()
        known["encoder"] = encoder or "not recorded"
        known["model"] = f"{kind}, {count:,} parameters, {loaded.dtype}"
        known["run"] = loaded.folder.name if loaded.folder is not None else loaded.name
        known["training"] = json.dumps(loaded.train, sort_keys=True) if loaded.train else "not recorded"
    known["versions"] = ", ".join(f"{key} {value}" for key, value in versions().items())
    known["command"] = command
    write_atomic(path, render(result, history, known).encode())
