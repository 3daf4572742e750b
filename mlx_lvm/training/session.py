"""A run from beginning to end: start or resume it, judge its best checkpoint on the test documents, sum it up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_lvm.backend import mx
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.errors import InvalidFile
from mlx_lvm.evaluation.evaluate import evaluate
from mlx_lvm.files import write_json
from mlx_lvm.hub import load_model
from mlx_lvm.models import architecture, build, config_from_dict
from mlx_lvm.training import run as runs
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.trainer import Trainer


def start_run(name: str, sizes: dict[str, Any], config: TrainConfig, folder: Path | None = None) -> Trainer:
    """A new run of architecture `name`, its weights drawn from `config.seed`; `dim` is the corpus's."""
    corpus = load_corpus(config.corpus)
    model_config = architecture(name)[1].from_dict({**sizes, "dim": corpus.dim})
    mx.random.seed(config.seed)
    model = build(model_config)
    if config.residual_init == "zero":
        model.start_at_baseline()
    mx.eval(model.parameters())
    folder = folder or runs.default_folder(name, corpus.name)
    trainer = Trainer(model, corpus, config, folder)
    runs.create(folder, model_config, config, corpus)
    return trainer


def resume_run(folder: Path) -> Trainer:
    """The run in `folder` at its newest intact checkpoint. Raises InvalidFile where its corpus has changed."""
    described = runs.read_config(folder)
    config = TrainConfig.from_dict(described["train"])
    corpus = load_corpus(config.corpus)
    if corpus.sha256 != described["corpus"].get("sha256"):
        raise InvalidFile(f"{folder}: corpus {config.corpus} is no longer the one this run began with (its sha256 differs)")
    trainer = Trainer(build(config_from_dict(described["model"])), corpus, config, folder)
    trainer.resume()
    return trainer


def judge(folder: Path, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The evaluation of the run's best checkpoint on the test documents, beside closed forms fitted on its train documents."""
    loaded = load_model(folder)
    return evaluate(loaded, load_corpus(loaded.train["corpus"]), "test", progress=progress)


def finish(trainer: Trainer, verdict: dict[str, Any]) -> dict[str, Any]:
    """What `lvm train --json` prints; written to the run as summary.json."""
    state = trainer.state
    summary = {
        "run": str(trainer.folder),
        "model": trainer.model.config.model_type,
        "parameters": trainer.model.parameter_count(),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "val_cosine": state.best_cosine,
        "val_baselines": trainer.baselines,
        "seconds": state.seconds,
        "windows_per_second": state.trained_windows / state.seconds if state.seconds else 0.0,
        "peak_memory": mx.get_peak_memory(),
        "test": verdict,
    }
    write_json(trainer.folder / "summary.json", summary)
    return summary
