"""Rows are unit vectors wherever they are read, however long they were stored; and the verdict on a corpus is
the same whatever the scale, order, type and number of its files.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.ingest.synthetic import Process
from mlx_lvm.data.ingest.transform import subset, synthesise
from mlx_lvm.data.quality.audit import check
from mlx_lvm.data.quality.description import describe
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.data.storage.rows import Stored, quantise, to_float, unit_rows
from mlx_lvm.data.storage.stream import RowReader
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.evaluation.evaluate import examine

from ..helpers import write_corpus

PRECISION = {"F32": 1e-6, "F16": 1e-3, "BF16": 8e-3, "I8": 1e-2}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def some_documents(rng: np.random.Generator, count: int = 14, dim: int = 12) -> list[np.ndarray]:
    """Documents whose neighbouring chunks are alike, of rows of unit length."""
    out = []
    for length in rng.integers(6, 12, count):
        steps = 0.6 * rng.standard_normal(dim) + np.cumsum(0.5 * rng.standard_normal((length, dim)), axis=0)
        out.append(unit(steps).astype(np.float32))
    return out


def stored(path: Path, documents: list[np.ndarray], dtype: str, factor: np.ndarray | float) -> Path:
    """A corpus file whose rows have other lengths, as an earlier writer or somebody else leaves it."""
    offsets = np.cumsum([0, *map(len, documents)])
    names = [f"d{k}" for k in range(len(documents))]
    with CorpusWriter(
        path, offsets, names, EncoderCard(dim=documents[0].shape[1]), {}, dtype, as_drawn=True, overwrite=True
    ) as writer:
        writer.put(0, (np.concatenate(documents) * factor).astype(np.float32))
        writer.finish()
    file = open_safetensors(path)
    tensors = {name: np.array(file.numpy(name)) for name in file.tensors}
    if dtype != "BF16":
        path.write_bytes(to_bytes(tensors, {k: v for k, v in file.metadata.items() if k != "rows"}))
    return path


@pytest.mark.parametrize("dtype", ["F32", "F16", "I8"])
@pytest.mark.parametrize("factor", [1, 10, 1e-3, "by row"])
def test_every_reader_gives_unit_rows(tmp_path: Path, dtype: str, factor: float | str) -> None:
    rng = np.random.default_rng(0)
    documents = some_documents(rng)
    rows = np.concatenate(documents)
    factors = rng.uniform(0.5, 2, (len(rows), 1)) if factor == "by row" else float(factor)
    path = stored(tmp_path / "c.safetensors", documents, dtype, factors)
    mapped = open_corpus(path)
    reader = RowReader(mapped)
    vectors, scales = reader.buffers(len(rows))
    reader.fill(np.array([0]), np.array([len(rows)]), np.array([0]), vectors, scales)
    subset(mapped, np.arange(len(documents)), tmp_path / "copy.safetensors")
    found = {
        "in memory": load_corpus(path).numpy(),
        "mapped": mapped.read(0, len(rows)),
        "taken": mapped.take(np.arange(len(rows))),
        "streamed": to_float(vectors, scales),
        "copied": load_corpus(tmp_path / "copy.safetensors").numpy(),
    }
    for how, read in found.items():
        np.testing.assert_allclose(read, rows, atol=PRECISION[dtype], err_msg=how)


def test_unit_rows_stay_bit_for_bit() -> None:
    """Shipped corpora, and rows that were rounded to what they are stored in."""
    for name in ("sotu", "moby"):
        mapped = open_corpus(find_corpus(name))
        for shard in mapped.shards:
            rows, changed = unit_rows(shard.stored)
            assert rows is shard.stored and changed == 0
    rows = unit(np.random.default_rng(0).standard_normal((500, 300))).astype(np.float32)
    small, scales = quantise(rows)
    for held in (
        Stored(rows),
        Stored(rows.astype(np.float16)),
        Stored(small, scales),
        Stored(to_float(small, scales)),
    ):
        assert unit_rows(held)[0] is held


def test_it_is_said(tmp_path: Path) -> None:
    documents = some_documents(np.random.default_rng(0))
    path = stored(tmp_path / "c.safetensors", documents, "F32", 10)
    count = sum(map(len, documents))
    warnings = check(open_corpus(path), 5, 0)[0].warnings
    assert any(f"{count} of {count} rows are not of unit length (10 to 10)" in told for told in warnings)
    offsets = np.cumsum([0, *map(len, documents)])
    names = [f"d{k}" for k in range(len(documents))]
    rows = np.concatenate(documents) * np.where(np.arange(count) < 7, 3, 1)[:, None]
    write_corpus(
        tmp_path / "w.safetensors", rows, offsets, names, EncoderCard(dim=12, normalised="none"), {}, "F32"
    )
    made = open_corpus(tmp_path / "w.safetensors")
    assert made.made_unit == 7 and made.card.normalised == "L2"
    assert any("7 of" in told for told in check(made, 5, 0)[0].warnings)


def test_a_synthetic_process_keeps_its_lengths(tmp_path: Path) -> None:
    """Its least possible error is that of the rows as they were drawn; also in a copy."""
    process = Process(documents=5, least=6, most=8, dim=6)
    synthesise(process, tmp_path / "s.safetensors")
    drawn = open_corpus(tmp_path / "s.safetensors")
    subset(drawn, np.arange(5), tmp_path / "copy.safetensors")
    rows = np.concatenate(list(process.blocks()))
    for path in ("s.safetensors", "copy.safetensors"):
        np.testing.assert_array_equal(load_corpus(tmp_path / path).numpy(), rows)
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 0.1


SETTINGS = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
    "derandomize": True,
}


def two_forms(folder: Path, data: st.DataObject) -> tuple[Path, Path, str]:
    """A random corpus as it is, and scaled by a constant or by row, its documents in another order, in
    another type, in shards; and that type.
    """
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    documents = some_documents(rng)
    count, names = len(documents), [f"d{k}" for k in range(14)]
    order = rng.permutation(count) if data.draw(st.booleans()) else np.arange(count)
    dtype = data.draw(st.sampled_from(["F32", "F16", "I8"]))
    shards = 900 if data.draw(st.booleans()) else None
    factor = data.draw(st.sampled_from([1.0, 10.0, 1e-3, "by row"]))
    paths = []
    for which, kind, size, chosen in ((1.0, "F32", None, np.arange(count)), (factor, dtype, shards, order)):
        kept = [documents[k] for k in chosen]
        rows = np.concatenate(kept)
        rows = rows * (rng.uniform(0.5, 2, (len(rows), 1)) if which == "by row" else which)
        offsets, path = np.cumsum([0, *map(len, kept)]), folder / f"{len(paths)}"
        with CorpusWriter(
            path,
            offsets,
            [names[k] for k in chosen],
            EncoderCard(dim=12),
            {},
            kind,
            shard_bytes=size,
            overwrite=True,
        ) as writer:
            writer.put(0, rows)
            writer.finish()
        paths.append(path)
    return paths[0], paths[1], dtype


@settings(max_examples=15, **SETTINGS)
@given(data=st.data())
def test_the_same_corpus_in_another_form_is_described_alike(tmp_path: Path, data: st.DataObject) -> None:
    *paths, dtype = two_forms(tmp_path, data)
    figures = []
    for path in paths:
        corpus = open_corpus(path)
        told = describe(corpus, 5, 0)
        found, duplicates = check(corpus, 5, 0)
        assert duplicates is not None
        shape = told.anisotropy
        figures.append(
            (
                [value or 0 for value in told.lag_profile]
                + [shape["mean_norm"], shape["first_1"], shape["first_10"]],
                told.splits,
                found.problems,
                (duplicates.exact, duplicates.leakage.exact),
            )
        )
    (numbers, *rest), (others, *other_rest) = figures
    np.testing.assert_allclose(others, numbers, atol=PRECISION[dtype])
    assert rest == other_rest


def same_verdict(tmp_path: Path, data: st.DataObject) -> None:
    """Figures to the precision of the storage, and the outcome wherever they can tell."""
    *paths, dtype = two_forms(tmp_path, data)
    one, other = (examine("recency", load_corpus(path), "all", resamples=200).to_dict() for path in paths)
    allowed = 3 * PRECISION[dtype]  # of a cosine; a share of a mean or a decay is chosen on few windows
    for key in ("windows", "documents", "skipped_documents"):
        assert one[key] == other[key]
    np.testing.assert_allclose(*(found["retrieval"]["split"]["chance"]["mrr"] for found in (one, other)))
    for name in ("last", "mean", "lag-filter", "recency", "shrunk-mean", "oracle", "best-in-span"):
        mine, theirs = (found["metrics"][name] for found in (one, other))
        np.testing.assert_allclose(theirs["cosine"], mine["cosine"], atol=allowed, err_msg=name)
        np.testing.assert_allclose(
            theirs["centred_cosine"], mine["centred_cosine"], atol=2 * allowed, err_msg=name
        )
    mine, theirs = (found["verdict"]["cosine"] for found in (one, other))
    if mine["closed_form"] != theirs["closed_form"]:  # two baselines that the storage cannot tell apart
        pair = [one["metrics"][found["closed_form"]]["cosine"] for found in (mine, theirs)]
        np.testing.assert_allclose(*pair, atol=2 * allowed)
    np.testing.assert_allclose(theirs["difference"], mine["difference"], atol=2 * allowed)
    # Resamples follow the order of documents, so an interval that ends near zero may fall on either side of
    # it.
    if min(abs(end) for found in (mine, theirs) for end in found["ci"]) > 0.02:
        assert mine["outcome"] == theirs["outcome"]


@settings(max_examples=1, **SETTINGS)
@given(data=st.data())
def test_the_same_corpus_in_another_form_gets_the_same_verdict(tmp_path: Path, data: st.DataObject) -> None:
    same_verdict(tmp_path, data)


@pytest.mark.slow
@settings(max_examples=12, **SETTINGS)
@given(data=st.data())
def test_every_form_gets_the_same_verdict(tmp_path: Path, data: st.DataObject) -> None:
    same_verdict(tmp_path, data)
