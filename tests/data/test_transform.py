"""Merged, cut and split corpora hold the rows, texts and parts they should."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.ingest.choosing import assign_together, choose, parse_fractions, read_assignment
from mlx_lvm.data.ingest.transform import merge, resplit, subset
from mlx_lvm.data.quality.audit import find_duplicates
from mlx_lvm.data.splits import assign, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import InvalidFile, UsageError

from ..helpers import write_corpus


@pytest.fixture(scope="module")
def mapped() -> MappedCorpus:
    return open_corpus(find_corpus("moby"))


def test_merge_copies_rows_to_the_bit(sotu: Corpus, tmp_path: Path) -> None:
    moby = load_corpus("moby")
    merge([open_corpus(find_corpus("sotu")), open_corpus(find_corpus("moby"))], tmp_path / "both.safetensors")
    both = load_corpus(tmp_path / "both.safetensors")
    assert both.names == sotu.names + moby.names and both.texts == [*(sotu.texts or []), *(moby.texts or [])]
    np.testing.assert_array_equal(
        np.array(both.vectors), np.concatenate([np.array(sotu.vectors), np.array(moby.vectors)])
    )
    assert both.scales is not None and sotu.scales is not None and moby.scales is not None
    np.testing.assert_array_equal(
        np.array(both.scales), np.concatenate([np.array(sotu.scales), np.array(moby.scales)])
    )
    assert "State of the Union" in both.provenance["source"] and "Moby" in both.provenance["source"]


def test_merge_refuses_other_encoders_and_names_twice(mapped: MappedCorpus, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probes = rng.standard_normal((16, 768)).astype(np.float32)
    card = mapped.card.replace(probes=probes)  # the same fields, another space
    write_corpus(tmp_path / "x.safetensors", rng.standard_normal((3, 768)), np.array([0, 3]), ["x"], card, {})
    with pytest.raises(InvalidFile, match="probe sentences differ"):
        merge([mapped, open_corpus(tmp_path / "x.safetensors")], tmp_path / "m.safetensors")
    with pytest.raises(InvalidFile, match="--prefix"):
        merge([mapped, mapped], tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="one of the corpora that are read"):
        merge([mapped, open_corpus(find_corpus("sotu"))], mapped.path, overwrite=True)
    assert not (tmp_path / "m.safetensors").exists()


def test_merge_of_unknown_encoders_needs_a_word(mapped: MappedCorpus, tmp_path: Path) -> None:
    """Neither card says anything, or one alone has probe vectors: unknown is not equal."""
    rng = np.random.default_rng(0)
    for name, card in (("a", EncoderCard(dim=768)), ("b", EncoderCard(dim=768))):
        write_corpus(
            tmp_path / f"{name}.safetensors",
            rng.standard_normal((6, 768)),
            np.array([0, 3, 6]),
            [name, "2"],
            card,
            {},
        )
    a, b = (open_corpus(tmp_path / f"{name}.safetensors") for name in "ab")
    for pair in ((a, mapped), (mapped, a)):
        with pytest.raises(
            InvalidFile, match=r"is not known .one records no encoder.. --same-encoder vouches"
        ):
            merge(pair, tmp_path / "m.safetensors")
    with pytest.raises(InvalidFile, match="no encoder is recorded"):
        merge([a, b], tmp_path / "m.safetensors", prefix=True)
    merge([a, mapped], tmp_path / "m.safetensors", same_encoder=True)
    made = open_corpus(tmp_path / "m.safetensors")
    assert made.names == a.names + mapped.names
    assert made.card.probes is not None  # the most that either says of them both
    # Vouching never overrules what the cards tell.
    other = mapped.card.replace(probes=rng.standard_normal((16, 768)).astype(np.float32))
    write_corpus(
        tmp_path / "o.safetensors", rng.standard_normal((3, 768)), np.array([0, 3]), ["o"], other, {}
    )
    with pytest.raises(InvalidFile, match="probe sentences differ"):
        merge(
            [mapped, open_corpus(tmp_path / "o.safetensors")], tmp_path / "n.safetensors", same_encoder=True
        )


def test_a_prefix_never_tears_a_document(tmp_path: Path) -> None:
    rng, card = np.random.default_rng(0), EncoderCard(dim=8)
    parts = {"one": ["a", "b", "c"], "two": ["c", "d"], "three": ["a", "b"], "alone": ["c"]}
    for name, documents in parts.items():
        offsets = np.arange(0, 2 * len(documents) + 1, 2)
        write_corpus(tmp_path / name, rng.standard_normal((offsets[-1], 8)), offsets, documents, card, {})
    opened = {name: open_corpus(tmp_path / name) for name in parts}
    with pytest.raises(InvalidFile, match=r"'c' ends .*one and begins .*two: one document in two parts"):
        merge([opened["one"], opened["two"]], tmp_path / "m", prefix=True, same_encoder=True)
    # A name that stands in both, but at no seam, and a corpus that is one document: others of the same name.
    for second in ("three", "alone"):
        merge([opened["one"], opened[second]], tmp_path / f"m-{second}", prefix=True, same_encoder=True)
        assert f"{second}/{parts[second][0]}" in open_corpus(tmp_path / f"m-{second}").names


def test_subset_by_pattern_and_list(mapped: MappedCorpus, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("extracts\nchapter_42\n")
    chosen = choose(mapped, ["chapter_1?"], tmp_path / "names.txt")
    expected = [
        name
        for name in mapped.names
        if name in ("extracts", "chapter_42") or (name.startswith("chapter_1") and len(name) == 10)
    ]
    assert [mapped.names[d] for d in chosen] == expected
    subset(mapped, chosen, tmp_path / "s.safetensors")
    small, whole = load_corpus(tmp_path / "s.safetensors"), load_corpus("moby")
    rows = np.concatenate([np.arange(whole.offsets[d], whole.offsets[d + 1]) for d in chosen])
    np.testing.assert_array_equal(small.numpy(), whole.numpy(rows))
    assert (
        whole.texts is not None
        and small.texts == [whole.texts[row] for row in rows]
        and small.card == whole.card
    )
    assert (mapped.lengths[choose(mapped, [], least=20)] >= 20).all()
    with pytest.raises(UsageError, match="no document matches 'chaptr"):
        choose(mapped, ["chaptr*"])
    with pytest.raises(UsageError, match="no document chosen"):
        subset(mapped, choose(mapped, ["extracts"], least=10_000), tmp_path / "n.safetensors")
    (tmp_path / "names.txt").write_text("nobody\n")
    with pytest.raises(UsageError, match="no document 'nobody'"):
        choose(mapped, [], tmp_path / "names.txt")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_subset_in_another_dtype(mapped: MappedCorpus, tmp_path: Path, dtype: str) -> None:
    subset(mapped, np.arange(5), tmp_path / "s.safetensors", dtype)
    stop = int(mapped.offsets[5])
    found, expected = load_corpus(tmp_path / "s.safetensors").numpy(), mapped.read(0, stop)
    np.testing.assert_allclose(
        found, expected, rtol={"F32": 0, "F16": 2**-10, "BF16": 2**-8}[dtype], atol=1e-7
    )


def test_split_by_seed_fractions_and_file(mapped: MappedCorpus, tmp_path: Path) -> None:
    parts = assign(mapped.names, 5, parse_fractions("0.5,0.25,0.25"))
    resplit(mapped, parts, tmp_path / "s.safetensors")
    np.testing.assert_array_equal(split_corpus(load_corpus(tmp_path / "s.safetensors"), 99).numbers(), parts)
    assert abs((parts == 0).mean() - 0.5) < 0.15 and set(parts) == {0, 1, 2}
    wanted = {name: ("test" if name.endswith("7") else "train") for name in mapped.names}
    (tmp_path / "a.json").write_text(json.dumps(wanted))
    (tmp_path / "a.tsv").write_text("".join(f"{name}\t{part}\n" for name, part in wanted.items()))
    for file in ("a.json", "a.tsv"):
        np.testing.assert_array_equal(
            read_assignment(tmp_path / file, mapped), [2 * name.endswith("7") for name in mapped.names]
        )
    wanted.update(extracts="holdout", stranger="train")
    del wanted["contents"]
    (tmp_path / "a.json").write_text(json.dumps(wanted))
    with pytest.raises(InvalidFile) as error:
        read_assignment(tmp_path / "a.json", mapped)
    assert all(
        words in str(error.value)
        for words in ("'contents' has no split", "'holdout' is not one of", "no document 'stranger'")
    )
    for text in ("0.8,0.2", "a,b,c", "0.8,0.8,-0.6", "0.5,0.1,0.1"):
        with pytest.raises(UsageError, match="three shares"):
            parse_fractions(text)


def test_documents_that_share_chunks_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((80 * 6, 16)).astype(np.float32)
    for document in range(0, 40, 2):  # forty documents in pairs, the pairs chained four by four
        rows[6 * document] = rows[6 * document + 6]
    for document in range(1, 39, 4):
        rows[6 * document + 3] = rows[6 * document + 9] * 1.5
    write_corpus(
        tmp_path / "x.safetensors",
        rows,
        np.arange(0, 481, 6),
        [f"d{k}" for k in range(80)],
        EncoderCard(dim=16),
        {},
        "F32",
    )
    corpus = open_corpus(tmp_path / "x.safetensors")
    assert find_duplicates(corpus, 0).leakage.near > 0
    parts = assign_together(corpus, 0, (0.8, 0.1, 0.1))
    for first in range(0, 40, 4):
        assert len(set(parts[first : first + 4])) == 1
    np.testing.assert_array_equal(parts[40:], assign(corpus.names, 0)[40:])
    resplit(corpus, parts, tmp_path / "y.safetensors")
    assert find_duplicates(open_corpus(tmp_path / "y.safetensors"), 0).leakage.near == 0


def test_a_large_group_is_no_held_out_part(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((80 * 6, 16)).astype(np.float32)
    rows[: 40 * 6 : 6] = rows[0]  # half of the documents begin alike
    names, offsets = [f"d{k}" for k in range(80)], np.arange(0, 481, 6)
    write_corpus(tmp_path / "x.safetensors", rows, offsets, names, EncoderCard(dim=16), {}, "F32")
    corpus = open_corpus(tmp_path / "x.safetensors")
    for seed in range(20):
        parts = assign_together(corpus, seed, (0.8, 0.1, 0.1))
        assert (parts[:40] == 0).all()
    every = np.concatenate([assign_together(corpus, seed, (0.8, 0.1, 0.1)) for seed in range(100)])
    np.testing.assert_allclose(np.bincount(every) / len(every), (0.8, 0.1, 0.1), atol=0.01)
    assert (assign_together(corpus, 0, (0.1, 0.1, 0.8))[:40] == 2).all()
    np.testing.assert_array_equal(assign_together(corpus, 0, (1, 0, 0)), 0)


def test_parts_of_a_document_share_its_split() -> None:
    names = [f"doc {k}" for k in range(200)]
    whole = assign(names, 1)
    np.testing.assert_array_equal(assign([f"{name}#part-3" for name in names], 1), whole)
    assert (assign([f"{name}#partly" for name in names], 1) != whole).any()
