"""What the card of a model for every encoder says: what trained it, and how it does where it saw nothing."""

from __future__ import annotations

from mlx_lvm.core.result import JsonObject, markdown_table

WORDS = {"cosine": "cosine", "centred_cosine": "centred cosine", "centred.mrr": "MRR"}
COLUMNS = (
    *("corpus (width)", "network trained on", "documents, windows", "figure", "value"),
    "to the best baseline",
)
INTRODUCTION = """\
Zero-shot: the network was trained on nothing of the corpus, in any encoder. Of the corpus the model has
statistics alone, which its training documents give. One network a row: this file, or its recipe
on some of the texts.
Differences are to the best baseline in that figure, fitted on the corpus, 95% over documents."""


def universal_results(imported: JsonObject) -> str:
    """Section "Results", from `trained_on` {corpus: {encoder, documents, titles}} and `held_out`, rows."""
    rows = []
    for row in imported["held_out"]:
        scored = f"{row['documents']}, {row['windows']:,} {row['split']}"
        for key in (name for name in WORDS if name in row):
            found, (low, high) = row[key], row[key]["ci"]
            gain = f"{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}] on {found['closed_form']}"
            cells = [f"{row['corpus']} ({row['dim']})", row["network"], scored, WORDS[key]]
            rows.append([*cells, f"{found['value']:.4f}", gain])
    lines = ["## Results", "", INTRODUCTION, "", *markdown_table(COLUMNS, rows)]
    lines += ["", "Measured with `python benchmarks/universal.py`.", "", "## Trained on", ""]
    for corpus, about in imported["trained_on"].items():
        titles = f": {'; '.join(about['titles'])}" if about.get("titles") else ""
        lines.append(f"- {corpus}, {about['encoder']}, {about['documents']} training documents{titles}")
    return "\n".join(lines)
