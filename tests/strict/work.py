"""What a user does in the first hour, on an emulated Mac: python tests/strict/work.py FOLDER [--without ...]

Prints one JSON object, the step that failed and why, or null; without mends one for each, taken out in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mac
from mends import MENDS, before_mlx

LARGEST = (
    1 << 16
)  # bytes of one read or write: as 2^31 - 1 to a corpus of gigabytes, so is this to a small one
SMALL = ("--epochs", 1, "--seed", 1)
AMN = ("--attention-dim", 16, "--hidden-dim", 32)
RAMN = ("--rank", 8, "--hidden-dim", 16)
SUBJECTS = ("amn", "lstm", "gru", "transformer", "ramn", "emn", "filter")
FAULTY = ("ramn", "filter"), "forward"  # subjects and checks that show a mend taken out


STEPS = (
    "corpora", "names", "shards", "merge", "embed", "train",
    "resume", "ramn", "evaluate", "predict", "export", "parity",
)  # fmt: skip


class Work:
    """Steps in order, by their names; each raises AssertionError or whatever it meets."""

    def __init__(self, folder: Path, subjects: tuple[str, ...] = SUBJECTS, checks: str = "all") -> None:
        self.folder, self.subjects, self.checks = folder, subjects, checks
        folder.mkdir(parents=True, exist_ok=True)
        self.corpus = folder / "small.safetensors"

    def lvm(self, *arguments: object) -> Any:
        """A command with --json, in this process."""
        from io import StringIO

        from mlx_lvm.cli.main import main

        sys.argv = ["lvm", *map(str, arguments), "--json"]
        out = StringIO()
        with redirect_stdout(out):
            try:
                main()
            except SystemExit as error:
                assert not error.code, f"lvm {' '.join(map(str, arguments))} ended with {error.code}"
        return json.loads(out.getvalue())

    def do(self, steps: tuple[str, ...]) -> dict[str, str | None]:
        """The step that failed and why, or null."""
        for name in steps:
            try:
                getattr(self, name)()
            except (Exception, SystemExit) as error:
                return {"step": name, "why": f"{type(error).__name__}: {error}"[:2000]}
        return {"step": None, "why": ""}

    def corpora(self) -> None:
        """Forty documents of real vectors, written, read back, converted and merged."""
        import numpy as np

        from mlx_lvm.data.card import EncoderCard
        from mlx_lvm.data.corpus import load_corpus
        from mlx_lvm.data.storage.writer import CorpusWriter

        sotu = load_corpus("sotu")
        rows = [np.arange(sotu.offsets[d], sotu.offsets[d + 1])[:24] for d in range(0, 200, 5)]
        vectors = sotu.numpy(np.concatenate(rows))[:, :32]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.names_given = [unicodedata.normalize("NFD", f"Café {k}") for k in range(len(rows))]
        offsets = np.cumsum([0, *map(len, rows)])
        card = EncoderCard("cut", dim=32)
        with CorpusWriter(self.corpus, offsets, self.names_given, card, {}, "F32", overwrite=True) as writer:
            writer.put(0, vectors)
            writer.finish()
        assert vectors.nbytes > LARGEST
        assert np.array_equal(load_corpus(self.corpus).numpy(), vectors)
        np.savez(
            self.folder / "plain.npz",
            vectors=vectors,
            article_indices=np.repeat(np.arange(len(rows)), [len(r) for r in rows]),
            chunk_indices=np.concatenate([np.arange(len(r)) for r in rows]),
        )
        self.lvm(
            "data",
            "convert",
            self.folder / "plain.npz",
            "--out",
            self.folder / "plain.safetensors",
            "--dtype",
            "f32",
        )
        assert np.array_equal(load_corpus(self.folder / "plain.safetensors").numpy(), vectors)

    def names(self) -> None:
        """Files whose names come decomposed are the documents whose names are composed."""
        from mlx_lvm.data.corpus import load_corpus
        from mlx_lvm.data.ingest.documents import list_documents, read_documents

        composed = [unicodedata.normalize("NFC", name) for name in self.names_given]
        assert list(load_corpus(self.corpus).names) == composed, "names of a corpus are decomposed"
        place = self.folder / "texts"
        place.mkdir()
        for name in self.names_given[:3]:
            (place / f"{name}.txt").write_text("A sentence. Another one.\n" * 30)
        found = sorted(name for name, _ in read_documents(list_documents([place]).files))
        assert found == sorted(composed[:3]), f"names of documents are decomposed: {found}"

    def shards(self) -> None:
        """A corpus in more files than a process may open at first."""
        from mlx_lvm.data.corpus import load_corpus

        made = self.folder / "synth.safetensors"
        self.lvm(
            "data",
            "synth",
            "--documents",
            300,
            "--min-chunks",
            6,
            "--max-chunks",
            6,
            "--dim",
            8,
            "--out",
            made,
        )
        self.lvm("data", "subset", made, "--shard-size", "100", "--out", self.folder / "shards")
        assert len(list((self.folder / "shards").glob("*.safetensors"))) > 200
        assert len(load_corpus(self.folder / "shards")) == 1800

    def merge(self) -> None:
        """Two corpora of one encoder in one file."""
        from mlx_lvm.data.corpus import load_corpus

        made = self.folder / "merged.safetensors"
        parts = [self.folder / "cut-0.safetensors", self.folder / "cut-1.safetensors"]
        for seed, part in enumerate(parts):
            size = ("--documents", 8, "--dim", 8, "--seed", seed)
            self.lvm("data", "synth", *size, "--out", part)
        self.lvm("data", "merge", *parts, "--prefix", "--same-encoder", "--out", made)
        assert len(load_corpus(made)) == sum(len(load_corpus(part)) for part in parts)

    def embed(self) -> None:
        """Texts to a corpus, by a random encoder."""
        from mlx_lvm.data.corpus import load_corpus
        from mlx_lvm.parity.encoders.small import write_small

        encoder, texts = write_small(self.folder / "encoder", "bert", 0), self.folder / "notes"
        texts.mkdir()
        for name in self.names_given[:2]:
            (texts / f"{name}.txt").write_text("A sentence of some words. Another one.\n" * 60)
        made = self.folder / "notes.safetensors"
        self.lvm("embed", texts, "--encoder", encoder, "--out", made)
        assert len(load_corpus(made).names) == 2

    def train(self) -> None:
        self.run = self.folder / "amn"
        self.lvm("train", "amn", "--corpus", self.corpus, *SMALL, *AMN, "--out", self.run)
        conditions = json.loads((self.run / "config.json").read_text())["conditions"]
        assert conditions["products"] == "float32", f"trained with products of {conditions['products']}"
        assert conditions["device"] == "gpu"

    def resume(self) -> None:
        self.lvm("train", "--resume", self.run, "--epochs", 2, "--force")

    def ramn(self) -> None:
        self.lvm("train", "ramn", "--corpus", self.corpus, *SMALL, *RAMN, "--out", self.folder / "ramn")

    def evaluate(self) -> None:
        self.lvm("eval", "amn", "--quick")
        self.lvm("eval", self.folder / "ramn", "--corpus", self.corpus, "--quick")

    def predict(self) -> None:
        self.lvm("predict", "amn", "--document", "0")

    def export(self) -> None:
        self.lvm("export", self.run, "--out", self.folder / "exported")
        self.lvm("parity", self.folder / "exported", "--check", "weights,forward")

    def parity(self) -> None:
        """Every check at small sizes."""
        from dataclasses import replace

        from mlx_lvm.models import architecture
        from mlx_lvm.parity import run as parity

        parity._small_variants = lambda subject, plan: iter(())  # type: ignore[assignment] (they are small as they are)
        drawn = [
            replace(parity.Subject.drawn(parity.small(architecture(name).config_class()), 0), name=name)
            for name in self.subjects
        ]
        report = parity.run(drawn, parity.Plan(checks=parity.parse_checks(self.checks), seeds=1))
        worst = max((check.ratio for check in report.checks), default=0.0)
        failed = [check.name for check in report.failures]
        assert not failed, f"parity: {len(failed)} of {len(report.checks):,} failed, {failed[:3]}"
        assert worst <= 6, f"parity: a ratio of {worst:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", nargs="+", default=[], choices=MENDS)
    given = parser.parse_args()
    before_mlx(given.without)
    mac.install(LARGEST)
    from mlx_lvm.core.files import disk

    assert disk.SLICE <= mac.LARGEST, "reads and writes are not sliced below 2^31 - 1 bytes"
    disk.SLICE = LARGEST
    if not given.without:
        print(json.dumps(Work(given.folder).do(STEPS)))
        return
    import mlx_lvm.cli.models.train
    import mlx_lvm.data.convert.convert
    import mlx_lvm.data.ingest.documents  # noqa: F401 (what takes names in by then)

    for name in given.without:
        mac.few_files()
        with MENDS[name].out():
            found = Work(given.folder / name, *FAULTY).do(MENDS[name].steps)
        print(json.dumps({"mend": name, **found}), flush=True)


if __name__ == "__main__":
    main()
