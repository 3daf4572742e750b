"""The heat map of attention: a row for each group of windows, a column for each position of the context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_lvm.errors import writing
from mlx_lvm.evaluation.report.drawing import figure


def heat_map(rows: list[list[float]], labels: list[str], positions: list[int], axes: Any) -> None:
    """rows [n, context] of weights, one line each, with the numbers where they are few. The colours begin at
    0 and end at twice an even spread or above, so that an even spread looks even.
    """
    top = max(2 / len(positions), max(map(max, rows)))
    lines = {"edgecolors": "white", "linewidth": 0.5 if len(rows) <= 40 else 0}
    mesh = axes.pcolormesh(rows, cmap="cividis", vmin=0, vmax=top, **lines)
    axes.set_xticks([k + 0.5 for k in range(len(positions))], [str(p) for p in positions])
    every = -(-len(rows) // 24)
    axes.set_yticks([k + 0.5 for k in range(0, len(rows), every)], labels[::every])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel("chunk of the context, -1 the last")
    if len(rows) * len(positions) <= 60:
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                look = {"color": "white" if value < top / 2 else "#101010", "fontsize": 8}
                axes.text(x + 0.5, y + 0.5, f"{value:.3f}", ha="center", va="center", **look)
    else:
        axes.figure.colorbar(mesh, ax=axes, label="weight")


def save_heat_map(
    path: Path, rows: list[list[float]], labels: list[str], positions: list[int], title: str
) -> None:
    """A heat map as .png or .svg. Raises IOFailed where it cannot be written."""
    with figure("heat", (5.5, max(2.5, min(12, 0.22 * len(rows) + 1.2)))) as made:
        axes = made.subplots()
        heat_map(rows, labels, positions, axes)
        axes.set_title(title, fontsize=10)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            made.savefig(path, dpi=160)
