"""How an evaluation reads on a terminal: the verdict, what it rests on in a table, what was scored, what to
know of it.
"""

from __future__ import annotations

from mlx_lvm.cli.shared.common import Output
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.evaluation.report.table import remarks, score_table

STYLES = {"better": "bold green", "worse": "bold red"}


def show(display: Output, found: Evaluation, every: bool = False) -> None:
    """`every`: all predictors and figures, however wide."""
    verdict, table = found.verdict, score_table(found, every)
    display.warn(found.warnings)
    display.say(verdict.headline, style=STYLES.get(verdict.outcome, "bold yellow"))
    for sentence in verdict.sentences:
        display.say(sentence)
    display.say()
    display.table(table.title, table.columns, table.rows, bold=table.bold)
    for line in remarks(found, every):
        display.say(line)
    display.note(found.notes)
