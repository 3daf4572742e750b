"""Out of domain: a model on another corpus, compared with baselines that travelled with it or live there.

The transferred ones are fitted on the training documents of the model's own corpus: they are its equals, who
saw no more than it did. The ones fitted at home on the other corpus are what the model would have to beat to
be worth carrying over; they leave only its test documents to be compared on. What travelled from another
corpus has seen none of its documents, so it is compared on all of them as well, but for those that stand in
the training documents under whatever name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.arrays import blocks, evenly_spaced
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject, Result, entry
from mlx_lvm.core.stats import Difference, DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.quality.audit import COPY
from mlx_lvm.data.quality.duplicates import NEAR
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.evaluate import Evaluation, examine, unknown_space
from mlx_lvm.evaluation.setup import Measured, best_fraction, score
from mlx_lvm.evaluation.summary import PredictorScores, summarise
from mlx_lvm.evaluation.verdict import Claim, Verdict, paired, verdict
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics import names as metrics
from mlx_lvm.metrics.figures import offset_cosines
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE, JUDGED, Figures, Metric
from mlx_lvm.metrics.retrieval import build_pool
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Predictor, document_rows, predict_all, sample
from mlx_lvm.predictors.baselines import target_mean

FIGURES = (COSINE, metrics.CENTRED_COSINE, metrics.MRR)
AGAINST = (COSINE, CENTRED_MRR)  # what a model is compared in to the baselines that travelled with it
LOOKED = 16  # chunks of a document, spread through it, by which a copy of it is known
BLOCK = 16_384  # chunks of the training documents that these are compared with at a time


@dataclass(frozen=True)
class Row(Result):
    """A predictor at home, on the other corpus, and carried over to it; None where there is no such."""

    predictor: str
    kind: str
    home: PredictorScores
    there: PredictorScores | None
    transferred: PredictorScores | None

    @property
    def sides(self) -> tuple[PredictorScores | None, ...]:
        return self.home, self.there, self.transferred

    def cells(self, metrics: Sequence[Metric]) -> list[str]:
        """Every side in each of the metrics, as `Transfer.sides` heads them."""
        return [f"{side[metric]:.4f}" if side else "-" for metric in metrics for side in self.sides]

    def to_dict(self) -> JsonObject:
        sides = dict(zip(("home", "there", "transferred"), self.sides, strict=True))
        figures = {name: side and _figures(side) for name, side in sides.items()}
        return {"predictor": self.predictor, "kind": self.kind, **figures}


@dataclass(frozen=True)
class Whole(Result):
    """What travelled, on all documents of the other corpus but `copies` of training documents at home; see
    `on_all_documents`. pool: candidates of a window; as_at_home: the claims in retrieval by their JSON name
    with home's own mean and shares of it off, so that nothing at all is from there.
    """

    documents: int
    copies: int
    windows: int
    pool: float
    metrics: dict[str, PredictorScores]
    verdict: Verdict
    as_at_home: dict[str, Claim]


@dataclass(frozen=True)
class Transfer(Result):
    """home: the name of the model's own corpus. there: the evaluation on the other one. versus_transferred: a
    model's differences to the best baseline that travelled. whole: None where the model may have seen some of
    the documents; a note says why.
    """

    home: str
    there: Evaluation
    rows: list[Row]
    warnings: list[str]
    notes: list[str]
    versus_transferred: dict[Metric, Difference] | None = None
    whole: Whole | None = None

    @property
    def corpus(self) -> str:
        """The other one's name."""
        return self.there.scored.corpus

    @property
    def sides(self) -> list[str]:
        """What heads the sides of a row."""
        return [self.home, self.corpus, "carried over"]

    @property
    def sentences(self) -> list[str]:
        """The verdict there, and how the model stands to the best baselines that travelled with it."""
        return [self.there.verdict.sentence, *self._against_transferred(), *self.whole_sentences]

    def _against_transferred(self) -> list[str]:
        return [
            f"Compared with the best baseline carried over from {self.home}: {self.there.name} "
            f"{against.value:+.4f} in {metric.words} to {against.baseline} (95% interval "
            f"{against.span('+.4f')}, {self.there.scored.documents} documents)."
            for metric, against in (self.versus_transferred or {}).items()
        ]

    @property
    def whole_sentences(self) -> list[str]:
        """The same on every document of the other corpus: what travelled has seen none of them."""
        if (whole := self.whole) is None:
            return []
        which = f" that are no training documents of {self.home}" if whole.copies else ""
        among = f"{whole.windows:,} windows among {whole.pool:,.0f} chunks"
        scored = f"All {whole.documents} documents of {self.corpus}{which}, {among}:"
        home = f"everything fitted on {self.home}, centring too:"
        return [
            *(f"{scored} {whole.verdict.claims[metric].sentence}" for metric in JUDGED),
            *(f"{scored} {home} {claim.sentence}" for claim in whole.as_at_home.values()),
        ]

    def to_dict(self) -> JsonObject:
        there = self.there.to_dict()
        same = ("corpus", "documents", "windows", "retrieval", "metrics", "verdict")
        out = {name: value for name, value in super().to_dict().items() if name != "there"}
        return {**out, **{name: there[name] for name in same}}


