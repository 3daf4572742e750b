"""Export: a folder that torch loads strictly, the same bytes every time, and a golden pair that noise does
not pass.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import InvalidFile, IOFailed, UsageError
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.export import export
from mlx_lvm.hub.load import load_model
from mlx_lvm.ranking.fusion import Ranking
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run

SIZES = {"attention_dim": 8, "hidden_dim": 16}


@pytest.fixture(scope="module")
def run(small_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "amn"
    config = TrainConfig(corpus=str(small_file), epochs=2, lr=3e-3, residual_init="torch")
    start_run("amn", SIZES, config, folder).train()
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "amn"
    export(run, folder)
    return folder


def test_torch_loads_it_strictly_and_answers_the_same(exported: Path, run: Path, small: Corpus) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    from safetensors.torch import load_file

    from mlx_lvm.parity.twins.amn import AMN

    twin = AMN({"dim": 32, **SIZES}).eval()
    twin.load_state_dict(load_file(exported / "model.safetensors"), strict=True)
    contexts = small.numpy(np.arange(60)).reshape(12, 5, 32)
    with torch.no_grad():
        theirs = twin(torch.tensor(contexts)).unit.numpy()
    ours = np.array(load_model(exported).model(mx.array(contexts)).unit)
    np.testing.assert_allclose(
        ours, theirs, atol=1e-5
    )  # LayerNorm over 8 nearly equal values magnifies rounding
    assert np.abs(ours - np.array(load_model(run).model(mx.array(contexts)).unit)).max() == 0


def test_the_same_bytes_again_also_from_the_export(exported: Path, run: Path, tmp_path: Path) -> None:
    corpus = json.loads((run / "config.json").read_text())["train"]["corpus"]
    for name, source in (("again", run), ("second", exported)):
        export(source, tmp_path / name, corpus=corpus)
        for file in ("model.safetensors", "config.json", "README.md"):
            assert (tmp_path / name / file).read_bytes() == (exported / file).read_bytes(), (name, file)


def test_it_carries_its_ranking(exported: Path, run: Path, small: Corpus, tmp_path: Path) -> None:
    """The one that an evaluation fits on the validation documents; kept where nothing is measured, checked
    where it is used.
    """
    loaded = load_model(exported)
    found = Ranking.from_dict(loaded.ranking)
    assert found == examine(loaded, small).ranking and found.corpus_sha256 == small.sha256
    assert load_model(run).ranking == {}
    export(exported, tmp_path / "kept", measure=False)
    assert load_model(tmp_path / "kept").ranking == loaded.ranking
    assert "| amn + hybrid |" in (exported / "README.md").read_text()


def test_the_card_carries_the_measured_table(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    table = ("| **amn** |", "| lag-filter |", "| ridge |", "| oracle | 1.0000", "95% intervals")
    for words in (*table, "lvm eval", "load_state_dict", "sha256"):
        assert words in card, words


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_says_what_it_costs(run: Path, tmp_path: Path, small: Corpus, dtype: str) -> None:
    corpus = json.loads((run / "config.json").read_text())["train"]["corpus"]
    export(run, tmp_path / "half", dtype=dtype, corpus=corpus)
    with safe_open(tmp_path / "half/model.safetensors", "numpy" if dtype == "float16" else "mlx") as file:
        names = list(file.keys())
        stored = {file.get_slice(name).get_dtype() for name in names}
        assert stored == {"F16" if dtype == "float16" else "BF16"}
    assert (
        f"Storing the weights in {dtype} changes the cosine by" in (tmp_path / "half/README.md").read_text()
    )
    full, half = load_model(run).model.weights(), load_model(tmp_path / "half").model.weights()
    for name, value in full.items():
        rounded = value.astype({"float16": mx.float16, "bfloat16": mx.bfloat16}[dtype]).astype(mx.float32)
        assert mx.array_equal(half[name], rounded), name


@pytest.mark.slow
def test_a_fitted_filter_is_a_model_like_any_other(
    lvm: Callable, small_file: Path, small: Corpus, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    from safetensors.torch import load_file

    from mlx_lvm.data.splits import split_corpus
    from mlx_lvm.data.windows import windows
    from mlx_lvm.parity.twins.filter import Filter
    from mlx_lvm.predictors.lags import fit_lag_filter

    ran = lvm(
        "export", "lag-filter", "--corpus", small_file, "--context", 4, "--out", tmp_path / "f", "--json"
    )
    assert json.loads(ran.out)["parameters"] == 4 + 32 + 1
    card = (tmp_path / "f" / "README.md").read_text()
    assert "Passed" in card and '"closed_form": "lag-filter"' in card and "| **filter** |" in card
    twin = Filter(json.loads((tmp_path / "f" / "config.json").read_text())).eval()
    twin.load_state_dict(load_file(tmp_path / "f" / "model.safetensors"), strict=True)
    parts = split_corpus(small)
    test = windows(small, parts.test, 4)
    expected = np.array(fit_lag_filter(small, parts.train, 4).predict(test))
    with torch.no_grad():
        theirs = twin(torch.from_numpy(np.array(test.contexts()))).raw.numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-6)
    found = json.loads(lvm("eval", tmp_path / "f", "--corpus", small_file, "--quick", "--json").out)[
        "metrics"
    ]
    assert abs(found["f"]["cosine"] - found["lag-filter"]["cosine"]) < 1e-6
    assert lvm("export", "ridge", "--corpus", small_file, "--out", tmp_path / "r").code == 2


def test_overwriting_is_asked_for(exported: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep")
    with pytest.raises(IOFailed, match="--overwrite"):
        export(run, tmp_path / "out", measure=False)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]
    export(run, tmp_path / "out", measure=False, overwrite=True)
    assert (tmp_path / "out/mine.txt").read_text() == "keep" and (tmp_path / "out/model.safetensors").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IOFailed, match="file is a file, not a folder"):
        export(run, tmp_path / "file" / "exported")
    # Root may write anywhere, and tests may run as root.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(IOFailed, match="cannot be written by this user"):
        export(run, tmp_path / "some" / "exported")


def test_unknown_dtype_and_model(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float8"):
        export(run, tmp_path / "x", dtype="float8")
    with pytest.raises(UsageError, match="Did you mean 'amn'"):
        load_model("amm")
    with pytest.raises(InvalidFile, match="no such file or folder"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(InvalidFile, match="neither a run"):
        load_model(tmp_path)


def rewritten(exported: Path, target: Path, change: Callable[[dict, dict], None]) -> Path:
    """A copy of the exported file with tensors or metadata changed."""
    file = open_safetensors(exported / "model.safetensors")
    tensors, metadata = {name: np.array(file.numpy(name)) for name in file.tensors}, dict(file.metadata)
    change(tensors, metadata)
    target.write_bytes(to_bytes(tensors, metadata))
    return target


def test_noise_with_the_right_names_fails_its_golden_pair(exported: Path, tmp_path: Path) -> None:
    def shuffle(tensors: dict, metadata: dict) -> None:
        tensors["residual_net.6.weight"] = tensors["residual_net.6.weight"][::-1]

    with pytest.raises(InvalidFile, match="golden"):
        load_model(rewritten(exported, tmp_path / "x.safetensors", shuffle))


def test_a_small_change_of_one_bias_fails_it_too(exported: Path, tmp_path: Path) -> None:
    def nudge(tensors: dict, metadata: dict) -> None:
        tensors["residual_net.6.bias"] = tensors["residual_net.6.bias"] + np.float32(0.01)

    with pytest.raises(InvalidFile, match="golden"):
        load_model(rewritten(exported, tmp_path / "x.safetensors", nudge))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: t.pop("query_encoder.bias"), "'query_encoder.bias' is missing"),
        (lambda t, m: t.update({"extra.weight": np.zeros(3, np.float32)}), "'extra.weight' is not part"),
        (
            lambda t, m: t.update({"query_encoder.bias": np.zeros(9, np.float32)}),
            r"shape \[9\], expected \[8\]",
        ),
        (lambda t, m: t.update({"query_encoder.bias": np.full(8, np.nan, np.float32)}), "NaN or Inf"),
        (lambda t, m: t.update({"query_encoder.bias": np.zeros(8, np.int64)}), "expected float32"),
        (lambda t, m: m.update(golden_input="%%%"), "golden pair does not parse"),
        (lambda t, m: m.update(golden_input=base64.b64encode(b"12").decode()), "golden pair does not parse"),
        (lambda t, m: m.update(mlx_lvm="{"), "does not parse"),
        (lambda t, m: m.update(mlx_lvm="[]"), "not an object"),
        (lambda t, m: m.update(mlx_lvm='{"model": {"model_type": "lstm"}}'), "missing"),
        (lambda t, m: m.update(mlx_lvm='{"model": {"model_type": "zzz"}}'), "unknown model"),
        (lambda t, m: m.update(mlx_lvm='{"model": {"model_type": "amn", "dim": -1}}'), "at least 1"),
        (lambda t, m: m.update(mlx_lvm='{"model": 3}'), "'model' is 3"),
        (
            lambda t, m: m.update(mlx_lvm=json.dumps({**json.loads(m["mlx_lvm"]), "ranking": 3})),
            "does not parse",
        ),
        (
            lambda t, m: m.update(mlx_lvm='{"model": {"model_type": "amn", "dim": 32}, "context": "x"}'),
            "does not parse",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    exported: Path, tmp_path: Path, change: Callable, words: str
) -> None:
    with pytest.raises(InvalidFile, match=words):
        load_model(rewritten(exported, tmp_path / "x.safetensors", change))


def test_a_bare_file_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "bare.safetensors").write_bytes(to_bytes({"w": np.zeros(3, np.float32)}, {}))
    with pytest.raises(InvalidFile, match="says nothing of its architecture"):
        load_model(tmp_path / "bare.safetensors")


def test_the_card_s_torch_lines_run_as_they_are(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    card = (exported / "README.md").read_text()
    code = card.split("```python\n")[2].split("```")[0].replace("FOLDER", str(exported))
    found: dict = {}
    exec(code, found)
    assert isinstance(found["model"], torch.nn.Module) and not found["model"].training


def test_no_path_of_this_machine_leaves_it(exported: Path) -> None:
    for file in exported.iterdir():
        assert (
            str(Path.home()).encode() not in file.read_bytes()
            and str(exported.parent.parent).encode() not in file.read_bytes()
        )


@pytest.mark.parametrize(
    ("sizes", "name"), [({"horizons": 2, "queries": 0.5}, "ramn"), ({"head": "retrieve"}, "ramn-retrieve")]
)
def test_a_model_of_the_document_so_far(
    small_file: Path, tmp_path: Path, small: Corpus, sizes: dict, name: str
) -> None:
    """Its card says what it reads, gives and takes; torch loads it strictly; a summary names what it was
    judged by.
    """
    torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")
    from safetensors.torch import load_file

    from mlx_lvm.parity.twins.ramn import RAMN

    config = TrainConfig(corpus=str(small_file), epochs=1, batch_size=8, lr=1e-3)
    trainer = start_run("ramn", {"rank": 8, "hidden_dim": 16, **sizes}, config, tmp_path / "run")
    trainer.train()
    export(tmp_path / "run", tmp_path / "out", dtype="float16")
    card = (tmp_path / "out/README.md").read_text()
    assert (
        f"Recency-anchored mixture network ({name})" in card
        and "the last 100 at most" in card
        and f"| **{name}** |" in card
    )
    assert ("`ahead` [batch, 2, 32]" in card) == ("A second argument, a query" in card) == (name == "ramn")
    if name == "ramn-retrieve":  # what it is not made for is in the table, not in the sentences
        assert " in MRR: " in card and " in cosine: " not in card
    else:
        assert card.index(" in cosine: ") < card.index(" in MRR: ")
    twin = RAMN(json.loads((tmp_path / "out/config.json").read_text())).eval()
    twin.load_state_dict(
        {key: value.float() for key, value in load_file(tmp_path / "out/model.safetensors").items()},
        strict=True,
    )
    contexts = small.numpy(np.arange(84)).reshape(7, 12, 32)
    with torch.no_grad():
        theirs = twin(torch.tensor(contexts)).unit.numpy()
    np.testing.assert_allclose(
        np.array(load_model(tmp_path / "out").model(mx.array(contexts)).unit), theirs, atol=1e-5
    )
