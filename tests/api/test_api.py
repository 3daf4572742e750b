"""The Python interface: NumPy in and out, the figures of the command line, and messages that help."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mlx_lvm as lvm
from mlx_lvm.errors import InvalidFile, IOFailed, UsageError

SPEECH = "2016_barack_obama_d"


@pytest.fixture(scope="module")
def sotu_corpus() -> lvm.Corpus:
    return lvm.load_corpus("sotu")


@pytest.fixture(scope="module")
def small_corpus(small_file: Path) -> lvm.Corpus:
    """Unit rows of 32 dimensions, with texts."""
    held = lvm.load_corpus(small_file)
    ids = [document.name for document in held for _ in range(len(document))]
    return lvm.Corpus.from_arrays(held.vectors, ids, [f"chunk {k}" for k in range(len(ids))], name="small")


def test_every_name_is_there_and_says_what_it_is() -> None:
    for name in lvm.__all__:
        found = getattr(lvm, name)
        assert ">>> " in found.__doc__ or name == "Model", f"{name} shows no example"
    assert set(lvm.__all__) <= set(dir(lvm))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        lvm.lod  # type: ignore[attr-defined]  # noqa: B018


def test_names_load_only_what_they_need() -> None:
    """By modules: `import mlx_lvm` brings none of MLX, NumPy or torch; a corpus brings no training."""
    code = (
        "import sys, mlx_lvm as lvm\n"
        "heavy = {'mlx', 'numpy', 'torch', 'typer', 'rich', 'safetensors'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}), len(sys.modules))\n"
        "lvm.load_corpus\n"
        "print([name for name in sys.modules if name.startswith('mlx_lvm.training')])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = out.splitlines()
    assert first.startswith("[] ") and second == "[]"


def test_documents_are_rows_of_the_corpus(sotu_corpus: lvm.Corpus) -> None:
    speech = sotu_corpus[SPEECH]
    assert speech.vectors.shape == (len(speech), 768) and speech.vectors.dtype == np.float32
    assert len(speech.texts) == len(speech) and "Mr. Speaker" in speech.texts[0]
    assert_allclose(np.linalg.norm(speech.vectors, axis=1), 1, atol=1e-3)
    names = [document.name for document in sotu_corpus]
    assert tuple(names) == sotu_corpus.names and len(sotu_corpus) == len(names) and SPEECH in sotu_corpus
    with pytest.raises(UsageError, match=r"no document '2016_obama'.*"):
        sotu_corpus["2016_obama"]


def test_arrays_are_grouped_by_document_in_their_order() -> None:
    vectors = np.arange(1, 13, dtype=np.float64).reshape(4, 3)
    corpus = lvm.Corpus.from_arrays(vectors, ["b", "a", "b", "a"], ["1", "2", "3", "4"], encoder="mine")
    assert corpus.names == ("b", "a") and corpus["b"].texts == ["1", "3"] and corpus.encoder == "mine"
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert_allclose(corpus["a"].vectors, unit[[1, 3]], atol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "documents", "texts", "message"),
    [
        (np.ones(3), ["a"], None, r"float64 of shape \(3,\); expected numbers of shape \[chunks, dim\]"),
        (np.ones((2, 3)), ["a"], None, "documents: 1 for 2 vectors"),
        (np.ones((2, 3)), ["a", "a"], ["x"], "texts: 1 for 2 vectors"),
        (np.zeros((2, 3)), ["a", "a"], None, "(?s)corpus arrays: .*row 1 .*all zero"),
    ],
)
def test_unfit_arrays(vectors: np.ndarray, documents: list[str], texts: list[str], message: str) -> None:
    with pytest.raises((UsageError, InvalidFile), match=message):
        lvm.Corpus.from_arrays(vectors, documents, texts)


def test_a_corpus_is_saved_with_its_texts(small_corpus: lvm.Corpus, tmp_path: Path) -> None:
    path = small_corpus.save(tmp_path / "new" / "mine.safetensors")
    again = lvm.load_corpus(path)
    assert again.texts == small_corpus.texts and again.name == "mine"
    assert np.array_equal(again.vectors, small_corpus.vectors)
    with pytest.raises(UsageError, match="is there already"):
        small_corpus.save(path)


def test_temporary_files_go_with_the_corpus() -> None:
    corpus = lvm.Corpus.from_arrays(np.eye(3), ["a", "a", "b"])
    folder = corpus.temporary
    assert folder is not None and folder.is_dir()
    del corpus
    assert not folder.exists()


def test_a_ranking_is_that_of_lvm_predict(sotu_corpus: lvm.Corpus, lvm_json: Callable[..., dict]) -> None:
    """From a document's vectors: the same chunks, probabilities and cosines as from its name and place."""
    for name in ("amn", "ramn-retrieve"):
        said = lvm_json("predict", name, "--document", SPEECH, "--at", 30, "--top", 4)["steps"][0]
        model = lvm.load(name)
        hits = model.rank(sotu_corpus[SPEECH].vectors[:30], sotu_corpus, top=4)
        assert [(h.document, h.chunk) for h in hits] == [(n["document"], n["chunk"]) for n in said["nearest"]]
        assert_allclose([h.probability for h in hits], [n["probability"] for n in said["nearest"]], rtol=1e-2)
        # Rows of eight bits are unit vectors to 1e-4; those that are given are made so exactly.
        assert_allclose([h.cosine for h in hits], [n["cosine"] for n in said["nearest"]], atol=1e-4)
        predicted = model.predict(sotu_corpus[SPEECH].vectors[:30])
        assert_allclose(predicted, said["vector"], atol=1e-4)
        assert all(h.text == sotu_corpus[h.document].texts[h.chunk] for h in hits)


