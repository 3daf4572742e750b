"""Torch checkpoints in every shape they come in, the round trip to the byte, and what is refused."""

import argparse
import collections
import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, UsageError
from mlx_lvm.evaluation.export import export
from mlx_lvm.hub.importing import infer, to_model
from mlx_lvm.hub.load import load_model
from mlx_lvm.models import architecture, build

torch = pytest.importorskip("torch", reason="torch is the reference: pip install 'mlx-lvm[parity]'")

SIZES = {
    "amn": {"dim": 24, "attention_dim": 8, "hidden_dim": 12},
    "lstm": {"dim": 24, "hidden_dim": 8, "layers": 3},
    "gru": {"dim": 24, "hidden_dim": 8, "layers": 2},
    "transformer": {"dim": 24, "hidden_dim": 16, "layers": 2, "heads": 4, "ffn_dim": 20},
}


def twin_of(name: str) -> "torch.nn.Module":
    from mlx_lvm.parity.twins import twin_class

    torch.manual_seed(3)
    return twin_class(name)(architecture(name).config_class.from_dict(SIZES[name])).eval()


def answers(folder: Path, twin: "torch.nn.Module") -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 24)).astype(np.float32)
    with torch.no_grad():
        expected = twin(torch.tensor(x)).unit.numpy()
    np.testing.assert_allclose(np.array(load_model(folder).model(mx.array(x)).unit), expected, atol=1e-5)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind", ["bare", "checkpoint", "wrapped", "safetensors"])
def test_a_torch_file_becomes_a_model(lvm: Callable, tmp_path: Path, name: str, kind: str) -> None:
    twin = twin_of(name)
    state = twin.state_dict()
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    elif kind == "checkpoint":
        torch.save(
            {
                "epoch": 7,
                "model_type": name,
                "model_state_dict": state,
                "optimizer_state_dict": {"state": {}, "param_groups": []},
                "val_loss": np.float64(0.25),
                "val_cosine": 0.6,
                "model_config": {**SIZES[name], "num_heads": 4},
                "args": argparse.Namespace(lr=1e-3, out="x"),
            },
            path,
        )
    else:
        torch.save(
            state if kind == "bare" else {f"module.{key}": value for key, value in state.items()}, path
        )
    heads = ["--heads", 4] if name == "transformer" and kind != "checkpoint" else []
    out = lvm("import", path, "--out", tmp_path / "model", *heads, "--json")
    assert out.code == 0, out.err
    said = json.loads(out.out)
    assert said["model"] == name and said["parameters"] == sum(p.numel() for p in twin.parameters())
    answers(tmp_path / "model", twin)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_round_trip_gives_the_same_bytes(lvm: Callable, tmp_path: Path, dtype: str) -> None:
    torch.save(twin_of("lstm").state_dict(), tmp_path / "x.pt")
    assert lvm("import", tmp_path / "x.pt", "--out", tmp_path / "a").code == 0
    export(tmp_path / "a", tmp_path / "b", dtype=dtype, measure=False)
    assert lvm("import", tmp_path / "b/model.safetensors", "--out", tmp_path / "c").code == 0
    assert (tmp_path / "b/model.safetensors").read_bytes() == (tmp_path / "c/model.safetensors").read_bytes()


def test_every_mismatch_is_listed_and_nothing_written(lvm: Callable, tmp_path: Path) -> None:
    state = twin_of("amn").state_dict()
    state["query_encoder.bias"] = torch.zeros(9)
    state["surplus"] = torch.zeros(2)
    del state["residual_net.5.bias"]
    torch.save(state, tmp_path / "x.pt")
    out = lvm("import", tmp_path / "x.pt", "--out", tmp_path / "model")
    assert out.code == 3 and not (tmp_path / "model").exists()
    for words in (
        "3 problems",
        "'query_encoder.bias' has shape [9], expected [8]",
        "'surplus' is not part",
        "'residual_net.5.bias' is missing",
    ):
        assert words in out.err, out.err


def test_a_table_that_is_not_the_architectures_own(tmp_path: Path) -> None:
    model = build(architecture("transformer").config_class.from_dict(SIZES["transformer"]))
    state = {**model.weights(), "pos_encoder.pe": model.buffers()["pos_encoder.pe"] * 1.1}
    with pytest.raises(InvalidFile, match=r"pos_encoder\.pe"):
        to_model(state, {}, None, {"heads": 4}, "x")


def test_heads_are_asked_for(lvm: Callable, tmp_path: Path) -> None:
    torch.save(twin_of("transformer").state_dict(), tmp_path / "x.pt")
    out = lvm("import", tmp_path / "x.pt", "--out", tmp_path / "model")
    assert out.code == 2 and "--heads" in out.err


def test_what_fits_two_architectures_is_asked_about() -> None:
    both = {
        **build(architecture("amn").config_class.from_dict(SIZES["amn"])).weights(),
        **build(architecture("lstm").config_class.from_dict(SIZES["lstm"])).weights(),
    }
    with pytest.raises(UsageError, match="amn and lstm; say which with --model"):
        infer(both)
    assert infer(both, "lstm").to_dict()["layers"] == 3


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.write_text, (Path("evil.txt"), "ran"))


