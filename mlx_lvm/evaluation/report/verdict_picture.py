"""The verdict as a picture: where the intervals of the differences lie, seen from zero."""

from __future__ import annotations

import math
from html import escape

from mlx_lvm.core.stats import Difference
from mlx_lvm.evaluation.verdict import MADE_FOR, Claim, Verdict
from mlx_lvm.metrics.names import COSINE


def verdict_picture(verdict: Verdict) -> str:
    """The headline, and its picture: a row for each claim; zero is as good as what it is compared with."""
    made_for = [verdict.claims[metric] for metric in MADE_FOR[verdict.objective] if metric in verdict.claims]
    rows = [(f"{one.words}, against {one.difference.baseline}", one) for one in made_for]
    mean, hybrid = (verdict.mean, verdict.hybrid) if verdict.objective == COSINE else (None, None)
    if mean is not None:
        rows.append(("cosine, against the mean of its context", mean))
    if hybrid is not None:
        rows.append((f"MRR as it ranks, against {hybrid.difference.baseline}", hybrid))
    seen = [(one.difference.value, one.difference.low, one.difference.high) for _, one in rows]
    reach = max(abs(end) for ends in seen for end in ends if math.isfinite(end))
    drawn = "".join(_claim(label, one, reach or 1.0) for label, one in rows)
    ends = "".join(f"<span>{word}</span>" for word in ("worse", "as good", "better"))
    return (
        f'<div class="verdict {verdict.outcome.split()[0]}"><p id="verdict">{escape(verdict.headline)}</p>'
        f'<div class="claims"><div class="claim ends" aria-hidden="true"><div class="bar">{ends}</div></div>'
        f"{drawn}</div></div>"
    )


def _claim(label: str, claim: Claim, reach: float) -> str:
    """A dot at the difference, a line from end to end of its interval; `reach` is at the edges."""
    found: Difference = claim.difference

    def place(value: float) -> str:
        return f"{50 + 48 * value / reach:.2f}"

    line = interval = ""
    if math.isfinite(found.low):
        line = f'<path d="M{place(found.low)} 5H{place(found.high)}" stroke-width="3"/>'
        interval = f" ({found.span('+.4f')})"
    return (
        f'<div class="claim"><span class="label">{escape(label)}</span><div class="bar">'
        f'<svg class="{claim.outcome.split()[0]}" role="img" '
        f'aria-label="{escape(claim.sentence, quote=True)}" viewBox="0 0 100 10" '
        'preserveAspectRatio="none"><path class="zero" d="M50 0V10"/>'
        f'{line}<path d="M{place(found.value)} 5h0" stroke-width="11"/></svg></div>'
        f'<span class="value">{found.value:+.4f}{interval}</span></div>'
    )
