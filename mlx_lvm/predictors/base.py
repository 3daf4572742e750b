"""What is evaluated: anything that turns windows into predicted vectors, be it a closed form, a control or a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import gather
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import VectorModel

Index = slice | np.ndarray
ALL = slice(None)
BLOCK = 1024  # windows predicted together; bounds memory, whatever the corpus


class Predictor(Protocol):
    """`predict` returns raw vectors [n, dim] float32, one for each chosen window; only their direction is scored."""

    @property
    def name(self) -> str: ...

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array: ...


@dataclass(frozen=True, eq=False)
class ModelPredictor:
    """A network behind the interface: gather and forward as one compiled function, in evaluation mode (no dropout) and in the
    dtype of its weights.
    """

    name: str
    model: VectorModel

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        training, corpus = self.model.training, windows.corpus
        self.model.eval()
        out = self._forward(corpus.vectors, corpus.scales, windows.rows(mx.array(windows.targets[index])))
        self.model.train(training)
        return out

    @cached_property
    def _forward(self) -> Any:
        model = self.model

        @partial(mx.compile, inputs=model.state)  # else the weights of the first call would be baked in
        def forward(vectors: mx.array, scales: mx.array | None, rows: mx.array) -> mx.array:
            return model(gather(vectors, scales, rows).astype(model.dtype)).raw.astype(mx.float32)

        return forward


def predict_all(predictor: Predictor, windows: Windows) -> mx.array:
    """Raw predictions [n, dim] of every window, evaluated block by block."""
    parts = []
    for block in windows.blocks(BLOCK):
        parts.append(predictor.predict(windows, block))
        mx.eval(parts[-1])
    return mx.concatenate(parts) if len(parts) > 1 else parts[0]


def sample(windows: Windows, limit: int) -> Windows:
    """At most `limit` of the windows, evenly spaced over all documents; no random choice, so the same in every run."""
    if len(windows) <= limit:
        return windows
    keep = np.linspace(0, len(windows) - 1, limit).round().astype(np.int64)
    return replace(
        windows, targets=windows.targets[keep], starts=windows.starts[keep], documents=windows.documents[keep]
    )


def document_rows(offsets: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Rows of the documents one after the other, in the order of `documents`."""
    documents = np.asarray(documents, dtype=np.int64)
    lengths = (offsets[1:] - offsets[:-1])[documents]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(offsets[:-1][documents], lengths) + within
