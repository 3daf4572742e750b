"""What comes next, among the chunks of a store of your own: python rank_in_your_store.py

The store is a plain dict of arrays here; a vector database gives the same with one query for all rows.
Vectors may be of any encoder, since `emn-rank` serves them all.
"""

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()  # a Linux CPU is many times faster for it; elsewhere it does nothing

import mlx_lvm as lvm


def store() -> dict[str, tuple[np.ndarray, list[str]]]:
    """Vectors and texts by document: here those of Moby Dick, which ships with the package."""
    return {chapter.name: (chapter.vectors, chapter.texts) for chapter in lvm.load_corpus("moby")}


def main() -> None:
    held = store()
    reading, (vectors, texts) = next((name, found) for name, found in held.items() if len(found[0]) > 12)
    corpus = lvm.Corpus.from_arrays(
        np.concatenate([rows for rows, _ in held.values()]),
        documents=[name for name, (rows, _) in held.items() for _ in rows],
        texts=[text for _, found in held.values() for text in found],
    )
    print(f"{reading}, after: ... {texts[9][-70:]}")
    for hit in lvm.load("emn-rank").rank(vectors[:10], corpus, top=5):
        mark = "<- it was this one" if (hit.document, hit.chunk) == (reading, 10) else ""
        print(f"{hit.probability:6.1%}  {hit.document}, {hit.chunk}  {hit.text[:60]} {mark}")


if __name__ == "__main__":
    main()
