"""Windows of a corpus larger than the memory it may take: blocks are trained on while the next is read.

`TrainConfig.memory` decides, and nothing else: a corpus whose vectors are larger is streamed. `settle` puts a
number in the place of `auto` before a run begins, so that a run goes on in the same order on a machine with
more memory, or less.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlx_lvm.config import parse_size
from mlx_lvm.data.blocks import Block, Epoch, lay_out
from mlx_lvm.data.memory import roomy
from mlx_lvm.data.sampling import SAMPLE, sample_documents
from mlx_lvm.data.splits import Split, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.stream import Prefetcher, RowReader, Rows, to_device
from mlx_lvm.models import VectorModel
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.step import TrainStep
from mlx_lvm.training.tasks.base import Task, Validation
from mlx_lvm.training.tasks.windows import validation_sums

BLOCK_BYTES = 512 << 20  # of a block at most: larger ones mix no better and take longer to begin with
# Blocks in the memory given: the one in use, the next as it is read, and as it goes to the device while the
# former is let go. The fourth part is the sample's, which models are judged on.
PARTS = 4


def settle(config: TrainConfig, corpus: MappedCorpus) -> TrainConfig:
    """The options with a number for `memory` where `auto` means that the corpus is streamed here."""
    if config.memory == "auto" and corpus.nbytes > roomy():
        return config.replace(memory=f"{roomy() >> 20}M")
    return config


def streams(config: TrainConfig, corpus: MappedCorpus) -> bool:
    """Whether the corpus is streamed under these options, once `settle` has seen them."""
    return config.memory != "auto" and corpus.nbytes > parse_size(config.memory)


class StreamedTask(Task):
    """`model` on windows of the train documents, without ever holding more than some blocks of the corpus.

    The mean, the baselines and the validation windows come from a sample of documents, as `notes` says.
    """

    corpus: MappedCorpus
    step: TrainStep

    def __init__(
        self, model: VectorModel, corpus: MappedCorpus, config: TrainConfig, group: Group = SINGLE
    ) -> None:
        self.model, self.corpus, self.config, self.group = model, corpus, config, group
        memory = parse_size(config.memory)
        seed = config.split_seed
        self.sample = sample_documents(corpus, config.context, seed, memory // SAMPLE, ("train", "val"))
        sampled, whole = self.sample.corpus, self.sample.whole
        self.validation = Validation(sampled, split_corpus(sampled, seed), config.context)
        self.split = Split(whole.seed, whole.train, self.sample.taken["val"], whole.test)
        block_rows = min(memory // PARTS, BLOCK_BYTES) // (corpus.nbytes // len(corpus))
        self.layout = lay_out(corpus, whole.train, config.context, config.batch_size, block_rows)
        self.val_windows = self.validation.windows
        self.train_count = len(self.layout)
        self.skipped = self.layout.skipped + self.val_windows.skipped
        self.steps_per_epoch = -(-self.train_count // config.batch_size)
        self.reader = RowReader(corpus)
        self._buffers = self.reader.buffers(self.layout.capacity)
        self._ahead = Prefetcher(self._read)
        self.step = TrainStep(model, sampled, config, group)
        self._sums = validation_sums(model, sampled, config, self.validation.mean)
        blocks = len(Epoch(self.layout, config.seed, 0))
        self.notes = [
            f"{corpus.nbytes / 1e9:,.2f} GB of vectors are more than --memory {config.memory}: streamed in "
            f"{blocks:,} blocks of at most {block_rows:,} vectors, windows shuffled within a block. Rows are "
            "checked as they are read, checksums are not: lvm data check does that",
            f"sampled for validation, the mean and the baselines: {sampled.sampled}",
        ]

    def batches(self, epoch: int, first: int) -> Iterator[np.ndarray]:
        """Target rows in the block that the step holds, which this changes as the epoch goes on."""
        order, step, size = Epoch(self.layout, self.config.seed, epoch), first, self.config.batch_size
        while step < self.steps_per_epoch:
            block, rows = self._load_block(order, order.block_of(step))
            self.step.use(rows)
            for start in range((step - block.first) * size, len(block.targets), size):
                yield block.targets[start : start + size]
            step = block.first + -(-len(block.targets) // size)

    def target_rows(self, epoch: int, step: int) -> np.ndarray:
        order, size = Epoch(self.layout, self.config.seed, epoch), self.config.batch_size
        block = order.block(order.block_of(step))
        return block.rows[(step - block.first) * size :][:size]

    def validate(self) -> dict[str, float]:
        return self.validation.figures(self._sums)

    def close(self) -> None:
        self._ahead.close()

    def _load_block(self, order: Epoch, number: int) -> tuple[Block, Rows]:
        """A block on the device, while the next one of this epoch or of the one that comes is read."""
        following = self._following(order, number)
        return self._ahead.take((order.epoch, number), following, lambda loaded: to_device(*self._buffers))

    def _following(self, order: Epoch, number: int) -> tuple[int, int] | None:
        """(epoch, block) that is trained on after this one, None after the last."""
        after = number + 1
        while after < len(order) and order.first_step(after) == order.first_step(after + 1):
            after += 1  # a block too small for a batch of its own
        if after < len(order):
            return order.epoch, after
        return (order.epoch + 1, 0) if order.epoch + 1 < self.config.epochs else None

    def _read(self, key: tuple[int, int]) -> Block:
        epoch, number = key
        block = Epoch(self.layout, self.config.seed, epoch).block(number)
        self.reader.fill(block.starts, block.stops, block.places, *self._buffers)
        return block
