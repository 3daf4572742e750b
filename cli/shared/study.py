"""What `lvm eval` prints: the verdict with its table, and under it the closer look and other domains."""

from __future__ import annotations

from collections.abc import Mapping

from mlx_lvm.cli.shared.common import Output
from mlx_lvm.core.result import Interval
from mlx_lvm.evaluation.evaluate import Evaluation
from mlx_lvm.evaluation.findings import Findings
from mlx_lvm.evaluation.report.figures import reliability_sentence
from mlx_lvm.evaluation.report.table import remarks, score_table
from mlx_lvm.evaluation.study.attention import Attention
from mlx_lvm.evaluation.study.curves import Curve
from mlx_lvm.evaluation.study.study import Study
from mlx_lvm.evaluation.transfer import Transfer
from mlx_lvm.metrics.names import COSINE, MRR
from mlx_lvm.ranking.cases import Cases
from mlx_lvm.ranking.judge import Judgement

STYLES = {"better": "bold green", "worse": "bold red"}


def show(display: Output, found: Evaluation, every: bool = False) -> None:
    """The verdict, its table, what was scored, what to know of it. every: all predictors and figures."""
    verdict, table = found.verdict, score_table(found, every)
    display.warn(found.warnings)
    display.say(verdict.headline, style=STYLES.get(verdict.outcome, "bold yellow"))
    for sentence in verdict.sentences:
        display.say(sentence)
    display.say()
    display.table(table.title, table.columns, table.rows, bold=table.bold)
    for line in remarks(found, every):
        display.say(line)
    display.note(found.notes)


def show_study(display: Output, found: Findings) -> None:
    """Every part that was asked for and found."""
    if found.study is not None:
        _study(display, found.evaluation, found.study)
    if found.ood is not None:
        _ood(display, found.evaluation, found.ood)
    if found.arrow_of_time is not None:
        display.say()
        display.say(found.arrow_of_time.sentence)


def _study(display: Output, of: Evaluation, study: Study) -> None:
    words = of.objective.words
    display.say()
    named = dict.fromkeys([of.name, "last", "mean", of.summary.best[COSINE], "oracle"])
    curves = {name: study.direction.curves[name] for name in named if name in study.direction.curves}
    title = "direction: cosine with the chunk at each offset, 0 the target"
    display.table(title, ["", *map(str, study.direction.offsets)], _curve_rows(curves, ".3f"), bold=0)
    display.say(study.direction.sentence or "")
    if (rollout := study.rollout) is not None:
        title = f"rollout, {rollout.windows:,} windows"
        _table(display, title, _steps(rollout.steps), _curve_rows(rollout.curves))
    if (horizons := study.horizons) is not None:
        gains = [[f"direct less {name}", *map(_gain, one.points)] for name, one in horizons.gains.items()]
        title = f"horizons, each predicted directly, {horizons.windows:,} windows"
        _table(display, title, _steps(horizons.horizons), [*_curve_rows(horizons.curves), *gains])
    if (queries := study.queries) is not None:
        rows = []
        for name, row in queries.rows.items():
            gain = queries.gains.get(name)
            cosine, mrr = (_gain(gain.cosine), _gain(gain.mrr)) if gain else ("", "")
            rows.append([name, f"{row.cosine.value:.4f}", cosine, f"{row.mrr.value:.4f}", mrr])
        kinds = "none, a later chunk of the document, a stranger's"
        columns = ["cosine", "less none", "MRR", "less none"]
        _table(display, f"given a query, {queries.windows:,} windows: {kinds}", columns, rows, None)
    if (ablations := study.ablations) is not None:
        names = next(iter(ablations.values()))
        rows = [[name, *(_gain(changes[name].change) for changes in ablations.values())] for name in names]
        _table(display, f"ablations: change of the {words} with its 95% interval", list(ablations), rows)
    difficulty = study.difficulty
    rows = [
        [f"{one.low:.3f} to {one.high:.3f}", str(one.windows)]
        + [f"{value:.4f}" for value in one.means.values()]
        + [_gain(one.gain)]
        for one in difficulty.bins
    ]
    columns = [difficulty.by, "windows", *difficulty.bins[0].means, f"gain over {difficulty.against}"]
    display.say()
    display.table(f"{difficulty.metric.words} by difficulty", columns, rows)
    if study.ranking is not None:
        _ranking(display, study.ranking)
        display.say()
        display.say(reliability_sentence(study.ranking.reliability))
    if study.attention is not None:
        display.say()
        say_attention(display, study.attention)
    _cases(display, study.cases, words)


