"""A search over the options of a training with optuna, judged on validation documents alone.

Every trial trains from the seed and reports its centred validation cosine each epoch, or its mean reciprocal
rank where it is made to rank; a trial that lags behind the median of the earlier ones at that epoch ends
there. The study is one sqlite file: a stopped search goes on where it was.
"""

from __future__ import annotations

import shlex
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlx_lvm.config import Options, Range
from mlx_lvm.core.result import JsonObject, Result
from mlx_lvm.errors import InvalidFile, NonFiniteError, UsageError, needing
from mlx_lvm.models import ModelConfig, VectorModel, architecture
from mlx_lvm.training.config import SEARCH, TrainConfig, preset
from mlx_lvm.training.session import new_task
from mlx_lvm.training.store import Checkpoints
from mlx_lvm.training.trainer import Trainer

STARTUP = 5  # trials before any is cut short


@dataclass
class Search:
    """What is searched: a model on a corpus, from `base` options and sizes. What the user named is fixed."""

    model: str
    base: TrainConfig
    sizes: Options
    fixed: frozenset[str] = frozenset()
    start: VectorModel | None = None  # that every trial begins with, whose sizes are then no choice

    @property
    def config(self) -> ModelConfig:
        """The model's sizes, before anything is chosen."""
        return architecture(self.model).config_class.from_dict(self.sizes)

    @property
    def selection_metric(self) -> str:
        """The figure of the validation documents that a trial is as good as."""
        return "mrr" if self.config.objective == "rank" else "centred_cosine"

    def space(self) -> dict[str, Range]:
        model = architecture(self.model)
        fixed = {*self.fixed, *model.unused_options} | ({"hidden_dim"} if self.start is not None else set())
        return {name: value for name, value in {**SEARCH, **model.search}.items() if name not in fixed}

    def described(self) -> str:
        """What two searches must share to be one study."""
        values, space = {**self.base.to_dict(), **self.sizes}, self.space()
        kept = [(name, value) for name, value in values.items() if name not in space]
        return repr(sorted(kept) + sorted(space.items()))

    def command(self, chosen: Options) -> str:
        """The command line that trains with the chosen values; what it omits is the preset `best`."""
        options, sizes = preset("best", self.config)
        plain = {**TrainConfig.from_dict(options).to_dict(), **sizes}
        values = {**self.base.to_dict(), **self.sizes, **chosen}
        given = {name: value for name, value in values.items() if name not in plain or value != plain[name]}
        words = [word for key, value in given.items() for word in (_flag(key), str(value))]
        return shlex.join(["lvm", "train", self.model, *words])


@dataclass(frozen=True)
class Trial(Result):
    """One training of a search. value: what it reached in `metric`, which it is judged by, None where it was
    cut short or failed; options: those that the search chose.
    """

    number: int
    state: str  # complete, pruned, fail or running
    metric: str
    value: float | None
    epochs: int
    options: Options

    def to_dict(self) -> JsonObject:
        """As a row of the table: the value under the metric's name, then the options."""
        told = {"trial": self.number, "state": self.state, self.metric: self.value, "epochs": self.epochs}
        return {**told, **self.options}


def _flag(key: str) -> str:
    return "--from" if key == "start_from" else f"--{key.replace('_', '-')}"


