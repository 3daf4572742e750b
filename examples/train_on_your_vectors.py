"""Train on vectors of your own and see whether that was worth it: python train_on_your_vectors.py
[vectors.npz]

The file holds `vectors` [chunks, dim] and `documents` [chunks], the document of each row, in reading order.
Without one, documents are drawn that wander about a subject, so that there is something to learn.
"""

import sys

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()  # a Linux CPU is many times faster for it; elsewhere it does nothing

import mlx_lvm as lvm


def drawn(documents: int = 60, chunks: int = 40, dim: int = 48) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    subject = draw.normal(size=(documents, 1, dim))
    wandering = np.cumsum(0.4 * draw.normal(size=(documents, chunks, dim)), axis=1)
    return (subject + wandering).reshape(-1, dim), np.repeat(np.arange(documents), chunks)


def main() -> None:
    if len(sys.argv) > 1:
        held = np.load(sys.argv[1])
        vectors, documents = held["vectors"], held["documents"]
    else:
        vectors, documents = drawn()
    corpus = lvm.Corpus.from_arrays(vectors, documents, name="mine")
    model = lvm.train("emn", corpus, epochs=4, out="runs/mine")
    report = lvm.evaluate(model, corpus)
    print(report)
    print("worth it" if report.outcome == "better" else "a baseline does as well:", report.verdict)


if __name__ == "__main__":
    main()
