"""What every latent vector model shares: its config, its prediction and how a unit vector is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

from mlx_lvm.config import Config, Options, Range, model_option
from mlx_lvm.core.mlx import mx, nn, tree_flatten
from mlx_lvm.errors import UsageError

SUM_WIDTH = 32  # numbers added in one go where a sum is taken in two stages
SMALLEST_NORMAL = 2.0**-126  # of float32 and bfloat16; devices may take what lies below for zero
# Positions in the transformer's table; the other models keep to it so that all are comparable.
MAX_CONTEXT = 100
WIDTHS = Range(choices=(128, 256, 512))  # of a hidden layer, for a search

# Training options that only a model on windows reads; others have losses, start and schedule of their own.
WINDOW_OPTIONS = (
    *("loss_mse", "loss_cosine", "loss_infonce", "loss_moment", "loss_variance", "temperature"),
    *("residual_init", "precision", "plateau_factor", "plateau_patience"),
)

Objective = Literal["predict", "rank"]
Shapes = Mapping[str, tuple[int, ...]]  # of the tensors of a state dict, by name


class Prediction(NamedTuple):
    """What a model says of the next chunk. MLX is lazy: a part that nobody reads costs nothing.

    raw, unit:          [batch, dim], before and after L2 normalisation
    attention:          [batch, length], sums to 1 (AMN)
    baseline, residual: [batch, dim], raw = baseline + residual (AMN)
    ahead:              [batch, horizons, dim], raw vectors of the next chunk and of those after it (RAMN with
                        `horizons`)
    """

    raw: mx.array
    unit: mx.array
    attention: mx.array | None = None
    baseline: mx.array | None = None
    residual: mx.array | None = None
    ahead: mx.array | None = None


class Products(NamedTuple):
    """Multiplications of one window's forward pass, those of matrix products alone.

    no_gradient: those among them whose input is the context itself, which needs no gradient.
    """

    total: float
    no_gradient: float = 0.0


@dataclass(frozen=True)
class ModelConfig(Config):
    """Sizes of a model, and what follows from them. `dim`, the width of the embeddings, is the corpus's."""

    model_type: ClassVar[str] = ""

    dim: int = model_option(768, "width of the embeddings", low=1, high=65536)

    @property
    def variant(self) -> str:
        """The name of its recipe and of released weights: the model type, and a head but the first."""
        return self.model_type

    @property
    def objective(self) -> Objective:
        """What the model is made for: to predict the next chunk, or to rank it first among candidates."""
        return "predict"

    @property
    def history(self) -> int:
        """Chunks before the target that it reads where a document has them; 0: it reads a window."""
        return 0

    @property
    def horizons(self) -> int:
        """Chunks after the context that it predicts, each directly."""
        return 1

    @property
    def takes_queries(self) -> bool:
        """Whether the model has a second argument, a query [batch, dim]."""
        return False


@dataclass(frozen=True)
class HeadedConfig(ModelConfig):
    """Of a model that reads the document so far and has two heads: the first predicts, the other ranks."""

    head: str = ""

    @property
    def variant(self) -> str:
        return self.model_type if self.objective == "predict" else f"{self.model_type}-{self.head}"

    @property
    def objective(self) -> Objective:
        first = next(field.default for field in fields(self) if field.name == "head")
        return "predict" if self.head == first else "rank"

    @property
    def history(self) -> int:
        return MAX_CONTEXT


