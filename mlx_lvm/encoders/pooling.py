"""From tokens' vectors to a text's: the modules Pooling and Dense of a sentence-transformers folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.core.result import JsonObject
from mlx_lvm.encoders.base import OTHER_ENGINE
from mlx_lvm.encoders.layers import Linear
from mlx_lvm.errors import InvalidFile

MODES = ("cls", "max", "mean")  # in the order in which sentence-transformers joins several
OLD_KEYS = {  # a mode by the flag that switches it on in older folders
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
DENSE_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "Identity": lambda x: x,
    "Tanh": mx.tanh,
    "ReLU": nn.relu,
    "GELU": nn.gelu,
}


@dataclass(frozen=True)
class Pooling:
    """Modes of MODES, whose vectors are joined. `include_prompt`: whether the prompt's tokens count."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    @staticmethod
    def read(values: JsonObject, where: str) -> Pooling:
        """Raises InvalidFile for a mode that we do not compute."""
        named = values.get("pooling_mode")
        if named is None:
            modes = tuple(mode for key, mode in OLD_KEYS.items() if values.get(key))
        else:
            modes = (named,) if isinstance(named, str) else tuple(named)
        unknown = [str(mode) for mode in modes if mode not in MODES]
        if unknown or not modes:
            raise InvalidFile(
                f"{where}: pooling {', '.join(unknown) or 'of no mode'}; "
                f"here are {', '.join(MODES)}. {OTHER_ENGINE}."
            )
        return Pooling(modes, bool(values.get("include_prompt", True)))

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        """Vectors [batch, length, width], mask [batch, length] of those that count -> [batch, modes x width].

        The sum of a mean is float32 whatever the dtype. A mask's leading zeros move `cls` to its first one.
        """
        here = mask[:, :, None] > 0
        parts = []
        for mode in self.modes:
            if mode == "cls":
                first = mx.argmax(mask, axis=1)[:, None, None]
                place = mx.broadcast_to(first, (x.shape[0], 1, x.shape[2]))
                parts.append(mx.take_along_axis(x, place, axis=1)[:, 0])
            elif mode == "max":
                parts.append(mx.where(here, x, -mx.inf).astype(x.dtype).max(axis=1))
            else:
                total = mx.where(here, x.astype(mx.float32), 0).sum(axis=1)
                count = mx.maximum(here.sum(axis=1).astype(mx.float32), 1e-9)
                parts.append((total / count).astype(x.dtype))
        return mx.concatenate(parts, axis=-1)


class Dense(nn.Module):
    """activation(W x + b), with the parameter names of sentence-transformers' Dense."""

    def __init__(self, inputs: int, outputs: int, bias: bool, activation: str) -> None:
        super().__init__()
        self.linear = Linear(inputs, outputs, bias)
        self.activation = activation

    @staticmethod
    def read(values: JsonObject, where: str) -> Dense:
        """Raises InvalidFile for an activation or a wiring that we do not compute."""
        activation = str(values.get("activation_function", "Tanh")).rpartition(".")[2]
        if activation not in DENSE_ACTIVATIONS:
            known = ", ".join(DENSE_ACTIVATIONS)
            raise InvalidFile(f"{where}: activation {activation}; here are {known}. {OTHER_ENGINE}.")
        named = {values.get("module_input_name"), values.get("module_output_name")}
        if values.get("use_residual") or named - {None, "sentence_embedding"}:
            raise InvalidFile(f"{where}: a Dense with a residual, or between other features. {OTHER_ENGINE}.")
        sizes = [values.get("in_features"), values.get("out_features")]
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise InvalidFile(f"{where}: in_features and out_features = {sizes}; expected two whole numbers")
        return Dense(sizes[0], sizes[1], bool(values.get("bias", True)), activation)  # type: ignore[arg-type]

    def __call__(self, x: mx.array) -> mx.array:
        return DENSE_ACTIVATIONS[self.activation](self.linear(x))

    def describe(self) -> str:
        rows, columns = self.linear.weight.shape
        return f"{columns}->{rows} {self.activation}{'' if 'bias' in self.linear else ', no bias'}"
