"""A model that reads the document so far, not the window alone, behind the predictor's interface.

The config's `history` says how many chunks before the target it reads at most. Contexts are filled up with
zero rows on the left, which such a model takes for no chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from mlx_lvm.core.arrays import in_blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import gather
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import VectorModel
from mlx_lvm.predictors.base import ALL, Index, ModelPredictor, Predictor

BLOCK = 128  # windows at once: 38 MiB of context at 768 dimensions
LENGTH_STEP = 20  # chunks that the lengths of contexts differ by


def predictor_of(name: str, model: VectorModel) -> Predictor:
    """The predictor that gives a model what it reads: the document so far, or the window."""
    return HistoryPredictor(name, model) if model.config.history else ModelPredictor(name, model)


@dataclass(frozen=True, eq=False)
class HistoryPredictor:
    """A network over the document so far, in evaluation mode (no dropout) and in the dtype of its weights."""

    name: str
    model: VectorModel

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return self._run(windows, index, "raw")

    @property
    def most(self) -> int:
        """Chunks before the target that the model reads."""
        return self.model.config.history

    @property
    def horizons(self) -> int:
        """Chunks ahead that it predicts, each directly."""
        return self.model.config.horizons

    @property
    def history(self) -> int | None:
        return self.most

    def ahead(self, windows: Windows, index: Index = ALL) -> mx.array:
        """Raw vectors [n, horizons, dim] of the next chunks, of a model that predicts several."""
        return self._run(windows, index, "ahead")

    def predict_with_query(self, windows: Windows, queries: mx.array) -> mx.array:
        """Raw predictions [n, dim] of all windows, given a query [n, dim] each; one of zeros is none."""
        return self._run(windows, ALL, "raw", queries)

    def _run(self, windows: Windows, index: Index, field: str, queries: mx.array | None = None) -> mx.array:
        targets, starts = windows.targets[index], windows.starts[index]
        training, corpus = self.model.training, windows.corpus

        def forward(block: slice) -> mx.array:
            rows, first = targets[block, None], starts[block, None]
            longest = min(int((rows - first).max()), self.most)
            # In steps, so that few functions are compiled.
            length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, self.most)
            rows = rows + np.arange(-length, 0, dtype=np.int32)
            read = (mx.array(np.maximum(rows, first)), mx.array(rows >= first))
            query = None if queries is None else queries[block]
            return self._forward[field](corpus.vectors, corpus.scales, *read, query)

        self.model.eval()
        out = in_blocks(len(targets), BLOCK, forward)
        self.model.train(training)
        return out

    @cached_property
    def _forward(self) -> dict[str, Callable[..., mx.array]]:
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
                asked = () if query is None else (query.astype(model.dtype),)
                found: mx.array = getattr(model(read, *asked), field)
                return found.astype(mx.float32)

            return run

        return {field: forward(field) for field in ("raw", "ahead")}


def takes_queries(predictor: Predictor) -> HistoryPredictor | None:
    """The predictor as one that takes queries; None where its model takes none."""
    if isinstance(predictor, HistoryPredictor) and predictor.model.config.takes_queries:
        return predictor
    return None


def several_horizons(predictor: Predictor) -> HistoryPredictor | None:
    """The predictor as one that knows several horizons; None where it predicts the next chunk alone."""
    return predictor if isinstance(predictor, HistoryPredictor) and predictor.horizons > 1 else None


def predict_with_query(predictor: Predictor, windows: Windows, index: Index, queries: mx.array) -> mx.array:
    """Raw predictions [n, dim] of the chosen windows, given a query [n, dim] each where it takes any."""
    taking = takes_queries(predictor)
    if taking is None:
        return predictor.predict(windows, index)
    return taking.predict_with_query(windows.select(index), queries)