def out_of_domain(
    home: Evaluation,
    subject: Loaded | str,
    corpus: Corpus,
    max_windows: int,
    progress: Callable[[str], None] = lambda line: None,
) -> Transfer:
    """`home`: the evaluation at home.

    Raises UsageError where `corpus` is the home corpus, InvalidFile where it is of another encoder.
    """
    there = home.bench.corpus
    if corpus.sha256 and corpus.sha256 == there.sha256:
        raise UsageError(f"--ood {corpus.name} is the corpus that everything is fitted on; name another one")
    there.card.require_same(corpus.card, f"baselines of {there.name} on corpus {corpus.name}")
    mark = f" from {there.name}"
    travelled: list[Predictor] = [
        replace(one, name=one.name + mark)  # type: ignore[type-var]
        for one in home.bench.baselines
    ]
    seed, context = home.bench.parts.seed, home.windows.context
    found = examine(
        subject, corpus, home.bench.split, split_seed=seed, context=context, max_windows=max_windows,
        resamples=home.bootstrap.resamples, seed=home.bootstrap.seed, alongside=travelled,
        progress=lambda line: progress(f"{corpus.name}: {line}"),
    )  # fmt: skip
    rows = [
        Row(name, scores.kind, scores, found.scores.get(name), found.scores.get(name + mark))
        for name, scores in home.scores.items()
    ]
    warnings, notes = list(found.warnings), list(found.notes)
    unknown = there.card.unknown(corpus.card)
    if unknown and not warnings:
        warnings.append(unknown_space(f"{there.name} holds", corpus, unknown))
    if found.name in home.scores and home.scores[found.name].kind == "baseline":
        return Transfer(there.name, found, rows, warnings, notes)
    names = [one.name for one in travelled]
    versus = {metric: paired(found.figures, found.name, names, metric, found.bootstrap) for metric in AGAINST}
    progress(f"{corpus.name}: looking for training documents of {there.name}")
    doubt, copied = may_have_seen(subject, corpus), copies(corpus, there, home.bench.parts.train)
    split = home.bench.split
    if len(copied):
        judged = np.isin(copied, found.bench.parts.part(split)).sum()
        notes.append(
            f"{len(copied)} of {len(corpus.names)} documents of {corpus.name} are training documents of "
            f"{there.name} as well, '{corpus.names[copied[0]]}' first: no comparison on all documents "
            f"has them, that on the {split} documents has {judged}."
        )
    whole = None
    if doubt:
        notes.append(f"{found.name} is compared on the {split} documents of {corpus.name} alone: {doubt}.")
    elif len(copied) < len(corpus.names):
        others = np.setdiff1d(np.arange(len(corpus.names)), copied)
        whole = on_all_documents(home, found, travelled, others, max_windows, progress)
    return Transfer(there.name, found, rows, warnings, notes, versus, whole)