class VectorModel(nn.Module):
    """A network from a window of embeddings to the next one: [batch, length, dim] -> Prediction.

    Parameter names and layouts are those of the torch twin in `mlx_lvm.parity`, so one file serves both. The
    class says all that the rest of the library asks of an architecture; see `mlx_lvm.models.registry`.
    """

    config_class: ClassVar[type[ModelConfig]]
    title: ClassVar[str]  # in words, for cards and reports

    # What trains it: a key of `mlx_lvm.training.tasks`, or "fitted" where nothing trains it by gradient.
    task: ClassVar[str] = "windows"
    # What preset `best` sets for a variant besides what it sets for all: options of training and model.
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    presets: ClassVar[tuple[str, ...]] = ("best",)  # the presets that are a recipe of it
    unused_options: ClassVar[tuple[str, ...]] = ()  # training options that mean nothing to it
    released: ClassVar[Mapping[str, str]] = {}  # by variant, the released model that a training begins with
    search: ClassVar[Mapping[str, Range]] = {}  # what `lvm tune` may choose of its own options
    # Sizes at which tests and the self-test are quick and lose nothing.
    small: ClassVar[Mapping[str, Any]] = {}
    # Options that no shape tells on import, with the names under which other people's configs hold them.
    not_in_shapes: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def __call__(self, context: mx.array) -> Prediction:
        raise NotImplementedError  # every architecture defines its own

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """The multiplications of one window of `context` chunks. Raises ValueError if nobody counted them."""
        raise ValueError(f"no count of {cls.config_class.model_type}'s multiplications")

    @classmethod
    def sizes_in(cls, shapes: Shapes) -> Options | None:
        """The options that a state dict of these shapes has; None where it is of another architecture."""
        return None

    def check_context(self, context: mx.array) -> None:
        """Raises UsageError where `context` is not [batch, 1..100, dim]."""
        shape, dim = tuple(context.shape), self.config.dim
        if len(shape) != 3 or shape[2] != dim or not 1 <= shape[1] <= MAX_CONTEXT:
            expected = f"expected [batch, 1 to {MAX_CONTEXT}, {dim}]"
            raise UsageError(f"{self.config.model_type}: context of shape {shape}; {expected}")

    @property
    def takes_queries(self) -> bool:
        return self.config.takes_queries

    def start_at_baseline(self) -> None:
        """Make the untrained model equal its own baseline; a model without one stays as it was drawn."""

    def adopt(self, start: VectorModel) -> None:
        """Take over another model's weights. Raises UsageError where they do not fit."""
        mine, given = self.weights(), start.weights()
        if self.config.model_type != start.config.model_type:
            other = f"a {start.config.model_type}"
            raise UsageError(f"{self.config.model_type} cannot begin with the weights of {other}")
        sizes, theirs = ({name: one.shape for name, one in each.items()} for each in (mine, given))
        wrong = sorted(name for name in {*mine, *given} if sizes.get(name) != theirs.get(name))
        if wrong:
            raise UsageError(
                f"{self.config.variant}: the weights to begin from are of other sizes "
                f"({', '.join(wrong[:3])}); omit the sizes, and give a corpus of the same encoder"
            )
        self.load_weights([(name, value + 0) for name, value in given.items()])

    def serving(self, contexts: mx.array) -> VectorModel:
        """The model as it serves contexts [batch, length, dim]: itself, if it needs no corpus or has one."""
        return self

    def weights(self) -> dict[str, mx.array]:
        """Every parameter by its torch name."""
        return dict(tree_flatten(self.parameters()))

    @property
    def dtype(self) -> mx.Dtype:
        """Of its weights: float32, or what `set_dtype` made of them."""
        return next(iter(self.weights().values())).dtype

    def parameter_count(self) -> int:
        return sum(int(weight.size) for weight in self.weights().values())

    def buffers(self) -> dict[str, mx.array]:
        """Tables that torch keeps in its state dict although nothing trains them; none by default."""
        return {}


def is_chunk(x: mx.array, keepdims: bool = False) -> mx.array:
    """Whether the vectors of x [..., dim] are there, not all zeros: bool [...] or [..., 1].

    A subnormal number counts as zero. Metal reads it as zero and a CPU does not, so that anything else would
    be another answer on each device. NaN and infinity are there.
    """
    largest = mx.abs(x).max(axis=-1, keepdims=keepdims).astype(mx.float32)
    return mx.logical_not(largest < SMALLEST_NORMAL)


def normalize(x: mx.array, eps: float = 1e-12) -> mx.array:
    """x / max(|x|, eps) over the last axis, as `torch.nn.functional.normalize`: a zero vector stays zero.

    The bound stands inside the root, whose gradient at zero is infinite. Halves are squared in float32.
    """
    wide = x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x
    return (wide / mx.sqrt(mx.maximum(row_sum(mx.square(wide)), eps * eps))).astype(x.dtype)


def row_sum(x: mx.array) -> mx.array:
    """Sum over the last axis, kept, in two stages where it divides into 32s.

    MLX's CPU adds a row one number after the other: up to three digits lost over 768 numbers of one sign.
    """
    width = x.shape[-1]
    if width % SUM_WIDTH or width == SUM_WIDTH:
        return x.sum(axis=-1, keepdims=True)
    return x.reshape(*x.shape[:-1], -1, SUM_WIDTH).sum(axis=-1).sum(axis=-1, keepdims=True)


def count_layers(shapes: Shapes, pattern: str) -> int:
    """One more than the highest layer number, the first group of `pattern`, in the names that it matches."""
    numbers = [int(match.group(1)) for name in shapes if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def as_dict(config: ModelConfig) -> Options:
    """The config with its model type, as files hold it."""
    return {"model_type": config.model_type, **config.to_dict()}
