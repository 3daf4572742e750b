"""Kills `embed` and `convert` at random moments and lets them go on; prints what came of it. Run by
test_kill.py.

Python and NumPy load once here; every victim is a fork, so that twenty kills take seconds.
"""

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.convert.conversion import Target
from mlx_lvm.data.convert.convert import convert
from mlx_lvm.data.ingest import embedding
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.storage.reader import open_corpus

KILLS = 20


class HashEncoder:
    """A stand-in for a model: a vector from the digest of a text, slowly."""

    def __init__(self, wait: float = 0.0) -> None:
        self.card = EncoderCard(model="hash", dim=32, probes=np.eye(16, 32, dtype=np.float32))
        self.wait, self.encoded = wait, 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(self.wait)
        self.encoded += len(texts)
        raw = b"".join(hashlib.sha256(text.encode()).digest() for text in texts)
        return np.frombuffer(raw, np.uint8).reshape(-1, 32).astype(np.float32) - 127.5

    def too_long(self, texts: Sequence[str]) -> int:
        return 0


def kill_at_random(work: Callable[[], object], longest: float) -> bool:
    """Whether the work was killed before it ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        work()
        os._exit(0)
    time.sleep(random.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def same(one: Path, two: Path) -> bool:
    names = [path.name.replace("a.", "b.") for path in sorted(one.parent.glob("a*"))]
    return one.read_bytes() == two.read_bytes() and all((two.parent / name).exists() for name in names)


def main(folder: Path) -> None:
    random.seed(int(sys.argv[2]))
    embedding.PART = 16
    (folder / "docs").mkdir()
    for number in range(24):
        sentences = [f"Sentence {k} of document {number} says something of its own." for k in range(100)]
        (folder / "docs" / f"{number:02d}.txt").write_text(" ".join(sentences))
    chunking = Chunking(200, 400)
    embedding.embed([folder / "docs"], folder / "a.safetensors", HashEncoder(), chunking)
    killed = unseen = 0
    for _ in range(KILLS):
        killed += kill_at_random(
            lambda: embedding.embed(
                [folder / "docs"], folder / "b.safetensors", HashEncoder(0.004), chunking, overwrite=True
            ),
            0.12,
        )
        unseen += not (folder / "b.safetensors").exists() or len(open_corpus(folder / "b.safetensors")) > 0
    encoder = HashEncoder()
    result = embedding.embed([folder / "docs"], folder / "b.safetensors", encoder, chunking, overwrite=True)
    whole = same(folder / "a.safetensors", folder / "b.safetensors") and same(
        folder / "a.chunks.jsonl", folder / "b.chunks.jsonl"
    )
    print(
        "embed",
        killed,
        unseen,
        int(whole),
        int(encoder.encoded + result.resumed == result.chunks),
        result.chunks,
    )

    rows = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
    np.savez(folder / "rows.npz", vectors=rows, article_ids=np.random.default_rng(1).integers(0, 40, 3000))
    convert(folder / "rows.npz", Target(folder / "c.safetensors"))
    killed = unseen = 0
    for _ in range(KILLS):
        killed += kill_at_random(
            lambda: convert(folder / "rows.npz", Target(folder / "d.safetensors", overwrite=True)), 0.08
        )
        unseen += (
            not (folder / "d.safetensors").exists() or open_corpus(folder / "d.safetensors").verify() == []
        )
    convert(folder / "rows.npz", Target(folder / "d.safetensors", overwrite=True))
    whole = (folder / "c.safetensors").read_bytes() == (folder / "d.safetensors").read_bytes()
    left = [path.name for path in folder.iterdir() if "partial" in path.name]
    print("convert", killed, unseen, int(whole), int(not left), 3000)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
