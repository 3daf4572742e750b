"""What stands at the top of a model card for the Hub: how to find the model, and its measured figures."""

from __future__ import annotations

import json
from typing import Any

from mlx_lvm.hub.load import Loaded
from mlx_lvm.hub.remote import NAME
from mlx_lvm.hub.universal_card import WORDS

TASK = "feature-extraction"
TAGS = ["mlx", "pytorch", "embeddings", "latent-vector-model"]
FIGURES = {"cosine": "cosine", "centred_cosine": "centred cosine", "recall_at_5": "R@5", "mrr": "MRR"}


def front_matter(loaded: Loaded, evaluation: dict[str, Any] | None) -> str:
    """YAML between lines of dashes; values are written as JSON, which is YAML too.

    base_model is the encoder, where its card names one of the Hub's. model-index has what was measured on
    test documents: `evaluation`, else what a model for every encoder came with.
    """
    values: dict[str, Any] = {
        "library_name": "mlx-lvm",
        "license": "mit",
        "pipeline_tag": TASK,
        "tags": TAGS,
    }
    if loaded.card and NAME.fullmatch(loaded.card.model):
        values["base_model"] = loaded.card.model
    results = _measured(evaluation) if evaluation else _held_out(loaded.imported.get("held_out", []))
    if results:
        name = f"{loaded.model.title} ({loaded.model.config.variant})"
        values["model-index"] = [{"name": name, "results": results}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _measured(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    figures = evaluation["metrics"][evaluation["model"]]
    named = {said: figures[key] for key, said in FIGURES.items() if key in figures}
    return [_result(evaluation["corpus"], evaluation["split"], named)]


def _held_out(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _result(
            row["corpus"],
            row["split"],
            {said: row[key]["value"] for key, said in WORDS.items() if key in row},
        )
        for row in rows
    ]


def _result(corpus: str, split: str, figures: dict[str, float]) -> dict[str, Any]:
    return {
        "task": {"type": TASK, "name": "next-chunk prediction"},
        "dataset": {"type": corpus, "name": corpus, "split": split},
        "metrics": [
            {"type": name, "name": name, "value": round(value, 4)} for name, value in figures.items()
        ],
    }
