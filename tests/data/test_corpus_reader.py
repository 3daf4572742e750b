"""Corpora that must be refused, each with a message that names what is wrong; and a fuzz over the reader."""

import contextlib
import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.ingest.transform import resplit, subset
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.storage.reader import INDEX, find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, IOFailed, LvmError, UsageError

from ..helpers import write_corpus

DIM, LENGTHS, NAMES = 4, [3, 5, 2], ["a", "b/c", "d"]
OFFSETS = np.cumsum([0, *LENGTHS])


def vectors() -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((10, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    probes = np.random.default_rng(1).standard_normal((16, DIM)).astype(np.float32)
    write_corpus(
        path,
        vectors(),
        OFFSETS,
        NAMES,
        EncoderCard(model="m", dim=DIM, probes=probes),
        {"source": "s"},
        "F32",
    )
    return path


def rewrite(
    path: Path,
    tensors: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    keep_digest: bool = False,
) -> None:
    """The corpus with some tensors and metadata replaced (None removes); its digest made right again."""
    file = open_safetensors(path)
    all_tensors = {name: np.array(file.numpy(name)) for name in file.tensors} | (tensors or {})
    kept = {name: value for name, value in all_tensors.items() if value is not None}
    header = dict(file.metadata)
    if "vectors" in kept and not keep_digest:
        header["sha256"] = sha256(kept["vectors"])
        header.pop("sha256_rest", None)
    header = {key: value for key, value in {**header, **(metadata or {})}.items() if value is not None}
    path.write_bytes(to_bytes(kept, header))


def text(value: Any) -> np.ndarray:
    return np.frombuffer((value if isinstance(value, str) else json.dumps(value)).encode(), np.uint8)


def changed(row: int, value: float) -> np.ndarray:
    out = vectors()
    out[row] = value
    return out


def offsets(*values: int) -> dict[str, np.ndarray]:
    return {"document_offsets": np.array(values, dtype=np.int64)}


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no format": ({}, {"format": None}, "not a corpus"),
    "format of another program": ({}, {"format": "pt"}, "lvm data convert"),
    "format of tomorrow": ({}, {"format_version": "2"}, "Update"),
    "no vectors": ({"vectors": None}, {}, "'vectors' is missing"),
    "no offsets": ({"document_offsets": None}, {}, "'document_offsets' is missing"),
    "a tensor too many":
        ({"vektors": np.ones(2, np.float32)}, {}, "unknown tensor 'vektors'. Did you mean 'vectors'"),
    "vectors in F64": ({"vectors": np.ones((10, DIM))}, {}, "'vectors' is F64"),
    "vectors in three dimensions":
        ({"vectors": np.ones((10, 2, 2), np.float32)}, {}, r"'vectors' is F32 \[10, 2, 2\]"),
    "no rows": ({"vectors": np.ones((0, DIM), np.float32), **offsets(0, 0)}, {}, "empty"),
    "no dimensions": ({"vectors": np.ones((10, 0), np.float32)}, {}, "empty"),
    "offsets in I32": ({"document_offsets": OFFSETS.astype(np.int32)}, {}, "'document_offsets' is I32"),
    "I8 without scales": ({"vectors": np.ones((10, DIM), np.int8)}, {}, "'scales' belongs with I8"),
    "scales without I8": ({"scales": np.ones(10, np.float32)}, {}, "'scales' belongs with I8"),
    "too few scales":
        ({"vectors": np.ones((10, DIM), np.int8), "scales": np.ones(9, np.float32)}, {}, "'scales' has"),
    "scale of zero":
        ({"vectors": np.ones((10, DIM), np.int8), "scales": np.arange(10, dtype=np.float32)}, {},
         "row 0 .*scale"),
    "scale of NaN":
        ({"vectors": np.ones((10, DIM), np.int8), "scales": np.full(10, np.nan, np.float32)}, {}, "scale"),
    "scale that overflows":
        ({"vectors": np.ones((10, DIM), np.int8), "scales": np.full(10, 1e38, np.float32)}, {}, "too long"),
    "NaN in the last row": ({"vectors": changed(9, np.nan)}, {}, r"row 9 \(document 'd', chunk 1\): NaN"),
    "Inf in the first row":
        ({"vectors": changed(0, np.inf)}, {}, r"row 0 \(document 'a', chunk 0\): NaN or Inf"),
    "a zero row": ({"vectors": changed(4, 0)}, {}, r"row 4 \(document 'b/c', chunk 1\): all zero"),
    "a row whose square overflows": ({"vectors": changed(4, 1e30)}, {}, "too long or too short"),
    "a row whose square underflows": ({"vectors": changed(4, 1e-30)}, {}, "too long or too short"),
    "offsets that end early": (offsets(0, 3, 8, 9), {}, "expected 0 to 10"),
    "offsets that end late": (offsets(0, 3, 8, 11), {}, "expected 0 to 10"),
    "offsets that start late": (offsets(1, 3, 8, 10), {}, "run from 1"),
    "offsets that go back": (offsets(0, 8, 3, 10), {}, "document 1 ends at row 3 and starts at 8"),
    "an empty document": (offsets(0, 3, 3, 10), {}, "offsets must increase"),
    "offsets that overflow": (offsets(0, 2**62 + 1, -(2**62) - 1, 10), {}, "offsets must increase"),
    "one offset": (offsets(0), {}, "no documents"),
    "a name too few": ({"document_names": text(["a", "b"])}, {}, "2 document names for 3 documents"),
    "names not JSON": ({"document_names": text("[1, 2")}, {}, "not JSON"),
    "names nested to the sky": ({"document_names": text("[" * 100_000)}, {}, "not JSON"),
    "names not UTF-8": ({"document_names": np.array([0xFF, 0xFE], np.uint8)}, {}, "not JSON"),
    "names that are numbers": ({"document_names": text([1, 2, 3])}, {}, "not a list of names"),
    "a name twice": ({"document_names": text(["a", "b", "a"])}, {}, "used twice: 'a'"),
    "an empty name": ({"document_names": text(["a", "", "c"])}, {}, "document 1: name ''"),
    "a name with a line end": ({"document_names": text(["a", "b\nc", "c"])}, {}, "control character"),
    "a name without end": ({"document_names": text(["a", "x" * 5000, "c"])}, {}, "longer than 1000"),
    "a card that is a list": ({}, {"encoder_card": "[]"}, "encoder card does not parse"),
    "a card that is no JSON": ({}, {"encoder_card": "{"}, "encoder card does not parse"),
    "a card of another width":
        ({}, {"encoder_card": '{"dim": 7}'}, "4 dimensions under an encoder card that says 7"),
    "a card with an unknown key": ({}, {"encoder_card": '{"modell": "x"}'}, "unknown key 'modell'"),
    "a card with a number for a name": ({}, {"encoder_card": '{"model": 3}'}, "must be text"),
    "probes of another width": ({"probes": np.ones((16, 3), np.float32)}, {}, "'probes' is"),
    "probes too few": ({"probes": np.ones((3, DIM), np.float32)}, {}, "16 sentences"),
    "probes of zero": ({"probes": np.zeros((16, DIM), np.float32)}, {}, "probe 0: all zero"),
    "a split too short": ({"document_split": np.zeros(2, np.uint8)}, {}, "'document_split' has 2 entries"),
    "a split of four parts": ({"document_split": np.array([0, 1, 3], np.uint8)}, {}, "other than 0, 1, 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_corpora_are_refused(good: Path, what: str) -> None:
    tensors, metadata, message = BAD[what]
    rewrite(good, tensors, metadata)
    with pytest.raises(InvalidFile, match=message) as error:
        load_corpus(good)
    assert str(good.name) in str(error.value)


def test_every_problem_is_told_at_once(good: Path) -> None:
    values = vectors()
    values[2], values[7, 1] = 0, np.nan
    rewrite(good, {"vectors": values}, keep_digest=True)
    with pytest.raises(InvalidFile) as error:
        load_corpus(good)
    assert all(
        words in str(error.value)
        for words in (
            "row 2 (document 'a', chunk 2)",
            "row 7 (document 'b/c', chunk 4)",
            "sha256",
            "3 problems",
        )
    )


def test_one_flipped_bit_is_found(good: Path) -> None:
    data = bytearray(good.read_bytes())
    start = open_safetensors(good).tensors["vectors"].start
    data[start + 5] ^= 1
    good.write_bytes(data)
    with pytest.raises(InvalidFile, match="sha256"):
        load_corpus(good)


def test_cut_at_every_structural_boundary(good: Path) -> None:
    data, file = good.read_bytes(), open_safetensors(good)
    edges = {
        0,
        1,
        7,
        8,
        9,
        len(data) - 1,
        *(edge for info in file.tensors.values() for edge in (info.start - 1, info.start, info.start + 1)),
    }
    for edge in sorted(edges):
        good.write_bytes(data[:edge])
        with pytest.raises(InvalidFile):
            load_corpus(good)
    good.write_bytes(data + b"\0")
    with pytest.raises(InvalidFile, match="bytes added"):
        load_corpus(good)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    loop = tmp_path / "loop.safetensors"
    loop.symlink_to(loop)
    with pytest.raises(IOFailed, match="symbolic links"):
        load_corpus(loop)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InvalidFile, match="no regular file"):
        load_corpus(tmp_path / "pipe.safetensors")
    with pytest.raises(InvalidFile, match=INDEX):
        load_corpus(tmp_path)
    with pytest.raises(InvalidFile, match="no such file"):
        load_corpus(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="Did you mean 'sotu'"):
        load_corpus("sotus")
    with pytest.raises(UsageError, match="no path"):
        load_corpus("x" * 5000)


def lines(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


CHUNKS = [
    {"document": name, "chunk": k, "text": f"{name} {k}"}
    for name, length in zip(NAMES, LENGTHS, strict=True)
    for k in range(length)
]


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        (".jsonl", lines(*CHUNKS[:-1]), "ends after 9 chunks; the corpus has 10"),
        (".jsonl", lines(*CHUNKS, CHUNKS[0]), "more than the corpus's 10"),
        (".jsonl", lines(*CHUNKS[:4], *CHUNKS[5:], CHUNKS[4]), "line 5: chunk"),
        (".jsonl", lines(*CHUNKS[:4]) + b"{\n", "line 5: not a JSON object"),
        (".jsonl", lines(*CHUNKS[:4]) + b'{"document": "\xff"}\n', "line 5: not UTF-8"),
        (
            ".jsonl",
            lines({"document": "a", "chunk": 0}),
            "line 1: not a JSON object of document, chunk and text",
        ),
        (".jsonl", lines([1]), "line 1: not a JSON object"),
        (".jsonl", b'{"document": "a", "chunk": 0, "text": "' + b"x" * (17 << 20), "line 1: longer"),
        (".jsonl.gz", gzip.compress(lines(*CHUNKS))[:-12], "damaged gzip"),
        (".jsonl.gz", b"not gzip at all", "damaged gzip"),
        (".jsonl.gz", gzip.compress(b"\0" * (40 << 20)), "line 1: longer"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:30],
)
def test_bad_texts_are_refused(good: Path, suffix: str, data: bytes, message: str) -> None:
    (good.parent / f"good.chunks{suffix}").write_bytes(data)
    with pytest.raises(InvalidFile, match=message):
        _ = load_corpus(good).texts


def test_good_texts(good: Path) -> None:
    assert load_corpus(good).texts is None
    (good.parent / "good.chunks.jsonl").write_bytes(lines(*CHUNKS))
    texts = load_corpus(good).texts
    assert texts is not None and texts[3:5] == ["b/c 0", "b/c 1"]


# Shards


@pytest.fixture
def shards(good: Path) -> Path:
    (good.parent / "good.chunks.jsonl").write_bytes(lines(*CHUNKS))
    folder = good.parent / "shards"
    subset(open_corpus(good), np.arange(3), folder, shard_bytes=5 * 4 * DIM)
    return folder


def test_shards_read_as_one(good: Path, shards: Path) -> None:
    assert sorted(path.name for path in shards.glob("*.safetensors")) == [
        f"shard-0000{k}.safetensors" for k in range(3)
    ]
    one, many = load_corpus(good), load_corpus(shards)
    np.testing.assert_array_equal(many.numpy(), vectors())
    assert (many.names, many.texts) == (one.names, one.texts) and (many.offsets == one.offsets).all()
    mapped = open_corpus(shards)
    np.testing.assert_array_equal(mapped.read(2, 9), vectors()[2:9])
    np.testing.assert_array_equal(mapped.take(np.array([9, 0, 4])), vectors()[[9, 0, 4]])


def edit_index(folder: Path, change: Callable[[dict], Any]) -> None:
    values = json.loads((folder / INDEX).read_text())
    replaced = change(values)
    (folder / INDEX).write_text(json.dumps(values if replaced is None else replaced))


def other(path: Path, dim: int = DIM, model: str = "m", dtype: str = "F32") -> None:
    write_corpus(
        path,
        np.ones((2, dim), np.float32),
        np.array([0, 2]),
        ["other"],
        EncoderCard(model=model, dim=dim),
        {},
        dtype,
    )


def replace_shard(folder: Path, **options: Any) -> None:
    path = folder / "shard-00002.safetensors"
    other(path, **options)
    digest = open_safetensors(path).metadata["sha256"]
    edit_index(folder, lambda v: v["shards"][2].update(vectors=2, documents=1, sha256=digest))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "shard-00001.safetensors").unlink(), "shard-00001.safetensors: no such file"),
        (lambda f: (f / "shard-00001.safetensors").write_bytes(b"xx"), "too short"),
        (lambda f: (f / INDEX).write_text("{"), "not valid JSON"),
        (lambda f: (f / INDEX).write_text("[]"), "not the index"),
        (lambda f: edit_index(f, lambda v: v.update(shards=[])), "at least one shard"),
        (lambda f: edit_index(f, lambda v: v.update(shards={"a": 1})), "must be a list"),
        (
            lambda f: edit_index(f, lambda v: v["shards"][0].update(file="../good.safetensors")),
            "not the plain name",
        ),
        (lambda f: edit_index(f, lambda v: v["shards"][0].update(file="/etc/passwd")), "not the plain name"),
        (lambda f: edit_index(f, lambda v: v["shards"][0].update(file=7)), "not the plain name"),
        (lambda f: edit_index(f, lambda v: v["shards"][0].update(vectors=4)), "says 4"),
        (lambda f: edit_index(f, lambda v: v["shards"][0].update(sha256="0" * 64)), "another sha256"),
        (lambda f: edit_index(f, lambda v: v["shards"].append(v["shards"][0])), "names shards twice"),
        (lambda f: replace_shard(f, dim=5), "of 5 dimensions"),
        (lambda f: replace_shard(f, dtype="F16"), "vectors F16"),
        (lambda f: replace_shard(f, model="another"), "another encoder"),
    ],
)
def test_bad_shards_are_refused(shards: Path, harm: Callable[[Path], Any], message: str) -> None:
    harm(shards)
    with pytest.raises(InvalidFile, match=message):
        load_corpus(shards)


