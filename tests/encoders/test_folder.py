"""Folders that are read as they are, and those that are refused, with what is wrong and the remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core.files.safetensors import open_safetensors, to_bytes
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.encoders.folder import read_folder
from mlx_lvm.errors import InvalidFile

Small = Callable[[str, int], Path]


@pytest.fixture
def folder(small: Small, tmp_path: Path) -> Path:
    shutil.copytree(small("bert", 0), tmp_path / "encoder")
    return tmp_path / "encoder"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    tensors = {name: np.array(value) for name, value in open_safetensors(path).arrays().items()}
    path.write_bytes(to_bytes(change(tensors), {}))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("config.json", {"model_type": "roberta"}, "'roberta' is not one of bert, mpnet, t5.*--engine torch"),
        (
            "config.json",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type.*--engine torch",
        ),
        ("config.json", {"hidden_act": "silu"}, "hidden_act = 'silu'"),
        ("config.json", {"num_attention_heads": 7}, "does not divide into 7 heads"),
        ("config.json", {"hidden_size": 32}, "config.json says"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "lasttoken; here are cls, max, mean"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.SiLU"}, "activation SiLU"),
        ("2_Dense/config.json", {"use_residual": True}, "residual.*--engine torch"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "at most 'long' tokens"),
        ("sentence_bert_config.json", {"max_seq_length": 2}, "at most 2 tokens, of which 2 are special"),
        ("config.json", {"vocab_size": 9}, "shape .* config.json says"),
    ],
)
def test_what_is_not_computed_here_is_refused(
    folder: Path, file: str, values: dict[str, Any], said: str
) -> None:
    change(folder / file, **values)
    with pytest.raises(InvalidFile, match=said):
        TextEncoder.load(folder)


def test_modules_of_other_kinds_are_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    for number, kind, said in (
        (0, "StaticEmbedding", "module 0 is StaticEmbedding"),
        (1, "LSTM", "--engine torch"),
    ):
        changed = [dict(entry) for entry in modules]
        changed[number]["type"] = f"sentence_transformers.models.{kind}"
        (folder / "modules.json").write_text(json.dumps(changed))
        with pytest.raises(InvalidFile, match=said):
            read_folder(folder)
    modules[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InvalidFile, match="outside of the folder"):
        read_folder(folder)


def test_every_tensor_that_does_not_fit_is_named(folder: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> dict[str, Any]:
        del tensors["encoder.layer.0.output.dense.bias"]
        return tensors | {"adapter.weight": np.zeros(3, np.float32)}

    rewrite(folder, spoil)
    with pytest.raises(InvalidFile) as caught:
        TextEncoder.load(folder)
    assert "adapter.weight" in str(caught.value) and "no tensor 'encoder.layer.0.output.dense.bias'" in str(
        caught.value
    )


def test_a_head_and_its_prefix_are_left_out(folder: Path, small: Small) -> None:
    head = {"cls.predictions.bias": np.zeros(3, np.float32)}
    rewrite(folder, lambda tensors: head | {f"bert.{name}": value for name, value in tensors.items()})
    texts = ["the whale", "money"]
    np.testing.assert_array_equal(
        TextEncoder.load(folder).encode(texts), TextEncoder.load(small("bert", 0)).encode(texts)
    )


def test_shards_are_read_through_their_index(folder: Path, small: Small) -> None:
    tensors = {n: np.array(v) for n, v in open_safetensors(folder / "model.safetensors").arrays().items()}
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(names)}
    for part in set(where.values()):
        (folder / part).write_bytes(
            to_bytes({name: tensors[name] for name in names if where[name] == part}, {})
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    texts = ["the whale", "money"]
    np.testing.assert_array_equal(
        TextEncoder.load(folder).encode(texts), TextEncoder.load(small("bert", 0)).encode(texts)
    )


def test_weights_that_only_a_pickle_holds(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InvalidFile, match=r"is a pickle: --engine torch"):
        TextEncoder.load(folder)


def test_ids_past_the_table_are_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(dict(tokenizer["added_tokens"][0], id=5000, content="<new>"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(InvalidFile, match=r"ids up to \d+, the model \d+ rows"):
        TextEncoder.load(folder)


def test_the_longest_text(folder: Path) -> None:
    assert read_folder(folder).max_tokens == 40
    change(folder / "sentence_bert_config.json", max_seq_length=1000)
    assert read_folder(folder).max_tokens == 40  # no more than there are positions
    change(folder / "sentence_bert_config.json", max_seq_length=None)
    change(folder / "tokenizer_config.json", model_max_length=17)
    assert read_folder(folder).max_tokens == 17


def test_without_modules_vectors_are_averaged(folder: Path) -> None:
    (folder / "modules.json").unlink()
    found = read_folder(folder)
    assert found.pooling.modes == ("mean",) and not found.denses


@pytest.mark.parametrize("spoiled", ["", "{", "[1, 2", "\x00"])
@pytest.mark.parametrize("file", ["config.json", "modules.json", "tokenizer.json", "1_Pooling/config.json"])
def test_damaged_files_are_named(folder: Path, file: str, spoiled: str) -> None:
    (folder / file).write_text(spoiled)
    with pytest.raises(InvalidFile, match=file.rpartition("/")[2]):
        TextEncoder.load(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no such folder"):
        TextEncoder.load(tmp_path / "nothing")
