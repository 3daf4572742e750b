"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence


def plain_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> list[str]:
    """Lines of a table whose first `left` columns are set left, the others right."""
    cells = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]

    def line(row: list[str]) -> str:
        pairs = enumerate(zip(row, widths, strict=True))
        return "  ".join(c.ljust(w) if k < left else c.rjust(w) for k, (c, w) in pairs).rstrip()

    return [*([title] if title else []), *map(line, cells)]
