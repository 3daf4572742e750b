"""What a model is worth on documents it never saw: one alone with a verdict, or several in one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mlx_lvm.api.corpus import Corpus
from mlx_lvm.api.model import Model, loaded_of
from mlx_lvm.api.serving import default_corpus, is_baseline, reading
from mlx_lvm.core.files.disk import write_json
from mlx_lvm.core.result import JsonObject, plain_table
from mlx_lvm.data.corpus import Corpus as StoredCorpus
from mlx_lvm.data.sampling import load_or_sample
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation import leaderboard
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.findings import Findings
from mlx_lvm.evaluation.leaderboard import Leaderboard
from mlx_lvm.evaluation.report import drawing
from mlx_lvm.evaluation.report.table import score_lines
from mlx_lvm.evaluation.report.write import write_report
from mlx_lvm.evaluation.setup import MAX_WINDOWS
from mlx_lvm.evaluation.study.arrow import arrow_of_time
from mlx_lvm.evaluation.study.study import study
from mlx_lvm.evaluation.transfer import out_of_domain
from mlx_lvm.hub.load import Loaded

Progress = Callable[[str], None]


class Report:
    """An evaluation. Printed: the verdict, a table and what was scored; `verdict` is its first sentence."""

    def __init__(self, findings: Findings) -> None:
        self.findings, self.evaluation = findings, findings.evaluation

    @property
    def verdict(self) -> str:
        """How the model stands to the best baseline in what it is made for, with the 95% interval."""
        return self.evaluation.verdict.sentence

    @property
    def outcome(self) -> str:
        """`better`, `worse` or `level`: whether and where the verdict's interval leaves out zero."""
        return self.evaluation.verdict.outcome

    def to_dict(self) -> JsonObject:
        """Every figure with its interval, as `lvm eval --json` prints it, ready for JSON."""
        return self.findings.to_dict()

    def save(self, folder: str | Path, command: str = "") -> Path:
        """Write metrics.json, and report.html where matplotlib is installed (extra `report`).

        command: what made it, for the page. Raises IOFailed where the folder cannot be written.
        """
        target = Path(folder)
        write_json(target / "metrics.json", self.to_dict())
        if drawing.available():
            write_report(target / "report.html", self.findings, command or "mlx_lvm.evaluate")
        return target

    def __repr__(self) -> str:
        return "\n".join(score_lines(self.evaluation))


def evaluate(
    model: Model | str | Path,
    corpus: Corpus | str | Path | None = None,
    split: str = "test",
    *,
    context: int | None = None,
    split_seed: int | None = None,
    max_windows: int = MAX_WINDOWS,
    closer: bool = False,
    ood: Corpus | str | Path | None = None,
    arrow_epochs: int = 0,
    precision: str = "float32",
    progress: Progress = lambda line: None,
) -> Report:
    """Score a model, every baseline and the controls on documents that none of them was fitted on.

    model:    a Model, a name that `load` takes, or a baseline's (`ridge`, `last`, `mean`, ...)
    corpus:   a Corpus, or the name or path of one, by default that which the model was trained on; the
              baselines are fitted on its training documents
    split:    "test", "val", "train" or "all"
    context:  chunks that a window has; the model's own by default
    split_seed: of a baseline; a model keeps the split that it was trained with
    max_windows: at most so many are scored, evenly spaced
    closer:   also direction, rollout, ablations, difficulty, attention and cases (a minute)
    ood:      also on this corpus, with everything fitted on the first
    arrow_epochs: above 0, also train the recipe forward and on reversed documents, so many epochs each
    progress: called with a line at each stage

    Raises UsageError for an unknown name or split, InvalidFile where corpus and model are of different
    encoders or a part has no window, CheckFailed where a control fails.

    >>> report = evaluate(load("amn"), load_corpus("sotu"))
    >>> print(report.verdict)
    >>> print(report)
    """
    subject = _subject(model, precision)
    if arrow_epochs and not isinstance(subject, Loaded):
        raise UsageError(f"--arrow-of-time trains a model by its recipe; {model} is a baseline and has none")
    reads, seed = reading(subject, context, split_seed)
    data = in_memory(default_corpus(subject) if corpus is None else corpus, reads, seed)
    other = None if ood is None else in_memory(ood, reads, seed)
    found = examine(
        subject,
        data,
        split,
        context=context,
        split_seed=split_seed,
        max_windows=max_windows,
        progress=progress,
    )
    arrow = None
    if arrow_epochs and isinstance(subject, Loaded):
        arrow = arrow_of_time(subject, data, arrow_epochs, max_windows, progress=progress)
    looked = study(found, progress) if closer else None
    away = None if other is None else out_of_domain(found, subject, other, max_windows, progress)
    return Report(Findings(found, looked, away, arrow))


class Comparison:
    """Models on the same windows. Printed: the table, best cosine first, the best baselines below."""

    def __init__(self, leaderboard: Leaderboard) -> None:
        self.leaderboard = leaderboard

    @property
    def rows(self) -> list[JsonObject]:
        """A dict of figures a model, best cosine first."""
        return [row.to_dict() for row in self.leaderboard.rows]

    def to_dict(self) -> JsonObject:
        """Every figure with its interval, as `lvm compare --json` prints it."""
        return self.leaderboard.to_dict()

    def markdown(self) -> str:
        """The table in Markdown."""
        return self.leaderboard.markdown

    def __repr__(self) -> str:
        found = self.leaderboard
        warnings = [f"warning: {line}" for line in found.warnings]
        table = plain_table("", leaderboard.COLUMNS, found.table)
        return "\n".join([*warnings, *table, found.sentence, *found.notes])


def compare(
    *models: Model | str | Path,
    corpus: Corpus | str | Path | None = None,
    split: str = "test",
    max_windows: int = MAX_WINDOWS,
    progress: Progress = lambda line: None,
) -> Comparison:
    """Rank models on the windows that all of them can read, with baselines fitted once for all.

    models: Models, or names that `load` takes. corpus: by default that which the first was trained on.
    split, max_windows, progress: as of `evaluate`. p-values are corrected over the models by Holm's
    procedure.

    Raises UsageError for no model or models of different splits, InvalidFile where one is of another encoder.

    >>> print(compare("amn", "ramn", corpus="sotu"))
    """
    loaded = [loaded_of(model) for model in models]
    if not loaded:
        raise UsageError("nothing to compare: name models, runs, exported folders or .safetensors files")
    first = loaded[0]
    chosen = default_corpus(first) if corpus is None else corpus
    data = in_memory(chosen, max(one.context for one in loaded), first.split_seed)
    found = leaderboard.compare(loaded, data, split, max_windows=max_windows, progress=progress)
    return Comparison(found)


def in_memory(corpus: Corpus | str | Path, context: int, split_seed: int) -> StoredCorpus:
    """The corpus, or documents of each part of one that is larger than half of the machine's memory."""
    return corpus.held if isinstance(corpus, Corpus) else load_or_sample(corpus, context, split_seed)


def _subject(model: Model | str | Path, precision: str) -> Loaded | str:
    if isinstance(model, str) and is_baseline(model, precision):
        return model
    return loaded_of(model).compute_in(precision)
