"""The model card: a README for the Hub that says what was measured, compared with baselines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from mlx_lvm.core.result import Interval, JsonObject, markdown_table
from mlx_lvm.hub.front_matter import Measured, front_matter
from mlx_lvm.hub.load import Loaded
from mlx_lvm.hub.universal_card import universal_results
from mlx_lvm.metrics.names import CENTRED_COSINE, COSINE, MRR, RECALLS, Metric

PREDICTED = {
    "predict": "the embedding of the next chunk",
    "rank": "a direction to rank chunks by that puts the next one first (no likely chunk itself)",
}
COLUMNS = {COSINE: "cosine", CENTRED_COSINE: "centred cosine"}
COLUMNS |= dict(zip(RECALLS, ("R@1", "R@5", "R@10"), strict=True)) | {MRR: "MRR"}


@dataclass(frozen=True)
class CardFigures:
    """What was measured of a model as its file stores it, on test documents.

    candidates: of a window's retrieval, on average
    sentences:  the verdict
    scores:     of the model and of what it is compared with, by name
    ranking:    how the model ranks (`Ranking.to_dict`), for the file's metadata
    rounding:   what storing the weights in the file's dtype adds to the cosine, None for float32
    """

    model: str
    corpus: str
    split: str
    split_seed: int
    documents: int
    windows: int
    candidates: float
    sentences: list[str]
    scores: dict[str, dict[Metric, Interval]]
    ranking: JsonObject = field(default_factory=dict)
    rounding: float | None = None


def model_card(
    loaded: Loaded, dtype: str, digest: str, figures: CardFigures | None, parity: str | None
) -> str:
    """Markdown with the Hub's front matter. Without date or timing: the same model gives the same bytes."""
    config = loaded.model.config
    parts = [
        front_matter(loaded, _measured(figures) if figures else None),
        f"# {loaded.model.title} ({config.variant})",
        f"Reads {_read(loaded)} and predicts {PREDICTED[config.objective]}, [batch, {config.dim or 'dim'}], "
        f"of unit length. {loaded.model.parameter_count():,} parameters, stored in {dtype}.{_beyond(loaded)}",
        universal_results(loaded.imported)
        if figures is None and "held_out" in loaded.imported
        else _results(figures, dtype),
        parity or "## Parity with PyTorch\n\nNot run at export. `lvm parity MODEL` runs it.",
        _use(loaded),
        _origin(loaded, digest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _read(loaded: Loaded) -> str:
    most, dim = loaded.model.config.history, loaded.model.config.dim or "dim"
    if most:
        return (
            f"the chunk embeddings of a document so far, the last {most} at most, [batch, 1 to {most}, "
            f"{dim}],"
        )
    return f"{loaded.context} chunk embeddings of a document, [batch, {loaded.context}, {dim}],"


def _beyond(loaded: Loaded) -> str:
    """What a model gives or takes besides."""
    config, said = loaded.model.config, ""
    if config.horizons > 1:
        said += (
            f" `ahead` [batch, {config.horizons}, {config.dim}] holds the next {config.horizons} chunks, "
            "each predicted directly."
        )
    if config.takes_queries:
        said += f" A second argument, a query [batch, {config.dim}], says what comes; rows of zeros are none."
    return said


def _results(figures: CardFigures | None, dtype: str) -> str:
    if figures is None:
        return "## Results\n\nNot measured: exported without a corpus."
    lines = [
        "## Results",
        "",
        " ".join(figures.sentences),
        "",
        f"Corpus `{figures.corpus}`, split `{figures.split}` (seed {figures.split_seed}): "
        f"{figures.windows:,} windows of {figures.documents} documents that no training saw. 95% intervals "
        f"by bootstrap over documents. Retrieval of the true next chunk among {figures.candidates:,.0f} "
        "chunks, the context's own left out. Baselines are fitted on the training documents; oracle and "
        "random test the metrics.",
        "",
    ]
    rows = [
        [f"**{name}**" if name == figures.model else name, *(_cell(scores[metric]) for metric in COLUMNS)]
        for name, scores in sorted(figures.scores.items(), key=lambda item: -item[1][COSINE].value)
    ]
    lines += markdown_table(["predictor", *COLUMNS.values()], rows)
    if figures.rounding is not None:
        lines += ["", f"Storing the weights in {dtype} changes the cosine by {figures.rounding:+.6f}."]
    lines += ["", f"Measured with `lvm eval MODEL --corpus {figures.corpus} --split {figures.split}`."]
    return "\n".join(lines)


def _cell(found: Interval) -> str:
    ends = found.span(".3f", ", ", "")
    return f"{found.value:.4f}" + (f" [{ends}]" if ends else "")


def _measured(figures: CardFigures) -> Measured:
    scores = figures.scores[figures.model]
    shown = {COLUMNS[metric]: scores[metric].value for metric in (COSINE, CENTRED_COSINE, RECALLS[1], MRR)}
    return Measured(figures.corpus, figures.split, shown)


def _use(loaded: Loaded) -> str:
    kind, twin = loaded.model.config.model_type, type(loaded.model).__name__
    if not loaded.model.config.dim:
        return """## Use

Give it the corpus that the chunks come from: `lvm eval NAME --corpus FILE`, `lvm predict NAME --corpus FILE`,
or in Python

```python
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.hub.load import for_corpus, load_model
model = for_corpus(load_model("FOLDER"), load_corpus("mine.safetensors")).model
unit = model(context).unit  # mx.array [batch, length, dim] -> [batch, dim]
```

`lvm export NAME --corpus FILE --out DIR` writes a file for that corpus, which PyTorch loads as it is;
`lvm train emn --from NAME --corpus FILE` trains it further."""
    return f"""## Use

With mlx-lvm: `lvm eval FOLDER`, `lvm parity FOLDER`, or in Python

```python
from mlx_lvm.hub.load import load_model
unit = load_model("FOLDER").model(context).unit  # mx.array [batch, length, dim] -> [batch, dim]
```

With PyTorch, the same file as it is:

```python
import json, pathlib
from safetensors.torch import load_file
from mlx_lvm.parity.twins.{kind} import {twin}
model = {twin}(json.loads(pathlib.Path("FOLDER/config.json").read_text())).eval()
model.load_state_dict(load_file("FOLDER/model.safetensors"), strict=True)
```"""


def _origin(loaded: Loaded, digest: str) -> str:
    lines = ["## Provenance", "", f"- weights: sha256 `{digest}`"]
    if loaded.model.config.dim:
        card = {key: value for key, value in (loaded.card.to_dict() if loaded.card else {}).items() if value}
        what, origin = "origin", loaded.imported
        if loaded.train:
            what, origin = "training", {**loaded.train, "corpus": loaded.corpus}
        lines += [
            f"- corpus: `{loaded.corpus}`, sha256 of its vectors `{loaded.corpus_sha256}`",
            f"- encoder: `{json.dumps(card, sort_keys=True, ensure_ascii=False)}`",
            f"- {what}: `{json.dumps(origin, sort_keys=True)}`",
        ]
    return "\n".join(lines)
