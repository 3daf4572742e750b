"""`lvm train`: from a corpus to a run folder, with progress, and a verdict against the baselines."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.api.training import NO_FILE, Recipe, RecipeFile, beginning
from mlx_lvm.api.training import recipe as new_recipe
from mlx_lvm.cli.models.train_many import PLAN, resume_many, train_many
from mlx_lvm.cli.models.train_one import resume_locked, run
from mlx_lvm.cli.shared.common import Device, Json, Output, output_option, recipe_option
from mlx_lvm.cli.shared.progress import Silent
from mlx_lvm.config import Config, Options, field_types
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, UsageError, nearest
from mlx_lvm.models import architecture, trained
from mlx_lvm.training.config import PRESETS, TrainConfig, presets_of
from mlx_lvm.training.distributed import init
from mlx_lvm.training.reporting import require_reporter
from mlx_lvm.training.session import start_run
from mlx_lvm.training.tasks.choose import trainable

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

ARCHITECTURES = f"Architecture: {', '.join(trained())}; or all of them on equal terms."

HELP = """Train a model on the train documents of a corpus; keep the best checkpoint by validation cosine.

Without options it trains on the shipped corpus with the recipe that measured best on validation documents.
Options win over the --config file, the file over the --preset, the preset over the defaults.

Examples:  lvm train amn
           lvm train amn --preset seed --epochs 5
           lvm train amn --corpus my.safetensors --context 8 --loss-cosine 1
           lvm train emn --corpus my.safetensors --from scratch
           lvm train all --epochs 10
           lvm train --resume runs/amn-sotu-1
           mlx.launch -n 2 -- lvm train amn
"""


def _option_parameters() -> list[inspect.Parameter]:
    """A command-line parameter for every field of TrainConfig and of the models' configs."""
    out = []
    for field, kind in _typed(TrainConfig):
        shown = f"{field.default}{presets_of(field.name)}"
        out.append(_parameter(field, kind, field.metadata["help"], shown))
    sizes: dict[str, list[tuple[str, Any, Any]]] = {}
    for name in trained():
        for field, kind in _typed(architecture(name).config_class):
            if field.name != "dim":  # follows the corpus
                sizes.setdefault(field.name, []).append((name, field, kind))
    for option, found in sizes.items():
        helps = dict.fromkeys(field.metadata["help"] for _, field, _ in found)
        shown = ", ".join(f"{name} {field.default}" for name, field, _ in found) + presets_of(option)
        out.append(_parameter(*found[0][1:], "; or ".join(helps), shown))
    return out


def _typed(config: type[Config]) -> list[tuple[Any, Any]]:
    types = field_types(config)
    return [(field, types[field.name]) for field in fields(config)]


