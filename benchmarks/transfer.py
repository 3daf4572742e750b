"""`ramn-retrieve` on all of Moby Dick, with the choice of its form made inside folds.

    python benchmarks/transfer.py --out transfer.json

What the model is where its training domain ends was chosen on 103 of the 114 chapters. Here every form that
was tried (docs/experiments.md, Another domain) is made from the released weights; in each of five folds of
all chapters the one with the best MRR on the other four is evaluated. Ranked among the chunks of all
chapters, context out, against the last chunk three ways: as it ranks best there of none, 0.6 and all of
moby's own mean or of sotu's off; as it is; and as it travels, with the share of sotu's mean off that ranks
best on sotu's validation documents. Beside them, and not among what is chosen from: moby's mean off the
prediction, and inside of the model. Paired bootstrap over chapters.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.evaluation.setup import FRACTIONS, best_fraction
from mlx_lvm.hub.load import load_model
from mlx_lvm.metrics.retrieval import build_pool, rank_figures, ranks
from mlx_lvm.models.base import normalize
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.models.ramn_filters import ALL, mixed, steep_mixture
from mlx_lvm.predictors.base import document_rows, predict_all
from mlx_lvm.predictors.baselines import Last, target_mean
from mlx_lvm.predictors.history import HistoryPredictor

FOLDS = 5
FIGURES = ("mrr", "recall_at_5")
RAW = "last, 0.0 of moby's mean off"
SHARES = (0.0, 0.3, 0.6, 1.0)  # of moby's mean, off what the model predicts


def trust_over_raw(
    self: RAMN, here: mx.array, elsewhere: mx.array, trust: mx.array, last: mx.array
) -> mx.array:
    """`RAMN.blended` with the trust over vectors as long as they are, as it was before it mixed unit ones."""
    found = normalize(mixed(here, mx.exp(self.log_scale) * elsewhere, trust)) @ self.basis.weight
    return self.blend @ mx.stack([found, last], axis=-2)


def take_mean_off(model: RAMN, share: float) -> None:
    """`share` of the document's mean taken off the steep mixture where nothing is trusted."""
    steep = steep_mixture(model.config.dim)
    steep[ALL] = -share * steep.sum(axis=0)
    model.shift_filter = mx.array(steep)


def weigh_last(model: RAMN, weight: float) -> None:
    """The last chunk with this weight to 1 of the direction."""
    model.blend = model.blend[0] * mx.array([1.0, weight])


def unblended(model: RAMN, share: float) -> None:
    take_mean_off(model, share)
    weigh_last(model, 0.0)


def no_trust(model: RAMN) -> None:
    model.trust_limit = mx.full((1,), 100.0)


def no_push(model: RAMN) -> None:
    model.push_strength = mx.full((1,), -40.0)


FORMS: dict[
    str, tuple[bool, Callable[[RAMN], None]]
] = {  # whether the trust is over raw vectors, and what is done to the model
    "as released": (False, lambda model: None),
    "without blend": (False, lambda model: weigh_last(model, 0.0)),
    "without trust": (False, no_trust),
    "without push": (False, no_push),
    "trust over raw vectors, without blend: the older form": (True, lambda model: weigh_last(model, 0.0)),
    "trust over raw vectors": (True, lambda model: None),
    **{
        f"without blend, {share} of the document's mean off": (
            False,
            lambda model, x=share: unblended(model, x),
        )
        for share in (0.0, 0.6)
    },
    **{
        f"{share} of the document's mean off": (False, lambda model, x=share: take_mean_off(model, x))
        for share in (0.15, 0.45, 0.6)
    },
    **{
        f"last chunk {weight} to 1": (False, lambda model, x=weight: weigh_last(model, x))
        for weight in (0.2, 0.7, 1.5)
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    home, corpus = load_corpus("sotu"), load_corpus("moby")
    chapters = np.arange(len(corpus.names))
    scored = windows(corpus, chapters, 5)
    pool = build_pool(scored, np.arange(len(corpus)))

    def figures(predicted: mx.array, mean: np.ndarray | None = None, share: float = 0.0) -> np.ndarray:
        found = rank_figures(ranks(pool, predicted, mean, share), pool)
        return np.stack([getattr(found, key) for key in FIGURES], axis=1)

    last = predict_all(Last(), scored)
    means = {"moby": target_mean(corpus, chapters, 5), "sotu": target_mean(home, split_corpus(home).train, 5)}
    lasts = {
        f"last, {share} of {name}'s mean off": figures(last, mean, share)
        for name, mean in means.items()
        for share in FRACTIONS
    }
    forms = {}
    for name, (raw, change) in FORMS.items():
        model: Any = load_model("ramn-retrieve").model
        change(model)
        with patch.object(RAMN, "blended", trust_over_raw) if raw else nullcontext():
            forms[name] = figures(predict_all(HistoryPredictor(name, model), scored))
    released: Any = load_model("ramn-retrieve").model
    moby: Any = load_model("ramn-retrieve").model
    moby.mean = mx.array(means["moby"].astype(np.float32))
    further = {}
    for name, model in (("as released", released), ("moby's mean inside", moby)):
        predicted = predict_all(HistoryPredictor(name, model), scored)
        for share in SHARES:
            further[f"{name}, {share} of moby's mean off"] = figures(predicted, means["moby"], share)
    val = split_corpus(home).val
    tuning = windows(home, val, 5)
    share = best_fraction(
        predict_all(Last(), tuning), build_pool(tuning, document_rows(home.offsets, val)), means["sotu"]
    )
    travelled = f"last, {share} of sotu's mean off"
    best = max(lasts, key=lambda name: float(lasts[name][:, 0].mean()))
    fold = np.empty(len(chapters), int)
    fold[np.random.RandomState(0).permutation(len(chapters))] = np.arange(len(chapters)) % FOLDS
    of_window = fold[scored.documents]
    chosen, crossed = [], np.empty_like(lasts[best])
    for number in range(FOLDS):
        inside = of_window == number
        chosen.append(max(forms, key=lambda name, out=~inside: float(forms[name][out, 0].mean())))
        crossed[inside] = forms[chosen[-1]][inside]

    bootstrap = DocumentBootstrap(scored.documents)
    print(f"{len(scored):,} windows in {bootstrap.count} chapters, {len(pool.rows):,} chunks")
    print("less each of:", best, RAW, travelled, sep="\n  ")
    print("chosen:", *chosen, sep="\n  ")
    result: dict[str, Any] = {"best": best, "chosen": chosen}
    for name, values in {"chosen in folds": crossed, **forms, **further, **lasts}.items():
        result[name] = {}
        for at, key in enumerate(FIGURES):
            less = bootstrap.named(
                {other: values[:, at] - lasts[other][:, at] for other in (best, RAW, travelled)}
            )
            result[name][key] = {
                "value": float(values[:, at].mean()),
                "less": {other: [x.value, *x.ends()] for other, x in less.items()},
            }
            cells = (
                f"{value:+.4f} [{low:+.4f} {high:+.4f}]"
                for value, low, high in result[name][key]["less"].values()
            )
            print(f"{name:60} {key:12} {result[name][key]['value']:.4f} ", *cells, sep="  ")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