def _table(
    display: Output, title: str, columns: list[str], rows: list[list[str]], bold: int | None = 0
) -> None:
    """A table after an empty line, its first row in bold."""
    display.say()
    display.table(title, ["", *columns], rows, bold=bold)


def _steps(count: int) -> list[str]:
    return [f"t+{k + 1}" for k in range(count)]


def _curve_rows(curves: Mapping[str, Curve], form: str = ".4f") -> list[list[str]]:
    return [[name, *(f"{value:{form}}" for value in curve.values)] for name, curve in curves.items()]


def _gain(found: Interval) -> str:
    return found.text("+.4f")


def _ranking(display: Output, found: Judgement) -> None:
    rows = []
    for name, one in found.ranked.items():
        gain = _gain(one.mrr_gain) if one.mrr_gain else ""
        rows.append([name, f"{one.mrr.value:.4f}", gain, f"{one.recall_at_5.value:.3f}"])
    title = f"ranked among all {found.candidates:,} chunks of the corpus"
    display.say()
    display.table(title, ["by", "MRR", "gain over the line above", "R@5"], rows)
    for held in found.sets:
        if held.promised:
            ends = held.coverage.span("+.4f", " ", "")
            display.say(
                f"set asked to hold the next chunk {held.asked:.0%} of the time: it does "
                f"{held.coverage.value:.1%} {ends and f'[{ends}]'}, with {held.size:,.0f} chunks"
            )


def say_attention(display: Output, found: Attention) -> None:
    """The weight of each place of the context, and how far predictions leave its mean."""
    places = zip(found.positions, found.by_position, strict=True)
    weights = ", ".join(f"{place}: {weight.value:.3f}" for place, weight in places)
    display.say(
        f"attention by position (-1 is the last chunk) {weights}; entropy {found.entropy.value:.3f} of 1"
    )
    display.say(
        f"residual share {found.residual_share.value:.3f} (|r| / (|b| + |r|)); departure from the mean "
        f"{found.departure.value:.4f}, rank correlation with the shift of topic "
        f"{found.departure_follows_shift:+.3f}"
    )


def _cases(display: Output, found: Cases, words: str) -> None:
    display.say()
    better = f"better in {found.documents_better} of {found.documents} documents"
    display.say(f"against {found.against} in {words}: {better}")
    for one in [*found.gains[:3], *found.losses[:3]]:
        text = (one.label.text or "")[:80]
        display.say(f"  {one.gain:+.4f}  {one.label.document} chunk {one.label.chunk}  {text}")


def _ood(display: Output, home: Evaluation, found: Transfer) -> None:
    display.say()
    display.warn(found.warnings)
    metrics, what = (COSINE, MRR), found.there.scored
    scored = f"{found.corpus}, {what.windows:,} windows in {what.documents} documents"
    title = f"out of domain: {scored}; carried over: fitted on {found.home}"
    columns = ["", *(f"{metric.words} {side}" for metric in metrics for side in found.sides)]
    rows = [[row.predictor, *row.cells(metrics)] for row in found.rows]
    display.table(title, columns, rows, bold=list(home.scores).index(home.name))
    for line in (*found.sentences, *(f"note: {note}" for note in found.notes)):
        display.say(line)