def may_have_seen(subject: Loaded | Predictor | str, corpus: Corpus) -> str:
    """Why the subject may have been trained on documents of `corpus`; empty where it says that it was not."""
    if not isinstance(subject, Loaded) or not (subject.corpus_sha256 and corpus.sha256):
        return "which documents it was trained on is not known"
    if corpus.sha256 == subject.corpus_sha256:
        return "it was trained on others of this corpus"
    if corpus.name == subject.corpus:
        return "it was trained on another state of this corpus"
    return ""


def copies(corpus: Corpus, home: Corpus, documents: np.ndarray) -> np.ndarray:
    """Documents of `corpus` that are among `documents` of `home` under whatever name, [n]: of LOOKED chunks
    spread through one, more than COPY have a cosine above NEAR with a chunk there.
    """
    ends = zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    looked = [a + evenly_spaced(b - a, LOOKED) for a, b in ends]
    theirs = document_rows(home.offsets, documents)
    nearest = []
    for rows in np.array_split(np.concatenate(looked), -(-sum(map(len, looked)) // BLOCK)):
        mine, best = normalize(corpus.take(rows)), mx.full((len(rows),), -1.0)
        for block in blocks(len(theirs), BLOCK):
            products = mine @ normalize(home.take(theirs[block])).T
            best = mx.maximum(best, products.max(axis=1))
            mx.eval(best)
        nearest.append(np.array(best))
    counts = [len(rows) for rows in looked]
    same = np.bincount(np.repeat(np.arange(len(counts)), counts), np.concatenate(nearest) > NEAR)
    return np.flatnonzero(same > COPY * np.array(counts))


def on_all_documents(
    home: Evaluation,
    found: Evaluation,
    travelled: list[Predictor],
    documents: np.ndarray,
    max_windows: int,
    progress: Callable[[str], None] = lambda line: None,
) -> Whole:
    """The model and the baselines that travelled, on `documents` of the corpus of `found`, all but copies:
    nothing here was fitted on one.

    The model is ranked with the share of the mean off that home's validation documents chose, a baseline with
    the one that ranks it best here: a choice in hindsight, which favours the baselines. The mean is that of
    all targets here.
    """
    corpus, context, name = found.bench.corpus, home.windows.context, found.name
    scored = sample(windows(corpus, documents, context, "documents"), max_windows)
    pool = build_pool(scored, document_rows(corpus.offsets, documents))
    mean = target_mean(corpus, documents, context)
    measured: dict[str, Measured] = {}
    as_at_home: dict[str, Figures] = {}
    at_home = [home.name, *(one.name for one in home.bench.baselines)]
    for one, same in zip([found.predictors[name], *travelled], at_home, strict=True):
        progress(f"{corpus.name}, all documents: scoring {one.name}")
        predicted, share = predict_all(one, scored), home.measured[same].fraction
        as_at_home[one.name] = score(predicted, pool, home.bench.mean, share)
        fraction = share if one.name == name else best_fraction(predicted, pool, mean)
        figures = score(predicted, pool, mean, fraction)
        measured[one.name] = Measured(figures, offset_cosines(predicted, scored), fraction)
    bootstrap = DocumentBootstrap(scored.documents, home.bootstrap.resamples, home.bootstrap.seed)
    names = [one.name for one in travelled]
    kinds = {name: "model", **dict.fromkeys(names, "transferred")}
    summary = summarise(measured, bootstrap, names, kinds)
    judged = verdict(name, summary.scores[name], bootstrap.count, home.verdict.objective, "all")
    claims = {
        metric.name: Claim(
            name, paired(as_at_home, name, names, metric, bootstrap), metric.words, bootstrap.count
        )
        for metric in (CENTRED_MRR, metrics.CENTRED_RECALL)
    }
    return Whole(
        documents=bootstrap.count,
        copies=len(corpus.names) - len(documents),
        windows=len(scored),
        pool=float(pool.sizes.mean()),
        metrics=summary.scores,
        verdict=judged,
        as_at_home=claims,
    )


def _figures(scores: PredictorScores) -> JsonObject:
    out: JsonObject = {}
    for metric in FIGURES:
        out |= entry(metric.key, scores.values[metric])
    return out
