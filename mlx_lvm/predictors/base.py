"""What is evaluated: whatever turns windows into predicted vectors, be it baseline, control or model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Protocol

import numpy as np

from mlx_lvm.core.arrays import evenly_spaced, in_blocks, ranges
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import gather
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import VectorModel

Index = slice | np.ndarray
ALL = slice(None)
BLOCK = 1024  # windows predicted together; bounds memory, whatever the corpus


class Predictor(Protocol):
    """`predict` returns raw vectors [n, dim] float32, one for each chosen window; only their direction is
    scored.

    `history`: how many chunks before the target it reads where a document has more than the context; 0: the
    context alone; None: the whole document so far.
    """

    @property
    def name(self) -> str: ...

    @property
    def history(self) -> int | None: ...

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array: ...


class ReadsContext:
    """What reads the context alone."""

    history: ClassVar[int | None] = 0


@dataclass(frozen=True, eq=False)
class ModelPredictor(ReadsContext):
    """A network behind the interface: gather and forward as one compiled function, in evaluation mode (no
    dropout) and in the dtype of its weights.
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


@dataclass(frozen=True)
class OwnContext:
    """A model that reads its own number of chunks, whatever the windows hold."""

    inner: Predictor
    context: int

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def history(self) -> int | None:
        return self.inner.history

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return self.inner.predict(replace(windows, context=self.context), index)


def predict_all(predictor: Predictor, windows: Windows) -> mx.array:
    """Raw predictions [n, dim] of every window, evaluated block by block."""
    return in_blocks(len(windows), BLOCK, lambda block: predictor.predict(windows, block))


def sample(windows: Windows, limit: int) -> Windows:
    """At most `limit` of the windows, evenly spaced over all documents: the same in every run."""
    return windows if len(windows) <= limit else windows.select(evenly_spaced(len(windows), limit))


def document_rows(offsets: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Rows of the documents one after the other, in the order of `documents`."""
    documents = np.asarray(documents, dtype=np.int64)
    return ranges(offsets[:-1][documents], (offsets[1:] - offsets[:-1])[documents])
