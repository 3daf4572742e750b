"""Tables as people have them: foreign names and types, several files, titles of rows; decoded, or refused
with the reason.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from mlx_lvm.data.convert.conversion import Report, Target
from mlx_lvm.data.convert.convert import convert
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.ingest.lists import read_lines
from mlx_lvm.data.tables.columns import Columns
from mlx_lvm.errors import InvalidFile, UsageError

DIM, LENGTHS = 6, [9, 4, 12, 3]
OFFSETS = np.cumsum([0, *LENGTHS])
ROWS = np.random.default_rng(0).standard_normal((28, DIM)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
DOCUMENTS = np.repeat(np.arange(4), LENGTHS)
CHUNKS = np.concatenate([np.arange(n) for n in LENGTHS])
TEXT_IDS = [f"doc {k}" for k in DOCUMENTS]
FLOATS = pa.list_(pa.float32())


def run(paths: Any, out: Path, columns: Columns | None = None, **options: Any) -> tuple[Report, Corpus]:
    ids = options.pop("ids", None)
    report = convert(paths, Target(out, overwrite=True, **options), ids, columns=columns)
    return report, load_corpus(out)


def parquet(path: Path, **columns: Any) -> Path:
    values = {"embedding": pa.array([row.tolist() for row in ROWS], FLOATS), "chunk_id": CHUNKS, **columns}
    pq.write_table(pa.table({name: column for name, column in values.items() if column is not None}), path)
    return path


def as_written(corpus: Corpus, names: list[str]) -> None:
    assert list(corpus.names) == names and corpus.offsets.tolist() == OFFSETS.tolist()
    np.testing.assert_allclose(corpus.numpy(), ROWS, atol=1e-6)


SPELLINGS = {
    "dictionary": lambda ids: ids.dictionary_encode(),
    "binary": lambda ids: ids.cast(pa.binary()),
    "large string": lambda ids: ids.cast(pa.large_string()),
    "string view": lambda ids: ids.cast(pa.string_view()),
    "dictionary of large strings": lambda ids: ids.cast(pa.large_string()).dictionary_encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_document_ids_in_every_spelling_of_text(tmp_path: Path, spelling: str) -> None:
    path = parquet(tmp_path / "p.parquet", doc_id=SPELLINGS[spelling](pa.array(TEXT_IDS)))
    as_written(run(path, tmp_path / "o.safetensors")[1], ["doc 0", "doc 1", "doc 2", "doc 3"])


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (pa.array([b"\xff%d" % k for k in DOCUMENTS], pa.binary()), ["ff30", "ff31", "ff32", "ff33"]),
        (pa.array(DOCUMENTS.astype(float)), [f"document-{k}" for k in range(4)]),
        (pa.array(DOCUMENTS.astype(np.uint8)), [f"document-{k}" for k in range(4)]),
        (pa.array([f"1{k}.00" for k in DOCUMENTS]).cast(pa.decimal128(6, 2)),
         ["10.00", "11.00", "12.00", "13.00"]),
    ],
)  # fmt: skip
def test_ids_that_are_bytes_floats_and_decimals(tmp_path: Path, ids: pa.Array, names: list[str]) -> None:
    as_written(run(parquet(tmp_path / "p.parquet", doc_id=ids), tmp_path / "o.safetensors")[1], names)


def lists(kind: Any) -> pa.Array:
    return pa.array([row.tolist() for row in ROWS], kind)


def tensors() -> pa.Array:
    kind = pa.fixed_shape_tensor(pa.float32(), [DIM])
    return pa.ExtensionArray.from_storage(kind, lists(pa.list_(pa.float32(), DIM)))


VECTORS: dict[str, Callable[[], pa.Array]] = {
    "list": lambda: lists(FLOATS),
    "large list": lambda: lists(pa.large_list(pa.float32())),
    "fixed-size list": lambda: lists(pa.list_(pa.float32(), DIM)),
    "list view": lambda: lists(pa.list_view(pa.float32())),
    "large list view": lambda: lists(pa.large_list_view(pa.float32())),
    "fixed-shape tensor": tensors,
    "doubles": lambda: lists(pa.list_(pa.float64())),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_in_every_nesting(tmp_path: Path, kind: str) -> None:
    path = parquet(tmp_path / "p.parquet", embedding=VECTORS[kind](), doc_id=TEXT_IDS)
    as_written(run(path, tmp_path / "o.safetensors")[1], ["doc 0", "doc 1", "doc 2", "doc 3"])


@pytest.mark.parametrize("flavour", ["lists of lists", "tensors"])
def test_windows_in_parquet(tmp_path: Path, flavour: str) -> None:
    targets = np.flatnonzero(CHUNKS >= 3)
    windows = ROWS[targets[:, None] + np.arange(-3, 0)]
    contexts = pa.array(windows.tolist(), pa.list_(FLOATS))
    if flavour == "tensors":
        kind = pa.fixed_shape_tensor(pa.float32(), [3, DIM])
        storage = pa.array(windows.reshape(-1, 3 * DIM).tolist(), pa.list_(pa.float32(), 3 * DIM))
        contexts = pa.ExtensionArray.from_storage(kind, storage)
    table = {
        "contexts": contexts,
        "targets": pa.array(ROWS[targets].tolist(), FLOATS),
        "doc_id": DOCUMENTS[targets],
    }
    pq.write_table(pa.table(table), tmp_path / "w.parquet")
    _, corpus = run(tmp_path / "w.parquet", tmp_path / "o.safetensors")
    assert corpus.lengths.tolist() == LENGTHS[:3]
    np.testing.assert_allclose(corpus.numpy(), ROWS[:25], atol=1e-6)


def test_a_column_that_nobody_needs_is_not_looked_at(tmp_path: Path) -> None:
    tokens = [None, *[[1, 2, 3][: 1 + k % 3] for k in range(27)]]
    path = parquet(
        tmp_path / "p.parquet",
        doc_id=TEXT_IDS,
        token_ids=pa.array(tokens, pa.list_(pa.int64())),
        meta=[{"a": 1}] * 28,
        flag=[True] * 28,
        nothing=pa.nulls(28),
    )
    report, corpus = run(path, tmp_path / "o.safetensors")
    as_written(corpus, ["doc 0", "doc 1", "doc 2", "doc 3"])
    assert report.unused == ["token_ids"] and [left.split(":")[0] for left in report.left_out] == [
        "meta", "flag", "nothing",
    ]  # fmt: skip


def raw(path: Path, tensors: dict[str, tuple[str, np.ndarray]], metadata: Any = None) -> Path:
    """A safetensors file with types, metadata and an odd beginning of the data that our own writer never
    has.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, (dtype, array) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * ((-len(text)) % 4 + 1)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("metadata", [{"version": 1}, {"config": {"a": 1}}, None])
