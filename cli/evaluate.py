"""`lvm eval`: a model beside every closed form, on documents it never saw, with a verdict in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from mlx_lvm.cli.common import Corpus, Json, Output, Precision
from mlx_lvm.cli.study import show_study
from mlx_lvm.cli.text import EncoderOf, GivenText, extend
from mlx_lvm.data import corpus as data_corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.predictors.baselines import NAMES

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

COLUMNS = (
    "cosine",
    "95% interval",
    "to best closed form",
    "centred",
    "R@1",
    "R@5",
    "R@10",
    "MRR",
    "MRR centred",
    "MRR in doc",
    "margin",
)

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"Architecture, run folder, exported folder, .safetensors file, or a closed form: {', '.join(NAMES)}.",
    ),
]


@app.command()
def evaluate(
    model: Subject,
    corpus: Corpus = "sotu",
    split: Annotated[
        str,
        typer.Option(
            "--split", metavar="train|val|test|all", help="Documents to score on.", rich_help_panel="Data"
        ),
    ] = "test",
    text: GivenText = None,
    encoder: EncoderOf = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", min=1, help="Chunks read. Default: the model's own, else 5.", rich_help_panel="Data"
        ),
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option(
            "--split-seed",
            help="Of a closed form; a model keeps the split it was trained with.",
            rich_help_panel="Data",
        ),
    ] = None,
    max_windows: Annotated[
        int,
        typer.Option(
            "--max-windows",
            min=1,
            help="Score at most so many windows, evenly spaced.",
            rich_help_panel="Data",
        ),
    ] = 20_000,
    precision: Precision = "float32",
    quick: Annotated[
        bool, typer.Option("--quick", help="The table and the verdict alone.", rich_help_panel="Parts")
    ] = False,
    ood: Annotated[
        str | None,
        typer.Option(
            "--ood",
            metavar="NAME|FILE",
            help="Also on this corpus, both domains side by side.",
            rich_help_panel="Parts",
        ),
    ] = None,
    arrow: Annotated[
        bool,
        typer.Option(
            "--arrow-of-time",
            help="Train the same recipe forward and on reversed documents; compare.",
            rich_help_panel="Parts",
        ),
    ] = False,
    arrow_epochs: Annotated[
        int,
        typer.Option(
            "--arrow-epochs", min=1, help="Epochs of each of the two trainings.", rich_help_panel="Parts"
        ),
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for report.html and metrics.json.", rich_help_panel="Output"),
    ] = None,
    json: Json = False,
) -> None:
    """Score a model, every closed form and the controls on held-out documents.

    Closed forms are fitted on the training documents and tuned on the validation documents of the corpus. Intervals are a
    paired bootstrap over documents. A claim is a difference to the best closed form. Then a closer look: direction, rollout,
    ablations, difficulty, attention, and the chunks where the model gains and loses most.

    Examples:  lvm eval amn --out report
               lvm eval runs/amn-sotu-1 --ood moby --json
               lvm eval lag-filter --quick
               lvm eval amn --text my-speeches/ --quick
    """
    from mlx_lvm.core.files import write_json
    from mlx_lvm.data.ingest.outside import scored_alone
    from mlx_lvm.data.sampling import load_or_sample
    from mlx_lvm.evaluation.evaluate import examine
    from mlx_lvm.evaluation.report import plots
    from mlx_lvm.evaluation.study.arrow import arrow_of_time
    from mlx_lvm.evaluation.study.study import study
    from mlx_lvm.evaluation.transfer import out_of_domain
    from mlx_lvm.hub.load import Loaded, load_model

    display = Output(json)
    subject = model if is_closed_form(model, precision) else load_model(model).compute_in(precision)
    if arrow and not isinstance(subject, Loaded):
        raise UsageError(
            f"--arrow-of-time trains a model by its recipe; {model} is a closed form and has none"
        )
    with_report = out is not None and plots.available()
    if out is not None and not with_report:
        display.notes.print(
            "note: no report.html without matplotlib; install it: pip install 'mlx-lvm[report]'"
        )
    reads, seed = (subject.context, subject.split_seed) if isinstance(subject, Loaded) else (5, 0)
    reads, seed = context or reads, seed if split_seed is None else split_seed
    data, other = (
        load_or_sample(corpus, reads, seed),
        None if ood is None else load_or_sample(ood, reads, seed),
    )
    if text is not None:
        if split != "test":
            raise UsageError("--split and --text: a text is what is scored on")
        data = scored_alone(data, extend(data, text, encoder), seed)
    with display.notes.status("") as status:

        def progress(line: str) -> None:
            status.update(line)

        evaluation = examine(
            subject,
            data,
            split,
            context=context,
            split_seed=split_seed,
            max_windows=max_windows,
            progress=progress,
        )
        result = evaluation.result
        if not quick:
            result.update(study(evaluation, progress))
        if other is not None:
            result["ood"] = out_of_domain(evaluation, subject, other, max_windows, progress)
        if arrow and isinstance(subject, Loaded):
            result["arrow_of_time"] = arrow_of_time(
                subject, data, arrow_epochs, max_windows, progress=progress
            )
    show(display, result)
    show_study(display, result)
    if out is not None:
        write_json(out / "metrics.json", result)
        display.say(f"written: {out / 'metrics.json'}")
        if with_report:
            write_report(out / "report.html", result, subject)
            display.say(f"written: {out / 'report.html'}")
    display.result(result)


class Named(NamedTuple):
    """A model or closed form by name: its predictor, the chunks it reads, its split, the ranking stored with it, the sha256 of the
    corpus it was trained on, and notes.
    """

    predictor: Any
    context: int
    split_seed: int
    ranking: dict[str, Any]
    trained_on: str
    notes: list[str]


def is_closed_form(name: str, precision: str) -> bool:
    """Whether the name is a closed form's and no file's. Raises UsageError for one in another precision than float32."""
    found = name in NAMES and not Path(name).exists()
    if found and precision != "float32":
        raise UsageError(
            f"--precision {precision}: {name} is a closed form, computed in float32; leave the option away"
        )
    return found


def load_subject(name: str, corpus: data_corpus.Corpus, precision: str = "float32") -> Named:
    """A model, or a closed form fitted on the corpus's training documents."""
    from mlx_lvm.data.splits import split_corpus
    from mlx_lvm.evaluation.evaluate import subject_of
    from mlx_lvm.hub.load import load_model
    from mlx_lvm.predictors.baselines import fit_baselines

    if is_closed_form(name, precision):
        parts = split_corpus(corpus)
        return Named(fit_baselines(corpus, parts.train, parts.val, 5, only=(name,))[0], 5, 0, {}, "", [])
    loaded = load_model(name).compute_in(precision)
    _, predictor, notes = subject_of(loaded, corpus, None)
    return Named(predictor, loaded.context, loaded.split_seed, loaded.ranking, loaded.corpus_sha256, notes)


