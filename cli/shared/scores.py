"""How an evaluation reads on a terminal: the verdict, what it rests on in a table, what was scored, what to
know of it.
"""

from __future__ import annotations

from typing import Any

from mlx_lvm.cli.shared.common import Output
from mlx_lvm.evaluation.report.table import remarks, score_table

STYLES = {"better": "bold green", "worse": "bold red"}


def show(display: Output, result: dict[str, Any], every: bool = False) -> None:
    """`result` as `lvm eval --json` prints it. `every`: all predictors and figures, however wide."""
    verdict, table = result["verdict"], score_table(result, every)
    display.warn(result["warnings"])
    display.say(verdict["headline"], style=STYLES.get(verdict["outcome"], "bold yellow"))
    for sentence in verdict["sentences"]:
        display.say(sentence)
    display.say()
    display.table(table.title, table.columns, table.rows, bold=table.bold)
    for line in remarks(result, every):
        display.say(line)
    for note in result["notes"]:
        display.say(f"note: {note}", style="yellow")
