"""`lvm data`: look at corpora, check them, make them from other files, and take them apart."""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_lvm.cli.corpora.convert import convert
from mlx_lvm.cli.corpora.data_make import merge, split, subset
from mlx_lvm.cli.corpora.synth import synth
from mlx_lvm.cli.corpora.writing import CorpusArgument
from mlx_lvm.cli.shared.common import Json, Output, data_option
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.quality.audit import MAX_LEAKAGE, check, find_duplicates
from mlx_lvm.data.quality.contexts import lengths_told
from mlx_lvm.data.quality.description import Description, describe
from mlx_lvm.data.quality.duplicates import require_faiss
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.data.storage.rows import RowCheck
from mlx_lvm.errors import InvalidFile, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)

Context = Annotated[int, data_option("--context", min=1, help="Chunks a window reads.")]
Seed = Annotated[int, data_option("--split-seed", help="Seed of the split by document name.")]
Near = Annotated[
    bool | None,
    data_option(
        "--near/--no-near", help="Search near duplicates. Default: up to 100,000 vectors.", show_default=False
    ),
]
Approximate = Annotated[
    bool,
    data_option(
        "--approximate", help="Search near duplicates through faiss: fast on millions, may miss some."
    ),
]


@app.callback()
def data() -> None:
    """Corpora of vectors: what they hold, what is wrong with them, and other files turned into them."""


@app.command()
def info(
    corpus: CorpusArgument = "sotu",
    context: Context = 5,
    split_seed: Seed = 0,
    near: Near = None,
    approximate: Approximate = False,
    json: Json = False,
) -> None:
    """Documents, windows, splits, lag profile, anisotropy, duplicates and the encoder card.

    Example:  lvm data info sotu
    """
    out = Output(json)
    require_search(near, approximate)
    mapped = open_corpus(find_corpus(corpus))
    rows_check = RowCheck(mapped.where)
    problems = mapped.verify(rows_check)
    if problems:
        listed = "\n  ".join(problems)
        raise InvalidFile(f"corpus {mapped.path}: {listed}\nlvm data check lists everything.")
    found = describe(mapped, context, split_seed)
    duplicates = find_duplicates(mapped, split_seed, near, approximate=approximate)
    leakage = duplicates.leakage
    _show(out, found)
    out.note(lengths_told(mapped, rows_check), "warning")
    pairs, within = "not searched; --near", ""
    if duplicates.near >= 0:
        pairs, within = f"{duplicates.near:,}", f"{duplicates.near_within:,}"
    leaked = f"{max(leakage.exact, leakage.near):,} of {leakage.held_out:,} ({leakage.share:.2%})"
    rows = [
        ["vectors that repeat another exactly", f"{duplicates.exact:,}"],
        [f"near pairs (cosine above 0.97{', approximate' * approximate})", pairs],
        ["near pairs within one document", within],
        ["held-out chunks in another part", leaked],
    ]
    out.table("Duplicates", ["", ""], rows)
    twice = {**duplicates.to_dict(), "approximate": approximate}
    out.result({**found.to_dict(), "duplicates": twice, "problems": []})


@app.command("check")
def check_(
    corpus: CorpusArgument = "sotu",
    context: Context = 5,
    split_seed: Seed = 0,
    near: Near = None,
    approximate: Approximate = False,
    max_leakage: Annotated[
        float, data_option(min=0, max=1, help="Share of held-out chunks that may stand in another part.")
    ] = MAX_LEAKAGE,
    json: Json = False,
) -> None:
    """Every problem of a corpus at once, with row and document: values, texts, splits, duplicates, leakage.

    Exit code 1 where there is a problem; warnings do not count.

    Example:  lvm data check my.safetensors
    """
    out = Output(json)
    require_search(near, approximate)
    path = find_corpus(corpus)
    if not path.exists():
        raise InvalidFile(f"{path}: no such file or folder")
    result: JsonObject = {"path": str(path), **dict.fromkeys(("documents", "vectors", "dim", "windows"))}
    try:
        mapped = open_corpus(path)
    except InvalidFile as error:
        lines = str(error).splitlines()
        problems, warnings, duplicates = [line.removeprefix("  - ") for line in lines[1:] or lines], [], None
    else:
        found, duplicates = check(mapped, context, split_seed, near, max_leakage, approximate)
        problems, warnings = found.problems, found.warnings
        windows = int((mapped.lengths - context).clip(0).sum())
        documents, vectors, dim = len(mapped.names), len(mapped), mapped.dim
        result |= {"documents": documents, "vectors": vectors, "dim": dim, "windows": windows}
        holds = f"{documents:,} documents, {vectors:,} vectors of {dim} dimensions"
        out.say(f"{path}: {holds}, {windows:,} windows of {context}")
    for problem in problems:
        out.say(f"problem: {problem}", style="red")
    out.note(warnings, "warning")
    counted = f"{len(problems)} problem{'s' * (len(problems) > 1)}." if problems else "No problems."
    out.say(counted, style="bold")
    found_twice = {**duplicates.to_dict(), "approximate": approximate} if duplicates else None
    out.result({**result, "problems": problems, "warnings": warnings, "duplicates": found_twice})
    if problems:
        raise typer.Exit(1)


def require_search(near: bool | None, approximate: bool) -> None:
    """Before minutes are spent. Raises UsageError for options that contradict, SetupInvalid without faiss."""
    if approximate:
        if near is False:
            raise UsageError("--approximate and --no-near: one asks for the search that the other leaves out")
        require_faiss()


def _show(out: Output, found: Description) -> None:
    lengths = found.lengths
    out.say(f"{found.corpus}: {found.path}", style="bold")
    shards = f" in {found.shards} shards" if found.shards > 1 else ""
    size = f"{found.dtype}, {found.bytes / 2**20:,.1f} MiB{shards}"
    chunks = f"{lengths.min} to {lengths.max:,} chunks, median {lengths.median:g}"
    facts = {
        "documents": f"{found.documents:,} of {chunks}",
        "vectors": f"{found.vectors:,} of {found.dim} dimensions, {size}",
        "windows": f"{found.windows:,} of {found.context} + 1 chunks; {found.too_short} documents too short",
        "texts": "next to the vectors" if found.texts else "none",
        "sha256": found.sha256,
        **{key: value or "not recorded" for key, value in found.provenance.items()},
    }
    out.table("", ["", ""], list(facts.items()), left=2)
    parts = [[name, *(f"{count:,}" for count in vars(part).values())] for name, part in found.splits.items()]
    out.table(f"Split {found.split}", ["", "documents", "vectors", "windows"], parts)
    profile = found.lag_profile
    heads = [f"r{k}" for k in range(1, len(profile) + 1)]
    values = ["" if value is None else f"{value:.3f}" for value in profile]
    out.table("Mean cosine of two chunks of a document, by distance", heads, [values])
    shape = found.anisotropy
    shares = [["norm of the mean vector", f"{shape['mean_norm']:.3f}"]]
    shares += [[f"variance in the first {k} directions", f"{shape[f'first_{k}']:.1%}"] for k in (1, 10, 50)]
    out.table(f"Anisotropy ({shape['rows']:,} rows)", ["", ""], shares)
    card = [
        [key, "recorded" if value is True else "not recorded" if value in ("", False) else str(value)]
        for key, value in found.encoder.items()
    ]
    out.table("Encoder", ["", ""], card, left=2)


for _command in (convert, synth, merge, subset, split):
    app.command()(_command)
