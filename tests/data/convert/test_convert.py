"""Other people's files: every shape that is read, every kind that is refused, and a fuzz over the readers."""

import contextlib
import io
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.convert import windows as convert_windows
from mlx_lvm.data.convert.conversion import Report, Target
from mlx_lvm.data.convert.convert import convert
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.tables import numpy_files
from mlx_lvm.errors import InvalidFile, LvmError

DIM, CONTEXT, LENGTHS = 6, 3, [9, 4, 12, 3]
OFFSETS = np.cumsum([0, *LENGTHS])
ROWS = np.random.default_rng(0).standard_normal((OFFSETS[-1], DIM)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
DOCUMENTS = np.repeat(np.arange(4), LENGTHS)
CHUNKS = np.concatenate([np.arange(n) for n in LENGTHS])
TARGETS = np.flatnonzero(CHUNKS >= CONTEXT)
CONTEXTS = TARGETS[:, None] + np.arange(-CONTEXT, 0)
SHUFFLED = np.random.default_rng(1).permutation(len(TARGETS))


def run(path: Path, **options: Any) -> tuple[Report, Corpus]:
    ids = options.pop("ids", None)
    out = path.with_name("out.safetensors")
    report = convert(path, Target(out, overwrite=True, **options), ids)
    return report, load_corpus(out)


def documents_of(corpus: Corpus) -> set[bytes]:
    values = corpus.numpy()
    return {values[a:b].tobytes() for a, b in pairwise(corpus.offsets)}


def truth(least: int = CONTEXT + 1) -> set[bytes]:
    return {ROWS[a:b].tobytes() for a, b in pairwise(OFFSETS) if b - a >= least}


@pytest.mark.parametrize("names", [
    ("context_sequences", "target_vectors"), ("contexts", "targets"), ("context", "target"), ("X", "y"),
    ("train_context_sequences", "train_target_vectors"), ("context_vectors", "target_vectors"),
])  # fmt: skip
@pytest.mark.parametrize("order", [np.arange(len(TARGETS)), SHUFFLED], ids=["in order", "shuffled"])
@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_windows_become_documents(
    tmp_path: Path,
    names: tuple[str, str],
    order: np.ndarray,
    ids: bool,
    save: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convert_windows, "BLOCK_BYTES", 4 * DIM * CONTEXT * 4)  # four windows at a time
    given_ids = (
        {
            "train_article_ids" if names[0].startswith("train") else "article_ids": 100
            + DOCUMENTS[TARGETS[order]]
        }
        if ids
        else {}
    )
    save(tmp_path / "w.npz", **{names[0]: ROWS[CONTEXTS[order]], names[1]: ROWS[TARGETS[order]], **given_ids})
    report, corpus = run(tmp_path / "w.npz")
    assert documents_of(corpus) == truth()  # the document of three chunks has no window
    assert (report.windows_read, report.repeated, report.alone) == (
        len(TARGETS),
        0,
        1,
    ) and report.vectors == 25 == len(corpus)
    if ids:
        assert set(corpus.names) == {"document-100", "document-101", "document-102"}


def test_windows_that_cannot_be_placed_are_told(tmp_path: Path) -> None:
    kept = np.array(
        [0, 1, 5, 6, 7]
    )  # of the first document windows 0, 1 and 5; the second; the first of the third
    np.savez(
        tmp_path / "w.npz",
        contexts=ROWS[CONTEXTS[kept]],
        targets=ROWS[TARGETS[kept]],
        article_ids=np.array(["día", "día", "día", "über", "zoë"]),
    )
    report, corpus = run(tmp_path / "w.npz")
    assert corpus.names == ("día#part-0", "día#part-1", "über", "zoë") and report.alone == 3
    assert corpus.lengths.tolist() == [5, 4, 4, 4] and "became 4 parts" in report.notes[0]
    parts = split_corpus(corpus, 0).numbers()
    assert parts[0] == parts[1]
    np.testing.assert_array_equal(corpus.numpy()[:9], ROWS[[0, 1, 2, 3, 4, 5, 6, 7, 8]])


def test_sets_of_one_file_are_joined(tmp_path: Path) -> None:
    half = len(TARGETS) // 2
    a, b = SHUFFLED[:half], SHUFFLED[half:]
    np.savez(
        tmp_path / "w.npz",
        train_context_sequences=ROWS[CONTEXTS[a]], train_target_vectors=ROWS[TARGETS[a]],
        test_context_sequences=ROWS[CONTEXTS[b]], test_target_vectors=ROWS[TARGETS[b]],
    )  # fmt: skip
    assert documents_of(run(tmp_path / "w.npz")[1]) == truth()


@pytest.mark.parametrize("ids", ["article_indices", "document_ids"])
def test_rows_with_ids_and_chunk_numbers(tmp_path: Path, ids: str) -> None:
    order = np.random.default_rng(2).permutation(len(ROWS))
    np.savez(
        tmp_path / "c.npz",
        vectors=ROWS[order],
        **{ids: DOCUMENTS[order]},
        chunk_indices=CHUNKS[order],
        texts=order.astype(str),
    )
    report, corpus = run(
        tmp_path / "c.npz", card=EncoderCard(model="e", dim=DIM), provenance={"source": "here"}
    )
    assert (
        documents_of(corpus) == truth(1)
        and report.notes == []
        and corpus.card.model == "e"
        and corpus.provenance["source"] == "here"
    )
    assert corpus.texts is not None
    np.testing.assert_array_equal(ROWS[[int(text) for text in corpus.texts]], corpus.numpy())


def test_gaps_and_repeats_of_chunk_numbers(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "c.npz",
        vectors=ROWS[:4],
        article_indices=np.array([0, 0, 0, 1]),
        chunk_indices=np.array([0, 1, 3, 4]),
    )
    assert "1 gaps" in run(tmp_path / "c.npz")[0].notes[0]
    np.savez(
        tmp_path / "c.npz",
        vectors=ROWS[:4],
        article_indices=np.array([0, 0, 0, 1]),
        chunk_indices=np.array([0, 1, 1, 4]),
    )
    with pytest.raises(InvalidFile, match="row 2: chunk 1 of document 0 is there twice"):
        run(tmp_path / "c.npz")


def test_offsets_and_names(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "c.npz",
        vectors=ROWS.astype(np.float16),
        offsets=OFFSETS,
        names=np.array(["p", "q", "r", "s"]),
    )
    report, corpus = run(tmp_path / "c.npz")
    assert corpus.names == ("p", "q", "r", "s") and report.kind == "vectors"
    np.testing.assert_array_equal(corpus.numpy(), ROWS.astype(np.float16).astype(np.float32))
    assert str(corpus.vectors.dtype).endswith("float16")


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2"])
def test_plain_arrays_with_ids_beside_them(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "v.npy", ROWS.astype(dtype))
    with pytest.raises(InvalidFile, match=r"no document ids.*--ids.*--document-column.*--one-document"):
        run(tmp_path / "v.npy", dtype="F32")
    assert run(tmp_path / "v.npy", dtype="F32", one_document=True)[1].names == ("v",)
    (tmp_path / "ids.txt").write_text("\n".join(f"doc {d}" for d in DOCUMENTS))
    _, corpus = run(tmp_path / "v.npy", dtype="F32", ids=tmp_path / "ids.txt")
    assert corpus.names == ("doc 0", "doc 1", "doc 2", "doc 3")
    np.testing.assert_array_equal(corpus.numpy(), ROWS.astype(dtype).astype(np.float32))


def test_safetensors_with_ids(tmp_path: Path) -> None:
    scales = np.abs(ROWS).max(axis=1) / 127
    small = np.rint(ROWS / scales[:, None]).astype(np.int8)
    save_file({"embeddings": small, "scales": scales, "document_ids": DOCUMENTS}, tmp_path / "x.safetensors")
    report, corpus = run(tmp_path / "x.safetensors", dtype="I8")
    assert report.documents == 4
    np.testing.assert_allclose(corpus.numpy(), small * scales[:, None], atol=0.02)


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install 'mlx-lvm[parquet]'")
    import pyarrow.parquet as pq

    order = np.random.default_rng(3).permutation(len(ROWS))
    texts = [f"t{k}" for k in order]
    table = {
        "doc_id": [f"d{k}" for k in DOCUMENTS[order]],
        "chunk": CHUNKS[order],
        "text": texts,
        "embedding": list(ROWS[order]),
    }
    pq.write_table(pa.table(table), tmp_path / "p.parquet", row_group_size=7)
    _, corpus = run(tmp_path / "p.parquet")
    assert documents_of(corpus) == truth(1) and corpus.texts is not None
    np.testing.assert_array_equal(ROWS[[int(text[1:]) for text in corpus.texts]], corpus.numpy())
    bad = {"ragged": [[1.0, 2.0], [1.0]], "null row": [[1.0], None], "null number": [[1.0], [None]]}
    for column in bad.values():
        pq.write_table(
            pa.table({"doc_id": [0] * len(column), "embedding": pa.array(column, pa.list_(pa.float32()))}),
            tmp_path / "p.parquet",
        )
        with pytest.raises(InvalidFile, match="embedding"):
            run(tmp_path / "p.parquet", one_document=True)
    for data in (b"PAR1", b"PAR1" + b"\0" * 50 + b"PAR1", (tmp_path / "p.parquet").read_bytes()[:-20]):
        (tmp_path / "p.parquet").write_bytes(data)
        with pytest.raises(InvalidFile, match="damaged"):
            run(tmp_path / "p.parquet")


def test_pickles_are_left_out_and_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", vectors=ROWS, offsets=OFFSETS, metadata=np.array([{"a": 1}], dtype=object))
    report, _ = run(tmp_path / "c.npz")
    assert report.left_out == ["metadata: Python objects, which are pickled and never read"]
    np.save(tmp_path / "o.npy", np.array([[1, "a"]], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidFile, match="never read"):
        run(tmp_path / "o.npy")


# What is refused


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npy_saying(descr: Any, shape: Any, data: bytes = b"", order: bool = False) -> bytes:
    text = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name + ".npy", data)
    return out.getvalue()


def npz(**members: np.ndarray) -> bytes:
    return archive(**{name: npy(array) for name, array in members.items()})


def zero_row() -> np.ndarray:
    out = ROWS.copy()
    out[7] = 0
    return out


def flagged(data: bytes, at: int, value: int) -> bytes:
    """The archive with a flag or method set in local and central headers."""
    out = bytearray(data)
    for mark, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        position = out.find(mark)
        while position >= 0:
            out[position + at + shift] = value
            position = out.find(mark, position + 4)
    return bytes(out)


W = {"contexts": ROWS[CONTEXTS], "targets": ROWS[TARGETS]}
REFUSED: dict[str, tuple[str, bytes | Callable[[], bytes], str]] = {
    "empty npz": ("x.npz", b"", "damaged"),
    "text named npz": ("x.npz", b"hello there", "damaged"),
    "npz of nothing": ("x.npz", archive(), "holds no array"),
    "npz cut in half": ("x.npz", npz(vectors=ROWS)[:400], "damaged"),
    "npz without its directory": ("x.npz", npz(vectors=ROWS)[:-30], "damaged"),
    "npz with a flipped byte":
        ("x.npz", lambda: npz(vectors=ROWS)[:300] + b"\xff\xff\xff" + npz(vectors=ROWS)[303:],
         "damaged|cut off"),
    "plain npz with a flipped byte": ("x.npz", lambda: stored(at=9000, value=0x55), "CRC"),
    "plain npz whose local header lies": ("x.npz", lambda: stored(at=28, value=9), "not a NumPy array"),
    "plain npz without its local header": ("x.npz", lambda: stored(at=1, value=0), "damaged"),
    "npz that is encrypted": ("x.npz", flagged(npz(vectors=ROWS), 6, 1), "encrypted"),
    "npz packed in an unknown way": ("x.npz", flagged(npz(vectors=ROWS), 8, 99), "not known"),
    "npz of strangers": ("x.npz", npz(weights=ROWS), "holds weights float32"),
    "contexts without targets": ("x.npz", npz(contexts=ROWS[CONTEXTS]), "Expected vectors"),
    "contexts in two dimensions": ("x.npz", npz(contexts=ROWS, targets=ROWS), "expected contexts"),
    "targets of another width":
        ("x.npz", npz(contexts=ROWS[CONTEXTS], targets=ROWS[TARGETS][:, :4]), "expected contexts"),
    "targets too few":
        ("x.npz", npz(contexts=ROWS[CONTEXTS], targets=ROWS[TARGETS][1:]), "expected contexts"),
    "ids too few": ("x.npz", npz(**W, article_ids=DOCUMENTS[TARGETS][1:]), "one id for each"),
    "windows of whole numbers":
        ("x.npz", npz(contexts=np.ones((4, 3, 2), int), targets=np.ones((4, 2), int)), "expected floats"),
    "no windows": ("x.npz", npz(contexts=np.ones((0, 3, 2)), targets=np.ones((0, 2))), "empty"),
    "NaN in a window":
        ("x.npz", npz(contexts=ROWS[CONTEXTS], targets=np.where(np.arange(DIM) == 2, np.nan, ROWS[TARGETS])),
         "NaN or Inf"),
    "a zero row": ("x.npz", npz(vectors=zero_row(), offsets=OFFSETS), "all zero"),
    "offsets off by one":
        ("x.npz", npz(vectors=ROWS, offsets=OFFSETS + 1), "ends at 29, there are 28 vectors"),
    "offsets in float of nothing": ("x.npz", npz(vectors=ROWS, offsets=np.zeros(0)), "ends at nothing"),
    "names too few":
        ("x.npz", npz(vectors=ROWS, offsets=OFFSETS, names=np.array(["a"])), "1 document names for 4"),
    "document ids too few":
        ("x.npz", npz(vectors=ROWS, article_indices=DOCUMENTS[1:]), "27 values of 'article_indices' for 28"),
    "chunk numbers with a fraction":
        ("x.npz", npz(vectors=ROWS, article_indices=DOCUMENTS, chunk_indices=CHUNKS + 0.5), "whole number"),
    "a member twice": ("x.npz", lambda: twice(), "members of one name"),
    "npy that is text": ("x.npy", b"1 2 3\n", "not a NumPy array"),
    "npy cut in its header": ("x.npy", npy(ROWS)[:40], "damaged"),
    "npy cut in its data": ("x.npy", npy(ROWS)[:-1], "cut off"),
    "npy with bytes added": ("x.npy", npy(ROWS) + b"\0", "damaged"),
    "npy of tomorrow": ("x.npy", b"\x93NUMPY\x09\x00" + npy(ROWS)[8:], "format 9"),
    "npy with a header without end":
        ("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + b"{", "damaged"),
    "npy whose header is code":
        ("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 24) + b"__import__('os').abort()", "damaged"),
    "npy whose header is nested":
        ("x.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 60_000) + b"[" * 60_000, "damaged"),
    "npy of absurd size": ("x.npy", npy_saying("<f4", (1 << 40, 1 << 20)), "cut off"),
    "npy of negative size": ("x.npy", npy_saying("<f4", (-1, 4)), "damaged"),
    "npy of a structure": ("x.npy", npy_saying([("a", "<f4")], (4,), b"\0" * 16), "not one of numbers"),
    "npy by columns, cut": ("x.npy", npy_saying("<f4", (4, 7), b"\0" * 108, True), "cut off"),
    "npy without rows": ("x.npy", npy(ROWS[:0]), "no rows"),
    "npy of whole numbers": ("x.npy", npy(np.ones((4, 7), int)), "expected floats"),
    "npy in one dimension": ("x.npy", npy(ROWS[0]), "Expected vectors"),
    "an unknown ending": ("x.pkl", b"\x80\x04.", "not one of .npz"),
    "a zip bomb": ("x.npz", lambda: archive(vectors=npy(np.zeros((1 << 19, 160), np.float32))), "zip bomb"),
}  # fmt: skip


def stored(at: int = 0, value: int = 0x50) -> bytes:
    """As np.savez writes it, not packed, with one byte changed; long enough that zipfile does not see it all
    with the header.
    """
    out = io.BytesIO()
    np.savez(out, vectors=np.tile(ROWS, (100, 1)), article_ids=np.arange(2800) // 7)
    data = bytearray(out.getvalue())
    data[at] = value
    return bytes(data)


def test_a_plain_npz_is_read_as_a_packed_one(tmp_path: Path) -> None:
    (tmp_path / "plain.npz").write_bytes(stored())
    (tmp_path / "packed.npz").write_bytes(
        npz(vectors=np.tile(ROWS, (100, 1)), article_ids=np.arange(2800) // 7)
    )
    (_, plain), (_, packed) = run(tmp_path / "plain.npz"), run(tmp_path / "packed.npz")
    np.testing.assert_array_equal(plain.numpy(), packed.numpy())
    assert plain.names == packed.names


def twice() -> bytes:
    out = io.BytesIO()
    with pytest.warns(UserWarning), zipfile.ZipFile(out, "w") as file:
        file.writestr("vectors.npy", npy(ROWS))
        file.writestr("vectors.npy", npy(ROWS))
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_nothing_written(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_files, "RATIO_FROM", 64 << 20)
    name, data, message = REFUSED[what]
    path = tmp_path / name
    path.write_bytes(data() if callable(data) else data)
    with pytest.raises(InvalidFile, match=message) as error:
        run(path)
    assert name in str(error.value) or "out.safetensors" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_bad_ids_beside_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ROWS)
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InvalidFile, match="is not text in UTF-8"):
        run(tmp_path / "v.npy", ids=tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("one\ntwo\n")
    with pytest.raises(InvalidFile, match="2 document ids for 28"):
        run(tmp_path / "v.npy", ids=tmp_path / "ids.txt")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_crash_the_readers(tmp_path: Path, data: st.DataObject) -> None:
    name, whole = data.draw(
        st.sampled_from(
            [("f.npz", FUZZ_NPZ), ("f.npz", FUZZ_PLAIN), ("f.npy", FUZZ_NPY), ("f.npz", FUZZ_WINDOWS)]
        )
    )
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        last = len(damaged) - 1
        head, tail = st.integers(0, min(149, last)), st.integers(max(0, last - 248), last)
        at = data.draw(st.one_of(head, tail, st.integers(0, last + 1)))
        damaged[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    path = tmp_path / name
    path.write_bytes(damaged)
    with contextlib.suppress(LvmError):
        run(path)


FUZZ_NPZ = npz(vectors=ROWS, article_indices=DOCUMENTS, chunk_indices=CHUNKS)
FUZZ_PLAIN = stored()
FUZZ_WINDOWS = npz(contexts=ROWS[CONTEXTS], targets=ROWS[TARGETS], article_ids=DOCUMENTS[TARGETS].astype(str))
FUZZ_NPY = npy(ROWS)


@pytest.mark.slow
def test_a_large_window_file_needs_memory_for_its_blocks_only(tmp_path: Path) -> None:
    """330 MB of windows in a process that may not grow by much of that above its imports."""
    rows = np.random.default_rng(0).standard_normal((18_000, 768), dtype=np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(rows, 6, axis=0).transpose(0, 2, 1)
    np.savez(tmp_path / "w.npz", contexts=windows[:, :5], targets=windows[:, 5])
    code = (
        "import re, resource, sys\nfrom pathlib import Path\nimport mlx_lvm.data.convert.convert as c\n"
        "def peak():\n"
        "    if sys.platform != 'linux':\n        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        # ru_maxrss: the parent's
        "    return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = peak()\nreport = c.convert(sys.argv[1], c.Target(Path(sys.argv[2]), 'I8'))\n"
        "print(report.vectors, report.documents, (peak() - before) >> 20)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "w.npz", tmp_path / "o.safetensors"],
        capture_output=True,
        text=True,
        check=True,
    )
    vectors, documents, grown = map(int, out.stdout.split())
    assert (vectors, documents) == (18_000, 1) and grown < 200, grown
