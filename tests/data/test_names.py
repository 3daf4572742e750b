"""Document names: which are fit, one normal form wherever they enter, and looked up exactly before they are
patterns.
"""

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.convert.conversion import Target
from mlx_lvm.data.convert.convert import convert
from mlx_lvm.data.corpus import load_corpus
from mlx_lvm.data.ingest.choosing import choose, read_assignment
from mlx_lvm.data.ingest.documents import list_documents, read_documents
from mlx_lvm.data.names import check_names, normal
from mlx_lvm.data.splits import assign
from mlx_lvm.data.storage.reader import open_corpus
from mlx_lvm.errors import Problems, UsageError
from mlx_lvm.ranking.query import read_query

from ..helpers import write_corpus

NFC, NFD = (unicodedata.normalize(form, "Zoë, café") for form in ("NFC", "NFD"))
ORDINARY = [
    "می\u200cخواهم",  # noqa: RUF001
    "第一章\u3000序",
    "Snímek v\u00a013.05",
    "9.00\u202fPM",
    "\U0001f469\u200d\U0001f4bb notes",
    "Donau\u00addampf",
    "שלום\u200f",
]
UNFIT = {
    "": "empty",
    "a\nb": r"control character, U\+000A, as character 2",
    "a\u2028b": r"line separator, U\+2028",
    "\ud800": "surrogate",
    "x" * 1001: "longer than 1000",
}


def problems_of(names: list[str]) -> list[str]:
    problems = Problems("x")
    check_names(names, problems)
    return problems.found


def test_ordinary_text_of_the_world_is_a_name() -> None:
    assert problems_of(ORDINARY) == []


@pytest.mark.parametrize(("name", "why"), UNFIT.items())
def test_unfit_names_are_told_with_their_character(name: str, why: str) -> None:
    (told,) = problems_of(["good", name])
    assert "document 1" in told and re.search(why, told), told


def test_counts_are_true() -> None:
    *shown, counted = problems_of([f"a\n{k}" for k in range(8)] + ["good"])
    assert len(shown) == 5 and "8 of 9 document names are unfit" in counted
    (twice,) = problems_of([name for k in range(7) for name in (f"n{k}", f"n{k}")])
    assert twice.endswith("and 2 more")


def corpus(path: Path, names: list[str]) -> Path:
    rows = np.random.default_rng(0).standard_normal((3 * len(names), 4))
    offsets = np.arange(len(names) + 1) * 3
    write_corpus(path, rows, offsets, names, EncoderCard(dim=4), {}, "F32")
    return path


def test_a_name_is_one_in_both_normal_forms(tmp_path: Path) -> None:
    """Written, converted, embedded, assigned, chosen, looked up and asked for."""
    path = corpus(tmp_path / "c.safetensors", [NFD, "other"])
    loaded, mapped = load_corpus(path), open_corpus(path)
    assert loaded.names == mapped.names == (NFC, "other")
    assert loaded.document(NFD) == loaded.document(NFC) == 0
    assert choose(mapped, [NFD]).tolist() == choose(mapped, [NFD[:-3] + "*"]).tolist() == [0]
    (tmp_path / "names.txt").write_text(NFD)
    assert choose(mapped, [], tmp_path / "names.txt").tolist() == [0]
    (tmp_path / "parts.json").write_text(json.dumps({NFD: "test", "other": "train"}))
    assert read_assignment(tmp_path / "parts.json", mapped).tolist() == [2, 0]
    assert read_query(f"{NFD}:1", loaded).row == 1
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / f"{NFD}.txt").write_text("A text.")
    (tmp_path / "documents" / "lines.jsonl").write_text(json.dumps({"id": NFD + "2", "text": "A text."}))
    read = read_documents(list_documents([tmp_path / "documents"]).files)
    assert {name for name, _ in read} == {NFC, NFC + "2"}


def test_ids_in_both_normal_forms_are_one_document(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    np.savez(tmp_path / "i.npz", vectors=rows, document_ids=np.array([NFC, NFD, NFC, "other"]))
    convert(tmp_path / "i.npz", Target(tmp_path / "o.safetensors"))
    made = load_corpus(tmp_path / "o.safetensors")
    assert made.names == (NFC, "other") and made.lengths.tolist() == [3, 1]


def test_a_file_with_decomposed_names_is_read_composed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier writer, or somebody else's, leaves it: the split is that of the composed name."""
    with monkeypatch.context() as patch:
        patch.setattr("mlx_lvm.data.storage.writer.normal", lambda name: name)
        path = corpus(tmp_path / "c.safetensors", [NFD, "other"])
    assert NFD.encode() in path.read_bytes()
    names = open_corpus(path).names
    assert names[0] == NFC and [assign(names, seed)[0] for seed in range(9)] == [
        assign([normal(NFD)], seed)[0] for seed in range(9)
    ]


def test_the_exact_name_comes_before_the_pattern(tmp_path: Path) -> None:
    mapped = open_corpus(corpus(tmp_path / "c.safetensors", ["notes [1]", "notes 1", "notes *"]))
    assert choose(mapped, ["notes [1]"]).tolist() == [0]
    assert choose(mapped, ["notes *"]).tolist() == [2]
    assert choose(mapped, ["notes [0-9]"]).tolist() == [1]
    with pytest.raises(UsageError, match="no document matches"):
        choose(mapped, ["Notes [2]"])
