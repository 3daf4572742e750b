"""`lvm`: the command line. One file a command, loaded when it is called: `lvm --help` loads nothing heavy."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mlx_lvm import __version__
from mlx_lvm.errors import LvmError, SetupInvalid, nearest

# command -> (file, help line, panel)
COMMANDS = {
    "train": ("models.train", "Train a model on a corpus of document vectors.", "Work"),
    "eval": ("models.evaluate", "Compare a model with baselines, on documents it never saw.", "Work"),
    "bench": (
        "trust.bench",
        "Time MLX and torch in turn on one device, compared with the roofline.",
        "Trust",
    ),
    "compare": ("models.compare", "Rank models on the same held-out documents.", "Work"),
    "predict": (
        "models.predict",
        "Predict a document's next chunk and show the chunks nearest to it.",
        "Work",
    ),
    "attention": ("models.attention", "Show what a model looks at in its context.", "Work"),
    "tune": (
        "models.tune",
        "Search over the options of a training; ends with the command that trains the best.",
        "Work",
    ),
    "parity": ("trust.parity", "Prove that MLX and PyTorch compute the same from one file.", "Trust"),
    "export": (
        "exchange.export",
        "Write a model as a Hub folder whose safetensors PyTorch loads as it is.",
        "Exchange",
    ),
    "embed": ("corpora.embed", "Turn documents into a corpus of chunk embeddings.", "Corpora"),
    "data": ("corpora.data", "Inspect, check, convert, make, merge and split corpora.", "Corpora"),
    "import": (
        "exchange.importing",
        "Turn a torch checkpoint or state dict into a model of ours.",
        "Exchange",
    ),
    "doctor": ("trust.doctor", "Show versions, device and BLAS, and how to fix what is missing.", "Trust"),
}

# A first argument that makes a command another one, which has a file of its own.
SECOND_WORDS = {("parity", "encoder"): "trust.parity_encoder", ("bench", "encoder"): "trust.bench_encoder"}

EPILOG = (
    "Every command has --help with an example and --json for machines. Put --debug anywhere to see a "
    "traceback."
)


class LazyGroup(TyperGroup):
    """Lists the commands from the table above and imports only the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        _, line, panel = COMMANDS[cmd_name]
        return _listed(cmd_name, line, panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        completing = ctx.resilient_parsing  # a shell asks, in the middle of a line
        if name not in COMMANDS and completing:
            return None, None, args
        if name not in COMMANDS:
            ctx.fail(f"no command '{name}'.{nearest(name, list(COMMANDS))}")
        if not completing and not {"--help", "--version"} & set(args):
            _tune()
        second = SECOND_WORDS.get((name, args[1])) if len(args) > 1 else None
        app = importlib.import_module(f"mlx_lvm.cli.{second or COMMANDS[name][0]}").app
        command: Any = typer.main.get_command(app)
        command.name = f"{name} {args[1]}" if second else name
        return command.name, command, args[2 if second else 1 :]


def _tune() -> None:
    """Before the command's file brings MLX in. What makes every command slower is said at once."""
    from mlx_lvm.core.linux_cpu import tune

    if note := tune().kernels.note:
        print(f"note: MLX compiles no kernels here, which is slower: {note}", file=sys.stderr)


def _listed(name: str, line: str, panel: str) -> Any:
    """What `--help` shows of a command, whose own module is imported only when it is called."""
    app = typer.Typer(add_completion=False)
    app.command(name, help=line, rich_help_panel=panel)(lambda: None)
    return typer.main.get_command(app)


def _version(show: bool) -> None:
    if show:
        print(f"mlx-lvm {__version__}")
        raise typer.Exit()


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode="rich", epilog=EPILOG)


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_version, is_eager=True
    ),
) -> None:
    """Latent vector models: predict the embedding of a document's next chunk. Trained in MLX, proven against
    PyTorch.
    """


def main() -> None:
    """Entry point of `lvm`. An expected mistake ends with one message and its exit code, `mlx_lvm.errors`."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # names of any script, on terminals of any encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=[a for a in arguments if a != "--debug"], prog_name="lvm")
    except LvmError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except MemoryError as error:
        if debug:
            raise
        found = f"error: out of memory{': ' if str(error) else ''}{error}."
        remedy = "Raise the limit (ulimit -d, ulimit -v), or take a smaller corpus or a shorter --context."
        print(found, remedy, file=sys.stderr)
        sys.exit(SetupInvalid.exit_code)
    except BrokenPipeError:  # `lvm ... | head` is no mistake
        _leave_quietly()
    except SystemExit as end:  # which typer makes of it, with exit code 1
        if isinstance(end.__context__, OSError) and end.__context__.errno == errno.EPIPE:
            _leave_quietly()
        raise


def _leave_quietly() -> None:
    """Nobody reads any more: nothing further is written, not even by Python's own flush at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os._exit(0)


if __name__ == "__main__":
    main()