def require_optuna() -> Any:
    """Raises SetupInvalid where optuna is missing."""
    with needing("tune", "lvm tune needs optuna"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(path: Path, search: Search) -> Any:
    """The study in a sqlite file, made where there is none. Raises UsageError for one of another search."""
    optuna = require_optuna()
    from sqlalchemy.pool import NullPool  # the file is open while it is read or written, and no longer

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(f"sqlite:///{path}", {"poolclass": NullPool}),
            study_name="lvm",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=search.base.seed, n_startup_trials=STARTUP),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=1),
        )
    except Exception as error:  # sqlalchemy's own family, which only optuna knows
        why = str(error).splitlines()[0][:200]
        raise InvalidFile(f"{path}: no study, and none can be made there ({why})") from None
    earlier = study.user_attrs.get("search")
    if earlier is not None and earlier != [search.model, search.described()]:
        raise UsageError(f"{path}: holds a search over {earlier[0]} with other options; name another --out")
    study.set_user_attr("search", [search.model, search.described()])
    study.set_user_attr("judged_by", search.selection_metric)  # the name that studies have it under
    # its process was killed
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def run_search(
    study: Any,
    search: Search,
    trials: int,
    seconds: float | None = None,
    on_epoch: Callable[[int, JsonObject], None] = lambda number, record: None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Go on until `trials` trials are finished or the time is over. False where `stop` asked for an end."""
    optuna = require_optuna()
    states = optuna.trial.TrialState
    deadline = time.monotonic() + seconds if seconds else float("inf")

    def finished() -> int:
        return len(study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED]))

    # The recipe that stands is the first trial: a search should not end below it.
    if not study.trials:
        study.enqueue_trial(_standing(search), skip_if_exists=True)
    while finished() < trials and time.monotonic() < deadline and not stop():
        trial = study.ask()
        try:
            value, epochs = _train(trial, search, on_epoch, lambda: stop() or time.monotonic() > deadline)
        except optuna.TrialPruned:
            state, value = states.PRUNED, None
        except NonFiniteError as error:
            trial.set_user_attr("broke", str(error)[:500])
            state, value = states.PRUNED, None
        except BaseException:
            study.tell(trial, state=states.FAIL)
            raise
        else:
            # cut off by the clock or a signal: no result
            state = states.COMPLETE if value is not None else states.FAIL
            trial.set_user_attr("epochs", epochs)
        study.tell(trial, value, state=state)
        on_trial(trials_of(study)[trial.number])
    return not stop()


def _standing(search: Search) -> Options:
    """The base's own values, where the search may choose them."""
    defaults = {field.name: field.default for field in fields(architecture(search.model).config_class)}
    values = {**defaults, **search.sizes, **search.base.to_dict()}

    def allows(allowed: Range, value: Any) -> bool:
        return value in allowed.choices if allowed.choices else allowed.low <= value <= allowed.high

    return {name: values[name] for name, one in search.space().items() if allows(one, values[name])}


def _train(
    trial: Any, search: Search, on_epoch: Callable[[int, JsonObject], None], stop: Callable[[], bool]
) -> tuple[float | None, int]:
    """One trial: (the best that it was judged by, epochs), None for the first where it was stopped."""
    optuna = require_optuna()
    chosen = {name: _suggest(trial, name, allowed) for name, allowed in search.space().items()}
    known = {field.name for field in fields(TrainConfig)}
    options = {name: value for name, value in chosen.items() if name in known}
    sizes = search.sizes | {name: value for name, value in chosen.items() if name not in known}
    try:
        task = new_task(search.model, sizes, search.base.replace(**options), start=search.start)
    except UsageError as error:  # such as a width that the given number of heads does not divide
        trial.set_user_attr("broke", str(error)[:500])
        raise optuna.TrialPruned from None
    trainer, figure = Trainer(task, Checkpoints()), f"val_{search.selection_metric}"

    def epoch(record: JsonObject) -> None:
        on_epoch(trial.number, record)
        trial.report(record[figure], record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    done = trainer.train(on_epoch=epoch, stop=stop)
    best = max((record[figure] for record in trainer.state.history), default=None)
    return (best if done else None), trainer.state.epoch


def _suggest(trial: Any, name: str, allowed: Range) -> Any:
    if allowed.choices:
        return trial.suggest_categorical(name, allowed.choices)
    return trial.suggest_float(name, allowed.low, allowed.high, log=allowed.log)


def trials_of(study: Any) -> list[Trial]:
    """Every trial, in the order they began."""
    metric = study.user_attrs["judged_by"]
    return [
        Trial(
            number=trial.number,
            state=trial.state.name.lower(),
            metric=metric,
            value=trial.value,
            epochs=len(trial.intermediate_values),
            options=trial.params,
        )
        for trial in study.get_trials(deepcopy=False)
    ]


def best_first(trials: list[Trial]) -> list[Trial]:
    """Those that ran to their end, the best one first."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return sorted(complete, key=lambda trial: -(trial.value or 0.0))


PLOTS = ("optimization_history", "intermediate_values", "param_importances", "slice")


def plot(study: Any, folder: Path) -> list[Path]:
    """optuna's own pictures, drawn by matplotlib; those that need more trials than there are are left out."""
    require_optuna()
    with needing("tune", "the plots need matplotlib"):
        import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as pictures

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in PLOTS:
        with _quiet():
            try:
                axes = getattr(pictures, f"plot_{name}")(study)
            except (ValueError, RuntimeError):
                continue
            figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
            figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
            plt.close(figure)
        written.append(folder / f"{name}.png")
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """optuna calls its matplotlib pictures experimental with every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
