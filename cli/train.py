"""`lvm train`: from a corpus to a run folder, with progress, and a verdict against closed forms at the end."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from mlx_lvm.cli.common import Output
from mlx_lvm.cli.compare import show
from mlx_lvm.cli.progress import Silent, StopOnSignal, TrainingDisplay
from mlx_lvm.config import Config, field_types
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.errors import InvalidFile, UsageError, nearest
from mlx_lvm.evaluation.compare import compare
from mlx_lvm.hub import load_model
from mlx_lvm.models import MODELS, TRAINED, architecture, as_dict
from mlx_lvm.training.config import PRESETS, UNUSED, TrainConfig, preset
from mlx_lvm.training.distributed import Group, join
from mlx_lvm.training.reporting import reporting, require_reporter
from mlx_lvm.training.run import Lock, claim, read_config
from mlx_lvm.training.session import finish, judge, resume_run, start_run
from mlx_lvm.training.trainer import Trainer

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

SEEDS = ("amn", "lstm", "gru", "transformer")  # the architectures that `all` trains on equal terms
ARCHITECTURES = f"Architecture: {', '.join(TRAINED)}; or all: {', '.join(SEEDS)}."

HELP = """Train a model on the train documents of a corpus; keep the best checkpoint by validation cosine.

Without options it trains on the shipped corpus with the recipe that measured best on validation documents.
Options win over the --config file, the file over the --preset, the preset over the defaults.

Examples:  lvm train amn
           lvm train amn --preset seed --epochs 5
           lvm train amn --corpus my.safetensors --context 8 --loss-cosine 1
           lvm train all --epochs 10
           lvm train --resume runs/amn-sotu-1
           mlx.launch -n 2 -- lvm train amn
"""


def _option_parameters() -> list[inspect.Parameter]:
    """A command-line parameter for every field of TrainConfig and of the models' configs."""
    out = []
    for field, kind in _typed(TrainConfig):
        values = {name: changed.get(field.name, field.default) for name, changed in PRESETS.items()}
        shown = ", ".join(f"{name} {value}" for name, value in values.items()) if len(set(values.values())) > 1 else str(field.default)
        out.append(_parameter(field, kind, field.metadata["help"], shown))
    sizes: dict[str, list[tuple[str, Any, Any]]] = {}
    for name, config in ((name, MODELS[name][1]) for name in TRAINED):
        for field, kind in _typed(config):
            if field.name != "dim":  # follows the corpus
                sizes.setdefault(field.name, []).append((name, field, kind))
    for found in sizes.values():
        helps = dict.fromkeys(field.metadata["help"] for _, field, _ in found)
        shown = ", ".join(f"{name} {field.default}" for name, field, _ in found)
        out.append(_parameter(found[0][1], found[0][2], "; or ".join(helps), shown))
    return out


def _typed(config: type[Config]) -> list[tuple[Any, Any]]:
    types = field_types(config)
    return [(field, types[field.name]) for field in fields(config)]


def _parameter(field: Any, kind: Any, text: str, shown: str) -> inspect.Parameter:
    flags = [f"--{field.name.replace('_', '-')}"] + (["-c"] if field.name == "corpus" else [])
    metavar = "|".join(field.metadata.get("choices") or ()) or None
    info = typer.Option(*flags, help=text, rich_help_panel=field.metadata["group"], show_default=shown, metavar=metavar)
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info])


def train(
    model: Annotated[str | None, typer.Argument(help=ARCHITECTURES, show_default=False)] = None,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder. Default: runs/<model>-<corpus>-<n>.", rich_help_panel="Output")
    ] = None,
    preset_name: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="|".join(PRESETS),
            help="Named recipe: best (the defaults), or the origin project's.",
            rich_help_panel="Recipe",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file with any of these options.", rich_help_panel="Recipe")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run from its last checkpoint.", rich_help_panel="Recipe")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="With --resume: take other epochs, early stop or checkpoint options, or go on with other code.",
            rich_help_panel="Recipe",
        ),
    ] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Train so many runs, seed by seed; mean and spread at the end.", rich_help_panel="Recipe")
    ] = 1,
    report_to: Annotated[
        str | None,
        typer.Option("--report-to", metavar="tensorboard|wandb", help="Send each epoch's record there too.", rich_help_panel="Output"),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="cpu|gpu", help="Default: the GPU where MLX has one.", rich_help_panel="Output")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.", rich_help_panel="Output")
    ] = False,
    **options: Any,
) -> None:
    given = {name: value for name, value in options.items() if value is not None}
    choose_device(device)
    require_reporter(report_to)
    group = join()
    out_ = Output(as_json) if group.rank == 0 else Silent()
    if resume is not None:
        if seeds > 1:
            raise UsageError(f"--resume {resume} continues one run; leave --seeds away")
        if out is not None and out.resolve() != resume.resolve():
            raise UsageError(f"--out {out}: --resume {resume} continues in its own folder; leave --out away")
        named = given_options(model, given, config, preset_name)
        trainer = resume_locked(resume, named, force, group)
        out_.result(run(trainer, out_, report_to=report_to))
        return
    if force:
        raise UsageError("--force goes with --resume")
    if model == "all":
        if seeds > 1:
            raise UsageError("--seeds trains one architecture again; name it, or leave --seeds away")
        out_.result(run_all(given, config, preset_name, out, group, out_, report_to))
        return
    name, sizes, chosen = recipe(model, given, config, preset_name)
    if seeds == 1:
        out_.result(run(start_run(name, sizes, chosen, out, group), out_, report_to=report_to))
    else:
        out_.result(run_seeds(name, sizes, chosen, seeds, out, group, out_, report_to))


