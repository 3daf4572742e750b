"""report.html: an evaluation as one page that needs nothing else. No script, no request: the page forbids
both itself.

render(result, history, command) -> str, `result` as `lvm eval --json` prints it
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from mlx_lvm.evaluation.report.figures import figures
from mlx_lvm.evaluation.report.scores import RANKS, score_of, words_of
from mlx_lvm.evaluation.report.style import style
from mlx_lvm.evaluation.report.table import shown
from mlx_lvm.evaluation.report.verdict_picture import verdict_picture
from mlx_lvm.evaluation.summary import span
from mlx_lvm.evaluation.transfer import transferred_sentences, whole_sentences

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(
    result: dict[str, Any],
    history: Sequence[dict[str, Any]] = (),
    provenance: dict[str, dict[str, Any]] | None = None,
) -> str:
    """The page. `history`: the epochs of the run; `provenance`: rows of its last part by heading, beside what
    `result` says itself.
    """
    name, found = result["model"], result["verdict"]
    looks = figures(result, list(history))
    parts = [
        f"<h1>{escape(name)} on {escape(result['corpus'])}</h1>",
        *(f'<p class="warning">Warning: {escape(line)}</p>' for line in result["warnings"]),
        verdict_picture(found),
        f'<p class="lead">{escape(_scored(result))}</p>',
        *(f"<p>{escape(sentence)}</p>" for sentence in found["sentences"]),
        *(f'<p class="note">Note: {escape(note)}</p>' for note in result["notes"]),
        "<h2>Compared with the best baselines</h2>",
        _short(result),
        f'<p class="note">{escape(_legend(result))}</p>',
        *(f'<h2>{escape(words)}</h2><div class="figures">{"".join(drawn)}</div>' for words, drawn in looks),
        _ood(result),
        _arrow(result),
        _cases(result),
        _departures(result),
        "<h2>Every predictor and figure</h2>",
        _metrics(result),
        "<h2>Where this comes from</h2>",
        _provenance(result, provenance or {}),
    ]
    title = escape(f"{name} on {result['corpus']}: {found['outcome']}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{style()}</style></head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _scored(result: dict[str, Any]) -> str:
    return (
        f"Split {result['split']}: {result['windows']:,} windows of {result['context']} chunks in "
        f"{result['documents']} documents. "
        f"95% intervals by paired bootstrap over documents ({result['resamples']:,} resamples)."
    )


def _legend(result: dict[str, Any]) -> str:
    pool = result["retrieval"]["split"]
    return (
        f"Retrieval of the true next chunk among {pool['pool']:,.0f} chunks, the context's own left out: "
        f"chance R@1 {pool['chance']['recall_at_1']:.4f}, MRR {pool['chance']['mrr']:.4f}. Centred: less the "
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


def _row(result: dict[str, Any], name: str) -> tuple[str, list[str]]:
    """The class of a predictor's row, and its first cells: name, objective, its interval, difference to the
    best baseline, interval of that.
    """
    entry = result["metrics"][name]
    score, control = score_of(entry, result["verdict"]["purpose"]), entry["kind"] == "control"
    against = score.versus_best
    gain = "best" if against is None else "" if control else f"{against['difference']:+.4f}"
    ends = "" if against is None or control else span(against["ci"], "+.4f")
    kind = "model" if name == result["model"] else "control" if control else ""
    return kind, [name, f"{score.value:.4f}", span(score.ci), gain, ends]


DELTA = "\N{GREEK CAPITAL LETTER DELTA} best baseline"
SHORT = {"cosine": ("centred", "MRR", "R@5"), RANKS: ("R@5", "R@10", "cosine")}


def _short(result: dict[str, Any]) -> str:
    """The model, the best baselines and the mean, in what the model is made for."""
    objective, rows = result["verdict"]["purpose"], []
    for name in shown(result):
        entry = result["metrics"][name]
        values = {
            "centred": f"{entry['centred_cosine']:.4f}",
            "MRR": f"{entry['centred']['mrr']:.4f}",
            "R@5": f"{entry['centred']['recall_at_5']:.3f}",
            "R@10": f"{entry['centred']['recall_at_10']:.3f}",
            "cosine": f"{entry['cosine']:.4f}",
        }
        kind, (label, value, interval, gain, ends) = _row(result, name)
        rows.append((kind, [label, value, gain, ends, interval, *(values[key] for key in SHORT[objective])]))
    head = ["", words_of(objective), DELTA, f"95% interval of {DELTA[0]}", "95% interval"]
    return _table([*head, *SHORT[objective]], rows, narrow=3)


def _metrics(result: dict[str, Any]) -> str:
    """Every predictor, best first in what the model is made for, which comes first in every row."""
    objective, metrics = result["verdict"]["purpose"], result["metrics"]
    ranks = objective == RANKS
    order = sorted(
        metrics, key=lambda one: (metrics[one]["kind"] == "control", -score_of(metrics[one], objective).value)
    )
    rows = []
    for name in order:
        entry = metrics[name]
        kind, cells = _row(result, name)
        predicts = [f"{entry['cosine']:.4f}", f"{entry['centred_cosine']:.4f}"]
        retrieves = [f"{entry[key]:.3f}" for key in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr")]
        retrieves += [f"{entry['centred']['mrr']:.3f}", f"{entry['in_document']['mrr']:.3f}"]
        skill = "" if kind == "control" else f"{entry['skill']['cosine']:+.3f}"
        both = [*retrieves, *predicts] if ranks else [*predicts, *retrieves]
        rows.append((kind, [*cells, *both, skill]))
    retrieval = ("R@1", "R@5", "R@10", "MRR", "MRR centred", "MRR (same document)")
    cosines = ("cosine", "centred")
    both_heads = [*retrieval, *cosines] if ranks else [*cosines, *retrieval]
    head = ["", words_of(objective), "95% interval", DELTA, f"95% interval of {DELTA[0]}"]
    return _table([*head, *both_heads, "skill"], rows)


def _ood(result: dict[str, Any]) -> str:
    if "ood" not in result:
        return ""
    found, ranks = result["ood"], result["verdict"]["purpose"] == RANKS
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
        rows.append((kind, [row["predictor"], *(mrr + values if ranks else values + mrr)]))
    head = [f"{found['home']}", f"{found['corpus']}", "carried over"]
    keys = ("MRR", "cosine") if ranks else ("cosine", "MRR")
    table = _table(["", *(f"{key}, {h}" for key in keys for h in head)], rows)
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
    found, words = result["cases"], words_of(result["verdict"]["purpose"])
    out = [
        f"<h2>Where it gains and loses most against {escape(found['against'])}, in {words}</h2>",
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


def _provenance(result: dict[str, Any], provenance: dict[str, dict[str, Any]]) -> str:
    """A table in groups, a row a fact."""
    about = {"name": result["corpus"], "sha256 of its vectors": result["corpus_sha256"]}
    about |= {"split": f"{result['split']}, seed {result['split_seed']}"}
    chosen = {
        f"{name}, {key.replace('_', ' ')}": value
        for name, values in result["hyper_parameters"].items()
        for key, value in values.items()
    }
    groups = {"Corpus": about, **provenance, "Baselines, chosen on validation documents": chosen}
    rows = []
    for heading, lines in groups.items():
        facts = [(key, _text(value)) for key, value in lines.items()]
        facts = [(key, text) for key, text in facts if text]
        if facts:
            rows.append(f'<tr class="group"><th colspan="2">{escape(heading)}</th></tr>')
        rows += [
            f"<tr><th>{escape(key)}</th><td><code>{escape(text)}</code></td></tr>" for key, text in facts
        ]
    return f'<table class="provenance"><tbody>{"".join(rows)}</tbody></table>'


def _text(value: Any) -> str:
    """A fact as a reader writes it: no brackets, no quotes."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(one) for one in value)
    return "" if value is None else str(value)
