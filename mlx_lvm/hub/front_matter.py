"""What stands at the top of a model card for the Hub: how to find the model, and its measured figures."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mlx_lvm.core.result import JsonObject
from mlx_lvm.hub.load import Loaded
from mlx_lvm.hub.remote import NAME
from mlx_lvm.hub.universal_card import WORDS

TASK = "feature-extraction"
TAGS = ["mlx", "pytorch", "embeddings", "latent-vector-model"]


@dataclass(frozen=True)
class Measured:
    """Figures by the words for them, of a split of a corpus."""

    corpus: str
    split: str
    figures: dict[str, float]

    @property
    def entry(self) -> JsonObject:
        """An entry of `results` in the Hub's model-index."""
        return {
            "task": {"type": TASK, "name": "next-chunk prediction"},
            "dataset": {"type": self.corpus, "name": self.corpus, "split": self.split},
            "metrics": [{"type": k, "name": k, "value": round(v, 4)} for k, v in self.figures.items()],
        }


def front_matter(loaded: Loaded, measured: Measured | None) -> str:
    """YAML between lines of dashes; values are written as JSON, which is YAML too.

    base_model is the encoder, where its card names one of the Hub's. model-index has what was measured on
    test documents: `measured`, else what a model for every encoder came with.
    """
    values: JsonObject = {"library_name": "mlx-lvm", "license": "mit", "pipeline_tag": TASK, "tags": TAGS}
    if loaded.card and NAME.fullmatch(loaded.card.model):
        values["base_model"] = loaded.card.model
    results = [measured] if measured else _held_out(loaded.imported.get("held_out", []))
    if results:
        name = f"{loaded.model.title} ({loaded.model.config.variant})"
        values["model-index"] = [{"name": name, "results": [one.entry for one in results]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _held_out(rows: list[JsonObject]) -> list[Measured]:
    """rows: as a model for every encoder has them in its file."""
    figures = [{said: row[name]["value"] for name, said in WORDS.items() if name in row} for row in rows]
    return [Measured(row["corpus"], row["split"], found) for row, found in zip(rows, figures, strict=True)]
