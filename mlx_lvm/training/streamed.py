"""Training on a corpus that is larger than the memory it may take: blocks of it are trained on while the next is read.

`TrainConfig.memory` decides, and nothing else: a corpus whose vectors are larger is streamed. `settle` puts a number in the
place of `auto` before a run begins, so that a run goes on in the same order on a machine with more memory, or less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.config import parse_size
from mlx_lvm.data.blocks import Block, Epoch, lay_out
from mlx_lvm.data.memory import roomy
from mlx_lvm.data.sampling import SAMPLE, sample_documents
from mlx_lvm.data.splits import Split
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.stream import Ahead, RowReader, Rows, to_device
from mlx_lvm.errors import IOFailed, LvmError
from mlx_lvm.models import VectorModel
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import ALONE, Group
from mlx_lvm.training.trainer import Trainer

BLOCK_BYTES = 512 << 20  # of a block at most: larger ones mix no better and take longer to begin with
# Blocks in the memory given: the one in use, the next as it is read, and as it goes to the device while the former is let go.
# The fourth part is the sample's, which models are judged on.
PARTS = 4


def settle(config: TrainConfig, corpus: MappedCorpus) -> TrainConfig:
    """The options with a number for `memory` where `auto` means that the corpus is streamed here."""
    return (
        config.replace(memory=f"{roomy() >> 20}M")
        if config.memory == "auto" and corpus.nbytes > roomy()
        else config
    )


def streams(config: TrainConfig, corpus: MappedCorpus) -> bool:
    """Whether the corpus is streamed under these options, once `settle` has seen them."""
    return config.memory != "auto" and corpus.nbytes > parse_size(config.memory)


class StreamedTrainer(Trainer):
    """A `Trainer` that never holds more than some blocks of its corpus.

    The mean, the closed forms for the log and the validation windows come from a sample of documents, as `notes` says.
    """

    def __init__(
        self,
        model: VectorModel,
        corpus: MappedCorpus,
        config: TrainConfig,
        folder: Path,
        group: Group = ALONE,
    ) -> None:
        memory = parse_size(config.memory)
        row_bytes = corpus.nbytes // len(corpus)
        self._sample = sample_documents(
            corpus, config.context, config.split_seed, memory // SAMPLE, ("train", "val")
        )
        super().__init__(model, self._sample.corpus, config, folder, group=group)
        whole = self._sample.whole
        self.split = Split(whole.seed, whole.train, self._sample.taken["val"], whole.test)
        self.corpus = corpus  # type: ignore[assignment]
        block_rows = min(memory // PARTS, BLOCK_BYTES) // row_bytes
        self.layout = lay_out(corpus, whole.train, config.context, config.batch_size, block_rows)
        self.train_windows = self.layout  # type: ignore[assignment]
        self._reader = RowReader(corpus)
        self._buffers = self._reader.buffers(self.layout.capacity)
        self._ahead = Ahead(self._read)
        size, count = corpus.nbytes / 1e9, len(Epoch(self.layout, config.seed, 0))
        self.notes += [
            f"{size:,.2f} GB of vectors are more than --memory {config.memory}: streamed in {count:,} blocks of at most {block_rows:,} "
            "vectors, windows shuffled within a block. Rows are checked as they are read, checksums are not: lvm data check does that",
            f"sampled for validation, the mean and the closed forms: {self._sample.corpus.sampled}",
        ]

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """Target rows in the block that the training step holds, which this changes as the epoch goes on."""
        order, step, size = Epoch(self.layout, self.config.seed, epoch), first, self.config.batch_size
        while step < self.steps_per_epoch:
            number = order.block_of(step)
            block, rows = self._load_block(order, number)
            self.train_step.use(rows)
            for start in range((step - block.first) * size, len(block.targets), size):
                yield block.targets[start : start + size]
            step = block.first + -(-len(block.targets) // size)

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        order, size = Epoch(self.layout, self.config.seed, epoch), self.config.batch_size
        block = order.block(order.block_of(step))
        return block.rows[(step - block.first) * size :][:size]

    def _load_block(self, order: Epoch, number: int) -> tuple[Block, Rows]:
        """A block on the device; the next one of this epoch or of the one that comes is read meanwhile."""
        after, epoch = number + 1, order.epoch
        while after < len(order) and order.first_step(after) == order.first_step(after + 1):
            after += 1  # a block too small for a batch of its own
        following = (
            (epoch, after)
            if after < len(order)
            else (epoch + 1, 0)
            if epoch + 1 < self.config.epochs
            else None
        )
        try:
            return self._ahead.take((epoch, number), following, lambda loaded: to_device(*self._buffers))
        except LvmError:
            if self.state.count:
                with suppress(IOFailed):  # of two troubles the first is told
                    self.save(("LATEST",))  # the steps so far are good
            raise

    def _read(self, key: tuple[int, int]) -> Block:
        epoch, number = key
        block = Epoch(self.layout, self.config.seed, epoch).block(number)
        self._reader.fill(block.starts, block.stops, block.places, *self._buffers)
        return block

    def train(self, *arguments: Any, **options: Any) -> bool:
        try:
            return super().train(*arguments, **options)
        finally:
            self._ahead.close()
