"""`lvm train`: from a corpus to a run folder, with progress, and a verdict against closed forms at the end."""

from __future__ import annotations

import inspect
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.common import Output
from mlx_lvm.cli.progress import TrainingDisplay
from mlx_lvm.config import Config, field_types
from mlx_lvm.errors import InvalidFile, UsageError, nearest
from mlx_lvm.models import MODELS, architecture
from mlx_lvm.training.config import PRESETS, TrainConfig, preset
from mlx_lvm.training.run import Lock
from mlx_lvm.training.session import finish, judge, resume_run, start_run
from mlx_lvm.training.trainer import Trainer

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

HELP = """Train a model on the train documents of a corpus; keep the best checkpoint by validation cosine.

Without options it trains on the shipped corpus with the recipe that measured best on validation documents.
Options win over the --config file, the file over the --preset, the preset over the defaults.

Examples:  lvm train amn
           lvm train amn --preset seed --epochs 5
           lvm train amn --corpus my.safetensors --context 8 --loss-cosine 1
           lvm train --resume runs/amn-sotu-1
"""


def _option_parameters() -> list[inspect.Parameter]:
    """A command-line parameter for every field of TrainConfig and of the models' configs."""
    out = []
    for field, kind in _typed(TrainConfig):
        values = {name: changed.get(field.name, field.default) for name, changed in PRESETS.items()}
        shown = ", ".join(f"{name} {value}" for name, value in values.items()) if len(set(values.values())) > 1 else str(field.default)
        out.append(_parameter(field, kind, field.metadata["help"], shown))
    sizes: dict[str, list[tuple[str, Any, Any]]] = {}
    for name, (_, config) in MODELS.items():
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
    model: Annotated[str | None, typer.Argument(help=f"Architecture: {', '.join(MODELS)}.", show_default=False)] = None,
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
    checkpoint_every: Annotated[
        int,
        typer.Option(
            "--checkpoint-every",
            min=0,
            help="Also write a checkpoint every so many steps; 0: at each epoch's end.",
            rich_help_panel="Output",
        ),
    ] = 0,
    device: Annotated[
        str | None, typer.Option("--device", metavar="cpu|gpu", help="Default: the GPU where MLX has one.", rich_help_panel="Output")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.", rich_help_panel="Output")
    ] = False,
    **options: Any,
) -> None:
    given = {name: value for name, value in options.items() if value is not None}
    out_ = Output(as_json)
    choose_device(device)
    if resume is not None:
        if model is not None or given or config is not None or preset_name is not None or out is not None:
            raise UsageError(f"--resume {resume} continues a run with its own options; leave the others away")
        trainer = resume_run(resume)
    else:
        values, sizes, named = read_toml(config) if config is not None else ({}, {}, None)
        name = model or named
        if name is None:
            raise UsageError(f"which model? lvm train MODEL, one of {', '.join(MODELS)}")
        known = {field.name for field in fields(architecture(name)[1])} - {"dim"}
        train_keys = {field.name for field in fields(TrainConfig)}
        misplaced = [f"--{key.replace('_', '-')}" for key in sorted(set(given) - train_keys - known)]
        if misplaced:
            raise UsageError(f"{', '.join(misplaced)}: not an option of {name}, which has {', '.join(sorted(known))}")
        chosen = TrainConfig.from_dict({**preset(preset_name or "best"), **values, **{k: v for k, v in given.items() if k in train_keys}})
        trainer = start_run(name, {**sizes, **{k: v for k, v in given.items() if k in known}}, chosen, out)
    run(trainer, out_, checkpoint_every)


def run(trainer: Trainer, out: Output, checkpoint_every: int) -> None:
    """Train with a display, then judge the best checkpoint on the test documents."""
    display = TrainingDisplay(out, trainer)
    with Lock(trainer.folder), StopOnSignal() as signals, display:
        done = trainer.train(display.step, display.epoch, lambda: bool(signals.received), checkpoint_every)
    if not done:
        out.say(f"stopped at epoch {trainer.state.epoch + 1}, step {trainer.state.step}; continue: lvm train --resume {trainer.folder}")
        raise typer.Exit(128 + signals.received)
    with out.notes.status("") as status:
        verdict = judge(trainer.folder, lambda line: status.update(f"test documents: {line}"))
    display.verdict(verdict, trainer.folder)
    out.result(finish(trainer, verdict))


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
    known = sorted({"model_type", *(f.name for _, config in MODELS.values() for f in fields(config))})
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


class StopOnSignal:
    """SIGINT and SIGTERM ask the loop to stop after its step; a second SIGINT leaves at once."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> StopOnSignal:
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self.received:
            sys.exit(128 + number)
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _with_options() -> Any:
    """`train` with one parameter per declared option in place of **options."""
    kept = [p for p in inspect.signature(train, eval_str=True).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = kept[:1] + _option_parameters() + kept[1:]
    train.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    train.__annotations__ = {p.name: p.annotation for p in parameters}
    return train


app.command(help=HELP)(_with_options())