def recipe(
    model: str | None, given: dict[str, Any], config: Path | None, preset_name: str | None
) -> tuple[str, dict[str, Any], TrainConfig]:
    """(architecture, sizes, options) of a new run: options given, over the file's, over the preset's, over the defaults."""
    values, sizes, named = read_toml(config) if config is not None else ({}, {}, None)
    name = model or named
    if name is None:
        raise UsageError(f"which model? lvm train MODEL, one of {', '.join(TRAINED)}")
    if name in MODELS and name not in TRAINED:
        raise UsageError(f"a {name} is fitted in closed form, not trained: lvm export lag-filter --out DIR, or lvm eval lag-filter")
    known, unused = {field.name for field in fields(architecture(name)[1])} - {"dim"}, {*UNUSED.get(name, ())}
    train_keys = {field.name for field in fields(TrainConfig)} - unused
    sizes = {**sizes, **{key: value for key, value in given.items() if key in known}}
    standing = preset(preset_name or "best", architecture(name)[1].from_dict(sizes).variant)
    plain = TrainConfig.from_dict(standing).to_dict()
    idle = {key for key in unused if values.get(key, plain[key]) != plain[key]}  # a run's own config.toml names them all
    misplaced = [f"--{key.replace('_', '-')}" for key in sorted(({*given} - train_keys - known) | idle)]
    if misplaced:
        raise UsageError(f"{', '.join(misplaced)}: not an option of {name}, which has {', '.join(sorted(known))}")
    return name, sizes, TrainConfig.from_dict({**standing, **values, **{k: v for k, v in given.items() if k in train_keys}})


def given_options(model: str | None, given: dict[str, Any], config: Path | None, preset_name: str | None) -> dict[str, Any]:
    """Every option that the command line names, by field, for a run that has options already."""
    values, sizes, named = read_toml(config) if config is not None else ({}, {}, None)
    out = {**(preset(preset_name) if preset_name else {}), **values, **sizes, **given}
    name = model or named
    return out if name is None else {"model_type": name, **out}


def resume_locked(folder: Path, named: dict[str, Any], force: bool, group: Group) -> Trainer:
    """`resume_run` while nobody else trains into the folder."""
    read_config(folder) if group.rank == 0 else None  # before the lock, which would make the folder
    with Lock(folder) if group.rank == 0 else nullcontext():
        return resume_run(folder, named, force, group)


def run(trainer: Trainer, out: Output, checkpoint_every: str | None = None, report_to: str | None = None) -> dict[str, Any]:
    """Train with a display, then judge the best checkpoint on the test documents; the run's summary."""
    display, speaks = TrainingDisplay(out, trainer), trainer.group.rank == 0
    options = {**as_dict(trainer.model.config), **trainer.config.to_dict()}
    with (
        Lock(trainer.folder) if speaks else nullcontext(),
        StopOnSignal() as signals,
        reporting(report_to if speaks else None, trainer.folder, options) as report,
    ):
        trainer.prepare()

        def epoch(record: dict[str, Any]) -> None:
            display.epoch(record)
            report(record)

        with display:
            done = trainer.train(display.step, epoch, lambda: bool(signals.received), checkpoint_every)
        if not done:
            out.say(f"stopped at epoch {trainer.state.epoch + 1}, step {trainer.state.step}; continue: lvm train --resume {trainer.folder}")
            raise typer.Exit(128 + (signals.received or signal.SIGTERM))  # another rank's signal counts as SIGTERM here
        if not speaks:
            return {}
        signals.at_once = f"training is done, the test documents are not: lvm train --resume {trainer.folder} judges them"
        with out.notes.status("") as status:
            verdict = judge(trainer.folder, lambda line: status.update(f"test documents: {line}"))
        display.verdict(verdict, trainer.folder)
        return finish(trainer, verdict)


