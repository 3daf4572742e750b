"""Texts to vectors: tokens, the model in compiled batches, pooling, dense layers, unit length.

encoder = TextEncoder.load("all-mpnet-base-v2")
vectors = encoder.encode(["The harbour was empty.", "Whales breathe air."])  # [2, 768] float32
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.activations import on_cpu
from mlx_lvm.core.mlx import mx
from mlx_lvm.encoders.base import TextModel
from mlx_lvm.encoders.batches import Batch, plan
from mlx_lvm.encoders.folder import EncoderFolder, read_folder
from mlx_lvm.encoders.parallel import by_turns, cores, lanes
from mlx_lvm.encoders.tokens import Tokens
from mlx_lvm.encoders.weights import load_weights
from mlx_lvm.errors import InvalidFile, NonFiniteError, UsageError

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
CPU_TOKENS = 512  # of a batch: what a layer makes of them stays in a core's own cache
GPU_TOKENS = 16_384
BATCH = 64  # texts


class TextEncoder:
    """An encoder read from a folder. The same texts in one call give the same bytes again."""

    def __init__(self, model: TextModel, tokens: Tokens, folder: EncoderFolder) -> None:
        self.model, self.tokens, self.folder = model, tokens, folder
        self.pooling, self.denses = folder.pooling, tuple(dense for _, dense in folder.denses)
        self.batch_size = BATCH
        self._compiled: Any = mx.compile(self.vectors)

    @classmethod
    def load(cls, path: str | Path, dtype: str = "float32") -> TextEncoder:
        """Raises InvalidFile where the folder holds no encoder of ours, UsageError for an unknown dtype."""
        if dtype not in DTYPES:
            raise UsageError(f"dtype '{dtype}': expected one of {', '.join(DTYPES)}")
        folder = read_folder(path)
        model = folder.architecture(folder.config)
        for place, module in [(folder.model_path, model), *folder.denses]:
            load_weights(module, place, DTYPES[dtype])
        tokens = Tokens(folder.model_path / "tokenizer.json", folder.max_tokens, folder.lower_case)
        rows = int(folder.config.vocab_size)  # type: ignore[attr-defined]
        if tokens.size > rows:
            what = f"tokenizer.json has ids up to {tokens.size - 1}, the model {rows} rows"
            raise InvalidFile(f"{folder.path}: {what}")
        return cls(model, tokens, folder)

    @property
    def dim(self) -> int:
        """Numbers in a text's vector."""
        if self.denses:
            return int(self.denses[-1].linear.weight.shape[0])
        return len(self.pooling.modes) * self.model.config.width

    def encode(self, texts: Sequence[str], prompt: str | None = None) -> np.ndarray:
        """Unit vectors [texts, dim] float32. prompt: what every text begins with; None: the folder's own.

        Raises NonFiniteError where a vector is not finite.
        """
        prompt = self.folder.default_prompt if prompt is None else prompt
        ids = self.tokens.ids([prompt + text for text in texts])
        skipped = 0 if self.pooling.include_prompt or not prompt else len(self.tokens.ids([prompt])[0]) - 1
        out = np.empty((len(ids), self.dim), np.float32)
        for rows, vectors in self._run(ids, skipped):
            out[rows] = vectors
        if not np.isfinite(out).all():
            raise NonFiniteError(
                f"the encoder gave NaN or Inf in {self.model.dtype}; float32 and bfloat16 reach further than "
                "float16"
            )
        return out

    def too_long(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the encoder reads."""
        return sum(length > self.tokens.longest for length in self.tokens.lengths(texts))

    def vectors(self, ids: mx.array, lengths: mx.array, skipped: mx.array) -> mx.array:
        """Token ids [batch, length], lengths of texts, tokens skipped at each start -> unit [batch, dim]."""
        *_, made = self._stages(ids, lengths, skipped)
        return made

    def _stages(self, ids: mx.array, lengths: mx.array, skipped: mx.array) -> Iterator[mx.array]:
        """`vectors` in pieces: what every half of a layer makes, and last the vectors."""
        place = mx.arange(ids.shape[1])[None]
        mask = (place < lengths[:, None]).astype(mx.int32)
        x, bias = self.model.embed(ids), self.model.bias(mask)
        for block in self.model.blocks:
            for half in block.halves(x, bias):
                yield half
            x = half
        x = self.pooling(self.model.finish(x), mask * (place >= skipped[:, None]).astype(mx.int32))
        for dense in self.denses:
            x = dense(x)
        wide = x.astype(mx.float32)
        yield wide / mx.maximum(mx.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)

    def _run(self, ids: list[list[int]], skipped: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, their vectors) of every batch; some are under way while one is read.

        A CPU gains nothing by a trace of the whole: it pads to no common shape and takes half layers.
        """
        lengths = [len(row) for row in ids]
        if on_cpu():
            share = -(-sum(lengths) // cores())
            batches = list(plan(lengths, min(CPU_TOKENS, share), self.batch_size, self.tokens.longest, True))
            stages: Any = self._stages
        else:
            batches = list(plan(lengths, GPU_TOKENS, self.batch_size, self.tokens.longest))
            stages = lambda *given: iter([self._compiled(*given)])  # noqa: E731
        waiting: deque[tuple[Batch, mx.array]] = deque()
        with lanes(len(batches)) as streams:
            for first in range(0, len(batches), len(streams)):
                group = batches[first : first + len(streams)]
                jobs = [stages(*_arrays(ids, batch, skipped)) for batch in group]
                waiting.extend(zip(group, by_turns(jobs, streams), strict=True))
                while len(waiting) > 2 * len(streams):
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())


def _arrays(ids: list[list[int]], batch: Batch, skipped: int) -> tuple[mx.array, mx.array, mx.array]:
    """The arguments of `vectors`. Rows of no text get one token, which their attention can look at."""
    # MPNet counts no position for a 1; the others do not care
    padded = np.ones((batch.size, batch.length), np.int32)
    lengths = np.ones(batch.size, np.int32)
    for place, row in enumerate(batch.rows):
        lengths[place] = len(ids[row])
        padded[place, : lengths[place]] = ids[row]
    return mx.array(padded), mx.array(lengths), mx.array(np.minimum(skipped, lengths - 1))


def _finished(batch: Batch, made: mx.array) -> tuple[np.ndarray, np.ndarray]:
    return batch.rows, np.array(made)[: len(batch.rows)]