@pytest.mark.parametrize("content", ["pickle", "garbage", "empty", "list", "numbers", "none"])
def test_what_is_no_checkpoint_is_refused_and_never_run(
    lvm: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    if content == "pickle":
        torch.save({"model_state_dict": twin_of("amn").state_dict(), "args": Evil()}, path)
    elif content == "list":
        torch.save([torch.zeros(3)], path)
    elif content == "numbers":
        torch.save({"epoch": 3}, path)
    elif content == "garbage":
        path.write_bytes(b"\x80\x02not a pickle" * 20)
    elif content == "empty":
        path.write_bytes(b"")
    out = lvm("import", path, "--out", tmp_path / "model")
    assert out.code == 3 and str(path) in out.err, out.err
    assert not (tmp_path / "evil.txt").exists() and not (tmp_path / "model").exists()


HARMLESS = {
    "numpy scalars": {"best": np.float64(0.5), "n": np.int64(3), "ok": np.bool_(True), "f": np.float32(1)},
    "a numpy array": {"a": np.arange(3.0)},
    "random states": {"np": np.random.RandomState(0).get_state(), "torch": torch.get_rng_state()},
    "a path": {"p": Path("x"), "q": [Path("y")]},
    "a defaultdict": {"d": collections.defaultdict(list, a=[1]), "c": collections.Counter("ab")},
    "a namespace": {"args": argparse.Namespace(lr=1, out=Path("x")), "when": datetime.date(2024, 1, 1)},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_plain_data_beside_the_weights(lvm: Callable, tmp_path: Path, what: str) -> None:
    twin = twin_of("lstm")
    torch.save({"model_state_dict": twin.state_dict(), **HARMLESS[what]}, tmp_path / "x.pt")
    ran = lvm("import", tmp_path / "x.pt", "--out", tmp_path / "m")
    assert ran.code == 0, ran.err
    answers(tmp_path / "m", twin)


class Stranger:
    """Something that only unpickling would rebuild."""


def test_what_is_not_plain_data_is_named(tmp_path: Path) -> None:
    from mlx_lvm.parity.checkpoint import read_checkpoint

    torch.save({"model_state_dict": twin_of("lstm").state_dict(), "s": Stranger()}, tmp_path / "x.pt")
    with pytest.raises(InvalidFile, match=r"objects of .*Stranger.*torch\.save\(model\.state_dict"):
        read_checkpoint(tmp_path / "x.pt")


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


WRAPPED = {
    "an averaged model": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(3)},
    "a wrapper with metrics": lambda s: {**prefixed(s, "net."), "metrics.mrr.total": torch.tensor(1.0)},
    "deep": lambda s: prefixed(s, "module.core.encoder."),
    "metrics beside it": lambda s: {**s, "accuracy.total": torch.tensor(1.0)},
    "an average beside it": lambda s: {**prefixed(s, "model."), **prefixed(s, "ema.")},
    "a named entry": lambda s: {"ema_state_dict": s, "optimizer": {"state": {"m": torch.ones(3)}}},
    "an entry of an unknown name": lambda s: {"step": 3, "payload": {"student": s}},
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_any_wrapper_that_one_architecture_fits_under(
    lvm: Callable, tmp_path: Path, how: str, name: str
) -> None:
    twin = twin_of(name)
    torch.save(WRAPPED[how](dict(twin.state_dict())), tmp_path / "x.pt")
    ran = lvm(
        "import",
        tmp_path / "x.pt",
        "--out",
        tmp_path / "m",
        *(["--heads", 4] if name == "transformer" else []),
    )
    assert ran.code == 0, ran.err
    answers(tmp_path / "m", twin)
    for left in ("n_averaged", "metrics.mrr.total", "accuracy.total"):
        assert (left in ran.out) == (left in WRAPPED[how](dict(twin.state_dict())))


def test_models_under_several_prefixes_are_asked_about(lvm: Callable, tmp_path: Path) -> None:
    state = twin_of("lstm").state_dict()
    torch.save({**prefixed(state, "a."), **prefixed(state, "b.")}, tmp_path / "x.pt")
    assert "'a.' and 'b.'" in lvm("import", tmp_path / "x.pt", "--out", tmp_path / "m").err


@pytest.mark.parametrize("layout", ["one file", "shards", "bin"])
def test_folders_of_the_hub(lvm: Callable, tmp_path: Path, layout: str) -> None:
    from safetensors.torch import save_file

    twin, hub = twin_of("transformer"), tmp_path / "hub"
    hub.mkdir()
    state = dict(twin.state_dict())
    (hub / "config.json").write_text(json.dumps({"model_type": "transformer", **SIZES["transformer"]}))
    if layout == "one file":
        save_file(state, hub / "model.safetensors")
    elif layout == "bin":
        torch.save(state, hub / "pytorch_model.bin")
    else:
        names = sorted(state)
        halves = {f"model-0000{k}-of-00002.safetensors": names[k - 1 :: 2] for k in (1, 2)}
        for file, held in halves.items():
            save_file({name: state[name] for name in held}, hub / file)
        index = {name: file for file, held in halves.items() for name in held}
        (hub / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    ran = lvm("import", hub, "--out", tmp_path / "m")
    assert ran.code == 0, ran.err
    answers(tmp_path / "m", twin)