def run_all(
    given: dict[str, Any],
    config: Path | None,
    preset_name: str | None,
    folder: Path | None,
    group: Group,
    out: Output,
    report_to: str | None,
) -> dict[str, Any]:
    """The four seed architectures on the same split, seed, epochs and batches, in folders `<model>`; then the leaderboard."""
    recipes = {}
    for name in SEEDS:
        own = {field.name for field in fields(architecture(name)[1])} | {field.name for field in fields(TrainConfig)}
        recipes[name] = recipe(name, {key: value for key, value in given.items() if key in own}, config, preset_name)
    shared = recipes[SEEDS[0]][2]
    corpus = shared.corpus
    if folder is None:
        folder = claim("all", Path(corpus).stem) if group.rank == 0 else Path("runs")
    summaries = [run(start_run(*recipes[name], folder / name, group), out, report_to=report_to) for name in SEEDS]
    if group.rank:
        return {}
    with out.notes.status("") as status:
        data = load_or_sample(corpus, shared.context, shared.split_seed)
        result = compare([load_model(folder / name) for name in SEEDS], data, progress=lambda line: status.update(line))
    out.say()
    show(out, result)
    return {"runs": summaries, "comparison": result}


def run_seeds(
    name: str, sizes: dict[str, Any], config: TrainConfig, count: int, folder: Path | None, group: Group, out: Output, report_to: str | None
) -> dict[str, Any]:
    """Runs with the seeds config.seed, config.seed + 1, ... in folders `seed-<n>`; mean and standard deviation of what they reach."""
    if folder is None:
        folder = claim(name, Path(config.corpus).stem) if group.rank == 0 else Path("runs")
    summaries = []
    for seed in range(config.seed, config.seed + count):
        trainer = start_run(name, sizes, config.replace(seed=seed), folder / f"seed-{seed}", group)
        summaries.append(run(trainer, out, report_to=report_to))
    if group.rank:
        return {}
    rows = {f"seed {seed}": reached(summary) for seed, summary in enumerate(summaries, config.seed)}
    table = np.array([list(row.values()) for row in rows.values()])
    columns = list(next(iter(rows.values())))
    mean, spread = table.mean(axis=0), table.std(axis=0, ddof=1)
    cells = [[label, *(f"{value:.4f}" for value in row)] for label, row in zip([*rows, "mean", "std"], [*table, mean, spread], strict=True)]
    out.table(f"{count} seeds of {name}", ["", *columns], cells, bold=count)
    return {
        "run": str(folder),
        "model": name,
        "runs": summaries,
        "mean": dict(zip(columns, mean.tolist(), strict=True)),
        "std": dict(zip(columns, spread.tolist(), strict=True)),
    }


def reached(summary: dict[str, Any]) -> dict[str, float]:
    """What a run reached, in the figures that are compared across seeds."""
    test = summary["test"]["metrics"][summary["test"]["model"]]
    return {
        "val cosine": summary["val_cosine"],
        **({"val MRR": summary["val_mrr"]} if "val_mrr" in summary else {}),
        "test cosine": test["cosine"],
        "test centred": test["centred_cosine"],
        "test MRR": test["centred"]["mrr"],
        "test R@5": test["centred"]["recall_at_5"],
    }


def read_toml(path: Path) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """(training options, model sizes, model's name) of a TOML file. Raises InvalidFile where it does not parse."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidFile(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{path}: not a TOML file ({error})") from None
    sizes = values.pop("model", {})
    if isinstance(sizes, str):
        return values, {}, sizes
    if not isinstance(sizes, dict):
        raise UsageError(f'{path}: [model] must be a table, or model = "name"')
    known = sorted({"model_type", *(f.name for name in TRAINED for f in fields(MODELS[name][1]))})
    for key in sizes:
        if key not in known:
            raise UsageError(f"{path}: unknown key '{key}' in [model].{nearest(key, known)}")
    sizes.pop("dim", None)
    return values, sizes, sizes.pop("model_type", None)


def choose_device(name: str | None) -> None:
    """Raises UsageError for an unknown device or one that is not here."""
    from mlx_lvm.backend import mx

    if name is None:
        return
    if name not in ("cpu", "gpu"):
        raise UsageError(f"unknown device '{name}'; expected cpu or gpu")
    kind = mx.cpu if name == "cpu" else mx.gpu
    if not mx.is_available(kind):
        raise UsageError("no GPU that MLX can use here; leave --device away or pass --device cpu")
    mx.set_default_device(kind)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one parameter per declared option in place of **options."""
    kept = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = kept[:1] + _option_parameters() + kept[1:]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


app.command(help=HELP)(model_options(train))
