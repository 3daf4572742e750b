"""A run from beginning to end: start or resume it, judge its best checkpoint on the test documents, sum it up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_lvm.config import parse_size
from mlx_lvm.core.files import write_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.products import choose
from mlx_lvm.data.corpus import to_memory
from mlx_lvm.data.memory import bound_cache
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, LvmError, Problems, SetupInvalid, UsageError
from mlx_lvm.evaluation.evaluate import evaluate
from mlx_lvm.hub.load import load_model
from mlx_lvm.models import ModelConfig, VectorModel, architecture, as_dict, build, config_from_dict
from mlx_lvm.training import run as runs
from mlx_lvm.training.config import CHANGEABLE, TrainConfig, preset
from mlx_lvm.training.distributed import ALONE, Group
from mlx_lvm.training.ramn.trainer import RamnTrainer
from mlx_lvm.training.streamed import StreamedTrainer, settle, streams
from mlx_lvm.training.trainer import Trainer


def start_run(
    name: str, sizes: dict[str, Any], config: TrainConfig, folder: Path | None = None, group: Group = ALONE
) -> Trainer:
    """A new run of architecture `name`, its weights drawn from `config.seed`; `dim` is the corpus's."""
    trainer, model_config = new_trainer(name, sizes, config, folder or Path("runs"), group)
    if trainer.writes:
        if folder is None:
            trainer.folder = runs.claim(name, trainer.corpus.name)
        runs.create(trainer.folder, model_config, trainer.config, trainer.corpus)
    return trainer


def new_trainer(
    name: str, sizes: dict[str, Any], config: TrainConfig, folder: Path, group: Group = ALONE
) -> tuple[Trainer, ModelConfig]:
    """A trainer of a new model, with nothing written yet."""
    choose(config.precision)
    corpus = open_corpus(find_corpus(config.corpus))
    config = settle(config, corpus)
    model_config = architecture(name)[1].from_dict({**sizes, "dim": corpus.dim})
    group.require_same(
        "the model, an option or the corpus",
        json.dumps([as_dict(model_config), config.to_dict(), corpus.sha256]),
    )
    return make_trainer(model_config, corpus, config, folder, group), model_config


def make_trainer(
    model_config: ModelConfig, corpus: MappedCorpus, config: TrainConfig, folder: Path, group: Group = ALONE
) -> Trainer:
    """What trains an architecture on a corpus: from memory or streamed; on windows, or for RAMN on stretches of documents.

    Raises SetupInvalid where an architecture cannot be trained on what does not fit in memory.
    """
    model = initial_model(model_config, config)
    if not streams(config, corpus):
        kind: Any = RamnTrainer if model_config.model_type == "ramn" else Trainer
        held = to_memory(corpus)
        bound_cache(allowed_memory(config))
        return kind(model, held, config, folder, group=group)
    bound_cache(allowed_memory(config))
    if model_config.model_type == "ramn":
        raise SetupInvalid(
            f"ramn is trained on a corpus in memory; {corpus.name} has {corpus.nbytes / 1e9:,.2f} GB of vectors, more than --memory "
            f"{config.memory}. Give more, take a part with `lvm data subset`, or train an architecture that reads windows."
        )
    return StreamedTrainer(model, corpus, config, folder, group)


def allowed_memory(config: TrainConfig) -> int | None:
    """Bytes that `--memory` names; None for auto."""
    return None if config.memory == "auto" else parse_size(config.memory)


def trainable(name: str, config: TrainConfig) -> bool:
    """Whether an architecture can be trained under these options, as far as memory goes."""
    corpus = open_corpus(find_corpus(config.corpus))
    return name != "ramn" or not streams(settle(config, corpus), corpus)


def initial_model(model_config: ModelConfig, config: TrainConfig) -> VectorModel:
    """The model before its first step: a function of its sizes and `config.seed`."""
    mx.random.seed(config.seed)
    model = build(model_config)
    if config.residual_init == "zero":
        model.start_at_baseline()
    mx.eval(model.parameters())
    return model


