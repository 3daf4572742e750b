"""A run from beginning to end: start it or resume it, and sum up what it reached."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mlx_lvm.config import Options
from mlx_lvm.core import products
from mlx_lvm.core.files.disk import write_json
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, LvmError, Problems, UsageError
from mlx_lvm.models import ModelConfig, VectorModel, architecture, as_dict, config_from_dict
from mlx_lvm.training import run as runs
from mlx_lvm.training.config import CHANGEABLE, SCRATCH, TrainConfig, preset
from mlx_lvm.training.distributed import SINGLE, Group
from mlx_lvm.training.own_corpus import own_corpus, record
from mlx_lvm.training.store import Checkpoints, RunCheckpoints
from mlx_lvm.training.tasks.base import Task
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.tasks.streamed import settle
from mlx_lvm.training.trainer import Trainer


def start_run(
    name: str,
    sizes: Options,
    config: TrainConfig,
    folder: Path | None = None,
    group: Group = SINGLE,
    start: VectorModel | None = None,
) -> Trainer:
    """A new run of architecture `name` in `folder`; `dim` is the corpus's.

    Its weights are drawn from `config.seed`, or those of `start`, which `config.start_from` names.
    """
    task = new_task(name, sizes, config, group, start)
    if group.rank:
        return Trainer(task, Checkpoints())
    folder = folder or runs.claim(name, task.corpus.name)
    runs.create(folder, task.model.config, task.config, task.corpus, start)
    return Trainer(task, RunCheckpoints(folder))


def new_task(
    name: str, sizes: Options, config: TrainConfig, group: Group = SINGLE, start: VectorModel | None = None
) -> Task:
    """The task of a new model, with nothing written yet."""
    corpus = open_corpus(find_corpus(config.corpus))
    config = settle(config, corpus)
    model_config = architecture(name).config_class.from_dict({**sizes, "dim": corpus.dim})
    same = json.dumps([as_dict(model_config), config.to_dict(), corpus.sha256])
    group.require_same("the model, an option or the corpus", same)
    return make_task(model_config, corpus, config, group, start=start)


def resume_run(
    folder: Path,
    given: Options | None = None,
    force: bool = False,
    group: Group = SINGLE,
    start_of: Callable[[str], VectorModel | None] = lambda reference: None,
) -> Trainer:
    """The run in `folder` at its newest intact checkpoint.

    given: options that the caller names, by field, or a preset. One with the value that the run has is fine;
    another one is refused, as is other code. `force` lets those through that leave every number as it is
    (CHANGEABLE), and other code. start_of: gives the model that the run began with, where it has no
    checkpoint yet. Raises InvalidFile where the corpus has changed.
    """
    text = json.dumps(runs.read_config(folder)) if group.rank == 0 else ""
    described = json.loads(group.broadcast_text(text))
    try:
        config = TrainConfig.from_dict(described["train"])
        model_config = config_from_dict(described["model"])
    except (LvmError, TypeError) as error:
        raise InvalidFile(f"{folder / runs.CONFIG}: {error}") from None
    products.choose(config.precision)
    named = named_options(given or {}, model_config)
    problems = Problems(f"{folder} cannot be continued so")
    moved = named.pop("corpus", None)
    changes = _changes({**as_dict(model_config), **config.to_dict()}, named, force, problems)
    if not force:
        _require_conditions(described.get("conditions", {}), problems)
    problems.raise_if_any(UsageError)
    reference = str(moved or own_corpus(folder, described))
    corpus = open_corpus(find_corpus(reference))
    if corpus.sha256 != described["corpus"].get("sha256"):
        raise InvalidFile(
            f"{folder}: corpus {reference} is not the one this run began with (its sha256 differs). "
            "--corpus FILE names that one where it lies elsewhere"
        )
    place = record(reference, folder)
    elsewhere = not place.items() <= described["corpus"].items()
    config = config.replace(**changes, **({"corpus": reference} if elsewhere else {}))
    store = Checkpoints() if group.rank else RunCheckpoints(folder)
    trainer = Trainer(make_task(model_config, corpus, config, group), store)
    trainer.resume()
    if config.start_from not in ("", SCRATCH) and not (trainer.state.count or trainer.state.history):
        start = start_of(config.start_from)
        if start is None or runs.digest(start) != described.get("start", {}).get("sha256"):
            raise UsageError(
                f"{folder}: began with the weights of {config.start_from}, which are not those of today, and "
                "has no checkpoint yet; start it again"
            )
        trainer = Trainer(make_task(model_config, corpus, config, group, start=start), store)
    if (changes or elsewhere) and group.rank == 0:
        now = {"train": config.to_dict(), "corpus": {**described["corpus"], **place}}
        runs.write_config(folder, {**described, **now}, model_config, config)
    return trainer


def named_options(given: Options, model_config: ModelConfig) -> Options:
    """Options by field, those of a named preset for this model among them; what is given wins."""
    named = dict(given)
    name = named.pop("preset", None)
    if name is None:
        return named
    train, sizes = preset(name, model_config)
    return {**train, **sizes, **named}


def _changes(run: Options, named: Options, force: bool, problems: Problems) -> Options:
    """The options whose values are not the run's own, where they may change; the others become problems."""
    changes = {}
    for key, value in named.items():
        flag = f"--{key.replace('_', '-')}"
        if key not in run:
            problems.add(f"{flag} {value}: not an option of {run['model_type']}")
        elif run[key] == value:
            continue
        elif key not in CHANGEABLE:
            remedy = "another value is another run. Omit it, or start a new one"
            problems.add(f"{flag} {value}: the run has {run[key]}, and {remedy}")
        elif not force:
            problems.add(f"{flag} {value}: the run has {run[key]}. --force changes it")
        else:
            changes[key] = value
    return changes


def _require_conditions(began: dict[str, str], problems: Problems) -> None:
    """That versions and device are those that the run began with."""
    now = runs.conditions()
    for key, before in began.items():
        if now.get(key, before) != before:
            told = "its numbers may differ from here on. --force goes on all the same"
            problems.add(f"{key}: began with {before}, here is {now[key]}; {told}")


def finish(trainer: Trainer, folder: Path, verdict: JsonObject) -> JsonObject:
    """What `lvm train --json` prints; written to the run as summary.json. verdict: on the test documents."""
    state, task = trainer.state, trainer.task
    best = next(record for record in state.history if record["epoch"] == state.best_epoch)
    shown = ("val_cosine", "val_centred_cosine", "val_mrr")
    summary = {
        "run": str(folder),
        "model": task.model.config.model_type,
        "parameters": task.model.parameter_count(),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        **{key: value for key, value in best.items() if key in shown},
        "val_baselines": task.baselines,
        "seconds": state.seconds,
        "windows_per_second": state.trained_windows / state.seconds if state.seconds else 0.0,
        "peak_memory": mx.get_peak_memory(),
        "test": verdict,
    }
    write_json(folder / "summary.json", summary)
    return summary
