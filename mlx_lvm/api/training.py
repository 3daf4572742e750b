"""Training from Python: a new run's recipe in layers, as the command line lays them, and the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from mlx_lvm.api.corpus import Corpus
from mlx_lvm.api.model import Model, load
from mlx_lvm.config import Config, Options
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import LvmError, UsageError, nearest
from mlx_lvm.hub.load import Loaded, load_model
from mlx_lvm.models import VectorModel, architecture
from mlx_lvm.training import run as runs
from mlx_lvm.training.config import SCRATCH, TrainConfig, preset
from mlx_lvm.training.run import Lock
from mlx_lvm.training.session import start_run
from mlx_lvm.training.store import RunCheckpoints


class Recipe(NamedTuple):
    """All that a new run is made of: an architecture's name, its own options by field, training options."""

    model: str
    sizes: Options
    train: TrainConfig


class RecipeFile(NamedTuple):
    """What a --config file says: training options, the model's own, and its name where it stands there."""

    train: Options
    sizes: Options
    model: str | None = None


NO_FILE = RecipeFile({}, {})


def recipe(
    name: str, given: Mapping[str, Any], preset_name: str | None = None, file: RecipeFile = NO_FILE
) -> Recipe:
    """A new run's, in layers: the defaults, the preset over them, a file over that, what is given over all.

    Raises UsageError for an unknown architecture or preset, one that is fitted, or an option that it lacks.
    """
    kind = architecture(name)
    if kind.task == "fitted":
        raise UsageError(
            f"a {name} is fitted, not trained: lvm export lag-filter --out DIR, or lvm eval lag-filter"
        )
    own = _names(kind.config_class) - {"dim"}
    sizes = {**file.sizes, **{key: value for key, value in given.items() if key in own}}
    given_train = {key: value for key, value in given.items() if key not in own}
    preset_train, preset_sizes = preset(preset_name or "best", kind.config_class.from_dict(sizes))
    plain = TrainConfig.from_dict(preset_train).to_dict()
    # A run's own config.toml names every option; one that means nothing here may stand at its default.
    unused = [
        key for key in kind.unused_options if key in given or file.train.get(key, plain[key]) != plain[key]
    ]
    unknown = [key for key in given_train if key not in plain]
    if unused or unknown:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in sorted([*unused, *unknown]))
        raise UsageError(f"{flags}: not an option of {name}, which has {', '.join(sorted(own))}")
    train = TrainConfig.from_dict({**preset_train, **file.train, **given_train})
    return Recipe(name, {**preset_sizes, **sizes}, train)


class Beginning(NamedTuple):
    """A recipe with its start settled: `recipe.train.start_from` names what `start` is. note: why it is
    not the released one, where a training of that architecture begins with one.
    """

    recipe: Recipe
    start: VectorModel | None
    note: str = ""


def beginning(chosen: Recipe, given: Collection[str]) -> Beginning:
    """What a new run begins with: the model that `--from` names, weights drawn anew for `--from scratch`;
    where none is named the architecture's released network, if there is one and it fits.

    given: the options that the user named. Sizes that are neither named nor set by a file are those of the
    model that it begins with. Raises UsageError where a named model is of another architecture.
    """
    kind, named = architecture(chosen.model), chosen.train.start_from
    # What its recipe sets is a default like any other.
    _, recipe = preset("best", kind.config_class.from_dict(chosen.sizes))
    plain = {**kind.config_class.from_dict({}).to_dict(), **recipe}
    own = {k: v for k, v in chosen.sizes.items() if k in given or v != plain[k]}
    released = kind.released.get(kind.config_class.from_dict(chosen.sizes).variant, "")
    note = ""
    if named != SCRATCH and (named or released):
        try:
            found = load_model(named or released)
            note = "" if named else _unfit(found, own, chosen.train)
        except LvmError as error:
            if named:
                raise
            note = f"the released {released} cannot be read ({error})"
        if not note:
            sizes, train = _sizes(found, chosen.model), chosen.train.replace(start_from=named or released)
            return Beginning(Recipe(chosen.model, {**sizes, **own}, train), found.model)
    train = chosen.train.replace(start_from=SCRATCH if released else "")
    return Beginning(chosen._replace(train=train), None, note and f"begins from scratch: {note}")


