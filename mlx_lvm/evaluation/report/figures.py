"""The figures of report.html, each with the sentence that says what to see in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

from mlx_lvm.core.result import JsonObject
from mlx_lvm.evaluation.findings import Findings
from mlx_lvm.evaluation.report import plots
from mlx_lvm.evaluation.report.calibration_plots import reliability_plot, sets_plot
from mlx_lvm.evaluation.report.drawing import Draw, svg
from mlx_lvm.evaluation.report.heat_map import heat_map
from mlx_lvm.evaluation.study.attention import Attention
from mlx_lvm.evaluation.study.difficulty import Difficulty
from mlx_lvm.evaluation.study.horizons import HorizonTerms
from mlx_lvm.evaluation.study.queries import QueryTerms
from mlx_lvm.evaluation.study.study import Study
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE
from mlx_lvm.ranking.confidence import Reliability
from mlx_lvm.ranking.judge import Judgement


class Figure(NamedTuple):
    """key: of its id; ranks: shows a model made for ranking at its work."""

    key: str
    title: str
    draw: Draw
    text: str
    ranks: bool = False


def figures(found: Findings, history: Sequence[JsonObject]) -> list[tuple[str, list[str]]]:
    """(heading, HTML of its figures), what the model is made for first. history: epochs of the run."""
    drawn = list(_figures(found, history))
    if found.evaluation.objective != CENTRED_MRR:
        return [("A closer look", [_html(one) for one in drawn])]
    parts = {True: "How it ranks", False: "How its vector behaves, which it is not made for"}
    return [(words, [_html(one) for one in drawn if one.ranks == ranks]) for ranks, words in parts.items()]


def _figures(found: Findings, history: Sequence[JsonObject]) -> Iterator[Figure]:
    name, objective = found.evaluation.name, found.evaluation.objective
    words = objective.words
    yield Figure(
        "scores",
        words[0].upper() + words[1:],
        partial(plots.table_plot, found.evaluation),
        "The model, and baselines fitted on the training documents.",
        ranks=True,
    )
    if found.study is not None:
        yield from _study_figures(found, found.study)
    if len(history) > 1:
        draw = partial(plots.training_plot, history, objective)
        yield Figure("training", "Training", draw, f"{len(history)} epochs, from the run's history.", True)
    if (ood := found.ood) is not None:
        draw, sentence = partial(plots.ood_plot, ood, name, objective), ood.there.verdict.sentence
        yield Figure("ood", f"Out of domain: {ood.corpus}", draw, sentence, True)


def _study_figures(found: Findings, study: Study) -> Iterator[Figure]:
    name, objective = found.evaluation.name, found.evaluation.objective
    if study.direction.curves:
        yield Figure(
            "direction",
            "Direction: which chunk the prediction is like",
            partial(plots.direction_plot, study.direction, name, found.evaluation.summary.best[COSINE]),
            study.direction.sentence or "",
        )
    if study.rollout and study.rollout.curves:
        yield Figure(
            "rollout",
            "Rollout",
            partial(plots.ahead_plot, study.rollout.curves, name),
            f"Each prediction read as the next chunk; {study.rollout.windows:,} windows. "
            "Shaded: 95% interval.",
        )
    if study.horizons and study.horizons.curves:
        title = "Several chunks ahead, each predicted directly"
        draw = partial(plots.ahead_plot, study.horizons.curves, name)
        yield Figure("horizons", title, draw, horizons_sentence(study.horizons))
    if study.queries and study.queries.gains:
        draw = partial(plots.queries_plot, study.queries, objective)
        yield Figure("queries", "Given a query", draw, queries_sentence(study.queries), True)
    if study.difficulty.bins:
        draw = partial(plots.difficulty_plot, study.difficulty, name)
        yield Figure("difficulty", "By difficulty", draw, difficulty_sentence(study.difficulty), True)
    if study.ablations:
        yield Figure(
            "ablations",
            "Ablations",
            partial(plots.ablation_plot, study.ablations, name, objective),
            "The context shuffled, reversed, or its last chunk in every place. A model that does not lose "
            "more than the lag filter has learned no more order than five scalars.",
            ranks=True,
        )
    if study.ranking:
        title, draw = "Sets that hold the next chunk", partial(sets_plot, study.ranking.sets)
        yield Figure("sets", title, draw, sets_sentence(study.ranking), True)
        sure = study.ranking.reliability
        yield Figure("reliability", "Confidence", partial(reliability_plot, sure), reliability_sentence(sure))
    if (seen := study.attention) is not None:
        yield Figure("attention", "Attention", attention_map(seen), attention_sentence(seen))


def attention_map(seen: Attention) -> Draw:
    """Weights by how far the topic has just turned."""
    labels = [f"{one.low:.2f} to {one.high:.2f}" for one in seen.by_shift]
    return partial(heat_map, [one.by_position for one in seen.by_shift], labels, seen.positions)


def attention_sentence(seen: Attention) -> str:
    return (
        "Rows: how far the topic has just turned, 1 - cos(last, mean of the earlier chunks). "
        f"Residual share {seen.residual_share.value:.3f}, entropy {seen.entropy.value:.3f} of 1; "
        f"leaving the mean follows the turn with rank correlation {seen.departure_follows_shift:+.2f}."
    )


def difficulty_sentence(found: Difficulty) -> str:
    gains = ", ".join(f"{one.gain.value:+.4f} ({one.gain.span('+.4f')})" for one in found.bins)
    return f"Gain over {found.against} from hard to easy: {gains}."


def horizons_sentence(found: HorizonTerms) -> str:
    """What the direct prediction of the last horizon gains over its rollout and over the best baseline."""
    last = {name: gain.points[-1] for name, gain in found.gains.items()}
    gains = ", ".join(f"{one.value:+.4f} ({one.span('+.4f')}) over {name}" for name, one in last.items())
    return f"At t+{found.horizons}: {gains}; {found.windows:,} windows. Shaded: 95% interval."


def queries_sentence(found: QueryTerms) -> str:
    """What a query of the document's own gains over none."""

    def gains(name: str) -> str:
        pair = {"cosine": found.gains[name].cosine, "MRR": found.gains[name].mrr}
        return " and ".join(f"{one.value:+.4f} ({one.span('+.4f')}) in {key}" for key, one in pair.items())

    return (
        f"A chunk that comes later in the document, given as a query: {gains('own')} over none; "
        f"{gains('query alone')} where the query itself is the prediction. A stranger's is from another "
        f"document; {found.windows:,} windows."
    )


def sets_sentence(found: Judgement) -> str:
    """What the promise of 90% came to, and what it is a promise about."""
    held = next(one for one in found.sets if one.asked == 0.9)
    if not held.promised:
        few = f"Too few validation documents ({found.fit.documents})"
        return f"{few} to promise a coverage of 90%: 9 are needed."
    return (
        f"Asked for 90%: {held.coverage.value:.1%} of the windows ({held.coverage.span('.1%')}), "
        f"{held.coverage_of_documents:.1%} on average over documents, which is what is promised; "
        f"{held.size:,.0f} of {found.candidates:,} chunks."
    )


def reliability_sentence(found: Reliability) -> str:
    return (
        "The cosine to be expected of each prediction, from features fitted on validation documents: off by "
        f"{found.gap:.4f} on average over {len(found.bins)} bins, correlation "
        f"{found.correlation:.2f} with the one achieved."
    )


def _html(figure: Figure) -> str:
    picture = svg(figure.key, figure.title, figure.draw)
    return (
        f'<figure id="figure-{figure.key}"><h3>{escape(figure.title)}</h3>{picture}'
        f"<figcaption>{escape(figure.text)}</figcaption></figure>"
    )
