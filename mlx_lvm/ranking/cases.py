"""Error analysis: the documents and chunks where a model gains and loses most against the best baseline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.result import JsonObject, Result
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows

COUNT = 5
EXCERPT = 240  # characters of a chunk


@dataclass(frozen=True)
class Label(Result):
    """A chunk by its document and place in it, with the beginning of its text and of the text before it."""

    document: str
    chunk: int
    text: str | None = None
    last_text: str | None = None


def label(corpus: Corpus, row: int) -> Label:
    """That of a row of the corpus."""
    document = int(corpus.document_of(np.array([row]))[0])
    text = None
    if corpus.texts is not None:
        text = " ".join(corpus.texts[row].split())
        text = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " ..."
    return Label(corpus.names[document], row - int(corpus.offsets[document]), text)


def window_label(windows: Windows, i: int) -> Label:
    """The chunk that window i asks for, with the text before it."""
    target = int(windows.targets[i])
    return replace(label(windows.corpus, target), last_text=label(windows.corpus, target - 1).text)


@dataclass(frozen=True)
class DocumentCase(Result):
    """Mean gain over the windows of one document."""

    document: str
    windows: int
    gain: float


@dataclass(frozen=True)
class WindowCase(Result):
    """One window: what the model and the baseline reach there in a metric, and their difference."""

    label: Label
    metric: str
    gain: float
    value: float
    baseline: float

    def to_dict(self) -> JsonObject:
        values = {"gain": self.gain, self.metric: self.value, "closed_form": self.baseline}
        return {**self.label.to_dict(), **values}


@dataclass(frozen=True)
class Cases(Result):
    """The largest gains and losses over a baseline, largest first, by document and by window."""

    against: str
    documents_better: int
    documents: int
    documents_gains: list[DocumentCase]
    documents_losses: list[DocumentCase]
    gains: list[WindowCase]
    losses: list[WindowCase]


def cases(
    ours: np.ndarray,
    baseline: str,
    theirs: np.ndarray,
    windows: Windows,
    metric: str = "cosine",
    count: int = COUNT,
) -> Cases:
    """ours, theirs [n]: what the model and the baseline reach in every window, in `metric`."""
    gain = ours - theirs
    documents, group = np.unique(windows.documents, return_inverse=True)
    sizes = np.bincount(group)
    by_document = np.bincount(group, weights=gain) / sizes

    def document(d: int) -> DocumentCase:
        return DocumentCase(windows.corpus.names[documents[d]], int(sizes[d]), float(by_document[d]))

    def window(i: int) -> WindowCase:
        return WindowCase(window_label(windows, i), metric, float(gain[i]), float(ours[i]), float(theirs[i]))

    return Cases(
        against=baseline,
        documents_better=int((by_document > 0).sum()),
        documents=len(documents),
        documents_gains=[document(d) for d in _top(by_document, count)],
        documents_losses=[document(d) for d in _top(-by_document, count)],
        gains=[window(i) for i in _top(gain, count)],
        losses=[window(i) for i in _top(-gain, count)],
    )


def _top(values: np.ndarray, count: int) -> list[int]:
    """Indices of the largest positive values, largest first."""
    order = np.argsort(-values, kind="stable")[:count]
    return [int(i) for i in order if values[i] > 0]
