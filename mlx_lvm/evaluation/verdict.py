"""A verdict in sentences: how a model stands to the best baseline, in what it is made for.

verdict(name, scores, documents) -> Verdict
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_lvm.core.result import JsonObject, Result, as_json
from mlx_lvm.core.stats import Difference, DocumentBootstrap
from mlx_lvm.evaluation.summary import PredictorScores
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, CENTRED_RECALL, COSINE, JUDGED, Figures, Metric

MADE_FOR = {COSINE: (COSINE, CENTRED_COSINE), CENTRED_MRR: (CENTRED_MRR, CENTRED_RECALL)}
SPLIT = {"train": " training", "val": " validation", "test": " test", "all": ""}


@dataclass(frozen=True)
class Claim(Result):
    """A difference with what it is a difference of. what: 'the best baseline', or a baseline by name."""

    name: str
    difference: Difference
    words: str
    documents: int
    what: str = "the best baseline"

    @property
    def outcome(self) -> str:
        return self.difference.outcome

    @property
    def sentence(self) -> str:
        ends, count = self.difference.span("+.4f", empty=""), self.documents
        interval = f"95% interval {ends}" if ends else "no interval from a single document"
        against = f", {self.difference.baseline}," if self.what == "the best baseline" else ""
        relation = f"{self.outcome} {'from' if self.outcome == 'not distinguishable' else 'than'}"
        return (
            f"{self.name} is {relation} {self.what}{against} in {self.words}: "
            f"{self.difference.value:+.4f} ({interval}, {count} {'document' if count == 1 else 'documents'})."
        )

    def to_dict(self, with_baseline: bool = True) -> JsonObject:
        found = self.difference.to_dict() if with_baseline else self.difference.without_baseline()
        return {"outcome": self.outcome, **found, "sentence": self.sentence}


@dataclass(frozen=True)
class Verdict(Result):
    """objective: the metric that the model is made for. claims: against the best baseline, the objective's
    first. mean: against the context's mean. hybrid: of the model as it ranks, fused with what it read.
    """

    documents: int
    objective: Metric
    claims: dict[Metric, Claim]
    mean: Claim | None = None
    hybrid: Claim | None = None
    split: str = "test"

    @property
    def outcome(self) -> str:
        return self.claims[self.objective].outcome

    @property
    def sentence(self) -> str:
        return self.claims[self.objective].sentence

    @property
    def headline(self) -> str:
        """The outcome in words that need no glossary."""
        claim, ranks = self.claims[self.objective], self.objective == CENTRED_MRR
        count = f"{self.documents}{SPLIT[self.split]} {'document' if self.documents == 1 else 'documents'}"
        does = "ranks the true next chunk" if ranks else "predicts the next chunk"
        baseline = f"the best baseline, {claim.difference.baseline}"
        words = {
            "better": f"{'higher' if ranks else 'better'} than every baseline does",
            "worse": f"{'lower' if ranks else 'worse'} than {baseline}, does",
            "not distinguishable": f"about as {'high' if ranks else 'well'} as {baseline}, does: "
            "the difference is within chance",
        }
        return f"On {count}, {claim.name} {does} {words[self.outcome]}."

    @property
    def sentences(self) -> list[str]:
        """The claims in what it is made for; of a model that predicts, also to the mean, and as it ranks."""
        made_for = [self.claims[metric] for metric in MADE_FOR[self.objective]]
        extra = [self.mean, self.hybrid] if self.objective == COSINE else []
        return [one.sentence for one in [*made_for, *extra] if one is not None]

    def to_dict(self) -> JsonObject:
        out: JsonObject = {"documents": self.documents, "purpose": self.objective.key}
        out |= as_json(self.claims)
        if self.mean is not None:
            out["mean"] = self.mean.to_dict(with_baseline=False)
        if self.hybrid is not None:
            out["hybrid"] = self.hybrid.to_dict()
        said = {"headline": self.headline, "sentence": self.sentence, "sentences": self.sentences}
        return {**out, "outcome": self.outcome, **said}


def verdict(
    name: str, scores: PredictorScores, documents: int, objective: Metric = COSINE, split: str = "test"
) -> Verdict:
    """A claim for every metric of JUDGED, that of the objective first. split: whose documents these are."""
    order = sorted(JUDGED, key=lambda metric: metric != objective)
    claims = {metric: Claim(name, scores.versus_best[metric], metric.words, documents) for metric in order}
    mean = None
    if scores.versus_mean is not None:
        mean = Claim(name, scores.versus_mean, "cosine", documents, "the mean of its context")
    return Verdict(documents, objective, claims, mean, split=split)


def paired(
    figures: dict[str, Figures], name: str, others: list[str], metric: Metric, bootstrap: DocumentBootstrap
) -> Difference:
    """Of one predictor to the best of the others."""
    best = max(others, key=lambda other: float(metric.of(figures[other]).mean()))
    return bootstrap.difference(metric.of(figures[name]), best, metric.of(figures[best]))
