"""The figures of report.html, each with the sentence that says what to see in it."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

from mlx_lvm.evaluation.report import plots
from mlx_lvm.evaluation.report.calibration_plots import reliability_plot, sets_plot
from mlx_lvm.evaluation.report.drawing import Draw, svg
from mlx_lvm.evaluation.report.heat_map import heat_map
from mlx_lvm.evaluation.report.plots import WORDS
from mlx_lvm.evaluation.report.scores import RANKS, words_of
from mlx_lvm.evaluation.summary import span


class Figure(NamedTuple):
    """key: of its id; draw: None leaves it out; ranks: shows a model made for ranking at its work."""

    key: str
    title: str
    draw: Draw | None
    text: str
    ranks: bool = False


def figures(result: dict[str, Any], history: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(heading, HTML of its figures): all that the result has something for, what the model is made for
    first. history: epochs of the run, for its curve.
    """
    drawn = [one for one in _figures(result, history) if one.draw is not None]
    if result["verdict"]["purpose"] != RANKS:
        return [("A closer look", [_html(one) for one in drawn])]
    parts = {"How it ranks": True, "How its vector behaves, which it is not made for": False}
    return [(words, [_html(one) for one in drawn if one.ranks == ranks]) for words, ranks in parts.items()]


def _figures(result: dict[str, Any], history: list[dict[str, Any]]) -> list[Figure]:
    name, objective = result["model"], result["verdict"]["purpose"]
    best, words = result["best_closed_form"], words_of(objective)
    direction, ahead, attention = (result.get(key, {}) for key in ("direction", "rollout", "attention"))
    horizons, queries, difficulty = (result.get(key, {}) for key in ("horizons", "queries", "difficulty"))
    return [
        Figure(
            "scores",
            words[0].upper() + words[1:],
            plots.table_plot(result["metrics"], name, best[objective], objective),
            "The model, and baselines fitted on the training documents.",
            ranks=True,
        ),
        Figure(
            "direction",
            "Direction: which chunk the prediction is like",
            plots.direction_plot(direction, name, best["cosine"]) if direction.get("curves") else None,
            direction.get("sentence", ""),
        ),
        Figure(
            "rollout",
            "Rollout",
            plots.ahead_plot(ahead["curves"], name) if ahead.get("curves") else None,
            f"Each prediction read as the next chunk; {ahead.get('windows', 0):,} windows. "
            "Shaded: 95% interval.",
        ),
        Figure(
            "horizons",
            "Several chunks ahead, each predicted directly",
            plots.ahead_plot(horizons["curves"], name) if horizons.get("curves") else None,
            horizons_sentence(result),
        ),
        Figure(
            "queries",
            "Given a query",
            plots.queries_plot(queries, objective) if queries.get("gains") else None,
            queries_sentence(result),
            ranks=True,
        ),
        Figure(
            "difficulty",
            "By difficulty",
            plots.difficulty_plot(difficulty, name) if difficulty.get("bins") else None,
            difficulty_sentence(result),
            ranks=True,
        ),
        Figure(
            "ablations",
            "Ablations",
            plots.ablation_plot(result["ablations"], name, objective) if "ablations" in result else None,
            "The context shuffled, reversed, or its last chunk in every place. A model that does not lose "
            "more than the lag filter has learned no more order than five scalars.",
            ranks=True,
        ),
        Figure(
            "sets",
            "Sets that hold the next chunk",
            sets_plot(result["ranking"]["sets"]) if "ranking" in result else None,
            sets_sentence(result),
            ranks=True,
        ),
        Figure(
            "reliability",
            "Confidence",
            reliability_plot(result["reliability"]) if "reliability" in result else None,
            reliability_sentence(result),
        ),
        Figure(
            "attention",
            "Attention",
            attention_map(attention) if attention else None,
            attention_sentence(attention),
        ),
        Figure(
            "training",
            "Training",
            plots.training_plot(history, objective) if len(history) > 1 else None,
            f"{len(history)} epochs, from the run's history.",
            ranks=True,
        ),
        Figure(
            "ood",
            f"Out of domain: {result['ood']['corpus']}" if "ood" in result else "",
            plots.ood_plot(result["ood"], result["metrics"], name, objective) if "ood" in result else None,
            result["ood"]["verdict"]["sentence"] if "ood" in result else "",
            ranks=True,
        ),
    ]