def write_report(path: Path, result: dict[str, Any], subject: Any) -> None:
    """report.html, with what the model's own files say of its origin."""
    import json
    import shlex
    import sys

    from mlx_lvm.core.files import write_atomic
    from mlx_lvm.evaluation.report.html import render
    from mlx_lvm.hub.load import Loaded
    from mlx_lvm.training.run import read_history, versions

    known: dict[str, str] = {}
    history: list[dict[str, Any]] = []
    if isinstance(subject, Loaded):
        history = read_history(subject.folder) if subject.folder is not None else []
        card = subject.card.to_dict() if subject.card is not None else {}
        known["encoder"] = (
            ", ".join(f"{key} {value}" for key, value in card.items() if value) or "not recorded"
        )
        known["model"] = (
            f"{subject.model.config.model_type}, {subject.model.parameter_count():,} parameters, {subject.dtype}"
        )
        known["run"] = subject.folder.name if subject.folder is not None else subject.name
        known["training"] = json.dumps(subject.train, sort_keys=True) if subject.train else "not recorded"
    known["versions"] = ", ".join(f"{key} {value}" for key, value in versions().items())
    known["command"] = shlex.join(["lvm", *sys.argv[1:]])
    write_atomic(path, render(result, history, known).encode())


def show(display: Output, result: dict[str, Any]) -> None:
    """The table, what the pool is, the verdict and the notes."""
    metrics = result["metrics"]
    pool = result["retrieval"]["split"]
    display.table(
        f"{result['model']} on {result['corpus']}, {result['split']}: {result['windows']:,} windows of {result['context']} "
        f"in {result['documents']} documents",
        [result["split"], *COLUMNS],
        [[name, *_row(entry)] for name, entry in metrics.items()],
        bold=list(metrics).index(result["model"]),
    )
    chance = pool["chance"]
    display.say(
        f"retrieval among {pool['pool']:,.0f} chunks (context out): chance R@1 {chance['recall_at_1']:.4f}, "
        f"R@10 {chance['recall_at_10']:.4f}, MRR {chance['mrr']:.4f}; "
        f"in a document among {result['retrieval']['document']['pool']:.0f}: MRR {result['retrieval']['document']['chance']['mrr']:.4f}"
    )
    display.say(
        "margin = cos(prediction, truth) - cos(prediction, last chunk); below zero is arithmetic for a good prediction, no defect"
    )
    verdict = result["verdict"]
    style = {"better": "bold green", "worse": "bold red"}.get(verdict["outcome"], "bold yellow")
    display.say(verdict["sentence"], style=style)
    for sentence in verdict["sentences"][1:]:
        display.say(sentence)
    for note in result["notes"]:
        display.say(f"note: {note}", style="yellow")


def _row(entry: dict[str, Any]) -> list[str]:
    low, high = entry["cosine_ci"]
    against = entry["versus_best"].get("cosine")
    return [
        f"{entry['cosine']:.4f}",
        "-" if low is None else f"{low:.4f} {high:.4f}",
        "best" if against is None else "" if entry["kind"] == "control" else _difference(against),
        f"{entry['centred_cosine']:.4f}",
        *(f"{entry[f'recall_at_{cut}']:.3f}" for cut in (1, 5, 10)),
        f"{entry['mrr']:.4f}",
        f"{entry['centred']['mrr']:.4f}",
        f"{entry['in_document']['mrr']:.4f}",
        f"{entry['margin']:+.3f}",
    ]


def _difference(against: dict[str, Any]) -> str:
    low, high = against["ci"]
    return f"{against['difference']:+.4f}" + ("" if low is None else f" [{low:+.4f} {high:+.4f}]")
