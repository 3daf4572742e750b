"""What the commands share: where text and JSON go, tables, and options that several commands have."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.", rich_help_panel="Output")]
Model = Annotated[str, typer.Argument(help="Architecture (released weights), run folder, exported folder or .safetensors file.")]
Corpus = Annotated[
    str, typer.Option("--corpus", "-c", metavar="NAME|FILE", help="Shipped corpus by name (sotu, moby) or a file.", rich_help_panel="Data")
]

PLAIN_WIDTH = 160  # columns of a table that nobody's terminal bounds


class Output:
    """Text for people and JSON for machines. With `--json`, text goes to stderr and stdout holds one object."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        stream = sys.stderr if as_json else sys.stdout
        self.terminal = stream.isatty()
        self.console = Console(file=stream, width=None if self.terminal else PLAIN_WIDTH, highlight=False, soft_wrap=not self.terminal)
        self.notes = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str = "", style: str = "") -> None:
        self.console.print(Text(text, style=style))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], bold: int | None = None, left: int = 1) -> None:
        """The first `left` columns are set left, the others right. `bold` marks one row."""
        if not self.terminal:
            self._plain(title, columns, rows, left)
            return
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="left" if number < left else "right", no_wrap=number >= left)
        for number, row in enumerate(rows):
            table.add_row(*row, style="bold" if number == bold else "")
        self.console.print(table)

    def _plain(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
        cells = [list(columns), *[list(row) for row in rows]]
        widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
        if title:
            self.say(title)
        for row in cells:
            set_ = [cell.ljust(width) if k < left else cell.rjust(width) for k, (cell, width) in enumerate(zip(row, widths, strict=True))]
            self.say("  ".join(set_).rstrip())

    def result(self, value: dict[str, Any]) -> None:
        """The JSON object of the command; printed with `--json` only."""
        if self.as_json:
            print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
