"""The verdict as a picture: where the intervals of the differences lie, seen from zero."""

from __future__ import annotations

from html import escape
from typing import Any

from mlx_lvm.evaluation.report.scores import RANKS
from mlx_lvm.evaluation.summary import span


def verdict_picture(found: dict[str, Any]) -> str:
    """The headline, and its picture: a row for each claim; zero is as good as what it is compared with."""
    best = [key for key in _claims(found["purpose"]) if key in found]
    rows = [(f"{_words(key)}, against {found[key]['closed_form']}", found[key]) for key in best]
    if found["purpose"] != RANKS and "mean" in found:
        rows.append(("cosine, against the mean of its context", found["mean"]))
    if found["purpose"] != RANKS and "hybrid" in found:
        rows.append((f"MRR as it ranks, against {found['hybrid']['closed_form']}", found["hybrid"]))
    reach = max(abs(end) for _, one in rows for end in [one["difference"], *one["ci"]] if end is not None)
    drawn = "".join(_claim(label, one, reach or 1.0) for label, one in rows)
    ends = "".join(f"<span>{word}</span>" for word in ("worse", "as good", "better"))
    return (
        f'<div class="verdict {found["outcome"].split()[0]}"><p id="verdict">{escape(found["headline"])}</p>'
        f'<div class="claims"><div class="claim ends" aria-hidden="true"><div class="bar">{ends}</div></div>'
        f"{drawn}</div></div>"
    )


def _claims(objective: str) -> tuple[str, ...]:
    return (RANKS, "centred.recall_at_5") if objective == RANKS else ("cosine", "centred_cosine")


def _words(key: str) -> str:
    return {"centred.mrr": "MRR", "centred.recall_at_5": "R@5"}.get(key, key.replace("_", " "))


def _claim(label: str, one: dict[str, Any], reach: float) -> str:
    """A dot at the difference, a line from end to end of its interval; `reach` is at the edges."""

    def place(value: float) -> str:
        return f"{50 + 48 * value / reach:.2f}"

    low, high = one["ci"]
    line = "" if low is None else f'<path d="M{place(low)} 5H{place(high)}" stroke-width="3"/>'
    interval = "" if low is None else f" ({span(one['ci'], '+.4f')})"
    return (
        f'<div class="claim"><span class="label">{escape(label)}</span><div class="bar">'
        f'<svg class="{one["outcome"].split()[0]}" role="img" '
        f'aria-label="{escape(one["sentence"], quote=True)}" viewBox="0 0 100 10" '
        'preserveAspectRatio="none"><path class="zero" d="M50 0V10"/>'
        f'{line}<path d="M{place(one["difference"])} 5h0" stroke-width="11"/></svg></div>'
        f'<span class="value">{one["difference"]:+.4f}{interval}</span></div>'
    )
