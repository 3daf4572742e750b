"""Vectors to text by a real inverter of vec2text, made and trained here; and every refusal, which needs no
vec2text.

The inverter knows sixteen sentences by heart, so that what it must write is known. It is loaded by vec2text's
own code.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core.files.safetensors import to_bytes
from mlx_lvm.data.card import PROBE_SENTENCES, EncoderCard
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.errors import InvalidFile, SetupInvalid, UsageError
from mlx_lvm.ranking import decode
from mlx_lvm.ranking.decode import Inverter, made_for

pytestmark = pytest.mark.filterwarnings("default")  # of libraries that are not ours
Lvm = Callable[..., Any]
# From the working folder: vec2text reads what begins so by sentence-transformers, anything else by
# transformers and its own mean.
ENCODER, BARE = "sentence-transformers/tiny", "bare/tiny"
DIM = 32
SIZES = {
    "num_layers": 1,
    "num_heads": 2,
    "d_model": DIM,
    "d_kv": 16,
    "d_ff": 64,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}
RECORDED = {  # of what vec2text writes into an inverter's config, all that its loading reads
    "embedder_model_api": None,
    "embedder_torch_dtype": "float32",
    "embedder_fake_with_zeros": False,
    "embedder_no_grad": True,
    "embeddings_from_layer_n": None,
    "encoder_dropout_disabled": False,
    "decoder_dropout_disabled": False,
    "use_frozen_embeddings_as_input": True,
    "use_lora": False,
    "max_seq_length": 32,
    "num_repeat_tokens": 4,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an encoder, a corpus that it embedded, and inverters: by both ways to the encoder, and of
    one of the same name.
    """
    try:
        decode.require_extra()
    except SetupInvalid as missing:
        pytest.skip(str(missing))
    root = tmp_path_factory.mktemp("inverter")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        make_parts()
        make_corpus()
        trained = train(inverter(ENCODER))
        trained.save_pretrained("inverter")
        for name, encoder in (("inverter-bare", BARE), ("inverter-other", "other/tiny")):
            model = inverter(encoder)
            for part in ("encoder_decoder", "embedding_transform"):
                getattr(model, part).load_state_dict(getattr(trained, part).state_dict())
            model.save_pretrained(name)
    return root


