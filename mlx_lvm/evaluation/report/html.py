"""report.html: an evaluation as one page that needs nothing else. No script, no request: the page forbids
both itself.

render(result, history, command) -> str, `result` as `lvm eval --json` prints it
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from mlx_lvm.evaluation.report.figures import figures
from mlx_lvm.evaluation.report.scores import score_of, words_of
from mlx_lvm.evaluation.summary import span
from mlx_lvm.evaluation.transfer import transferred_sentences, whole_sentences

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.2rem 1rem 3rem; color: #111827; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
.lead, .note, figcaption, footer { color: #4b5563; font-size: .9rem; }
.verdict { border-left: .4rem solid #b45309; background: #fffbeb; padding: .7rem 1rem; margin: 1rem 0;
max-width: none; font-size: 1.1rem;
  font-weight: 600; }
.verdict.better { border-color: #15803d; background: #f0fdf4; }
.verdict.worse { border-color: #b91c1c; background: #fef2f2; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.2rem
2rem; margin-top: 1rem; } figure { margin: 0; break-inside: avoid; }
figure h3 { font-size: .98rem; margin: 0 0 .2rem; }
svg.figure { display: block; width: 100%; height: auto; max-width: 34rem; }
svg.figure text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
sans-serif !important; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .45rem; border-bottom: 1px solid #e5e7eb; white-space: nowrap; }
th { font-weight: 600; border-bottom-color: #9ca3af; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.model td { background: #fff7ed; font-weight: 600; }
tr.control td { color: #6b7280; }
.case { display: grid; grid-template-columns: 4.5rem 1fr 1fr; gap: .1rem 1.2rem; font-size: .86rem;
border-top: 1px solid #e5e7eb;
  padding: .45rem 0; break-inside: avoid; }
.case b { grid-row: span 2; font-variant-numeric: tabular-nums; }
.case .where { grid-column: 2 / 4; font-weight: 600; overflow-wrap: anywhere; }
.case p { margin: 0; }
.case i { color: #4b5563; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
.provenance th { text-align: left; vertical-align: top; color: #4b5563; font-weight: 400; border-bottom-color:
#e5e7eb; } .provenance td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92em; overflow-wrap:
anywhere; } @media (max-width: 34rem) { .case { grid-template-columns: 4.5rem 1fr; } .case p { grid-column: 1
/ 3; }
  .case b { grid-row: auto; } .case .where { grid-column: 2; }
  body { padding: 1rem .8rem 2rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; }
  .scroll { overflow: visible; } th, td { padding: .12rem .3rem; white-space: normal; }
  table { font-size: 7.5pt; } .figures { grid-template-columns: 1fr 1fr; gap: .8rem 1.2rem; } h2 {
  break-after: avoid; } tr { break-inside: avoid; }
  th:first-child, td:first-child { position: static; } * { print-color-adjust: exact;
  -webkit-print-color-adjust: exact; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
HEAD = ("95% interval", "Δ best baseline", "cosine", "centred", "R@1", "R@5", "R@10", "MRR", "MRR centred")


def render(
    result: dict[str, Any], history: Sequence[dict[str, Any]] = (), provenance: dict[str, str] | None = None
) -> str:
    """The page. `history`: the epochs of the run; `provenance`: lines for its last part, beside what `result`
    says itself.
    """
    name, found = result["model"], result["verdict"]
    parts = [
        f"<h1>{escape(name)} on {escape(result['corpus'])}</h1>",
        *(f'<p class="warning">Warning: {escape(line)}</p>' for line in result["warnings"]),
        f'<p class="verdict {found["outcome"].split()[0]}" id="verdict">{escape(found["sentence"])}</p>',
        f'<p class="lead">{escape(_scored(result))}</p>',
        *(f"<p>{escape(sentence)}</p>" for sentence in found["sentences"][1:]),
        *(f'<p class="note">Note: {escape(note)}</p>' for note in result["notes"]),
        "<h2>Compared with every baseline</h2>",
        _metrics(result),
        f'<p class="note">{escape(_legend(result))}</p>',
        '<div class="figures">' + "".join(figures(result, list(history))) + "</div>",
        _ood(result),
        _arrow(result),
        _cases(result),
        _departures(result),
        "<h2>Where this comes from</h2>",
        _provenance(result, provenance or {}),
    ]
    title = escape(f"{name} on {result['corpus']}: {found['outcome']}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _scored(result: dict[str, Any]) -> str:
    return (
        f"Split {result['split']}: {result['windows']:,} windows of {result['context']} chunks in {result['documents']} documents. "
        f"95% intervals by paired bootstrap over documents ({result['resamples']:,} resamples)."
    )


def _legend(result: dict[str, Any]) -> str:
    pool = result["retrieval"]["split"]
    return (
        f"Retrieval of the true next chunk among {pool['pool']:,.0f} chunks, the context's own left out: chance R@1 "
        f"{pool['chance']['recall_at_1']:.4f}, MRR {pool['chance']['mrr']:.4f}. Centred: less the mean of the training targets. "
        "Skill: share of what the best baseline leaves open. The oracle and the random vector test the metrics themselves."
    )


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """rows: (class of the row, cells)."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += [
        f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for kind, cells in rows
    ]
    return '<div class="scroll"><table>' + "\n".join(lines) + "</table></div>"


