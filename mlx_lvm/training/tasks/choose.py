"""Which task a model takes: its class names one (`VectorModel.task`), its corpus may have to be streamed.

A new kind of task is a subclass of `Task` and a line in IN_MEMORY.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_lvm.core import products
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, to_memory
from mlx_lvm.data.memory import bound_cache
from mlx_lvm.data.splits import Split
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.errors import SetupInvalid
from mlx_lvm.models import ModelConfig, VectorModel, architecture, build
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.emn.task import EmnTask, sampled_task
from mlx_lvm.training.ramn.task import DocumentTask
from mlx_lvm.training.tasks.base import Task
from mlx_lvm.training.tasks.streamed import StreamedTask, settle, streams
from mlx_lvm.training.tasks.windows import WindowTask

# By `VectorModel.task`. Each is made from (model, corpus, config, split or None, group).
IN_MEMORY: Mapping[str, Any] = {"windows": WindowTask, "documents": DocumentTask, "geometry": EmnTask}
# Each is made from (model, mapped corpus, config, group).
STREAMED: Mapping[str, Any] = {"windows": StreamedTask, "geometry": sampled_task}


def make_task(
    model_config: ModelConfig,
    corpus: Corpus | MappedCorpus,
    config: TrainConfig,
    group: Group = SINGLE,
    split: Split | None = None,
    start: VectorModel | None = None,
) -> Task:
    """The task of a new model: the one way in which a training begins, whoever asks.

    A mapped corpus is read into memory, or streamed where `config.memory` says so (`settle` comes first).
    start: whose weights the model begins with, of the same architecture.
    Raises UsageError where they do not fit, SetupInvalid where an architecture cannot be trained on what does
    not fit in memory.
    """
    products.choose(config.precision)
    model = initial_model(model_config, config, start)
    if isinstance(corpus, Corpus):
        return IN_MEMORY[model.task](model, corpus, config, split, group)
    held = None if streams(config, corpus) else to_memory(corpus)
    bound_cache(config.memory_bytes())
    if held is not None:
        return IN_MEMORY[model.task](model, held, config, split, group)
    if model.task not in STREAMED:
        raise SetupInvalid(
            f"{model_config.model_type} is trained on a corpus in memory; {corpus.name} has "
            f"{corpus.nbytes / 1e9:,.2f} GB of vectors, more than --memory {config.memory}. Give more, take "
            "a part with `lvm data subset`, or train an architecture that reads windows."
        )
    return STREAMED[model.task](model, corpus, config, group)


def initial_model(
    model_config: ModelConfig, config: TrainConfig, start: VectorModel | None = None
) -> VectorModel:
    """The model before its first step: by its sizes and `config.seed`, or with the weights of `start`."""
    mx.random.seed(config.seed)
    model = build(model_config)
    if config.residual_init == "zero":
        model.start_at_baseline()
    if start is not None:
        model.adopt(start)
    mx.eval(model.parameters())
    return model


def trainable(name: str, config: TrainConfig, corpus: MappedCorpus) -> bool:
    """Whether an architecture can be trained on a corpus under these options, as far as memory goes."""
    return architecture(name).task in STREAMED or not streams(settle(config, corpus), corpus)