def test_a_document_in_two_shards(shards: Path) -> None:
    for suffix in (".safetensors", ".chunks.jsonl"):
        data = (shards / f"shard-00000{suffix}").read_bytes()
        (shards / f"shard-00003{suffix}").write_bytes(data)
    edit_index(shards, lambda v: v["shards"].append({**v["shards"][0], "file": "shard-00003.safetensors"}))
    with pytest.raises(InvalidFile, match="used twice: 'a'"):
        load_corpus(shards)


def test_a_recorded_split_wins_over_the_seed(good: Path, tmp_path: Path) -> None:
    resplit(open_corpus(good), np.array([2, 0, 1], np.uint8), tmp_path / "own.safetensors")
    for seed in range(3):
        split = split_corpus(load_corpus(tmp_path / "own.safetensors"), seed)
        assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([1], [2], [0])


# Anything at all


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_crash_the_reader(good: Path, data: st.DataObject) -> None:
    """Bytes replaced, cut and inserted anywhere: the corpus is read or refused, nothing else."""
    if not hasattr(test_no_bytes_crash_the_reader, "bytes"):
        test_no_bytes_crash_the_reader.bytes = good.read_bytes()  # type: ignore[attr-defined]
    whole = bytearray(test_no_bytes_crash_the_reader.bytes)  # type: ignore[attr-defined]
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, header), st.integers(0, len(whole))))
        piece = data.draw(st.binary(max_size=6))
        whole[at : at + data.draw(st.integers(0, 6))] = piece
    path = good.with_name("fuzzed.safetensors")
    path.write_bytes(whole)
    with contextlib.suppress(LvmError):
        load_corpus(path)


def test_the_user_s_folder_is_found(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(small_file.parent))
    assert find_corpus(f"~/{small_file.name}") == small_file
