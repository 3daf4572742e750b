"""What `lvm eval` prints under its table: direction, rollout, ablations, difficulty, ranking, attention,
cases, other domains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_lvm.cli.shared.common import Output
from mlx_lvm.evaluation.report.figures import reliability_sentence
from mlx_lvm.evaluation.report.scores import words_of


def show_study(display: Output, result: dict[str, Any]) -> None:
    """Every part that `result` has."""
    parts: dict[str, Callable[[Output, dict[str, Any], dict[str, Any]], None]] = {
        "direction": _direction,
        "rollout": _rollout,
        "horizons": _horizons,
        "queries": _queries,
        "ablations": _ablations,
        "difficulty": _difficulty,
        "ranking": _ranking,
        "reliability": lambda display, result, found: display.say(reliability_sentence(result)),
        "attention": _attention,
        "cases": _cases,
        "ood": _ood,
        "arrow_of_time": lambda display, result, found: display.say(found["sentence"]),
    }
    for key, part in parts.items():
        if key in result:
            display.say()
            part(display, result, result[key])


def _direction(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    shown = dict.fromkeys([result["model"], "last", "mean", result["best_closed_form"]["cosine"], "oracle"])
    rows = [
        [key, *(f"{value:.3f}" for value in found["curves"][key]["cosine"])]
        for key in shown
        if key in found["curves"]
    ]
    display.table(
        "direction: cosine with the chunk at each offset, 0 the target",
        ["", *map(str, found["offsets"])],
        rows,
        bold=0,
    )
    display.say(found["sentence"])


def _rollout(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    rows = [[key, *(f"{value:.4f}" for value in curve["cosine"])] for key, curve in found["curves"].items()]
    display.table(
        f"rollout, {found['windows']:,} windows",
        ["", *(f"t+{k + 1}" for k in range(found["steps"]))],
        rows,
        bold=0,
    )


def _horizons(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    steps = [f"t+{k + 1}" for k in range(found["horizons"])]
    rows = [[key, *(f"{value:.4f}" for value in curve["cosine"])] for key, curve in found["curves"].items()]
    for name, gain in found["gains"].items():
        rows.append(
            [
                f"direct less {name}",
                *(f"{d:+.4f} {_ends(ci)}" for d, ci in zip(gain["difference"], gain["ci"], strict=True)),
            ]
        )
    display.table(
        f"horizons, each predicted directly, {found['windows']:,} windows", ["", *steps], rows, bold=0
    )


def _queries(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    rows = []
    for name, row in found["rows"].items():
        gains = found["gains"].get(name)
        cells = [
            f"{gains[key]['difference']:+.4f} {_ends(gains[key]['ci'])}" if gains else ""
            for key in ("cosine", "mrr")
        ]
        rows.append([name, f"{row['cosine']:.4f}", cells[0], f"{row['mrr']:.4f}", cells[1]])
    title = f"given a query, {found['windows']:,} windows: none, a later chunk of the document, a stranger's"
    display.table(title, ["", "cosine", "less none", "MRR", "less none"], rows)


def _ablations(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    names = next(iter(found.values()))
    rows = [
        [key, *(f"{one[key]['change']:+.4f} {_ends(one[key]['ci'])}" for one in found.values())]
        for key in names
    ]
    words = words_of(result["verdict"]["purpose"])
    display.table(f"ablations: change of the {words} with its 95% interval", ["", *found], rows, bold=0)


def _difficulty(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    rows = []
    for one in found["bins"]:
        values = [f"{value:.4f}" for value in one[found["metric"]].values()]
        rows.append(
            [
                f"{one['from']:.3f} to {one['to']:.3f}",
                str(one["windows"]),
                *values,
                f"{one['gain']:+.4f} {_ends(one['gain_ci'])}",
            ]
        )
    display.table(
        f"{words_of(result['verdict']['purpose'])} by difficulty",
        [found["by"], "windows", *found["bins"][0][found["metric"]], f"gain over {found['against']}"],
        rows,
    )


def _ranking(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    rows = []
    for name, one in found["ranked"].items():
        gain = f"{one['mrr_gain']:+.4f} {_ends(one['mrr_gain_ci'])}" if "mrr_gain" in one else ""
        rows.append([name, f"{one['mrr']:.4f}", gain, f"{one['recall_at_5']:.3f}"])
    title = f"ranked among all {found['candidates']:,} chunks of the corpus"
    display.table(title, ["by", "MRR", "gain over the line above", "R@5"], rows)
    for one in found["sets"]:
        if one["promised"]:
            held = f"{one['coverage']:.1%} {_ends(one['coverage_ci'])}"
            display.say(
                f"set asked to hold the next chunk {one['asked']:.0%} of the time: it does {held}, with "
                f"{one['size']:,.0f} chunks"
            )


def _attention(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    positions = ", ".join(
        f"{p}: {v:.3f}" for p, v in zip(found["positions"], found["by_position"], strict=True)
    )
    display.say(f"attention by position {positions}; entropy {found['entropy']:.3f} of 1")
    display.say(
        f"residual share {found['residual_share']:.3f}; departure from the mean {found['departure']:.4f}, "
        f"rank correlation with the shift of topic {found['departure_follows_shift']:+.3f}"
    )


def _cases(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    display.say(
        f"against {found['against']} in {words_of(result['verdict']['purpose'])}: better in "
        f"{found['documents_better']} of {found['documents']} documents"
    )
    for key in ("gains", "losses"):
        for one in found[key][:3]:
            display.say(
                f"  {one['gain']:+.4f}  {one['document']} chunk {one['chunk']}  {one.get('text', '')[:80]}"
            )


def _ood(display: Output, result: dict[str, Any], found: dict[str, Any]) -> None:
    from mlx_lvm.evaluation.transfer import transferred_sentences, whole_sentences

    display.warn(found["warnings"])
    rows = []
    for row in found["rows"]:
        sides = [row[key] for key in ("home", "there", "transferred")]
        rows.append(
            [
                row["predictor"],
                *(f"{side[key]:.4f}" if side else "-" for key in ("cosine", "mrr") for side in sides),
            ]
        )
    head = [found["home"], found["corpus"], "carried over"]
    scored = f"{found['windows']:,} windows in {found['documents']} documents"
    title = f"out of domain: {found['corpus']}, {scored}; carried over: fitted on {found['home']}"
    columns = ["", *(f"cosine {h}" for h in head), *(f"MRR {h}" for h in head)]
    display.table(title, columns, rows, bold=list(result["metrics"]).index(result["model"]))
    display.say(found["verdict"]["sentence"])
    for sentence in [*transferred_sentences(result["model"], found), *whole_sentences(found)]:
        display.say(sentence)
    for note in found["notes"]:
        display.say(f"note: {note}")


def _ends(ci: list[float | None]) -> str:
    return "" if ci[0] is None else f"[{ci[0]:+.4f} {ci[1]:+.4f}]"