def make_parts() -> None:
    """Two encoders and a T5 of random weights that share a tokenizer of whole words."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        DistilBertConfig,
        DistilBertModel,
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
    )

    rule = pre_tokenizers.Whitespace()
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        *sorted({word for text in PROBE_SENTENCES for word, _ in rule.pre_tokenize_str(text)}),
    ]
    tokens = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    tokens.pre_tokenizer = rule
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        **marks,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    sizes = {"max_position_embeddings": 64, "dim": DIM, "hidden_dim": DIM, "n_layers": 1, "n_heads": 2}
    encoder = DistilBertConfig(len(words), **sizes, initializer_range=0.5)  # so that sentences lie apart
    for name in (BARE, "other/tiny", "t5"):
        model = (
            T5ForConditionalGeneration(T5Config(len(words), **SIZES))
            if name == "t5"
            else DistilBertModel(encoder)
        )
        model.save_pretrained(name)
        tokenizer.save_pretrained(name)
    SentenceTransformer(
        modules=[modules.Transformer(BARE, max_seq_length=64), modules.Pooling(DIM, "mean")]
    ).save(ENCODER)


def make_corpus() -> None:
    from mlx_lvm.data.ingest.torch_encoder import SentenceEncoder

    encoder = SentenceEncoder(ENCODER, "cpu")
    with CorpusWriter(
        Path("corpus.safetensors"), np.array([0, 8, 16]), ["a", "b"], encoder.card, {}, "F32"
    ) as writer:
        writer.put(0, encoder.encode(PROBE_SENTENCES))
        writer.finish(list(PROBE_SENTENCES))


def inverter(encoder: str, **config: Any) -> Any:
    from vec2text.models import InversionModel
    from vec2text.models.config import InversionConfig

    return InversionModel(
        InversionConfig(model_name_or_path="t5", embedder_model_name=encoder, **{**RECORDED, **config})
    )


def train(model: Any) -> Any:
    """Three hundred steps on the sixteen sentences, with vectors of the length that the encoder gives
    them.
    """
    import torch

    model.eval()
    texts = model.tokenizer(list(PROBE_SENTENCES), padding=True, return_tensors="pt")
    labels = texts["input_ids"].masked_fill(texts["attention_mask"] == 0, -100)
    vectors = model.call_embedding_model(
        input_ids=texts["input_ids"], attention_mask=texts["attention_mask"]
    ).detach()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model(None, None, labels=labels, frozen_embeddings=vectors).loss.backward()
        optimizer.step()
    return model


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def words(text: str) -> str:
    """As the tokenizer puts it: no case lost, a space between words and marks."""
    from tokenizers import pre_tokenizers

    return " ".join(word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text))


@pytest.mark.parametrize("name", ["inverter", "inverter-bare"])
def test_every_vector_becomes_its_sentence(here: Path, name: str) -> None:
    corpus = load_corpus("corpus.safetensors")
    found = Inverter(name, corpus).decode(corpus.numpy())
    assert [one["text"] for one in found] == [words(text) for text in PROBE_SENTENCES]
    np.testing.assert_allclose([one["cosine"] for one in found], 1, atol=1e-5)
    turned = Inverter(name, corpus).decode(-corpus.numpy())
    assert all(one["cosine"] < 0 for one in turned)  # of the text with the vector, whatever the text


def test_predict_writes_it(here: Path, lvm: Lvm) -> None:
    place = (
        "predict",
        "last",
        "--corpus",
        "corpus.safetensors",
        "--document",
        "b",
        "--at",
        6,
        "--decode",
        "inverter-bare",
    )
    ran = lvm(*place, "--steps", 2, "--json")
    assert ran.code == 0, ran.err
    steps = json.loads(ran.out)["steps"]
    for step in steps:  # `last` predicts the last chunk again
        assert step["decoded"] == {"text": words(PROBE_SENTENCES[13]), "cosine": pytest.approx(1, abs=1e-5)}
    ran = lvm(*place)
    (line,) = (line for line in ran.out.splitlines() if line.startswith("decoded"))
    assert words(PROBE_SENTENCES[13]) in line and line.endswith("1.0000")
    assert "WARNING" not in ran.out + ran.err and "Warning" not in ran.err


def test_a_name_of_the_hub_from_its_cache(here: Path) -> None:
    """In a process of its own, which has never heard of vec2text: what it says and prints, to the end."""
    folder = here / "cache" / "hub" / "models--owner--inverter"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    shutil.copytree(here / "inverter", folder / "snapshots" / ("0" * 40))
    code = "import sys; sys.argv = ['lvm', *sys.argv[1:]]; from mlx_lvm.cli.main import main; main()"
    place = (
        "predict",
        "last",
        "--corpus",
        "corpus.safetensors",
        "--document",
        "b",
        "--at",
        "6",
        "--json",
        "--decode",
    )
    known = os.environ | {"HF_HOME": str(here / "cache"), "HF_HUB_OFFLINE": "1"}
    for name in ("owner/inverter", "owner/nothing"):
        ran = subprocess.run(
            [sys.executable, "-c", code, *place, name], capture_output=True, text=True, env=known, check=False
        )
        if name == "owner/inverter":
            assert ran.returncode == 0, ran.stderr
            assert json.loads(ran.stdout)["steps"][0]["decoded"]["text"] == words(PROBE_SENTENCES[13])
            assert "Warning" not in ran.stderr and "dynamo" not in ran.stderr
        else:
            assert (ran.returncode, ran.stdout) == (
                3,
                "",
            ) and "inverter 'owner/nothing' is not on this machine" in ran.stderr


def test_the_same_name_for_another_space(here: Path) -> None:
    """Names and sizes agree; the weights do not, as with GTR and its dense layer."""
    corpus = load_corpus("corpus.safetensors")
    with pytest.raises(
        InvalidFile, match=r"vectors of tiny; .* vectors of tiny \(probe sentences differ: lowest cosine"
    ):
        Inverter("inverter-other", corpus).decode(corpus.numpy())


def test_an_encoder_behind_an_api(here: Path) -> None:
    """Its probe sentences cost money, so its name must do; its vectors have length 1, and 1536 dimensions in
    vec2text's code.
    """
    import torch
    from vec2text.models import InversionModel

    model = inverter(BARE, embedder_model_api="text-embedding-ada-002").eval()
    model.encoder_decoder.load_state_dict(
        InversionModel.from_pretrained("inverter").encoder_decoder.state_dict()
    )
    model.embedding_transform[3].weight.data *= 100  # so that vectors make a difference
    model.save_pretrained("inverter-api")
    vectors = np.random.default_rng(0).standard_normal((16, 1536)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with CorpusWriter(
        Path("api.safetensors"),
        np.array([0, 16]),
        ["a"],
        EncoderCard("text-embedding-ada-002", dim=1536),
        {},
        "F32",
    ) as writer:
        writer.put(0, vectors)
        writer.finish()
    with torch.no_grad():
        expected = model.tokenizer.batch_decode(
            model.generate({"frozen_embeddings": torch.tensor(vectors)}, decode.GREEDY), True
        )
    found = Inverter("inverter-api", load_corpus("api.safetensors"))
    assert (
        found.decode(vectors) == [{"text": text, "cosine": None} for text in expected]
        and len(set(expected)) > 1
    )
    assert "by the encoder's name alone" in found.notes[0]


def test_weights_that_are_not_all_there(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import load_file, save_file

    corpus = load_corpus("corpus.safetensors")
    (tmp_path / "config.json").write_bytes((here / "inverter" / "config.json").read_bytes())
    tensors = load_file(here / "inverter" / "model.safetensors")
    del tensors["embedding_transform.3.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        InvalidFile, match=r"lacks weights that vec2text needs \(embedding_transform\.3\.bias\)"
    ):
        Inverter(str(tmp_path), corpus).decode(corpus.numpy())
    (tmp_path / "config.json").write_text(
        (here / "inverter" / "config.json").read_text().replace('"t5"', '"owner/t5"')
    )
    monkeypatch.setattr(
        "transformers.utils.hub._is_offline_mode", True
    )  # HF_HUB_OFFLINE is read once, perhaps by an earlier test
    with pytest.raises(SetupInvalid, match="its base model and its encoder"):
        Inverter(str(tmp_path), corpus).decode(corpus.numpy())


# What follows needs no vec2text: nothing is loaded before the check.


@pytest.fixture
def corpus(small: Corpus) -> Corpus:
    """Vectors of 32 dimensions, with a card that a test may change."""
    return Corpus(small.name, small.vectors, small.scales, small.offsets, small.names, card())


def card(**fields: Any) -> EncoderCard:
    probes = np.random.default_rng(0).standard_normal((16, DIM)).astype(np.float32)
    return EncoderCard(
        **{"model": "owner/tiny", "pooling": "mean", "dense": "none", "dim": DIM, "probes": probes, **fields}
    )


def write(folder: Path, width: int = DIM, **config: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"embedder_model_name": "owner/tiny", "embedder_model_api": None, **config})
    )
    (folder / "model.safetensors").write_bytes(
        to_bytes({decode.FIRST_LAYER: np.zeros((4, width), np.float32)}, {})
    )
    return str(folder)


def given(corpus: Corpus, **fields: Any) -> Corpus:
    object.__setattr__(corpus, "card", card(**fields))
    return corpus


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (
            {"embedder_model_name": "gtr_base"},
            {},
            r"vectors of gtr-t5-base; corpus small holds vectors of owner/tiny \(model",
        ),
        ({"width": 768}, {}, r"vectors of tiny; .* of owner/tiny \(dim 768 against 32\)"),
        (
            {"embedder_model_name": "gtr_base"},
            {"model": "x/gtr-t5-base", "dense": "32->32"},
            r"\(dense 'none' against '32->32'\)",
        ),
        (
            {"embedder_model_name": "x/tiny-2"},
            {"model": "tiny", "probes": None},
            "model 'tiny-2' against 'tiny'",
        ),
        (
            {"embedder_model_api": "text-embedding-ada-002"},
            {},
            "vectors of text-embedding-ada-002; .* of owner/tiny",
        ),
        ({"embedder_model_name": "a/b", "width": 8}, {"model": ""}, "an encoder without a name"),
    ],
)
def test_made_for_another_encoder(
    corpus: Corpus, tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidFile, match=words):
        Inverter(write(tmp_path / "i", **theirs), given(corpus, **ours))


@pytest.mark.parametrize("name", ["tiny", "owner/tiny", "/home/me/models/tiny", "/home/me/models/tiny/"])
def test_made_for_this_encoder(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(decode, "require_extra", lambda: None)
    assert Inverter(write(tmp_path / "i", embedder_model_name=name), given(corpus)).card.model == "tiny"


def test_the_shipped_corpora_and_the_public_inverters(sotu: Corpus, tmp_path: Path) -> None:
    for config in (
        {"embedder_model_name": "gtr_base"},
        {"embedder_model_name": "gtr_base", "embedder_model_api": "text-embedding-ada-002"},
    ):
        with pytest.raises(
            InvalidFile, match="corpus sotu holds vectors of sentence-transformers/all-mpnet-base-v2"
        ):
            Inverter(write(tmp_path / "i", 768, **config), sotu)


def test_folders_that_hold_no_inverter(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    for name in (str(folder), "./i", "a/b/c", "nothing"):
        with pytest.raises(InvalidFile, match="no such folder"):
            made_for(name, DIM)
    folder.mkdir()
    for name in (folder, Path(__file__)):
        with pytest.raises(InvalidFile, match=r"has no config\.json"):
            made_for(str(name), DIM)
    for text, expected in (
        ("{", "not valid JSON"),
        ("[]", "names no embedder_model_name"),
        ('{"embedder_model_name": 3}', "names no"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(InvalidFile, match=expected):
            made_for(str(folder), DIM)
    write(folder)
    (folder / "model.safetensors").write_bytes(to_bytes({"other": np.zeros(3, np.float32)}, {}))
    with pytest.raises(InvalidFile, match=r"no embedding_transform\.0\.weight"):
        made_for(str(folder), DIM)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidFile, match=r"but no weights \(model\.safetensors\)"):
        made_for(str(folder), DIM)


def test_a_corpus_that_does_not_name_its_encoder(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say which encoder"):
        Inverter(write(tmp_path / "i"), given(corpus, model="", probes=None))


def test_without_the_extra(
    corpus: Corpus, tmp_path: Path, lvm: Lvm, small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "vec2text" else found(name, *rest)
    )
    for name in (write(tmp_path / "i"), "jxm/gtr__nq__32"):
        with pytest.raises(SetupInvalid, match=r"needs vec2text: pip install 'mlx-lvm\[decode\]'"):
            Inverter(name, given(corpus))
    place = ("predict", "last", "--corpus", small_file, "--document", corpus.names[0], "--json", "--decode")
    ran = lvm(*place, write(tmp_path / "i", embedder_model_name="cut"))  # the encoder of the small corpus
    assert (ran.code, ran.out) == (3, "") and "pip install 'mlx-lvm[decode]'" in ran.err
    ran = lvm(*place, write(tmp_path / "i"))
    assert (ran.code, ran.out) == (3, "") and "vectors of tiny; corpus small holds vectors of cut" in ran.err


@pytest.mark.parametrize(
    ("cached", "online", "asked"),
    [(True, False, [True]), (False, True, [True, False]), (False, False, [True, False])],
)
def test_the_cache_is_asked_before_the_hub(
    cached: bool,
    online: bool,
    asked: list[bool],
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def download(name: str, file: str, local_files_only: bool = False) -> str:
        calls.append(local_files_only)
        if not (cached if local_files_only else online):
            raise ValueError("not here")
        return f"{write(tmp_path / 'i')}/{file}"

    monkeypatch.setattr(decode, "require_extra", lambda: None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=download))
    if cached or online:
        assert Inverter("owner/inverter", corpus).card == EncoderCard("tiny", dim=DIM)
    else:
        with pytest.raises(
            SetupInvalid, match=r"inverter 'owner/inverter' is not .* \(ValueError: not here\)"
        ):
            Inverter("owner/inverter", corpus)
    assert calls == asked


@pytest.mark.parametrize(
    ("found", "refused"), [("4.49.0", False), ("4.50.3", False), ("4.51.0.dev0", True), ("5.0.0rc1", True)]
)
def test_beside_other_transformers(found: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(decode, "version", lambda name: found)
    if refused:
        with pytest.raises(SetupInvalid, match=rf"transformers 4\.50 at most; here is {found}"):
            decode.require_extra()
    else:
        decode.require_extra()
