"""What the commands share: where text and JSON go, tables, and options that several commands have."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlx_lvm.core.result import JsonObject, plain_table

# Options by the panel of a command's help that they stand in.
chunks_option = partial(typer.Option, rich_help_panel="Chunks")
data_option = partial(typer.Option, rich_help_panel="Data")
encoder_option = partial(typer.Option, rich_help_panel="Encoder")
how_option = partial(typer.Option, rich_help_panel="How")
model_option = partial(typer.Option, rich_help_panel="Model")
output_option = partial(typer.Option, rich_help_panel="Output")
parts_option = partial(typer.Option, rich_help_panel="Parts")
process_option = partial(typer.Option, rich_help_panel="Process")
provenance_option = partial(typer.Option, rich_help_panel="Provenance")
ranking_option = partial(typer.Option, rich_help_panel="Ranking")
recipe_option = partial(typer.Option, rich_help_panel="Recipe")
search_option = partial(typer.Option, rich_help_panel="Search")
text_option = partial(typer.Option, rich_help_panel="Text")
timed_option = partial(typer.Option, rich_help_panel="What is timed")

Json = Annotated[
    bool, output_option("--json", help="Print one JSON object on stdout and nothing else there.")
]
Model = Annotated[
    str,
    typer.Argument(help="Architecture (released weights), run folder, exported folder or .safetensors file."),
]
Corpus = Annotated[
    str,
    data_option(
        "--corpus",
        "-c",
        metavar="NAME|FILE",
        help="Shipped corpus by name (sotu, moby) or a file. Default: the one the model was trained on.",
    ),
]
Precision = Annotated[
    str,
    model_option(
        "--precision",
        metavar="float32|tf32|bfloat16",
        help="What the model's forward pass runs in: bfloat16 is half of the bytes, for chips that are "
        "faster in it.",
    ),
]

Split = Annotated[str, data_option("--split", metavar="train|val|test|all", help="Documents to score on.")]
MaxWindows = Annotated[
    int, data_option("--max-windows", min=1, help="Score at most so many windows, evenly spaced.")
]
Device = Annotated[
    str | None, output_option("--device", metavar="cpu|gpu", help="Default: the GPU where MLX has one.")
]
Markdown = Annotated[bool, output_option("--markdown", help="Print the table as Markdown.")]

PLAIN_WIDTH = 160  # columns of a table that nobody's terminal bounds
GAP, EDGES = 3, 2  # columns of a terminal between those of a table, and at its sides
TEXT_WIDTH = 30  # least width of a column of text


class Output:
    """Text for people and JSON for machines. With `--json`, text goes to stderr, one object to stdout."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        stream = sys.stderr if as_json else sys.stdout
        self.terminal = stream.isatty()
        # No markup: brackets stand for themselves, as in pip install 'mlx-lvm[report]'.
        plain: JsonObject = {"highlight": False, "markup": False}
        piped = not self.terminal
        width = PLAIN_WIDTH if piped else None
        self.console = Console(file=stream, width=width, soft_wrap=piped, **plain)
        self.notes = Console(stderr=True, soft_wrap=True, **plain)

    def say(self, text: str = "", style: str = "") -> None:
        self.console.print(Text(text, style=style))

    def warn(self, warnings: Sequence[str]) -> None:
        """What must be read before any figure."""
        for warning in warnings:
            self.say(f"warning: {warning}", style="bold yellow")

    def note(self, notes: Iterable[str], kind: str = "note") -> None:
        """What to know besides the figures."""
        for note in notes:
            self.say(f"{kind}: {note}", style="yellow")

    @contextmanager
    def status(self, begin: str = "") -> Iterator[Callable[[str], None]]:
        """Gives a function that says what is being done, in a line that a terminal shows while it is."""
        with self.notes.status(Text(begin)) as shown:
            yield lambda line: shown.update(Text(line))  # not markup: a name may have brackets

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        bold: int | None = None,
        left: int = 1,
    ) -> None:
        """The first `left` columns are set left, the others right. `bold` marks one row.

        What a terminal is too narrow for goes on below, with the first columns again: no number is cut off.
        """
        if not self.terminal:
            for line in plain_table(title, columns, rows, left):
                self.say(line)
            return
        look: JsonObject = {"title_justify": "left", "title_style": "bold", "box": box.SIMPLE_HEAD}
        for part in panels(columns, rows, left, self.console.width):
            table = Table(title=title, padding=(0, 1), **look)
            for k in part:
                whole = k >= left or left == 1  # no number is broken
                table.add_column(columns[k], justify="left" if k < left else "right", no_wrap=whole)
            for number, row in enumerate(rows):
                table.add_row(*(row[k] for k in part), style="bold" if number == bold else "")
            self.console.print(table)
            title = ""

    def result(self, value: JsonObject) -> None:
        """The JSON object of the command; printed with `--json` only."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def panels(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int) -> list[list[int]]:
    """The columns of each of the tables that one is cut into: the first `left`, and others to fit `width`."""
    sizes = [max(cell_len(row[k]) for row in [columns, *rows]) + GAP for k in range(len(columns))]
    if left > 1:
        sizes[left - 1] = min(sizes[left - 1], TEXT_WIDTH)  # text, which wraps
    room = width - EDGES - sum(sizes[:left])
    out: list[list[int]] = [[]]
    for k in range(left, len(columns)):
        if out[-1] and sum(sizes[j] for j in out[-1]) + sizes[k] > room:
            out.append([])
        out[-1].append(k)
    return [[*range(left), *part] for part in out]
