"""A picture as inline SVG, in the colours of the page. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from mlx_lvm.errors import needing

SIZE = (4.8, 3.1)  # inches: on a phone's width the text keeps about its size
SUBJECT, BEST, FILTER, MEAN, ORACLE, OTHER = "#c2410c", "#1d4ed8", "#0f766e", "#6b7280", "#111827", "#cbd5e1"
BASELINE, EDGE, LABEL, GRID = "#94a3b8", "#9ca3af", "#374151", "#e5e7eb"
# What each of them is on a dark page: a picture in a page follows the reader's scheme by CSS variables.
DARK = {
    SUBJECT: "#fb923c",
    BEST: "#7aa2ff",
    FILTER: "#2dd4bf",
    MEAN: "#a3adba",
    ORACLE: "#f3f4f6",
    OTHER: "#475569",
    BASELINE: "#7c8aa0",
    EDGE: "#6b7280",
    LABEL: "#d1d5db",
    GRID: "#2b3442",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "text.color": LABEL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": LABEL,
    "xtick.color": LABEL,
    "ytick.color": LABEL,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
}
Draw = Callable[[Any], None]


def available() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


@contextmanager
def figure(salt: str, size: tuple[float, float] = SIZE) -> Iterator[Any]:
    """A figure of our style. Raises SetupInvalid where matplotlib is missing."""
    with needing("report", "pictures need matplotlib"):
        import matplotlib
        from matplotlib.figure import Figure
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}), warnings.catch_warnings():
        # A name in letters that matplotlib's font lacks: the reader's browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield Figure(figsize=size, layout="constrained")


def svg(name: str, title: str, draw: Draw, size: tuple[float, float] = SIZE) -> str:
    """What `draw` puts on the axes, as an <svg> whose ids are its own, so that several live in one page, and
    whose colours are the page's (`variables`). Names in it, and `title`, are text whatever they hold.
    """
    with figure(name, size) as made:
        draw(made.subplots())
        buffer = io.StringIO()
        made.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)

    def own(tag: re.Match[str]) -> str:
        out = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag[0])
        out = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", out)
        out = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', out)
        # A colour of ours becomes its CSS variable; another, as those of a heat map, is itself.
        return re.sub(rf"(?:{'|'.join(DARK)})\b", lambda ours: f"var(--c{ours[0][1:]})", out)

    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None  # matplotlib writes one
    body = re.sub(r"<[^>]+>", own, text[text.index(">") + 1 :])
    return (
        f'<svg class="figure" role="img" aria-label="{escape(title, quote=True)}" viewBox="{view[1]}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )


def variables(dark: bool) -> str:
    """Declarations of every colour, for a page of either scheme."""
    return "".join(f"--c{light[1:]}:{deep if dark else light};" for light, deep in DARK.items())
