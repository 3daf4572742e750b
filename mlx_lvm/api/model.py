"""A model in NumPy: what comes next, which chunk of a corpus that is, and further steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from mlx_lvm.api.corpus import Array, Corpus, corpus_of
from mlx_lvm.api.serving import Serving, ranker_of, serve
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus as StoredCorpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import UsageError
from mlx_lvm.hub.export import require_free, write_model
from mlx_lvm.hub.load import Loaded, load_model
from mlx_lvm.hub.remote import push
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Predictor, predict_all
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.ranking.predict import Ranker, look_ahead, roll_fused
from mlx_lvm.ranking.scorer import inner_products

# cosine above which a chunk of a corpus is one that was given: rounding to eight bits costs less
SAME = 0.9995


@dataclass(frozen=True)
class Hit:
    """A chunk of a corpus that may come next.

    probability: that it is the next one, of all chunks of the corpus; calibrated on the corpus's validation
    documents, NaN where it has none. cosine: of its vector with the prediction. text: empty where none are
    kept.
    """

    document: str
    chunk: int
    text: str
    probability: float
    cosine: float


class Model:
    """A latent vector model. Made by `load` or `train`.

    Vectors are those of a document's chunks in reading order, [chunks, dim], of any floating-point type and
    any length (rows are scaled to 1). A model of windows reads the last `context` of them, one of histories
    all, up to its own limit. What serves any encoder (`emn`, `emn-rank`) takes statistics of a `corpus` where
    one is given, else of the vectors alone.
    """

    def __init__(self, loaded: Loaded, reference: str = "") -> None:
        self.loaded, self.reference = loaded, reference or loaded.name
        self._served: WeakKeyDictionary[Corpus, Serving] = WeakKeyDictionary()
        self._rankers: WeakKeyDictionary[Corpus, Ranker | None] = WeakKeyDictionary()

    @property
    def name(self) -> str:
        return self.loaded.name

    @property
    def architecture(self) -> str:
        """`amn`, `emn`, `gru`, `lstm`, `ramn`, `transformer`, or one that a package adds."""
        return self.loaded.model.config.model_type

    @property
    def dim(self) -> int:
        """Width of the vectors that it reads; 0 where it reads any."""
        return self.loaded.model.config.dim

    @property
    def context(self) -> int:
        """Chunks that a window has."""
        return self.loaded.context

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return self.loaded.model.parameter_count()

    @property
    def notes(self) -> list[str]:
        """What a user should know of it, a sentence each."""
        return list(self.loaded.notes)

    def __repr__(self) -> str:
        width = self.dim or "any number of"
        return f"Model '{self.name}': {self.architecture}, {self.parameters:,} parameters, {width} dimensions"

    def predict(self, vectors: npt.ArrayLike, corpus: Corpus | None = None) -> Array:
        """The next chunk's vector, of unit length, float32.

        vectors: [chunks, dim] gives [dim]; a batch [batch, chunks, dim] gives [batch, dim]
        corpus:  whose statistics a model for any encoder uses

        Raises UsageError for another shape, a zero row or one that is not finite, InvalidFile for another
        encoder's corpus.

        >>> model.predict(corpus["2016_barack_obama_d"].vectors[:30]).shape
        (768,)
        """
        read = self._read(vectors)
        batch = read[None] if read.ndim == 2 else read
        predicted = predict_all(self._predictor(batch, corpus), _windows(batch, self.context))
        out = np.array(normalize(predicted))
        return out[0] if read.ndim == 2 else out

    def rollout(self, vectors: npt.ArrayLike, steps: int, corpus: Corpus | None = None) -> Array:
        """The next `steps` chunks, [steps, dim] float32 of unit length: each is read as the chunk that came.

        Raises as `predict`, and UsageError for less than one step.

        >>> model.rollout(corpus["2016_barack_obama_d"].vectors[:30], steps=4).shape
        (4, 768)
        """
        if steps < 1:
            raise UsageError(f"steps = {steps}: at least 1")
        read = self._document(vectors)
        window = _windows(read[None], self.context)
        return np.array(normalize(roll_fused(self._predictor(read[None], corpus), window, steps, None)[0]))

    def rank(self, vectors: npt.ArrayLike, corpus: Corpus | str | Path, top: int = 5) -> list[Hit]:
        """The `top` chunks of the corpus that are likeliest to come next, best first.

        vectors: [chunks, dim], a document so far, of the corpus or not. Chunks of the corpus that equal one
                 of the last `context` are no candidates.

        The first call for a corpus fits the ranking on its validation documents (seconds), unless the model
        came with one for it. Raises as `predict`.

        >>> for hit in model.rank(corpus["2016_barack_obama_d"].vectors[:30], corpus, top=3):
        ...     print(f"{hit.probability:.1%}  {hit.text[:60]}")
        """
        if top < 1:
            raise UsageError(f"top = {top}: at least 1")
        corpus = corpus_of(corpus)
        held, read = corpus.held, self._document(vectors)
        served = self._serve(corpus, read.shape[1])
        if corpus not in self._rankers:
            self._rankers[corpus] = ranker_of(served, held)[0]
        window = _windows(read[None], self.context)
        given = mx.array(read[-window.context :])
        rows = np.arange(len(held), dtype=np.int32)
        left_out = np.flatnonzero((inner_products(held, given, rows) > SAME).any(axis=0))
        if len(left_out) == len(held):
            raise UsageError(f"corpus {held.name}: every chunk was just read; there is none to rank")
        ranker = self._rankers[corpus]
        (step,) = look_ahead(served.predictor, window, held, left_out, [None], top, ranker)
        hits = []
        for one in step.ranked.nearest:
            row = int(held.offsets[held.document(one.label.document)]) + one.label.chunk
            text = held.texts[row] if held.texts is not None else ""
            probability = math.nan if one.probability is None else one.probability
            hits.append(Hit(one.label.document, one.label.chunk, text, probability, one.cosine))
        return hits

    def save(self, folder: str | Path, *, dtype: str = "float32", overwrite: bool = False) -> Path:
        """Write the Hub's folder of it: model.safetensors, config.json, README.md. `export` also measures it
        first.

        Raises UsageError for a dtype other than float32, float16 and bfloat16, IOFailed where something is
        there and `overwrite` is not set.
        """
        require_free(Path(folder), overwrite)
        write_model(self.loaded, Path(folder), dtype=dtype)
        return Path(folder)

    def push_to_hub(self, repo: str, *, private: bool = False, message: str = "Model") -> str:
        """Upload what `save` writes to `user/repo`, made if need be. Returns its address.

        private: of a new repository. Raises UsageError for a name that is not `user/repo`, SetupInvalid where
        nobody is logged in or the Hub cannot be reached. To push a card with figures: `lvm export RUN --push
        user/repo`.
        """
        with TemporaryDirectory(prefix="mlx-lvm-") as folder:
            return push(self.save(Path(folder) / "model"), repo, private=private, message=message)

    def _read(self, vectors: npt.ArrayLike) -> Array:
        """[chunks, dim] or [batch, chunks, dim] as float32 of unit length."""
        read = np.asarray(vectors)
        wanted = self.dim or "dim"
        shaped = read.ndim in (2, 3) and 0 not in read.shape and self.dim in (0, read.shape[-1])
        if not shaped or read.dtype.kind != "f":
            raise UsageError(
                f"vectors: {read.dtype} of shape {read.shape}; {self.name} reads floating-point numbers of "
                f"shape [chunks, {wanted}] or [batch, chunks, {wanted}]"
            )
        lengths = np.linalg.norm(read.astype(np.float64), axis=-1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            place = np.argwhere(~(np.isfinite(lengths) & (lengths > 0)))[0][:-1].tolist()
            raise UsageError(f"vectors: row {', '.join(map(str, place))} is zero or not finite; leave it out")
        return (read / lengths).astype(np.float32)

    def _document(self, vectors: npt.ArrayLike) -> Array:
        read = self._read(vectors)
        if read.ndim != 2:
            raise UsageError(f"vectors of shape {read.shape}; expected one document, [chunks, dim]")
        return read

    def _serve(self, corpus: Corpus, dim: int) -> Serving:
        if corpus.dim != dim:
            raise UsageError(f"vectors of {dim} dimensions; corpus {corpus.name} has {corpus.dim}")
        if corpus not in self._served:
            self._served[corpus] = serve(self.loaded, corpus.held)
        return self._served[corpus]

    def _predictor(self, batch: Array, corpus: Corpus | None) -> Predictor:
        """What predicts from vectors [batch, chunks, dim]."""
        if corpus is not None:
            return self._serve(corpus_of(corpus), batch.shape[-1]).predictor
        return predictor_of(self.name, self.loaded.model.serving(mx.array(batch)))


def load(name: str | Path, revision: str | None = None, *, precision: str = "float32") -> Model:
    """A model by any of its names.

    name: a released one (`amn`, `ramn`, `ramn-retrieve`, `emn`, `emn-rank`), a run folder, an exported folder
          or a .safetensors file; or "user/repo" of the Hub (extra `hub`)
    revision: of the Hub: a branch, a tag or a commit; the newest by default
    precision: what its forward pass runs in: "float32", "tf32" or "bfloat16"

    Raises UsageError where nothing has that name, InvalidFile where what has it is damaged or of another
    architecture.

    >>> load("emn-rank")
    Model 'emn-rank': emn, 17,000 parameters, any number of dimensions
    """
    return Model(load_model(name, revision=revision).compute_in(precision), str(name))


def loaded_of(model: Model | str | Path) -> Loaded:
    """What was loaded. Raises UsageError for what is neither a model nor the name of one."""
    if isinstance(model, Model):
        return model.loaded
    if isinstance(model, (str, Path)):
        return load_model(model)
    raise UsageError(f"model: a {type(model).__name__}; expected a Model, a name or a path")


def _windows(batch: Array, context: int) -> Windows:
    """One window a document of [batch, chunks, dim], which predicts what follows its last chunk."""
    count, chunks, dim = batch.shape
    offsets = np.arange(count + 1) * chunks
    vectors = mx.array(batch.reshape(count * chunks, dim))
    made = StoredCorpus("given", vectors, None, offsets, tuple(map(str, range(count))), EncoderCard(dim=dim))
    ends = offsets.astype(np.int32)
    return Windows(made, min(context, chunks), ends[1:], ends[:-1], np.arange(count), 0)