def start_named(reference: str) -> VectorModel | None:
    """The model that a settled `start_from` names."""
    return None if reference in ("", SCRATCH) else load_model(reference).model


def _sizes(found: Loaded, name: str) -> Options:
    """Those that a model has who begins with this one."""
    config = found.model.config
    if config.model_type != name:
        raise UsageError(f"--from {found.name}: is a {config.model_type}, not a {name}")
    return {key: value for key, value in config.to_dict().items() if key not in ("dim", "expert")}


def _unfit(found: Loaded, own: Options, train: TrainConfig) -> str:
    """Why a released network is no start for a training with these options; empty where it is one."""
    hidden = getattr(found.model.config, "hidden_dim", None)
    if own.get("hidden_dim", hidden) != hidden:
        return f"the released {found.name} has hidden_dim {hidden}"
    corpus = open_corpus(find_corpus(train.corpus))
    if train.split_seed != found.split_seed and corpus.name in (found.imported.get("trained_on") or {}):
        return (
            f"the released {found.name} was trained on documents of {corpus.name} that split seed "
            f"{train.split_seed} tests"
        )
    return ""


def train(
    architecture: str,
    corpus: Corpus | str | Path = "sotu",
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    start_from: str | Path = "",
    progress: Callable[[JsonObject], object] | None = None,
    **options: Any,
) -> Model:
    """Train a model on the training documents of a corpus; its best checkpoint by validation documents.

    architecture: `emn`, `ramn`, `amn`, `gru`, `lstm`, `transformer`
    corpus:     a Corpus, or the name or path of one
    out:        the run folder, which `load` takes; runs/<architecture>-<corpus>-<n> by default
    preset:     "best", the default, or "seed" where the architecture has it
    start_from: a model of the architecture to begin with, by any name that `load` takes; "scratch" draws
                weights anew, which all but `emn` do anyway
    progress:   called after each epoch with its figures, a dict; `print` will do
    options:    those of `lvm train --help`, by their names with underscores: seed=1, epochs=5, lr=1e-3

    Vectors on the device stay as the corpus stores them; a corpus of `from_arrays` or `embed` is kept in the
    run folder. Test documents are not looked at: `evaluate` does that. Raises UsageError for an option that
    is unknown or out of range, InvalidFile where no document is long enough, IOFailed where `out` holds a
    run, NonFiniteError where a loss becomes NaN.

    >>> model = train("emn", "sotu", seed=1, progress=print)
    """
    known = _known(architecture)
    unknown = sorted(set(options) - known)
    if unknown:
        remedy = nearest(unknown[0], sorted(known))
        raise UsageError(f"{unknown[0]}: not an option of {architecture}.{remedy}")
    given = {key: value for key, value in options.items() if value is not None}
    folder = Path(out) if out is not None else None
    chosen = recipe(architecture, {**given, "start_from": str(start_from)}, preset)
    reference, folder = _reference(architecture, corpus, folder)
    chosen = chosen._replace(train=chosen.train.replace(corpus=reference))
    (name, sizes, options_), start, _ = beginning(chosen, given)
    trainer = start_run(name, sizes, options_, folder, start=start)
    assert isinstance(trainer.checkpoints, RunCheckpoints)  # of a process alone
    with Lock(trainer.checkpoints.run):
        trainer.prepare()
        trainer.train(on_epoch=progress or (lambda record: None))
    return load(trainer.checkpoints.run)


def _reference(
    architecture: str, corpus: Corpus | str | Path, folder: Path | None
) -> tuple[str, Path | None]:
    """(what the run calls its corpus, its folder): a corpus without a file is kept in the run's folder."""
    if not isinstance(corpus, Corpus):
        return str(corpus), folder
    if corpus.temporary is None:
        return str(corpus.held.path), folder
    folder = folder or runs.claim(architecture, corpus.name)
    kept = folder / f"{corpus.name}.safetensors"
    if not (folder / runs.CONFIG).exists():  # else it is the corpus of another run, which stays as it is
        corpus.save(kept, overwrite=True)
    return str(kept), folder


def _known(name: str) -> set[str]:
    return _names(TrainConfig) | _names(architecture(name).config_class) - {"dim", "corpus", "start_from"}


def _names(config: type[Config]) -> set[str]:
    return {field.name for field in fields(config)}
