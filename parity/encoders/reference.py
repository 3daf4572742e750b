"""transformers' own module, and those of sentence-transformers behind it, with everything seen on the way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.errors import InvalidFile, needing
from mlx_lvm.parity.sides import bridge

EMBEDDINGS = {"bert": "embeddings", "mpnet": "embeddings", "t5": "encoder.embed_tokens"}
BLOCKS = {"bert": "encoder.layer", "mpnet": "encoder.layer", "t5": "encoder.block"}
FINAL = {"t5": "encoder.final_layer_norm"}


@dataclass
class Seen:
    """Values of one batch by tap, in order, float64. `calls` runs a tap's module again on another input."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    calls: dict[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)


class Reference:
    """A folder as sentence-transformers loads it, in one dtype: float64 is the arbiter."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import torch

        self.torch, self.dtype = torch, torch.float64 if dtype == "float64" else bridge.TORCH[dtype]
        self.model: Any = _load(folder).to(self.dtype).eval()
        self.module: Any = self.model[0].auto_model
        self.kind: str = self.module.config.model_type
        if dtype == "float64":
            _widen(self.module)

    def tokens(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.model.tokenizer(texts, truncation=True)["input_ids"]
        return found

    def weights(self) -> dict[str, np.ndarray]:
        """Parameters by name, those of dense layers as `<module>.linear...`."""
        named = dict(self.module.state_dict())
        for number, module in enumerate(self.model):
            if type(module).__name__ == "Dense":
                named |= {f"{number}.{name}": value for name, value in module.state_dict().items()}
        return {name: value.detach().to(self.torch.float64).numpy() for name, value in named.items()}

    def position_bias(self, length: int) -> np.ndarray | None:
        """What the attention adds by relative position, [1, heads, length, length]; None for BERT."""
        with self.torch.no_grad():
            if self.kind == "mpnet":
                x = self.torch.zeros((1, length, 1), dtype=self.dtype)
                return self._array(self.module.encoder.compute_position_bias(x))
            if self.kind == "t5":
                attention = self.module.encoder.block[0].layer[0].SelfAttention
                return self._array(attention.compute_bias(length, length))
        return None

    def see(self, ids: np.ndarray, mask: np.ndarray) -> Seen:
        """Run a padded batch."""
        seen = Seen()
        hooks = [
            self.module.get_submodule(name).register_forward_hook(self._watch(seen, name), with_kwargs=True)
            for name in self._taps()
        ]
        features: dict[str, Any] = {
            "input_ids": self.torch.from_numpy(ids.astype(np.int64)),
            "attention_mask": self.torch.from_numpy(mask.astype(np.int64)),
        }
        try:
            with self.torch.no_grad():
                for number, module in enumerate(self.model):
                    features = module(features)
                    kind = type(module).__name__
                    if kind == "Pooling":
                        self._keep(seen, "pooling", module, "token_embeddings", features)
                    elif kind == "Dense":
                        self._keep(seen, f"{number}.dense", module, "sentence_embedding", features)
        finally:
            for hook in hooks:
                hook.remove()
        seen.values["unit"] = self._unit(features["sentence_embedding"])
        return seen

    def _taps(self) -> list[str]:
        blocks = BLOCKS[self.kind]
        count = len(self.module.get_submodule(blocks))
        last = [FINAL[self.kind]] if self.kind in FINAL else []
        return [EMBEDDINGS[self.kind], *(f"{blocks}.{number}" for number in range(count)), *last]

    def _watch(self, seen: Seen, name: str) -> Callable:
        def watch(module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            seen.values[name] = self._array(output[0] if isinstance(output, tuple) else output)
            if name == EMBEDDINGS[self.kind]:
                return

            def again(x: np.ndarray) -> np.ndarray:
                given, named = list(args), dict(kwargs)
                tensor = self.torch.from_numpy(x).to(self.dtype)
                if given:
                    given[0] = tensor
                else:
                    named["hidden_states"] = tensor
                with self.torch.no_grad():
                    result = module.forward(*given, **named)
                return self._array(result[0] if isinstance(result, tuple) else result)

            seen.calls[name] = again

        return watch

    def _keep(self, seen: Seen, name: str, module: Any, read: str, features: dict[str, Any]) -> None:
        """What a module of sentence-transformers gave, which reads the feature of that name."""
        seen.values[name] = self._array(features["sentence_embedding"])
        mask = features["attention_mask"]

        def again(x: np.ndarray) -> np.ndarray:
            given = {read: self.torch.from_numpy(x).to(self.dtype), "attention_mask": mask}
            with self.torch.no_grad():
                return self._array(module(given)["sentence_embedding"])

        seen.calls[name] = again

    def _unit(self, vectors: Any) -> np.ndarray:
        """Unit length in at least float32, as `encode` has it for a folder without Normalize too."""
        wide = vectors if self.dtype == self.torch.float64 else vectors.to(self.torch.float32)
        return self._array(self.torch.nn.functional.normalize(wide, dim=-1))

    def _array(self, tensor: Any) -> np.ndarray:
        found: np.ndarray = tensor.detach().to(self.torch.float64).numpy()
        return found


def _load(folder: Path) -> Any:
    with needing("embed-torch", "parity of an encoder needs transformers"):
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # it reports the pooler that no sentence vector reads
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    options = {"attn_implementation": "eager"}  # the equations as they are written
    try:
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs=options)
    except Exception as error:  # whatever its many loaders raise
        raise InvalidFile(f"encoder {folder}: sentence-transformers cannot load it ({error})") from None


def _widen(module: Any) -> None:
    """T5's norm takes its mean square in float32 whatever the model's dtype; an arbiter must not."""
    import types

    def forward(self: Any, x: Any) -> Any:
        return self.weight * (x * (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt())

    for child in module.modules():
        if type(child).__name__ == "T5LayerNorm":
            child.forward = types.MethodType(forward, child)
