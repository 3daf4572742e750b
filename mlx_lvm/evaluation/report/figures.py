"""The figures of report.html, each with the sentence that says what to see in it."""

from __future__ import annotations

from html import escape
from typing import Any

from mlx_lvm.evaluation.report import plots
from mlx_lvm.evaluation.report.calibration_plots import reliability_plot, sets_plot
from mlx_lvm.evaluation.report.heat_map import heat_map
from mlx_lvm.evaluation.report.plots import WORDS, svg
from mlx_lvm.evaluation.report.scores import RANKS, words_of
from mlx_lvm.evaluation.summary import span


def figures(result: dict[str, Any], history: list[dict[str, Any]]) -> list[str]:
    """HTML of every figure that the result has something for. history: epochs of the run, for its curve."""
    name, best, objective = (
        result["model"],
        result["best_closed_form"]["cosine"],
        result["verdict"]["purpose"],
    )
    drawn = [
        (
            "scores",
            words_of(objective)[0].upper() + words_of(objective)[1:],
            plots.table_plot(result["metrics"], name, result["best_closed_form"][objective], objective),
            "The model, and baselines fitted on the training documents.",
        )
    ]
    if result.get("direction", {}).get("curves"):
        text = result["direction"]["sentence"]
        drawn.append(
            (
                "direction",
                "Direction: which chunk the prediction is like",
                plots.direction_plot(result["direction"], name, best),
                text,
            )
        )
    if result.get("rollout", {}).get("curves"):
        text = f"Each prediction read as the next chunk; {result['rollout']['windows']:,} windows. Shaded: 95% interval."
        drawn.append(("rollout", "Rollout", plots.ahead_plot(result["rollout"]["curves"], name), text))
    if result.get("horizons", {}).get("curves"):
        curves = plots.ahead_plot(result["horizons"]["curves"], name)
        drawn.append(
            ("horizons", "Several chunks ahead, each predicted directly", curves, horizons_sentence(result))
        )
    if result.get("queries", {}).get("gains"):
        drawn.append(
            ("queries", "Given a query", plots.queries_plot(result["queries"]), queries_sentence(result))
        )
    if result.get("difficulty", {}).get("bins"):
        ends = ", ".join(
            f"{one['gain']:+.4f} ({span(one['gain_ci'], '+.4f')})" for one in result["difficulty"]["bins"]
        )
        text = f"Gain over {result['difficulty']['against']} from hard to easy: {ends}."
        drawn.append(("difficulty", "By difficulty", plots.difficulty_plot(result["difficulty"], name), text))
    if "ablations" in result:
        text = (
            "The context shuffled, reversed, or its last chunk in every place. A model that does not lose more than the lag filter "
            "has learned no more order than five scalars."
        )
        drawn.append(("ablations", "Ablations", plots.ablation_plot(result["ablations"], name), text))
    if "ranking" in result:
        drawn.append(
            (
                "sets",
                "Sets that hold the next chunk",
                sets_plot(result["ranking"]["sets"]),
                sets_sentence(result),
            )
        )
    if "reliability" in result:
        drawn.append(
            (
                "reliability",
                "Confidence",
                reliability_plot(result["reliability"]),
                reliability_sentence(result),
            )
        )
    if "attention" in result:
        seen = result["attention"]
        bins = seen["by_shift"]
        labels = [f"{one['from']:.2f} to {one['to']:.2f}" for one in bins]
        text = (
            "Rows: how far the topic has just turned, 1 - cos(last, mean of the earlier chunks). "
            f"Residual share {seen['residual_share']:.3f}, entropy {seen['entropy']:.3f} of 1; "
            f"leaving the mean follows the turn with rank correlation {seen['departure_follows_shift']:+.2f}."
        )
        drawn.append(
            (
                "attention",
                "Attention",
                heat_map([one["by_position"] for one in bins], labels, seen["positions"]),
                text,
            )
        )
    if len(history) > 1:
        draw = plots.training_plot(history, result["verdict"]["purpose"])
        drawn.append(("training", "Training", draw, f"{len(history)} epochs, from the run's history."))
    if "ood" in result:
        drawn.append(
            (
                "ood",
                f"Out of domain: {result['ood']['corpus']}",
                plots.ood_plot(result["ood"], name),
                result["ood"]["verdict"]["sentence"],
            )
        )
    if objective == RANKS:  # what the model is made for comes first
        drawn.sort(key=lambda one: one[0] not in ("scores", "sets"))
    return [_figure(*one) for one in drawn]


def horizons_sentence(result: dict[str, Any]) -> str:
    """What the direct prediction of the last horizon gains over its rollout and over the best baseline."""
    found = result["horizons"]
    gains = (
        f"{one['difference'][-1]:+.4f} ({span(one['ci'][-1], '+.4f')}) over {name}"
        for name, one in found["gains"].items()
    )
    return (
        f"At t+{found['horizons']}: {', '.join(gains)}; {found['windows']:,} windows. Shaded: 95% interval."
    )


def queries_sentence(result: dict[str, Any]) -> str:
    """What a query of the document's own gains over none."""
    found, gains = result["queries"], []
    for name, words in (("own", "over none"), ("query alone", "where the query itself is the prediction")):
        one = (
            f"{gain['difference']:+.4f} ({span(gain['ci'], '+.4f')}) in {WORDS[key]}"
            for key, gain in found["gains"][name].items()
        )
        gains.append(f"{' and '.join(one)} {words}")
    return (
        f"A chunk that comes later in the document, given as a query: {gains[0]}; {gains[1]}. A stranger's is from another document; "
        f"{found['windows']:,} windows."
    )


def sets_sentence(result: dict[str, Any]) -> str:
    """What the promise of 90% came to, and what it is a promise about."""
    found = next(one for one in result["ranking"]["sets"] if one["asked"] == 0.9)
    if not found["promised"]:
        return f"Too few validation documents ({result['ranking']['fit']['documents']}) to promise a coverage of 90%: 9 are needed."
    return (
        f"Asked for 90%: {found['coverage']:.1%} of the windows ({span(found['coverage_ci'], '.1%')}), "
        f"{found['coverage_of_documents']:.1%} on average over documents, which is what is promised; "
        f"{found['size']:,.0f} of {result['ranking']['candidates']:,} chunks."
    )


def reliability_sentence(result: dict[str, Any]) -> str:
    found = result["reliability"]
    return (
        "The cosine to be expected of each prediction, from features fitted on validation documents: off by "
        f"{found['gap']:.4f} on average over {len(found['bins'])} bins, correlation {found['correlation']:.2f} with "
        "the one achieved."
    )


def _figure(key: str, title: str, draw: plots.Draw, text: str) -> str:
    picture = svg(key, escape(title, quote=True), draw)
    return f'<figure id="figure-{key}"><h3>{escape(title)}</h3>{picture}<figcaption>{escape(text)}</figcaption></figure>'
