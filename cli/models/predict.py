"""`lvm predict`: the chunks that rank first to come next, their probabilities, and the cosine to expect."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_lvm.cli.shared.common import (
    Corpus,
    Json,
    Output,
    Precision,
    data_option,
    ranking_option,
    text_option,
)
from mlx_lvm.cli.shared.subject import EncoderOf, GivenText, Subject, extend
from mlx_lvm.errors import UsageError

if TYPE_CHECKING:
    from mlx_lvm.data.corpus import Corpus as Held
    from mlx_lvm.ranking.predict import Decoded, Outlook
    from mlx_lvm.ranking.scorer import NextSet, RankedChunk

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

WAYS = ("hybrid", "prediction")


@app.command()
def predict(
    model: Subject,
    document: Annotated[
        str | None,
        data_option("--document", "-d", metavar="NAME", help="Document of the corpus, by name or number."),
    ] = None,
    text: GivenText = None,
    corpus: Corpus = "",
    at: Annotated[
        int | None, data_option(min=0, help="Chunk to predict, from 0. Default: the one after the last.")
    ] = None,
    query: Annotated[
        str | None,
        data_option(
            "--query",
            "-q",
            metavar="TEXT|FILE.npy|DOCUMENT:CHUNK",
            help="What the next chunk should be about: a text, embedded with the corpus's encoder, a vector, "
            "or a chunk of the corpus.",
        ),
    ] = None,
    encoder: EncoderOf = None,
    steps: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Predict so many chunks, each from the ones predicted before."),
    ] = 1,
    top: Annotated[int, ranking_option(min=1, help="Show so many chunks.")] = 5,
    rank: Annotated[
        str,
        ranking_option(
            metavar="|".join(WAYS),
            help="By prediction, last chunk and document so far, weighed by how they did on validation "
            "documents (a model made for ranking has them inside), or by the prediction's cosine alone.",
        ),
    ] = "hybrid",
    coverage: Annotated[
        float,
        ranking_option(
            min=0.5, max=0.99, help="Say how long the list must be to hold the next chunk so often."
        ),
    ] = 0.9,
    approximate: Annotated[
        bool,
        ranking_option(
            "--approximate",
            help="Search with faiss, then rank what it finds exactly: for millions of chunks.",
        ),
    ] = False,
    decode: Annotated[
        str | None,
        text_option(
            metavar="FOLDER|NAME",
            help="Write the predicted vector as text too, by a vec2text inverter made for the corpus's "
            "encoder: a folder, or an id of the Hub (extra 'decode'). Public ones: GTR-base and "
            "text-embedding-ada-002; none known for all-mpnet-base-v2.",
        ),
    ] = None,
    precision: Precision = "float32",
    json: Json = False,
) -> None:
    """Predict a document's next chunk and show which chunks of the corpus it is likely to be.

    The chunks that the model has just read are left out. Where the document goes on, the true chunk is shown
    with its rank. Probabilities say: of all chunks of the corpus, this is the next one. They are calibrated
    on validation documents.

    Examples:  lvm predict amn --document 1961_john_f_kennedy_d --at 20
               lvm predict amn --document 2021_joseph_r_biden_d --query "jobs and roads"
               lvm predict amn --document 2021_joseph_r_biden_d --steps 5 --top 3
               lvm predict ramn --corpus notes.safetensors --text draft.md
    """
    import numpy as np

    from mlx_lvm.api.serving import default_corpus, ranker_of, serve
    from mlx_lvm.data.corpus import load_corpus
    from mlx_lvm.data.splits import split_corpus
    from mlx_lvm.ranking.decode import Inverter
    from mlx_lvm.ranking.predict import predict as measure
    from mlx_lvm.ranking.query import read_query

    if rank not in WAYS:
        raise UsageError(f"--rank {rank}: expected one of {', '.join(WAYS)}")
    if rank == "prediction" and (query or approximate):
        raise UsageError(f"{'--query' if query else '--approximate'} belongs with --rank hybrid")
    if (document is None) == (text is None):
        raise UsageError("name a document of the corpus with --document, or give one with --text FILE")
    display = Output(json)
    data = load_corpus(corpus or default_corpus(model))
    inverter = Inverter(decode, data) if decode is not None else None
    subject = serve(model, data, precision)
    held = data if text is None else extend(data, text, encoder)
    chosen = _chosen(data, document) if document is not None else _only(data, held, text)
    own = None if text is None else np.arange(len(data), len(held))
    ranker, notes, parts = None, list(subject.notes), split_corpus(data, subject.split_seed)
    if subject.trained_on and subject.trained_on == data.sha256 and text is None and chosen in parts.train:
        notes.append(
            f"{data.names[chosen]} is a training document: {model} has seen what follows, and does better "
            "here than elsewhere."
        )
    if rank == "hybrid":
        asked = read_query(query, data, encoder) if query is not None else None
        with display.status("fitting the ranking on validation documents"):
            ranker, said = ranker_of(subject, data, asked, approximate)
        notes += said
        if ranker is None and (query or approximate):
            raise UsageError(said[0])
    context = subject.context
    if text is not None and held.lengths[chosen] < context:
        context = int(held.lengths[chosen])
        notes.append(f"the text has {context} chunks; the model was made to read {subject.context}")
    outlook = measure(subject.predictor, held, chosen, at, context, steps, top, ranker, coverage, own)
    if inverter is not None:
        with display.status("loading the inverter"):
            texts = inverter.decode([step.vector for step in outlook.steps])
        decoded = zip(outlook.steps, texts, strict=True)
        outlook = replace(outlook, steps=[replace(step, decoded=text) for step, text in decoded])
        notes += inverter.notes
    show(display, outlook, subject.warnings, notes)
    display.result({**outlook.to_dict(), "warnings": subject.warnings, "notes": notes})


def _chosen(corpus: Held, document: str) -> int:
    """A document by name, or by number where none has that name."""
    numbered = document.isdigit() and document not in corpus.names and int(document) < len(corpus.names)
    return int(document) if numbered else corpus.document(document)


def _only(corpus: Held, held: Held, text: str | None) -> int:
    """The one document that a text is. Raises UsageError where it is several."""
    count = len(held.names) - len(corpus.names)
    if count > 1:
        raise UsageError(f"--text {text}: {count} documents; give the one to go on with")
    return len(corpus.names)


def show(display: Output, found: Outlook, warnings: list[str], notes: list[str]) -> None:
    display.warn(warnings)
    read = f"chunk {found.at} from the {len(found.context)} before it"
    display.say(f"{found.model} on {found.corpus}: {found.document}, {read}")
    if found.context[-1].text is not None:
        display.say(f"last read: {found.context[-1].text}", style="dim")
    if found.query is not None:
        display.say(f"asked for: {found.query}", style="dim")
    by = ranked_by(found.ranked_by)
    for step in found.steps:
        ranked = step.ranked
        known = ranked.nearest[0].probability is not None
        columns = ["", "chunk", "text", *(["probability"] if known else []), "cosine"]
        rows = [_row(f"{place}", one, known) for place, one in enumerate(ranked.nearest, 1)]
        if step.decoded is not None:
            rows.append(_decoded(step.decoded, known))
        if ranked.truth is not None:
            rows.append(_row(f"truth, rank {ranked.truth.rank:,}", ranked.truth, known))
        display.say()
        title = f"step {step.number}: nearest of {found.candidates:,} chunks, ranked by {by}"
        display.table(title, columns, rows, bold=len(rows) - 1 if ranked.truth else None, left=3)
        if ranked.set is not None:
            display.say(_set(ranked.set, ranked.truth, found.candidates))
        if step.expected_cosine is not None:
            said = f"{step.expected_cosine:.2f}"
            said += f"; it was {ranked.truth.cosine:.2f}" if ranked.truth else ""
            display.say(f"cosine to be expected between the prediction and the next chunk: {said}")
    display.note(notes)


def ranked_by(terms: list[str]) -> str:
    """The terms of a ranking in words."""
    words = {"last": "last chunk", "document": "document so far"}
    named = [words.get(term, term) for term in terms if term != "mean"]
    return "the prediction alone" if named == ["prediction"] else ", ".join(named)


def _row(place: str, one: RankedChunk, known: bool) -> list[str]:
    likely = [f"{one.probability:.2%}"] if known else []
    where = f"{one.label.document}, {one.label.chunk}"
    return [place, where, (one.label.text or "")[:90], *likely, f"{one.cosine:.4f}"]


def _decoded(one: Decoded, known: bool) -> list[str]:
    cosine = "" if one.cosine is None else f"{one.cosine:.4f}"
    return ["decoded", "", one.text[:90], *([""] if known else []), cosine]


def _set(found: NextSet, truth: RankedChunk | None, candidates: int) -> str:
    if not found.promised:
        sure = f"no list is sure to hold the next chunk {found.coverage:.0%} of the time"
        return f"{sure}: the validation documents are too few for that"
    held = f"; the truth is {'' if truth.in_set else 'not '}among them" if truth else ""
    size = f"{'' if found.exact else 'about '}{found.size:,} of {candidates:,}"
    return f"{found.coverage:.0%} of the time the next chunk is among the first N: N is {size} here{held}"