def test_a_batch_is_its_documents_and_a_scale_does_not_matter(sotu_corpus: lvm.Corpus) -> None:
    model, vectors = lvm.load("ramn"), sotu_corpus[SPEECH].vectors
    batch = np.stack([vectors[:8], vectors[20:28]])
    together = model.predict(batch)
    assert together.shape == (2, 768)
    for row, document in zip(together, batch, strict=True):
        assert_allclose(model.predict(3.0 * document), row, atol=2e-6)
    assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_a_rollout_reads_what_it_predicts(sotu_corpus: lvm.Corpus) -> None:
    model, read = lvm.load("amn"), sotu_corpus[SPEECH].vectors[:9]
    steps = model.rollout(read, 3)
    for step in steps:
        assert_allclose(model.predict(read), step, atol=1e-5)
        read = np.concatenate([read, step[None]])


def test_any_encoder(small_corpus: lvm.Corpus, sotu_corpus: lvm.Corpus) -> None:
    """A model of any width predicts from vectors alone, and otherwise with the statistics of a corpus."""
    model, read = lvm.load("emn"), small_corpus[small_corpus.names[0]].vectors[:10]
    alone, told = model.predict(read), model.predict(read, small_corpus)
    assert alone.shape == told.shape == (32,) and model.dim == 0
    assert not np.allclose(alone, told, atol=1e-3)
    hits = lvm.load("emn-rank").rank(read, small_corpus, top=2)
    assert len(hits) == 2 and hits[0].text.startswith("chunk ") and 0 < hits[0].probability < 1
    with pytest.raises(UsageError, match="vectors of 32 dimensions; corpus sotu has 768"):
        model.rank(read, sotu_corpus)