def attention_map(seen: dict[str, Any]) -> Draw:
    """Weights by how far the topic has just turned."""
    labels = [f"{one['from']:.2f} to {one['to']:.2f}" for one in seen["by_shift"]]
    return heat_map([one["by_position"] for one in seen["by_shift"]], labels, seen["positions"])


def attention_sentence(seen: dict[str, Any]) -> str:
    if not seen:
        return ""
    return (
        "Rows: how far the topic has just turned, 1 - cos(last, mean of the earlier chunks). "
        f"Residual share {seen['residual_share']:.3f}, entropy {seen['entropy']:.3f} of 1; "
        f"leaving the mean follows the turn with rank correlation {seen['departure_follows_shift']:+.2f}."
    )


def difficulty_sentence(result: dict[str, Any]) -> str:
    found = result.get("difficulty", {})
    ends = [f"{one['gain']:+.4f} ({span(one['gain_ci'], '+.4f')})" for one in found.get("bins", [])]
    return f"Gain over {found['against']} from hard to easy: {', '.join(ends)}." if ends else ""


def horizons_sentence(result: dict[str, Any]) -> str:
    """What the direct prediction of the last horizon gains over its rollout and over the best baseline."""
    found = result.get("horizons", {})
    if not found.get("curves"):
        return ""
    gains = (
        f"{one['difference'][-1]:+.4f} ({span(one['ci'][-1], '+.4f')}) over {name}"
        for name, one in found["gains"].items()
    )
    return (
        f"At t+{found['horizons']}: {', '.join(gains)}; {found['windows']:,} windows. Shaded: 95% interval."
    )


def queries_sentence(result: dict[str, Any]) -> str:
    """What a query of the document's own gains over none."""
    found, gains = result.get("queries", {}), []
    if not found.get("gains"):
        return ""
    for name, words in (("own", "over none"), ("query alone", "where the query itself is the prediction")):
        one = (
            f"{gain['difference']:+.4f} ({span(gain['ci'], '+.4f')}) in {WORDS[key]}"
            for key, gain in found["gains"][name].items()
        )
        gains.append(f"{' and '.join(one)} {words}")
    return (
        f"A chunk that comes later in the document, given as a query: {gains[0]}; {gains[1]}. "
        "A stranger's is from another document; "
        f"{found['windows']:,} windows."
    )


def sets_sentence(result: dict[str, Any]) -> str:
    """What the promise of 90% came to, and what it is a promise about."""
    if "ranking" not in result:
        return ""
    found = next(one for one in result["ranking"]["sets"] if one["asked"] == 0.9)
    if not found["promised"]:
        count = result["ranking"]["fit"]["documents"]
        return f"Too few validation documents ({count}) to promise a coverage of 90%: 9 are needed."
    return (
        f"Asked for 90%: {found['coverage']:.1%} of the windows ({span(found['coverage_ci'], '.1%')}), "
        f"{found['coverage_of_documents']:.1%} on average over documents, which is what is promised; "
        f"{found['size']:,.0f} of {result['ranking']['candidates']:,} chunks."
    )


def reliability_sentence(result: dict[str, Any]) -> str:
    if "reliability" not in result:
        return ""
    found = result["reliability"]
    return (
        "The cosine to be expected of each prediction, from features fitted on validation documents: off by "
        f"{found['gap']:.4f} on average over {len(found['bins'])} bins, correlation "
        f"{found['correlation']:.2f} with the one achieved."
    )


def _html(figure: Figure) -> str:
    assert figure.draw is not None
    picture = svg(figure.key, figure.title, figure.draw)
    return (
        f'<figure id="figure-{figure.key}"><h3>{escape(figure.title)}</h3>{picture}'
        f"<figcaption>{escape(figure.text)}</figcaption></figure>"
    )