def resume_run(
    folder: Path, given: dict[str, Any] | None = None, force: bool = False, group: Group = ALONE
) -> Trainer:
    """The run in `folder` at its newest intact checkpoint. `given`: options that the caller names, by field, or a preset.

    An option with the value that the run has is fine; another one is refused, as is other code. `force` lets those through
    that leave every number as it is (CHANGEABLE), and other code. Raises InvalidFile where the corpus has changed.
    """
    described = runs.read_config(folder) if group.rank == 0 else {}
    described = described if group.alone else json.loads(group.first_text(json.dumps(described)))
    given = dict(given or {})
    named, preset_name = given.pop("corpus", None), given.pop("preset", None)
    train, model = described["train"], described["model"]
    try:
        config, model_config = TrainConfig.from_dict(train), config_from_dict(model)
    except (LvmError, TypeError) as error:
        raise InvalidFile(f"{folder / runs.CONFIG}: {error}") from None
    if preset_name is not None:
        given = {
            key: value
            for options in preset(preset_name, model_config.variant)
            for key, value in options.items()
        } | given
    choose(config.precision)
    problems = Problems(f"{folder} cannot be continued so")
    changes = _changes({**as_dict(model_config), **config.to_dict()}, given, force, problems)
    if not force:
        now = runs.conditions()
        for key, before in described.get("conditions", {}).items():
            if now.get(key, before) != before:
                problems.add(
                    f"{key}: began with {before}, here is {now[key]}; its numbers may differ from here on. --force goes on all the same"
                )
    problems.raise_if_any(UsageError)
    if changes:
        config = config.replace(**changes)
    corpus = open_corpus(find_corpus(named or config.corpus))
    if corpus.sha256 != described["corpus"].get("sha256"):
        raise InvalidFile(
            f"{folder}: corpus {named or config.corpus} is no longer the one this run began with (its sha256 differs)"
        )
    trainer = make_trainer(model_config, corpus, config, folder, group)
    trainer.resume()
    if changes and trainer.writes:
        runs.write_config(folder, {**described, "train": config.to_dict()}, model_config, config)
    return trainer


def _changes(run: dict[str, Any], given: dict[str, Any], force: bool, problems: Problems) -> dict[str, Any]:
    """The given options whose values are not the run's own, where they may be changed; the others become problems."""
    changes = {}
    for key, value in given.items():
        flag = f"--{key.replace('_', '-')}"
        if key not in run:
            problems.add(f"{flag} {value}: not an option of {run['model_type']}")
        elif run[key] != value and key not in CHANGEABLE:
            problems.add(
                f"{flag} {value}: the run has {run[key]}, and another value is another run. Leave it away, or start a new one"
            )
        elif run[key] != value and not force:
            problems.add(f"{flag} {value}: the run has {run[key]}. --force changes it")
        elif run[key] != value:
            changes[key] = value
    return changes


def judge(folder: Path, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The evaluation of the run's best checkpoint on the test documents, beside closed forms fitted on its train documents.

    Of a corpus that was streamed, on a sample of both; the result's notes say of what.
    """
    loaded = load_model(folder)
    config = TrainConfig.from_dict(loaded.train)
    return evaluate(
        loaded,
        load_or_sample(config.corpus, config.context, config.split_seed, allowed_memory(config)),
        "test",
        progress=progress,
    )


def finish(trainer: Trainer, verdict: dict[str, Any]) -> dict[str, Any]:
    """What `lvm train --json` prints; written to the run as summary.json."""
    state = trainer.state
    best = next(record for record in state.history if record["epoch"] == state.best_epoch)
    summary = {
        "run": str(trainer.folder),
        "model": trainer.model.config.model_type,
        "parameters": trainer.model.parameter_count(),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        **{
            key: value
            for key, value in best.items()
            if key in ("val_cosine", "val_centred_cosine", "val_mrr")
        },
        "val_baselines": trainer.baselines,
        "seconds": state.seconds,
        "windows_per_second": state.trained_windows / state.seconds if state.seconds else 0.0,
        "peak_memory": mx.get_peak_memory(),
        "test": verdict,
    }
    write_json(trainer.folder / "summary.json", summary)
    return summary