def test_a_few_short_notes_are_enough() -> None:
    """Of documents shorter than the model's context there are statistics too, and a ranking."""
    vectors = np.random.default_rng(0).normal(size=(9, 24))
    notes = lvm.Corpus.from_arrays(vectors, [name for name in "abc" for _ in range(3)])
    hits = lvm.load("emn-rank").rank(notes["a"].vectors[:1], notes, top=8)
    assert len(hits) == 8 and ("a", 0) not in {(hit.document, hit.chunk) for hit in hits}


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones(768), r"float64 of shape \(768,\); amn reads .* \[chunks, 768\] or \[batch, chunks, 768\]"),
        (np.ones((3, 5)), r"shape \(3, 5\)"),
        (np.ones((0, 768)), r"shape \(0, 768\)"),
        (np.ones((2, 768), int), "int64 of shape"),
        (np.stack([np.ones(768), np.zeros(768)]), "row 1 is zero or not finite"),
        (np.full((2, 768), np.nan), "row 0 is zero or not finite"),
    ],
)
def test_vectors_that_no_model_reads(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lvm.load("amn").predict(vectors)


def test_wrong_arguments_are_named(sotu_corpus: lvm.Corpus, tmp_path: Path) -> None:
    model, read = lvm.load("amn"), sotu_corpus[SPEECH].vectors[:9]
    (tmp_path / "model.safetensors").touch()
    for call, message in [
        (lambda: lvm.load("ramm"), "unknown model 'ramm'. Did you mean 'ramn'"),
        (lambda: lvm.load_corpus("sotv"), "unknown corpus 'sotv'. Did you mean 'sotu'"),
        (
            lambda: lvm.train("emn", sotu_corpus, epocs=3),
            "epocs: not an option of emn. Did you mean 'epochs'",
        ),
        (lambda: lvm.train("emn", sotu_corpus, epochs=0), "epochs = 0: must be at least 1"),
        (lambda: model.rank(read[None], sotu_corpus), "expected one document"),
        (lambda: model.rank(read, sotu_corpus, top=0), "top = 0: at least 1"),
        (lambda: model.rank(read, read), "corpus: a ndarray; expected a Corpus"),  # type: ignore[arg-type]
        (lambda: model.rollout(read, 0), "steps = 0: at least 1"),
        (lambda: lvm.evaluate(read, sotu_corpus), "model: a ndarray"),  # type: ignore[arg-type]
        (lambda: lvm.compare(), "nothing to compare"),
        (lambda: model.save(tmp_path, overwrite=False), "already there"),
        (lambda: lvm.embed(["no-such-folder/"]), "no-such-folder/: no such file or folder"),
        (lambda: lvm.embed([]), "nothing to embed"),
        (lambda: model.push_to_hub("no repository"), "expected user/repo"),
    ]:
        with pytest.raises((UsageError, InvalidFile, IOFailed), match=message):
            call()


@pytest.mark.slow
def test_train_evaluate_save_and_load(small_corpus: lvm.Corpus, tmp_path: Path) -> None:
    """A corpus that no file holds is kept in the run's folder, so that the run is whole."""
    epochs: list[dict] = []
    model = lvm.train(
        "amn", small_corpus, out=tmp_path / "run", epochs=2, seed=3, attention_dim=8, progress=epochs.append
    )
    assert [record["epoch"] for record in epochs] == [1, 2] and model.dim == 32
    assert lvm.load_corpus(tmp_path / "run" / "small.safetensors").texts == small_corpus.texts
    with pytest.raises(IOFailed, match="already holds a run"):
        lvm.train("amn", small_corpus, out=tmp_path / "run")
    report = lvm.evaluate(model, small_corpus)
    result = report.to_dict()
    assert report.verdict == result["verdict"]["sentence"] and report.verdict in str(report)
    table = [line.split() for line in str(report).splitlines()]
    row = next(cells for cells in table if cells[:1] == [model.name] and cells[1][:2] == "0.")
    assert row[1] == f"{result['metrics'][model.name]['cosine']:.4f}"
    saved = report.save(tmp_path / "report")
    assert json.loads((saved / "metrics.json").read_text("utf-8"))["model"] == model.name
    again = lvm.load(model.save(tmp_path / "exported"))
    read = small_corpus[small_corpus.names[1]].vectors[:7]
    assert np.array_equal(again.predict(read), model.predict(read))
    compared = lvm.compare(model, again, corpus=small_corpus)
    assert [round(row["cosine"], 6) for row in compared.rows] == [
        round(result["metrics"][model.name]["cosine"], 6)
    ] * 2
    assert "| model |" in compared.markdown() and "baseline" in str(compared)
    written = lvm.export(model, tmp_path / "measured", corpus=small_corpus)
    assert written["evaluation"]["verdict"]["sentence"] == report.verdict.replace(model.name, "amn")


def test_texts_become_documents(minilm_folder: Path, tmp_path: Path) -> None:
    texts = {"sea": "The tide came in. The boats left the harbour.", "tax": "The rate rises in March."}
    corpus = lvm.embed(texts, encoder=str(minilm_folder))
    assert corpus.names == ("sea", "tax") and corpus.dim == 384 and corpus["sea"].texts == [texts["sea"]]
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    read = lvm.embed(str(tmp_path), encoder=str(minilm_folder), out=tmp_path / "kept.safetensors")
    assert read.names == corpus.names and lvm.load_corpus(tmp_path / "kept.safetensors").texts == corpus.texts
    assert_allclose(read.vectors, corpus.vectors, atol=5e-3)  # kept in eight bits
    listed = lvm.embed(list(texts.values()), encoder=str(minilm_folder))
    assert listed.names == ("text-1", "text-2") and np.array_equal(listed.vectors, corpus.vectors)


def test_no_probabilities_without_validation_documents(sotu_corpus: lvm.Corpus) -> None:
    few = lvm.Corpus.from_arrays(
        sotu_corpus[SPEECH].vectors[:20], ["only"] * 20, encoder=sotu_corpus.encoder, name="few"
    )
    hits = lvm.load("amn").rank(sotu_corpus[SPEECH].vectors[:6], few, top=2)
    assert all(math.isnan(hit.probability) for hit in hits) and hits[0].chunk > 5


PROGRAM = """
import numpy as np
import mlx_lvm as lvm

corpus: lvm.Corpus = lvm.load_corpus("sotu")
speech = corpus["2016_barack_obama_d"]
model = lvm.load("emn-rank")
for hit in model.rank(speech.vectors[:30], corpus, top=3):
    print(f"{hit.probability:.1%}  {hit.text[:60]}")
mine: lvm.Model = lvm.train("emn", corpus, seed=1)
report = lvm.evaluate(mine, corpus)
sentence: str = report.verdict
ahead: np.ndarray = mine.rollout(speech.vectors, 4)
best: float = lvm.compare(mine, "amn", corpus="sotu").rows[0]["cosine"]
print(report, lvm.embed(["notes/"]).texts[0].upper(), lvm.export(mine, "out")["sha256"])
"""


@pytest.mark.slow
def test_a_program_is_checked_strictly(tmp_path: Path) -> None:
    """mypy --strict on a user's program: it passes, and finds an argument of the wrong kind."""
    root = Path(lvm.__file__).parent.parent
    (tmp_path / "mlx_lvm").mkdir()
    for part in (*(root / "mlx_lvm").iterdir(), root / "parity", root / "cli", root / "weights"):
        (tmp_path / "mlx_lvm" / part.name).symlink_to(part)
    wrong = PROGRAM.replace("steps, 4", "x").replace("top=3", 'top="three"') + "speech.vektors\n"
    outputs = []
    for text in (PROGRAM, wrong):
        (tmp_path / "program.py").write_text(text, "utf-8")
        command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"]
        command += ["--cache-dir", str(tmp_path / "cache")]
        outputs.append(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout)
    assert outputs[0].startswith("Success"), outputs[0]
    assert '"Document" has no attribute "vektors"' in outputs[1] and 'expected "int"' in outputs[1]
