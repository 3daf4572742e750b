"""Predicted vectors to text, by an inverter of vec2text: what it was made for is checked before it is loaded.

An inverter writes a text from a vector of one encoder, and of that one alone. Public ones are few: for
GTR-base as vec2text reads it, without the dense layer that sentence-transformers adds (`jxm/gtr__nq__32`),
and for OpenAI's text-embedding-ada-002. We know of none for all-mpnet-base-v2, the encoder of the corpora
that ship with the package. A prediction is no vector that any text has, so what is written is a hint of its
subject, not the next chunk.

vec2text loads one model while it builds another, which works up to transformers 4.50: hence the bounds of the
extra `decode`. Its licence is Software for Open Models 1.0, whose section 3A asks that a model used with it
be public.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.files.disk import read_json
from mlx_lvm.core.files.safetensors import open_safetensors
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.card import PROBE_SENTENCES, EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import InvalidFile, NonFiniteError, SetupInvalid, UsageError, one_line
from mlx_lvm.ranking.predict import Decoded

INSTALL = "pip install 'mlx-lvm[decode]'"
WEIGHTS = tuple(
    f"{name}{index}" for name in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json")
)
FIRST_LAYER = "embedding_transform.0.weight"  # [bottleneck, width of the encoder]
API_DIM = 1536  # vec2text reads one API, and writes its width into the code
NEWEST = (4, 50)  # of transformers with which vec2text loads
MAX_TOKENS = 128
GREEDY = {"max_length": MAX_TOKENS, "min_length": 1, "num_beams": 1, "do_sample": False}
# vec2text's own names of encoders that it reads otherwise than the Hub's name says.
ENCODERS: dict[str, JsonObject] = {
    "gtr_base": {"model": "gtr-t5-base", "pooling": "mean", "dense": "none"},
    "gtr_large": {"model": "gtr-t5-large", "pooling": "mean", "dense": "none"},
    "gtr_base_st": {"model": "gtr-t5-base"},
    "gte_base": {"model": "gte-base"},
    "gte_base_st": {"model": "gte-base"},
}


class Inverter:
    """An inverter for the vectors of a corpus. Making one reads its config and checks; `decode` loads it.

    `name` is a folder, or an id of the Hub; `notes` say what could not be checked. Raises UsageError for a
    corpus that does not say what made its vectors, InvalidFile for a folder that holds no inverter and for
    one made for another encoder or width, SetupInvalid where the extra is missing.
    """

    def __init__(self, name: str, corpus: Corpus) -> None:
        self.name, self.corpus = name, corpus
        self.notes: list[str] = []
        if not corpus.card.model and corpus.card.probes is None:
            raise UsageError(
                f"corpus {corpus.name} does not say which encoder made its vectors, so no inverter is known "
                "to fit them"
            )
        self.card = made_for(name, corpus.dim)
        self._require_same(self.card)
        require_extra()

    def decode(self, vectors: Sequence[Sequence[float]] | np.ndarray) -> list[Decoded]:
        """For each unit vector [n, dim] its text; the cosine is None where the encoder is an API.

        Raises InvalidFile where the inverter does not load or its encoder gives other vectors for the probe
        sentences than the corpus's, SetupInvalid where what it builds on cannot be had, NonFiniteError where
        its encoder gives no number.
        """
        units = np.asarray(vectors, np.float32)
        with _quiet():
            model = self._load()
            probes = None if model.embedder_model_api else _embed(model, PROBE_SENTENCES)
            self._require_same(replace(self.card, dim=model.embedder_dim, probes=probes))
            if probes is None or self.corpus.card.probes is None:
                self.notes.append(
                    f"--decode {self.name}: known to fit by the encoder's name alone, not by its vectors of "
                    "the probe sentences"
                )
            # A corpus keeps directions; an inverter was trained on vectors of the length that its encoder
            # gives them.
            length = 1.0 if probes is None else float(np.linalg.norm(probes, axis=1).mean())
            inputs = model.embedding_transform[0].weight.new_tensor(length * units)
            texts = model.tokenizer.batch_decode(
                model.generate({"frozen_embeddings": inputs}, GREEDY), skip_special_tokens=True
            )
            if probes is None:
                return [Decoded(text, None) for text in texts]
            own = _embed(model, texts)
            cosines = (own * units).sum(axis=1) / np.linalg.norm(own, axis=1)
        if not np.isfinite(cosines).all():
            raise NonFiniteError(
                f"--decode {self.name}: the inverter's encoder gave a zero vector, NaN or Inf"
            )
        return [Decoded(text, float(cosine)) for text, cosine in zip(texts, cosines, strict=True)]

    def _require_same(self, card: EncoderCard) -> None:
        theirs = self.corpus.card
        found = card.differences(replace(theirs, model=_short(theirs.model)))
        if found:
            raise InvalidFile(
                f"--decode {self.name}: an inverter for vectors of {card.model}; corpus {self.corpus.name} "
                f"holds vectors of {theirs.model or 'an encoder without a name'} ({'; '.join(found)}). Take "
                "an inverter made for that encoder, or embed the corpus with the inverter's."
            )

    def _load(self) -> Any:
        from transformers.utils import (  # type: ignore[import-not-found,unused-ignore]
            logging as transformers_logging,
        )
        from vec2text.models import InversionModel

        transformers_logging.disable_progress_bar()
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        try:
            model, found = InversionModel.from_pretrained(self.name, output_loading_info=True)
        except OSError as error:  # what transformers raises for a file that it can neither find nor fetch
            raise SetupInvalid(
                f"--decode {self.name}: something it builds on is not on this machine and cannot be fetched "
                f"({one_line(error)}). vec2text loads the inverter, its base model and its encoder; with a "
                "network each is downloaded once."
            ) from None
        except Exception as error:  # whatever its many loaders raise
            raise InvalidFile(f"--decode {self.name}: vec2text cannot load it ({one_line(error)})") from None
        if found["missing_keys"]:
            raise InvalidFile(
                f"--decode {self.name}: lacks weights that vec2text needs "
                f"({', '.join(sorted(found['missing_keys'])[:3])})"
            )
        # sentence-transformers puts the encoder on a GPU where there is one
        return model.eval().requires_grad_(False).to("cpu")


def made_for(name: str, dim: int) -> EncoderCard:
    """The encoder whose vectors an inverter reads, by its config.json and the header of its weights, of which
    no more is read. `dim`: its width where only loading it would tell. Raises as `Inverter` does.
    """
    local = Path(name)
    if not local.exists() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise InvalidFile(f"--decode {name}: no such folder")
    if local.exists() and not (local / "config.json").is_file():
        raise InvalidFile(f"--decode {name}: no folder of an inverter: it has no config.json")
    config = read_json(local / "config.json" if local.exists() else _fetch_config(name))
    config = config if isinstance(config, dict) else {}
    encoder = config.get("embedder_model_api") or config.get("embedder_model_name")
    if not isinstance(encoder, str):
        raise InvalidFile(
            f"--decode {name}: no inverter of vec2text: its config.json names no embedder_model_name"
        )
    if local.exists() and not any((local / file).is_file() for file in WEIGHTS):
        raise InvalidFile(f"--decode {name}: has a config.json, but no weights ({WEIGHTS[0]})")
    if (local / WEIGHTS[0]).is_file():
        tensors = open_safetensors(local / WEIGHTS[0]).tensors
        if FIRST_LAYER not in tensors:
            raise InvalidFile(f"--decode {name}: no inverter of vec2text: {WEIGHTS[0]} has no {FIRST_LAYER}")
        dim = tensors[FIRST_LAYER].shape[1]
    elif config.get("embedder_model_api"):
        dim = API_DIM
    return EncoderCard(dim=dim, **ENCODERS.get(encoder, {"model": _short(encoder)}))


def require_extra() -> None:
    """Raises SetupInvalid where vec2text is missing, or does not load with the transformers that are here."""
    if importlib.util.find_spec("vec2text") is None:
        raise SetupInvalid(f"--decode needs vec2text: {INSTALL}")
    found = version("transformers")
    if tuple(map(int, found.split(".")[:2])) > NEWEST:
        raise SetupInvalid(
            f"--decode: vec2text loads with transformers {'.'.join(map(str, NEWEST))} at most; here is "
            f"{found}: {INSTALL} brings older ones, for encoders too"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """vec2text prints to stdout, warns of its own calls, and turns torch's compilation log on."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)


def _fetch_config(name: str) -> str:
    """The path of config.json in the Hub's cache, fetched where it is not there."""
    require_extra()
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(name, "config.json", local_files_only=True))
    except Exception:  # of the cache
        pass
    try:
        return str(hf_hub_download(name, "config.json"))
    except Exception as error:  # of the network and the Hub
        raise SetupInvalid(
            f"inverter '{name}' is not on this machine and cannot be fetched ({one_line(error)}). "
            "With a network it is downloaded once; without one, pass --decode FOLDER."
        ) from None


def _embed(model: Any, texts: Any) -> np.ndarray:
    """Embeddings by the inverter's own encoder as vec2text calls it, [n, dim] float32."""
    tokenizer = model.embedder_tokenizer
    longest = min(MAX_TOKENS, tokenizer.model_max_length)
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    vectors = model.call_embedding_model(input_ids=found["input_ids"], attention_mask=found["attention_mask"])
    return np.asarray(vectors.float().numpy())


def _short(name: str) -> str:
    """The name of a model without its owner's or its folder's."""
    return name.rstrip("/").rpartition("/")[2]
