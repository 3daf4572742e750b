"""`lvm parity encoder` on small encoders and on all-MiniLM-L6-v2, and the faults that it must see."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers")

from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.parity.encoders.cases import cases, shipped_chunks
from mlx_lvm.parity.encoders.examine import Examination
from mlx_lvm.parity.encoders.faults import FAULTS
from mlx_lvm.parity.encoders.run import plant, run
from mlx_lvm.parity.encoders.small import write_small
from mlx_lvm.parity.report.table import describe

Lvm = Callable[..., Any]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # of libraries that are not ours
MINE = {  # what even a quick run plants: each has a place of its own
    "another epsilon in the norms",
    "GELU by its tanh approximation",
    "padding is looked at a little",
    "the mean taken over padding too",
    "texts cut one token early",
}


@pytest.mark.parametrize(("dtype", "seeds"), [("float32", 2), ("bfloat16", 1), ("float16", 1)])
def test_small_encoders_are_equivalent(dtype: str, seeds: int) -> None:
    report = run(None, dtype, seeds)
    assert report.passed, [describe(check) for check in report.failures[:5]]


@pytest.mark.parametrize(("kind", "seed"), [("bert", 0), ("mpnet", 0), ("t5", 0), ("t5", 1)])
def test_planted_faults_are_caught_and_blamed(tmp_path: Path, kind: str, seed: int) -> None:
    examination = Examination(write_small(tmp_path / "encoder", kind, seed), cases())
    encoder = TextEncoder.load(examination.folder)
    outcomes = [plant(fault, examination) for fault in FAULTS if fault.fits(encoder)]
    assert len(outcomes) >= 12
    missed = [(o.fault.name, o.place, o.fault.expect) for o in outcomes if not (o.caught and o.blamed)]
    assert not missed
    assert all(check.passed for check in examination.checks(encoder))  # nothing stays planted


def test_every_fault_fits_some_small_encoder(tmp_path: Path) -> None:
    encoders = [
        TextEncoder.load(write_small(tmp_path / f"{kind}{seed}", kind, seed))
        for kind in ("bert", "mpnet", "t5")
        for seed in range(3)
    ]
    assert [fault.name for fault in FAULTS if not any(map(fault.fits, encoders))] == []


def test_minilm_is_equivalent_and_its_faults_are_seen(minilm_folder: Path) -> None:
    examination = Examination(minilm_folder, cases(shipped_chunks(2)))
    encoder = TextEncoder.load(minilm_folder)
    failures = [describe(check) for check in examination.checks(encoder) if not check.passed]
    assert not failures
    for fault in FAULTS:
        if fault.name in MINE:
            outcome = plant(fault, examination)
            assert outcome.caught and outcome.blamed, (fault.name, outcome.place)


def test_the_command(lvm: Lvm, tmp_path: Path) -> None:
    folder = write_small(tmp_path / "encoder", "mpnet", 0)
    ran = lvm("parity", "encoder", folder, "--seeds", 0, "--json", "--out", tmp_path / "out")
    result = json.loads(ran.out)
    assert ran.code == 0 and result["passed"] and result["compared"] > 50
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["passed"]


def test_the_command_names_what_it_cannot_read(lvm: Lvm, tmp_path: Path) -> None:
    assert lvm("parity", "encoder", tmp_path / "none").code == 3
    config = write_small(tmp_path / "encoder", "bert", 0) / "config.json"
    config.write_text(config.read_text().replace('"bert"', '"roberta"'))
    ran = lvm("parity", "encoder", config.parent)
    assert ran.code == 3 and "--engine torch" in ran.err
    assert lvm("parity", "encoder", "--dtype", "float8").code == 2