def _parameter(field: Any, kind: Any, text: str, shown: str) -> inspect.Parameter:
    flag = "from" if field.name == "start_from" else field.name.replace("_", "-")
    flags = [f"--{flag}"] + (["-c"] if field.name == "corpus" else [])
    metavar = "|".join(field.metadata.get("choices") or ()) or None
    info = typer.Option(
        *flags, help=text, rich_help_panel=field.metadata["group"], show_default=shown, metavar=metavar
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def train(
    model: Annotated[str | None, typer.Argument(help=ARCHITECTURES, show_default=False)] = None,
    *,
    out: Annotated[Path | None, output_option(help="Run folder. Default: runs/<model>-<corpus>-<n>.")] = None,
    preset_name: Annotated[
        str | None,
        recipe_option(
            "--preset",
            metavar="|".join(PRESETS),
            help="Named recipe: best (the defaults), or the origin project's.",
        ),
    ] = None,
    config: Annotated[Path | None, recipe_option(help="TOML file with any of these options.")] = None,
    resume: Annotated[Path | None, recipe_option(help="Continue this run from its last checkpoint.")] = None,
    force: Annotated[
        bool,
        recipe_option(
            "--force",
            help="With --resume: take other epochs, early stop or checkpoint options, or go on with other "
            "code.",
        ),
    ] = False,
    seeds: Annotated[
        int, recipe_option(min=1, help="Train so many runs, seed by seed; mean and spread at the end.")
    ] = 1,
    report_to: Annotated[
        str | None, output_option(metavar="tensorboard|wandb", help="Send each epoch's record there too.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    given = {name: value for name, value in options.items() if value is not None}
    choose_device(device)
    require_reporter(report_to)
    group = init()
    out_ = Output(as_json) if group.rank == 0 else Silent()
    if resume is not None:
        if seeds > 1:
            raise UsageError(f"--resume {resume} continues one run; omit --seeds")
        if out is not None and out.resolve() != resume.resolve():
            raise UsageError(f"--out {out}: --resume {resume} continues in its own folder; omit --out")
        named = given_options(model, given, config, preset_name)
        if group.any((resume / PLAN).exists()):
            corpus = named.pop("corpus", None)
            if named or force:
                goes_on = f"--resume {resume} goes on with several runs as they were begun"
                raise UsageError(f"{goes_on}; omit all options but --corpus")
            out_.result(resume_many(resume, corpus, group, out_, report_to))
        else:
            out_.result(run(resume_locked(resume, named, force, group), out_, report_to=report_to))
        return
    if force:
        raise UsageError("--force goes with --resume")
    if model == "all":
        if seeds > 1:
            raise UsageError("--seeds trains one architecture again; name it, or omit --seeds")
        recipes = every_recipe(given, config, preset_name)
        corpus = open_corpus(find_corpus(next(iter(recipes.values())).train.corpus))
        planned = {}
        for name, one in recipes.items():
            if not trainable(name, one.train, corpus):
                why = "it is trained on a corpus in memory and this one is streamed"
                out_.say(f"{name}: left out, for {why}; --memory gives it more")
                continue
            settled = beginning(one, given)
            if settled.note:
                out_.say(f"{name} {settled.note}")
            planned[name] = settled.recipe
        out_.result(train_many(planned, "all", out, group, out_, report_to))
        return
    (name, sizes, chosen), start, note = beginning(recipe(model, given, config, preset_name), given)
    if note:
        out_.say(note)
    if seeds == 1:
        out_.result(run(start_run(name, sizes, chosen, out, group, start), out_, report_to=report_to))
    else:
        planned = {
            f"seed-{seed}": Recipe(name, sizes, chosen.replace(seed=seed))
            for seed in range(chosen.seed, chosen.seed + seeds)
        }
        out_.result(train_many(planned, "seeds", out, group, out_, report_to))


def every_recipe(given: Options, config: Path | None, preset_name: str | None) -> dict[str, Recipe]:
    """The recipe of every architecture that has the preset, with the options given that it has."""
    out = {}
    for name in trained():
        model = architecture(name)
        if preset_name is not None and preset_name not in model.presets:
            continue
        own = {field.name for of in (model.config_class, TrainConfig) for field in fields(of)}
        mine = {key: given[key] for key in given if key in own.difference(model.unused_options)}
        out[name] = recipe(name, mine, config, preset_name)
    return out


def recipe(model: str | None, given: Options, config: Path | None, preset_name: str | None) -> Recipe:
    """A new run's: what is given over the --config file, that over the --preset, that over the defaults."""
    file = read_toml(config)
    name = model or file.model
    if name is None:
        raise UsageError(f"which model? lvm train MODEL, one of {', '.join(trained())}")
    return new_recipe(name, given, preset_name, file)


def given_options(model: str | None, given: Options, config: Path | None, preset_name: str | None) -> Options:
    """Every option that the command line names, by field, for a run that has options already."""
    file = read_toml(config)
    named = {"model_type": model or file.model, "preset": preset_name}
    said = {name: value for name, value in named.items() if value}
    return {**said, **file.train, **file.sizes, **given}


def read_toml(path: Path | None) -> RecipeFile:
    """The options of a TOML file, where one is named. Raises InvalidFile where it does not parse."""
    if path is None:
        return NO_FILE
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
        return RecipeFile(values, {}, sizes)
    if not isinstance(sizes, dict):
        raise UsageError(f'{path}: [model] must be a table, or model = "name"')
    options = (field.name for name in trained() for field in fields(architecture(name).config_class))
    known = sorted({"model_type", *options})
    for key in sizes:
        if key not in known:
            raise UsageError(f"{path}: unknown key '{key}' in [model].{nearest(key, known)}")
    sizes.pop("dim", None)
    return RecipeFile(values, sizes, sizes.pop("model_type", None))


def choose_device(name: str | None) -> None:
    """Raises UsageError for an unknown device or one that is not here."""
    from mlx_lvm.core.mac_cpu import use_mac_cpu
    from mlx_lvm.core.mlx import mx

    if name is None:
        return
    if name not in ("cpu", "gpu"):
        raise UsageError(f"unknown device '{name}'; expected cpu or gpu")
    kind = mx.cpu if name == "cpu" else mx.gpu
    if not mx.is_available(kind):
        raise UsageError("no GPU that MLX can use here; omit --device or pass --device cpu")
    mx.set_default_device(kind)
    if kind == mx.cpu and (note := use_mac_cpu()):
        print(f"note: {note}", file=sys.stderr)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one parameter per declared option in place of **options."""
    *kept, _ = inspect.signature(command, eval_str=True).parameters.values()
    parameters = kept[:1] + _option_parameters() + kept[1:]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


app.command(help=HELP)(model_options(train))
