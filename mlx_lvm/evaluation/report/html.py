"""report.html: an evaluation as one page that needs nothing else: it forbids itself scripts and requests.

render(findings, history) -> str
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mlx_lvm.core.result import JsonObject
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.evaluation.findings import Findings
from mlx_lvm.evaluation.report.figures import figures
from mlx_lvm.evaluation.report.style import style
from mlx_lvm.evaluation.report.table import CENTRED, RETRIEVAL, SHORT, Column, compared, figure, gain, shown
from mlx_lvm.evaluation.report.verdict_picture import verdict_picture
from mlx_lvm.evaluation.study.attention import Attention
from mlx_lvm.evaluation.transfer import Transfer
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE, MRR, Metric
from mlx_lvm.ranking.cases import Cases, Label

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


Provenance = Mapping[str, Mapping[str, object]]  # facts by heading


def render(found: Findings, history: Sequence[JsonObject] = (), provenance: Provenance | None = None) -> str:
    """The page. history: epochs of the run; provenance: facts of its last part besides the evaluation's."""
    of, arrow = found.evaluation, found.arrow_of_time
    looks = figures(found, history)
    parts = [
        f"<h1>{escape(of.name)} on {escape(of.scored.corpus)}</h1>",
        *(f'<p class="warning">Warning: {escape(line)}</p>' for line in of.warnings),
        verdict_picture(of.verdict),
        f'<p class="lead">{escape(_scored(of))}</p>',
        *(f"<p>{escape(sentence)}</p>" for sentence in of.verdict.sentences),
        *(f'<p class="note">Note: {escape(note)}</p>' for note in of.notes),
        "<h2>Compared with the best baselines</h2>",
        _short(of),
        f'<p class="note">{escape(_legend(of))}</p>',
        *(f'<h2>{escape(words)}</h2><div class="figures">{"".join(drawn)}</div>' for words, drawn in looks),
        _ood(of, found.ood) if found.ood else "",
        f"<h2>Arrow of time</h2><p>{escape(arrow.sentence)}</p>" if arrow else "",
        _cases(found.study.cases, of.objective) if found.study else "",
        _departures(found.study.attention) if found.study and found.study.attention else "",
        "<h2>Every predictor and figure</h2>",
        _metrics(of),
        "<h2>Where this comes from</h2>",
        _provenance(of, provenance or {}),
    ]
    title = escape(f"{of.name} on {of.scored.corpus}: {of.verdict.outcome}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{style()}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _scored(found: Evaluation) -> str:
    what = found.scored
    return (
        f"Split {what.split}: {what.windows:,} windows of {what.context} chunks in {what.documents} "
        f"documents. 95% intervals by paired bootstrap over documents ({what.resamples:,} resamples)."
    )


def _legend(found: Evaluation) -> str:
    pool = found.scored.retrieval.split
    return (
        f"Retrieval of the true next chunk among {pool.pool:,.0f} chunks, the context's own left out: "
        f"chance R@1 {pool.chance.recall_at_1:.4f}, MRR {pool.chance.mrr:.4f}. Centred: less the "
        "mean of the training targets. Skill: share of what the best baseline leaves open. The oracle and "
        "the random vector test the metrics themselves."
    )


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], narrow: int | None = None) -> str:
    """rows: (class of the row, cells). narrow: so many columns are left on a phone."""

    def cells(values: Sequence[str], kind: str) -> str:
        tags = ["th" if k == 0 else kind for k in range(len(values))]
        hides = [' class="more"' if narrow is not None and k >= narrow else "" for k in range(len(values))]
        found = zip(tags, hides, values, strict=True)
        return "".join(f"<{tag}{hide}>{escape(value)}</{tag}>" for tag, hide, value in found)

    body = "\n".join(f'<tr class="{kind}">{cells(values, "td")}</tr>' for kind, values in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _kind(found: Evaluation, name: str) -> str:
    """The class of a predictor's row."""
    if name == found.name:
        return "model"
    return "control" if found.scores[name].kind == "control" else ""


DELTA = "\N{GREEK CAPITAL LETTER DELTA} best baseline"


def _gain(metric: Metric) -> list[Column]:
    """The difference to the best baseline, and its interval."""
    return [
        Column(DELTA, lambda one: gain(one, metric, lambda less: f"{less.value:+.4f}")),
        Column(
            f"95% interval of {DELTA[0]}", lambda one: gain(one, metric, lambda less: less.span("+.4f"), "")
        ),
    ]


def _predictors(
    found: Evaluation, names: Sequence[str], columns: Sequence[Column], narrow: int | None
) -> str:
    rows = [
        (_kind(found, name), [name, *(column.cell(found.scores[name]) for column in columns)])
        for name in names
    ]
    return _table(["", *(column.head for column in columns)], rows, narrow)


def _short(found: Evaluation) -> str:
    """The model, the best baselines and the mean, in what the model is made for."""
    mean, interval, _ = compared(found.objective, " to ")
    columns = [mean, *_gain(found.objective), interval, *SHORT[found.objective]]
    return _predictors(found, shown(found), columns, narrow=3)


def _metrics(found: Evaluation) -> str:
    """Every predictor, best first in what the model is made for, which comes first in every row."""
    objective, scores = found.objective, found.scores
    order = sorted(scores, key=lambda name: (scores[name].kind == "control", -scores[name][objective]))
    mean, interval, _ = compared(objective, " to ")
    cosines = [figure("cosine", COSINE), CENTRED]
    both = [*RETRIEVAL, *cosines] if objective == CENTRED_MRR else [*cosines, *RETRIEVAL]
    skill = Column("skill", lambda one: "" if one.kind == "control" else f"{one.skill[COSINE]:+.3f}")
    return _predictors(found, order, [mean, interval, *_gain(objective), *both, skill], None)


def _ood(home: Evaluation, found: Transfer) -> str:
    metrics = (MRR, COSINE) if home.objective == CENTRED_MRR else (COSINE, MRR)
    rows = [
        (_kind(home, row.predictor), [row.predictor, *row.cells(metrics)])
        for row in found.rows
        if row.there is not None
    ]
    heads = [f"{metric.words}, {side}" for metric in metrics for side in found.sides]
    lines = [f"<p>{escape(line)}</p>" for line in (*found.sentences, *found.warnings, *found.notes)]
    return f"<h2>Out of domain: {escape(found.corpus)}</h2>{''.join(lines)}{_table(['', *heads], rows)}"


def _case(value: str, chunk: Label) -> str:
    """A figure, the chunk it belongs to, and the texts of the chunk before it and of itself, if any."""
    where, texts = f"{escape(chunk.document)}, chunk {chunk.chunk}", ""
    if chunk.text is not None:
        texts = f"<p><i>last read:</i> {escape(chunk.last_text or '')}</p>"
        texts += f"<p><i>next:</i> {escape(chunk.text)}</p>"
    return f'<div class="case"><b>{escape(value)}</b><span class="where">{where}</span>{texts}</div>'


def _cases(found: Cases, objective: Metric) -> str:
    out = [
        f"<h2>Where it gains and loses most against {escape(found.against)}, in {objective.words}</h2>",
        f"<p>Better in {found.documents_better} of {found.documents} documents.</p>",
    ]
    for words, windows, documents in (
        ("Largest gains", found.gains, found.documents_gains),
        ("Largest losses", found.losses, found.documents_losses),
    ):
        listed = ", ".join(f"{one.document} {one.gain:+.4f}" for one in documents)
        if windows:
            out.append(f'<h3>{words}</h3><p class="note">By document: {escape(listed) or "none"}.</p>')
            out += [_case(f"{one.gain:+.3f}", one.label) for one in windows]
    return "".join(out)


def _departures(found: Attention) -> str:
    if not found.departures:
        return ""
    text = "1 - cos(prediction, mean of the context), largest first."
    cases = "".join(_case(f"{one.departure:.3f}", one.label) for one in found.departures)
    return f'<h2>Where it leaves the mean of its context</h2><p class="note">{text}</p>{cases}'


def _provenance(found: Evaluation, provenance: Provenance) -> str:
    """A table in groups, a row a fact."""
    what = found.scored
    about = {"name": what.corpus, "sha256 of its vectors": what.corpus_sha256}
    about |= {"split": f"{what.split}, seed {what.split_seed}"}
    chosen = {
        f"{name}, {key.replace('_', ' ')}": value
        for name, values in found.hyper_parameters.items()
        for key, value in values.items()
    }
    groups = {"Corpus": about, **provenance, "Baselines, chosen on validation documents": chosen}
    rows = []
    for heading, lines in groups.items():
        facts = [(key, text) for key, value in lines.items() if (text := _text(value))]
        if facts:
            rows.append(f'<tr class="group"><th colspan="2">{escape(heading)}</th></tr>')
        rows += [f"<tr><th>{escape(key)}</th><td><code>{escape(one)}</code></td></tr>" for key, one in facts]
    return f'<table class="provenance"><tbody>{"".join(rows)}</tbody></table>'


def _text(value: object) -> str:
    """A fact as a reader writes it: no brackets, no quotes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(one) for one in value)
    return "" if value is None else str(value)