def test_safetensors_with_what_nobody_needs(tmp_path: Path, metadata: Any) -> None:
    float8 = np.zeros((28, 2), np.uint8)
    path = raw(
        tmp_path / "x.safetensors",
        {"emb": ("F32", ROWS), "docid": ("U16", DOCUMENTS.astype(np.uint16)),
         "chunk_id": ("I16", CHUNKS.astype(np.int16)), "title": ("BOOL", CHUNKS == 0),
         "small": ("F8_E4M3", float8)},
        metadata,
    )  # fmt: skip
    report, corpus = run(path, tmp_path / "o.safetensors")
    as_written(corpus, [f"document-{k}" for k in range(4)])
    assert report.left_out[0].startswith("small: F8_E4M3")


LOST = {
    "object array": lambda path: np.savez(path, vectors=ROWS, document_ids=np.array(TEXT_IDS, object)),
    "dates as dates": lambda path: np.savez(path, vectors=ROWS, document_ids=DOCUMENTS.astype("M8[D]")),
    "chunk numbers": lambda path: np.savez(
        path, vectors=ROWS, document_ids=DOCUMENTS, chunk_ids=CHUNKS.astype(complex)
    ),
}


@pytest.mark.parametrize("what", LOST)
def test_a_column_with_a_role_that_is_lost_is_an_error(tmp_path: Path, what: str) -> None:
    LOST[what](tmp_path / "x.npz")
    with pytest.raises(InvalidFile, match=r"'(vectors|document_ids|chunk_ids)' cannot be read"):
        run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_stored_by_columns(tmp_path: Path, save: Callable[..., None]) -> None:
    """As a transposed array is saved: the same rows."""
    ids, chunks = DOCUMENTS.astype(">i8"), CHUNKS.astype(">u2")
    save(
        tmp_path / "x.npz", vectors=np.asfortranarray(ROWS.astype(">f4")), document_ids=ids, chunk_ids=chunks
    )
    _, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    as_written(corpus, [f"document-{k}" for k in range(4)])


