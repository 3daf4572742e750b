"""The verdict on a run: its best checkpoint on the test documents of its own corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.evaluation.evaluate import Evaluation, examine
from mlx_lvm.hub.load import corpus_of, load_model
from mlx_lvm.training.config import TrainConfig


def judge_run(folder: Path, progress: Callable[[str], None] = lambda line: None) -> Evaluation:
    """The evaluation, compared with baselines fitted on the train documents.

    Of a corpus that was streamed, on a sample of both; its notes say of what.
    """
    loaded = load_model(folder)
    config = TrainConfig.from_dict(loaded.train)
    corpus = load_or_sample(corpus_of(loaded), config.context, config.split_seed, config.memory_bytes())
    return examine(loaded, corpus, "test", progress=progress)
