"""Error analysis: the documents and chunks where a model gains and loses most against the best closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows

COUNT = 5
EXCERPT = 240  # characters of a chunk


def label(corpus: Corpus, row: int) -> dict[str, Any]:
    """Document, place in it, and the beginning of the text where the corpus has it."""
    document = int(corpus.document_of(np.array([row]))[0])
    out: dict[str, Any] = {"document": corpus.names[document], "chunk": row - int(corpus.offsets[document])}
    if corpus.texts is not None:
        text = " ".join(corpus.texts[row].split())
        out["text"] = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " ..."
    return out


def window_case(windows: Windows, i: int) -> dict[str, Any]:
    """The chunk that window i asks for, and the chunk before it."""
    target = int(windows.targets[i])
    before = label(windows.corpus, target - 1)
    return {**label(windows.corpus, target), **({"last_text": before["text"]} if "text" in before else {})}


def cases(
    cosines: dict[str, np.ndarray], subject: str, best: str, windows: Windows, count: int = COUNT
) -> dict[str, Any]:
    """`gains` and `losses`, largest first, by document (mean over its windows) and by window."""
    gain = cosines[subject] - cosines[best]
    found, group = np.unique(windows.documents, return_inverse=True)
    sizes = np.bincount(group)
    by_document = np.bincount(group, weights=gain) / sizes

    def document(d: int) -> dict[str, Any]:
        return {
            "document": windows.corpus.names[found[d]],
            "windows": int(sizes[d]),
            "gain": float(by_document[d]),
        }

    def window(i: int) -> dict[str, Any]:
        values = {
            "gain": float(gain[i]),
            "cosine": float(cosines[subject][i]),
            "closed_form": float(cosines[best][i]),
        }
        return {**window_case(windows, i), **values}

    return {
        "against": best,
        "documents_better": int((by_document > 0).sum()),
        "documents": len(found),
        "documents_gains": [document(d) for d in _top(by_document, count)],
        "documents_losses": [document(d) for d in _top(-by_document, count)],
        "gains": [window(i) for i in _top(gain, count)],
        "losses": [window(i) for i in _top(-gain, count)],
    }


def _top(values: np.ndarray, count: int) -> list[int]:
    """Indices of the largest positive values, largest first."""
    order = np.argsort(-values, kind="stable")[:count]
    return [int(i) for i in order if values[i] > 0]
