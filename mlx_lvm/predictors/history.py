"""A model that reads the document so far, behind the predictor's interface: it gets more of the document than the window.

The config's `history` says how many chunks before the target it reads at most. Contexts are filled up with zero rows on the
left, which such a model takes for no chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import gather
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import VectorModel
from mlx_lvm.predictors.base import ALL, Index, ModelPredictor, Predictor

BLOCK = 128  # windows at once: 38 MiB of context at 768 dimensions


def predictor_of(name: str, model: VectorModel) -> Predictor:
    """The predictor that gives a model what it reads: the document so far where it has `history`, else the window."""
    return HistoryPredictor(name, model) if model.config.history else ModelPredictor(name, model)


@dataclass(frozen=True, eq=False)
class HistoryPredictor:
    """A network over the document so far, in evaluation mode (no dropout) and in the dtype of its weights."""

    name: str
    model: VectorModel

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return self._run(windows, index, "raw")

    def ahead(self, windows: Windows, index: Index = ALL) -> mx.array:
        """Raw vectors [n, horizons, dim] of the next chunk and those after it, of a model that predicts several."""
        return self._run(windows, index, "ahead")

    def asked(self, windows: Windows, queries: mx.array) -> mx.array:
        """Raw predictions [n, dim] of all windows beside a query [n, dim] each; one of zeros is none."""
        return self._run(windows, ALL, "raw", queries)

    def _run(self, windows: Windows, index: Index, field: str, queries: mx.array | None = None) -> mx.array:
        targets, starts = windows.targets[index], windows.starts[index]
        training, corpus = self.model.training, windows.corpus
        self.model.eval()
        parts = []
        for begin in range(0, len(targets), BLOCK):
            rows, first = targets[begin : begin + BLOCK, None], starts[begin : begin + BLOCK, None]
            longest = min(int((rows - first).max()), self.model.config.history)
            length = min(
                -(-longest // 20) * 20, self.model.config.history
            )  # few lengths, so that few functions are compiled
            rows = rows + np.arange(-length, 0, dtype=np.int32)
            arguments = (
                corpus.vectors,
                corpus.scales,
                mx.array(np.maximum(rows, first)),
                mx.array(rows >= first),
            )
            parts.append(
                self._forward[field](*arguments, None if queries is None else queries[begin : begin + BLOCK])
            )
            mx.eval(parts[-1])
        self.model.train(training)
        return mx.concatenate(parts) if len(parts) > 1 else parts[0]

    @cached_property
    def _forward(self) -> dict[str, Any]:
        """The compiled forward pass to a field of the prediction."""
        model: Any = self.model  # one that takes a query has one more argument

        def forward(field: str) -> Any:
            @partial(mx.compile, inputs=model.state)  # else the weights of the first call would be baked in
            def run(
                vectors: mx.array,
                scales: mx.array | None,
                rows: mx.array,
                present: mx.array,
                query: mx.array | None,
            ) -> mx.array:
                read = (gather(vectors, scales, rows) * present[..., None]).astype(model.dtype)
                found: mx.array = getattr(
                    model(read) if query is None else model(read, query.astype(model.dtype)), field
                )
                return found.astype(mx.float32)

            return run

        return {field: forward(field) for field in ("raw", "ahead")}


def takes_queries(predictor: Predictor) -> HistoryPredictor | None:
    """The predictor as one that takes queries; None where its model takes none."""
    return (
        predictor
        if isinstance(predictor, HistoryPredictor) and predictor.model.config.takes_queries
        else None
    )


def predict_asked(predictor: Predictor, windows: Windows, index: Index, queries: mx.array) -> mx.array:
    """Raw predictions [n, dim] of the chosen windows beside a query [n, dim] each; a model that takes none does without."""
    asked = takes_queries(predictor)
    if asked is None:
        return predictor.predict(windows, index)
    chosen = replace(
        windows,
        targets=windows.targets[index],
        starts=windows.starts[index],
        documents=windows.documents[index],
    )
    return asked.asked(chosen, queries)
