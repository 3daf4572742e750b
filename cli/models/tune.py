"""`lvm tune`: search over the options of a training; ends with the command line that trains the best."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.api.training import beginning
from mlx_lvm.cli.models.train import choose_device, model_options, recipe
from mlx_lvm.cli.shared.common import Device, Json, Output, output_option, search_option
from mlx_lvm.cli.shared.progress import StopOnSignal
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import UsageError
from mlx_lvm.models import trained
from mlx_lvm.training.run import Lock
from mlx_lvm.training.tune import (
    Search,
    Trial,
    best_first,
    open_study,
    plot,
    require_optuna,
    run_search,
    trials_of,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

WORDS = {"centred_cosine": "centred cosine", "mrr": "MRR"}
HELP = """Search over the options of a training by centred cosine on validation documents, by MRR for head
retrieve; test documents are never looked at.

Every option that is given is fixed; the others are chosen from the space that the options declare. A trial
that lags behind the others ends early. Stop at any time: the same command goes on with the same study.

Examples:  lvm tune amn --trials 20
           lvm tune lstm --time 10m --epochs 5 --context 5
"""


def tune(
    model: Annotated[str, typer.Argument(help=f"Architecture: {', '.join(trained())}.", show_default=False)],
    *,
    trials: Annotated[int, search_option(min=1, help="Finished trials that the study shall have.")] = 20,
    time: Annotated[str | None, search_option(help="End the search after so long (30s, 10m, 2h).")] = None,
    out: Annotated[
        Path | None,
        output_option(help="Folder of the study and its pictures. Default: runs/tune-<model>-<corpus>."),
    ] = None,
    device: Device = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    given = {name: value for name, value in options.items() if value is not None}
    display = Output(as_json)
    require_optuna()
    seconds = duration(time)
    choose_device(device)
    (name, sizes, base), start, note = beginning(recipe(model, given, None, None), given)
    if note:
        display.say(note)
    search = Search(name, base, sizes, frozenset(given), start)
    words = WORDS[search.selection_metric]
    folder = out or Path("runs") / f"tune-{name}-{Path(base.corpus).stem}"
    with Lock(folder), StopOnSignal() as signals:
        study = open_study(folder / "study.db", search)
        searched = f"{len(study.trials)} trials so far; searching {', '.join(search.space())}"
        display.say(f"study {folder / 'study.db'}: {searched}")
        with display.status() as progress:

            def tell(number: int, record: JsonObject) -> None:
                reached = record[f"val_{search.selection_metric}"]
                progress(f"trial {number}, epoch {record['epoch']}: {words} {reached:.4f}")

            whole = run_search(
                study,
                search,
                trials,
                seconds,
                on_epoch=tell,
                on_trial=lambda trial: display.say(trial_line(trial)),
                stop=lambda: bool(signals.received),
            )
        every = trials_of(study)
        told: JsonObject = {"study": str(folder / "study.db"), "best": None, "command": None}
        if ranked := best_first(every):
            show(display, every)
            display.say("pictures: " + ", ".join(str(path) for path in plot(study, folder)))
            chosen = {name: ranked[0].options[name] for name in search.space()}
            told |= {"best": ranked[0].to_dict(), "command": search.command(chosen)}
            display.say(f"train the best: {told['command']}", style="bold")
        else:
            display.say("no trial has finished yet; the same command goes on")
        display.result({**told, "trials": [trial.to_dict() for trial in every]})
    if not whole:
        raise typer.Exit(128 + signals.received)


def trial_line(trial: Trial) -> str:
    reached = trial.state if trial.value is None else f"{trial.value:.4f}"
    forms = {name: ".3g" if isinstance(value, float) else "" for name, value in trial.options.items()}
    chosen = "  ".join(f"{name} {trial.options[name]:{form}}" for name, form in forms.items())
    return f"trial {trial.number:>3}  {reached:>8}  {chosen}"


def show(display: Output, trials: list[Trial]) -> None:
    """The ten that are best."""
    ranked = best_first(trials)

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    rows = [trial.to_dict() for trial in ranked[:10]]
    cells = [[cell(value) for value in row.values()] for row in rows]
    cut = sum(trial.state == "pruned" for trial in trials)
    words = WORDS[ranked[0].metric]
    title = f"{len(ranked)} finished trials, {cut} cut short; {words} on validation documents"
    display.table(title, list(rows[0]), cells, bold=0)


def duration(text: str | None) -> float | None:
    """Seconds. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+)([smh])", text.strip())
    if match is None or not int(match.group(1)):
        raise UsageError(f"--time {text}: expected a time such as 30s, 10m or 2h")
    return float(match.group(1)) * {"s": 1, "m": 60, "h": 3600}[match.group(2)]


app.command(help=HELP)(model_options(tune))