@pytest.mark.parametrize("names", ["dim_{}", "{}", "v{:03}", "embedding.{}"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_column_for_each_number_of_a_vector(tmp_path: Path, names: str, first: int) -> None:
    """As a data frame holds vectors; columns need not stand in order."""
    wide = np.concatenate([ROWS, -ROWS], axis=1)
    numbers = {names.format(k + first): wide[:, k] for k in reversed(range(wide.shape[1]))}
    table = pa.table({**numbers, "doc_id": TEXT_IDS, "score": CHUNKS / 2, "year2020": CHUNKS / 3})
    pq.write_table(table, tmp_path / "x.parquet")
    report, corpus = run(tmp_path / "x.parquet", tmp_path / "o.safetensors")
    np.testing.assert_allclose(corpus.numpy(), wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=1e-6)
    assert report.unused == ["score", "year2020"]


def test_numbered_columns_beside_a_vector_are_no_vector(tmp_path: Path) -> None:
    path = parquet(tmp_path / "p.parquet", doc_id=TEXT_IDS, **{f"feature_{k}": CHUNKS / 2 for k in range(16)})
    _, corpus = run(path, tmp_path / "o.safetensors")
    assert corpus.dim == ROWS.shape[1]


def test_ids_that_are_hashes_of_64_bits(tmp_path: Path) -> None:
    ids = DOCUMENTS.astype(np.uint64) + np.uint64(2**63)
    np.savez(tmp_path / "x.npz", vectors=ROWS, document_ids=ids, chunk_ids=CHUNKS)
    _, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    as_written(corpus, [str(2**63 + k) for k in range(4)])


def test_vectors_written_as_text_are_told_as_such(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", embedding=np.array([str(list(row)) for row in ROWS]), doc_id=DOCUMENTS)
    with pytest.raises(InvalidFile, match="'embedding' is text: parse it into lists of numbers first"):
        run(tmp_path / "x.npz", tmp_path / "o.safetensors")


IDS = {
    "NaN": (np.where(np.arange(28) == 5, np.nan, DOCUMENTS), "row 5: no value"),
    "a fraction": (DOCUMENTS + 0.5, "row 0: 0.5 is not a whole number"),
    "infinite": (np.where(np.arange(28) == 3, np.inf, DOCUMENTS), "row 3: inf"),
    "empty": (np.array(["", *TEXT_IDS[1:]]), "row 0: no value"),
    "yes and no": (DOCUMENTS > 1, "holds bool"),
    "all alike": (np.array(["web"] * 28), "every row the document 'web'"),
    "one a row": (np.arange(28), "each of 28 rows a document of its own"),
    "several a row": (np.stack([DOCUMENTS, DOCUMENTS], 1), "several values a row"),
}


@pytest.mark.parametrize("what", IDS)
def test_ids_that_are_none(tmp_path: Path, what: str) -> None:
    ids, message = IDS[what]
    np.savez(tmp_path / "x.npz", vectors=ROWS, document_ids=ids)
    with pytest.raises(InvalidFile, match=message):
        run(tmp_path / "x.npz", tmp_path / "o.safetensors")


def test_null_ids_are_told_with_their_row(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "p.parquet", doc_id=[None if k == 7 else text for k, text in enumerate(TEXT_IDS)]
    )
    with pytest.raises(InvalidFile, match=r"'doc_id', row 7: no value"):
        run(path, tmp_path / "o.safetensors")


def test_chunk_numbers_stored_as_floats_are_numbers(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(28)
    np.savez(
        tmp_path / "x.npz",
        vectors=ROWS[order],
        document_ids=DOCUMENTS[order],
        chunk_ids=CHUNKS[order].astype(float),
    )
    _, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    assert {
        corpus.numpy()[a:b].round(4).tobytes()
        for a, b in zip(corpus.offsets, corpus.offsets[1:], strict=False)
    } == {ROWS[a:b].round(4).tobytes() for a, b in itertools.pairwise(OFFSETS)}
    np.savez(tmp_path / "y.npz", vectors=ROWS[order], document_ids=DOCUMENTS[order])
    assert "rows of one document lie apart" in run(tmp_path / "y.npz", tmp_path / "o.safetensors")[0].notes[0]


EACH = [f"Title of {k}" for k in range(4)]
TITLES = {
    "one a row, alike in a document": (DOCUMENTS, [EACH[k] for k in DOCUMENTS], EACH),
    "one a row, sections":
        (DOCUMENTS, [f"{k}, section {j}" for k, j in zip(DOCUMENTS, CHUNKS, strict=True)], None),
    "one a document": (DOCUMENTS, EACH, EACH),
    "one a row, two documents of one title": (DOCUMENTS, ["same"] * 28, None),
    "more than documents, ids that count from 1": (DOCUMENTS + 1, [f"Title of {k}" for k in range(9)], None),
}  # fmt: skip


@pytest.mark.parametrize("what", TITLES)
def test_titles_name_documents_by_length_and_meaning(tmp_path: Path, what: str) -> None:
    ids, titles, names = TITLES[what]
    np.savez(tmp_path / "x.npz", vectors=ROWS, document_ids=ids, chunk_ids=CHUNKS, titles=np.array(titles))
    report, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    as_written(corpus, names or [f"document-{k}" for k in dict.fromkeys(ids.tolist())])
    assert (names is None) == any("does not name the documents" in note for note in report.notes)


def test_titles_beside_offsets_and_indices(tmp_path: Path) -> None:
    sections = np.array([f"section {k}" for k in range(28)])
    np.savez(tmp_path / "x.npz", vectors=ROWS, document_offsets=OFFSETS, titles=sections)
    report, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    as_written(corpus, [f"document-{k:06d}" for k in range(4)])
    assert "a title a row" in report.notes[0]
    np.savez(
        tmp_path / "y.npz", vectors=ROWS, article_indices=DOCUMENTS + 2, titles=np.array(list("abcdefgh"))
    )
    as_written(run(tmp_path / "y.npz", tmp_path / "o.safetensors")[1], list("cdef"))


@pytest.mark.parametrize("coarse", ["contexts", "targets"])
def test_contexts_and_targets_of_different_precision(tmp_path: Path, coarse: str) -> None:
    targets = np.flatnonzero(CHUNKS >= 3)
    arrays = {"contexts": ROWS[targets[:, None] + np.arange(-3, 0)], "targets": ROWS[targets]}
    arrays[coarse] = arrays[coarse].astype(np.float16)
    np.savez(tmp_path / "w.npz", **arrays)
    report, corpus = run(tmp_path / "w.npz", tmp_path / "o.safetensors")
    assert corpus.lengths.tolist() == LENGTHS[:3] and "compared as float16" in report.notes[0]
    np.testing.assert_allclose(corpus.numpy(), ROWS[:25], atol=1e-3)


def test_why_no_window_overlaps_is_said(tmp_path: Path) -> None:
    targets = np.arange(3, 28, 4)
    np.savez(tmp_path / "w.npz", contexts=ROWS[targets[:, None] + np.arange(-3, 0)], targets=ROWS[targets])
    report, _ = run(tmp_path / "w.npz", tmp_path / "o.safetensors")
    assert report.alone == 7 and "cut without overlap" in report.notes[0]


@pytest.mark.parametrize("given", ["files", "folder"])
def test_many_files_are_one_table(tmp_path: Path, given: str) -> None:
    """A document that straddles two files is one."""
    folder = tmp_path / "data"
    folder.mkdir()
    table = pa.table({"embedding": lists(FLOATS), "doc_id": TEXT_IDS, "chunk_id": CHUNKS})
    files = [folder / f"train-0000{k}-of-00003.parquet" for k in range(3)]
    for file, (start, stop) in zip(files, [(0, 11), (11, 11), (11, 28)], strict=True):
        pq.write_table(table.slice(start, stop - start), file)
    (folder / "README.md").write_text("what this is")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "other.npz").write_bytes(b"")
    as_written(
        run(files if given == "files" else folder, tmp_path / "o.safetensors")[1],
        ["doc 0", "doc 1", "doc 2", "doc 3"],
    )


def test_files_that_are_no_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vectors=ROWS, document_ids=DOCUMENTS)
    np.savez(tmp_path / "b.npz", vectors=ROWS[:, :4], document_ids=DOCUMENTS)
    np.savez(tmp_path / "c.npz", vectors=ROWS)
    np.savez(tmp_path / "d.npz", vectors=ROWS, offsets=OFFSETS)
    pairs = [(("a", "b"), r"b\.npz: 'vectors' is \[28, 4\]"),
             (("a", "c"), "'document_ids' cannot be read: not in c.npz"),
             (("d", "d"), "counts the rows of one file")]  # fmt: skip
    for names, message in pairs:
        with pytest.raises(InvalidFile, match=message):
            run([tmp_path / f"{name}.npz" for name in names], tmp_path / "o.safetensors")
    save_file({"vectors": ROWS}, tmp_path / "e.safetensors")
    with pytest.raises(InvalidFile, match=r"several kinds \(.npz, .safetensors\)"):
        run(tmp_path, tmp_path / "o.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidFile, match="no file that ends in"):
        run(tmp_path / "empty", tmp_path / "o.safetensors")


@pytest.mark.parametrize(
    "names",
    [("emb", "docid", "paragraph_id"), ("Embedding", "docId", "chunkIndex"), ("emb", "wiki_id", "para_id")],
)
def test_columns_of_foreign_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    order = np.random.default_rng(2).permutation(28)
    columns = dict(zip(names, (ROWS[order], DOCUMENTS[order], CHUNKS[order]), strict=True))
    np.savez(tmp_path / "x.npz", **columns)
    report, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors")
    assert report.columns == dict(zip(("vectors", "documents", "chunks"), names, strict=True))
    assert sorted(corpus.lengths.tolist()) == sorted(LENGTHS)


def test_columns_of_names_that_the_caller_gives(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "x.npz", foo=ROWS, bar=DOCUMENTS, baz=CHUNKS, qux=np.array(TEXT_IDS), vectors=ROWS[::-1]
    )
    columns = Columns(vectors="foo", documents="bar", chunks="baz", texts="qux")
    _, corpus = run(tmp_path / "x.npz", tmp_path / "o.safetensors", columns)
    as_written(corpus, [f"document-{k}" for k in range(4)])
    assert corpus.texts == TEXT_IDS
    with pytest.raises(UsageError, match=r"--chunk-column bas: .* Did you mean 'baz'"):
        run(tmp_path / "x.npz", tmp_path / "o.safetensors", Columns(documents="bar", chunks="bas"))


MANNERS = {
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "line ends of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "line ends of old": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "blanks and empty lines": lambda text: (text.replace("\n", " \t\n") + "\n\n").encode(),
}


@pytest.mark.parametrize("manner", MANNERS)
def test_lists_as_other_programs_write_them(tmp_path: Path, manner: str) -> None:
    (tmp_path / "ids.txt").write_bytes(MANNERS[manner]("\n".join(TEXT_IDS) + "\n"))
    assert read_lines(tmp_path / "ids.txt") == TEXT_IDS
    np.save(tmp_path / "v.npy", ROWS)
    _, corpus = run(tmp_path / "v.npy", tmp_path / "o.safetensors", ids=tmp_path / "ids.txt")
    as_written(corpus, ["doc 0", "doc 1", "doc 2", "doc 3"])
