"""Small random encoders: whole sentence-transformers folders with a tokenizer, drawn by seed, that either
side reads.

Random weights see what trained ones hide: unit norms, zero biases and a position bias near zero let dropped
terms pass.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlx_lvm.core.files.disk import write_atomic, write_json
from mlx_lvm.core.files.safetensors import to_bytes
from mlx_lvm.core.result import JsonObject
from mlx_lvm.encoders import ARCHITECTURES

LONGEST = 40  # tokens
WORDS = "the whale money breathes air and sings rates rose deep cold sea in of a to"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-"
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "mpnet": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
    "t5": ["<pad>", "</s>", "<unk>"],
}
# the tokens that stand before a text and after it, that for padding, and that for what is unknown
ROLES = {
    "bert": ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
    "mpnet": ("<s>", "</s>", "<pad>", "[UNK]"),
    "t5": ("", "</s>", "<pad>", "<unk>"),
}
POOLINGS = ("mean", "cls", "max", "mean+max")


def write_small(folder: Path, kind: str, seed: int) -> Path:
    """A random encoder of architecture `kind`. Even seeds have a dense layer, and sizes differ by seed."""
    draw = np.random.default_rng([seed, sorted(ARCHITECTURES).index(kind)])
    folder.mkdir(parents=True, exist_ok=True)
    size = _write_tokenizer(folder, kind)
    architecture, config = ARCHITECTURES[kind]
    values = {**_sizes(kind, seed), "vocab_size": size, "model_type": kind}
    model = architecture(config.read(values, str(folder)))
    shapes = {name: value.shape for name, value in model.weights().items()}
    _write_weights(folder / "model.safetensors", shapes, draw)
    _, after, padding, _ = ROLES[kind]
    ids = {"pad_token_id": SPECIAL[kind].index(padding), "eos_token_id": SPECIAL[kind].index(after)}
    write_json(folder / "config.json", {**values, **ids, "architectures": [architecture.__name__]})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": LONGEST, "do_lower_case": False})
    _write_modules(folder, model.config.width, seed, draw)
    return folder


def _sizes(kind: str, seed: int) -> JsonObject:
    """What `config.json` says, by the architecture's own names."""
    heads, head, layers = (2, 3, 4)[seed % 3], (8, 12, 16)[seed % 3], 2 + seed % 2
    if kind == "t5":
        proj = "gated-gelu" if seed % 2 else "relu"
        # a head's width times the heads is not the model's here, which is what d_kv is for
        return {
            "d_model": heads * head + 8,
            "d_kv": head,
            "d_ff": 4 * heads * head,
            "num_layers": layers,
            "num_heads": heads,
            "relative_attention_num_buckets": (32, 16)[seed % 2],
            "relative_attention_max_distance": (128, 20)[seed % 2],
            "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": proj,
        }
    return {
        "hidden_size": heads * head,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * heads * head,
        "hidden_act": ("gelu", "relu", "gelu_new")[seed % 3],
        "max_position_embeddings": LONGEST + (2 if kind == "mpnet" else 0),
        "layer_norm_eps": (1e-12, 1e-5)[seed % 2],
    }


def _write_weights(path: Path, shapes: dict[str, tuple[int, ...]], draw: np.random.Generator) -> None:
    tensors = {name: _drawn(name, shape, draw) for name, shape in shapes.items()}
    write_atomic(path, to_bytes(tensors, {"format": "pt"}))


def _drawn(name: str, shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """No norm of one, no bias of zero, and products that keep their size."""
    values = draw.standard_normal(shape)
    if "norm" in name.lower():
        values = 0.3 * values + (1 if name.endswith("weight") else 0)
    elif name.endswith("bias"):
        values = 0.3 * values
    elif "embeddings" not in name and "shared" not in name and "relative" not in name:
        values = values / np.sqrt(shape[-1])
    return values.astype(np.float32)


def _write_modules(folder: Path, width: int, seed: int, draw: np.random.Generator) -> None:
    modes = POOLINGS[seed % len(POOLINGS)].split("+")
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    pooling = {
        "word_embedding_dimension": width,
        **{f"pooling_mode_{mode}_tokens": mode in modes for mode in ("mean", "max")},
        "pooling_mode_cls_token": "cls" in modes,
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if seed % 2 == 0:
        place = folder / "2_Dense"
        kinds.append(("Dense", place.name))
        inputs, outputs, bias = width * len(modes), width + 4, seed % 4 == 0
        activation = "activation.Tanh" if bias else "linear.Identity"
        dense = {
            "in_features": inputs,
            "out_features": outputs,
            "bias": bias,
            "activation_function": f"torch.nn.modules.{activation}",
        }
        place.mkdir(exist_ok=True)
        write_json(place / "config.json", dense)
        shapes = {"linear.weight": (outputs, inputs), **({"linear.bias": (outputs,)} if bias else {})}
        _write_weights(place / "model.safetensors", shapes, draw)
    kinds.append(("Normalize", f"{len(kinds)}_Normalize"))
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", listed)


def _write_tokenizer(folder: Path, kind: str) -> int:
    """Words, letters and what continues a word, by WordPiece, or T5's unigram model. How many tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    before, after, padding, unknown = ROLES[kind]
    special = SPECIAL[kind]
    if kind == "t5":
        pieces = [*special, *(f"▁{word}" for word in WORDS.split()), "▁", *LETTERS]
        scores = [(piece, 0.0 if piece in special else -float(number)) for number, piece in enumerate(pieces)]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=special.index(unknown)))
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        pieces = list(
            dict.fromkeys([*special, *WORDS.split(), *LETTERS, *(f"##{letter}" for letter in LETTERS)])
        )
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(),
        pair=f"{before} $A {after} $B {after}".strip(),
        special_tokens=[(name, special.index(name)) for name in (before, after) if name],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "pad_token": padding,
        "unk_token": unknown,
        "eos_token": after,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_json(folder / "tokenizer_config.json", {**names, "model_max_length": LONGEST})
    return len(pieces)