def _metrics(result: dict[str, Any]) -> str:
    """Every predictor, best first in what the model is made for, which comes first in every row."""
    objective, metrics = result["verdict"]["purpose"], result["metrics"]
    scores = {name: score_of(entry, objective) for name, entry in metrics.items()}
    order = sorted(metrics, key=lambda name: (metrics[name]["kind"] == "control", -scores[name].value))
    rows = []
    for name in order:
        entry, score, control = metrics[name], scores[name], metrics[name]["kind"] == "control"
        against = score.versus_best
        gain = (
            "best"
            if against is None
            else ""
            if control
            else f"{against['difference']:+.4f} ({span(against['ci'], '+.4f')})"
        )
        cells = [name, f"{score.value:.4f}", span(score.ci), gain]
        cells += [f"{entry['cosine']:.4f}", f"{entry['centred_cosine']:.4f}"]
        cells += [f"{entry[key]:.3f}" for key in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")]
        cells += [f"{entry['centred']['mrr']:.3f}", f"{entry['in_document']['mrr']:.3f}"]
        cells.append("" if control else f"{entry['skill']['cosine']:+.3f}")
        rows.append(("model" if name == result["model"] else "control" if control else "", cells))
    return _table(["", words_of(objective), *HEAD, "MRR (same document)", "skill"], rows)


def _ood(result: dict[str, Any]) -> str:
    if "ood" not in result:
        return ""
    found = result["ood"]
    rows = []
    for row in found["rows"]:
        if row["there"] is None:
            continue
        values = [
            f"{side['cosine']:.4f}" if (side := row[key]) else "-" for key in ("home", "there", "transferred")
        ]
        mrr = [
            f"{side['mrr']:.4f}" if (side := row[key]) else "-" for key in ("home", "there", "transferred")
        ]
        kind = (
            "model" if row["predictor"] == result["model"] else "control" if row["kind"] == "control" else ""
        )
        rows.append((kind, [row["predictor"], *values, *mrr]))
    head = [f"{found['home']}", f"{found['corpus']}", "carried over"]
    table = _table(["", *(f"cosine, {h}" for h in head), *(f"MRR, {h}" for h in head)], rows)
    lines = [
        found["verdict"]["sentence"],
        *transferred_sentences(result["model"], found),
        *whole_sentences(found),
        *found["warnings"],
        *found["notes"],
    ]
    return (
        f"<h2>Out of domain: {escape(found['corpus'])}</h2>"
        + "".join(f"<p>{escape(line)}</p>" for line in lines)
        + table
    )


def _arrow(result: dict[str, Any]) -> str:
    if "arrow_of_time" not in result:
        return ""
    return f"<h2>Arrow of time</h2><p>{escape(result['arrow_of_time']['sentence'])}</p>"


def _case(value: str, one: dict[str, Any]) -> str:
    """A figure, the chunk it belongs to, and the texts of the chunk before it and of itself, where there are
    any.
    """
    lines = [
        f"<b>{escape(value)}</b>",
        f'<span class="where">{escape(one["document"])}, chunk {one["chunk"]}</span>',
    ]
    if "text" in one:
        lines += [
            f"<p><i>last read:</i> {escape(one['last_text'])}</p>",
            f"<p><i>next:</i> {escape(one['text'])}</p>",
        ]
    return f'<div class="case">{"".join(lines)}</div>'


def _cases(result: dict[str, Any]) -> str:
    if "cases" not in result:
        return ""
    found = result["cases"]
    out = [
        f"<h2>Where it gains and loses most against {escape(found['against'])}</h2>",
        f"<p>Better in {found['documents_better']} of {found['documents']} documents.</p>",
    ]
    for key, words in (("gains", "Largest gains"), ("losses", "Largest losses")):
        documents = ", ".join(f"{one['document']} {one['gain']:+.4f}" for one in found[f"documents_{key}"])
        if found[key]:
            out.append(f'<h3>{words}</h3><p class="note">By document: {escape(documents) or "none"}.</p>')
            out += [_case(f"{one['gain']:+.3f}", one) for one in found[key]]
    return "".join(out)


def _departures(result: dict[str, Any]) -> str:
    found = result.get("attention", {}).get("departures")
    if not found:
        return ""
    text = "1 - cos(prediction, mean of the context), largest first."
    cases = "".join(_case(f"{one['departure']:.3f}", one) for one in found)
    return f'<h2>Where it leaves the mean of its context</h2><p class="note">{text}</p>{cases}'


def _provenance(result: dict[str, Any], provenance: dict[str, str]) -> str:
    lines = {
        "corpus": f"{result['corpus']}, sha256 of its vectors {result['corpus_sha256']}",
        "split": f"{result['split']}, seed {result['split_seed']}",
        "baselines": json.dumps(_rounded(result["hyper_parameters"])),
        **provenance,
        "seconds": f"{result['seconds']:.0f}",
    }
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td><code>{escape(value)}</code></td></tr>"
        for key, value in lines.items()
    )
    return f'<table class="provenance">{rows}</table>'


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
