"""Tables of every format and mixture of columns, drawn at random: converted rightly, or refused with a
message.

A sound table must be converted; one with a defect must be refused, or the defect must have done no harm.
Never a traceback, never another document than those that went in, never all of them as one.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mlx_lvm.data.convert.conversion import Target
from mlx_lvm.data.convert.convert import convert
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.errors import LvmError

SETTINGS = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    "derandomize": True,
}


@dataclass
class Table:
    """Columns as arrays, how they are stored, and what is wrong with them, if anything."""

    format: str
    columns: dict[str, np.ndarray]
    documents: list[np.ndarray]
    ids: np.ndarray | None  # in a file of their own
    defect: str


DEFECTS = (
    "",
    "",
    "",
    "no ids",
    "a null id",
    "a NaN vector",
    "a zero vector",
    "ids too few",
    "chunks twice",
    "ids lost",
)
JUNK = {
    "token_count": lambda rng, n: rng.integers(0, 99, n),
    "is_title": lambda rng, n: rng.random(n) > 0.5,
    "score": lambda rng, n: np.where(rng.random(n) > 0.5, np.nan, rng.random(n)),
    "lang": lambda rng, n: np.array(["fr", "de"])[rng.integers(0, 2, n)],
    "text": lambda rng, n: np.array([f"text {k}" for k in range(n)]),
    "title": lambda rng, n: np.array([f"section {k}" for k in range(n)]),
    "grid": lambda rng, n: rng.random((n, 2, 2)),
}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.lists(st.integers(2, 6), min_size=2, max_size=5))
    dim, count = draw(st.integers(2, 5)), sum(lengths)
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    documents = [rows[a:b] for a, b in pairwise(np.cumsum([0, *lengths]))]
    number = np.repeat(np.arange(len(lengths)), lengths)
    chunk = np.concatenate([np.arange(n) for n in lengths])
    defect = draw(st.sampled_from(DEFECTS))
    form = draw(st.sampled_from(["npz", "npy", "safetensors", "parquet"]))
    numbered = draw(st.booleans()) or defect == "chunks twice"
    order = rng.permutation(count) if numbered and draw(st.booleans()) else np.arange(count)
    vectors, number, chunk = rows[order], number[order], chunk[order]
    if defect == "a NaN vector":
        vectors[draw(st.integers(0, count - 1))] = np.nan
    if defect == "a zero vector":
        vectors[draw(st.integers(0, count - 1))] = 0
    if defect == "chunks twice":
        chunk = np.zeros_like(chunk)
    ids = draw(st.sampled_from(ID_KINDS[form]))(number)
    if defect == "ids too few":
        ids = ids[:-1]
    names = draw(st.sampled_from([
        ("vectors", "document_ids", "chunk_indices"), ("embedding", "doc_id", "chunk"),
        ("emb", "docid", "paragraph_id"), ("Embeddings", "wiki_id", "position"),
    ]))  # fmt: skip
    columns = {names[0]: vectors.astype(draw(st.sampled_from([np.float32, np.float64])))}
    beside = form == "npy"
    if not beside and defect != "no ids":
        columns[names[1]] = ids
    if numbered and not beside:
        columns[names[2]] = chunk.astype(draw(st.sampled_from([np.int64, np.int32, np.float64])))
    for name in draw(st.lists(st.sampled_from(sorted(JUNK)), max_size=3, unique=True)):
        columns[name] = JUNK[name](rng, count)
    if beside:  # no chunk numbers beside an .npy: its order is the text's
        back = np.argsort(order)
        vectors, ids = vectors[back], (ids[back] if len(ids) == count else ids)
        columns = {"vectors": vectors}
    return Table(form, columns, documents, ids if beside and defect != "no ids" else None, defect)


def text(number: np.ndarray) -> np.ndarray:
    return np.array([f"document {k}" for k in number])


INTEGERS = [
    lambda n: n,
    lambda n: n.astype(np.uint16) + 7,
    lambda n: n.astype(np.float64),
    lambda n: 10**12 + n,
]
ID_KINDS: dict[str, list[Any]] = {
    "npz": [*INTEGERS, text, lambda n: text(n).astype("S")],
    "npy": [lambda n: n, text],
    "safetensors": INTEGERS,
    "parquet": [*INTEGERS, text, lambda n: text(n).astype("S")],
}


def write(table: Table, folder: Path) -> tuple[Path, Path | None]:
    path, ids = folder / f"t.{table.format}", None
    columns = dict(table.columns)
    key = next((name for name in columns if name in ("document_ids", "doc_id", "docid", "wiki_id")), "")
    null = table.defect == "a null id" and key
    if null and columns[key].dtype.kind == "f":
        columns[key] = np.where(np.arange(len(columns[key])) == 1, np.nan, columns[key])
    if table.format == "npz":
        if table.defect == "ids lost" and key:
            columns[key] = np.array([{"id": value} for value in columns[key].tolist()], dtype=object)
        np.savez(path, **columns)
    elif table.format == "safetensors":
        save_file(
            {name: np.ascontiguousarray(a) for name, a in columns.items() if a.dtype.kind not in "US"}, path
        )
    elif table.format == "npy":
        np.save(path, columns["vectors"])
        if table.ids is not None:
            ids = folder / "ids.txt"
            ids.write_text("\n".join(map(str, table.ids.tolist())))
    else:
        arrow = {name: pa.array(a.tolist()) for name, a in columns.items()}
        if null:
            arrow[key] = pa.array(
                [None if k == 1 else value for k, value in enumerate(columns[key].tolist())]
            )
        if table.defect == "ids lost" and key:
            arrow[key] = pa.array([{"id": str(value)} for value in columns[key].tolist()])
        if key and len(arrow[key]) < len(columns[next(iter(columns))]):
            arrow[key] = pa.concat_arrays([arrow[key], pa.nulls(1, arrow[key].type)])
        pq.write_table(pa.table(arrow), path, row_group_size=4)
    return path, ids


def check(table: Table, folder: Path) -> None:
    path, ids = write(table, folder)
    out = folder / "o.safetensors"
    out.unlink(missing_ok=True)
    try:
        convert(path, Target(out, "F32"), ids)
    except LvmError as error:
        assert table.defect, f"a sound table was refused: {error}"
        assert str(error) and not out.exists()
        return
    corpus = load_corpus(out)
    made = [corpus.numpy()[a:b].round(5) + 0 for a, b in pairwise(corpus.offsets)]
    assert len(made) > 1
    assert sorted(d.tobytes() for d in made) == sorted((d.round(5) + 0).tobytes() for d in table.documents)
    assert table.defect in ("", "a null id", "ids lost", "chunks twice"), (
        table.defect
    )  # those that did no harm


@settings(max_examples=60, **SETTINGS)
@given(table=tables())
def test_tables_are_converted_rightly_or_refused(tmp_path: Path, table: Table) -> None:
    check(table, tmp_path)


@pytest.mark.slow
@settings(max_examples=200, **SETTINGS)
@given(table=tables())
def test_two_hundred_tables_are_converted_rightly_or_refused(tmp_path: Path, table: Table) -> None:
    check(table, tmp_path)


@pytest.mark.long
@settings(max_examples=5000, **SETTINGS)
@given(table=tables())
def test_five_thousand_tables_are_converted_rightly_or_refused(tmp_path: Path, table: Table) -> None:
    check(table, tmp_path)
