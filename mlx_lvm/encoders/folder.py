"""A folder of sentence-transformers, or of transformers: which model, and what becomes of its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_lvm.core.files.disk import read_json
from mlx_lvm.core.result import JsonObject
from mlx_lvm.encoders import ARCHITECTURES
from mlx_lvm.encoders.base import OTHER_ENGINE, EncoderConfig, TextModel
from mlx_lvm.encoders.pooling import Dense, Pooling
from mlx_lvm.errors import InvalidFile

FURTHEST = 8192  # tokens of a text where nothing says how many an encoder reads


@dataclass(frozen=True)
class EncoderFolder:
    """What a folder holds. `denses` are (folder, module) in order."""

    path: Path
    model_path: Path  # of the transformer in it
    architecture: type[TextModel]
    config: EncoderConfig
    pooling: Pooling
    denses: list[tuple[Path, Dense]]
    max_tokens: int
    lower_case: bool
    default_prompt: str  # what every text begins with; empty where nothing is said


def read_folder(path: str | Path) -> EncoderFolder:
    """Raises InvalidFile where the folder holds no encoder, or one that is not computed here."""
    path = Path(path)
    if not path.is_dir():
        raise InvalidFile(f"encoder {path}: {'a file, not' if path.exists() else 'no such'} folder")
    modules = _modules(path)
    model_path = path / modules[0][1]
    values = read_object(model_path / "config.json")
    architecture, config = _architecture(values, model_path / "config.json")
    pooling, denses = Pooling(), []
    for kind, place in [(kind, path / place) for kind, place in modules[1:]]:
        if kind == "Pooling":
            pooling = Pooling.read(read_object(place / "config.json"), str(place))
        elif kind == "Dense":  # else Normalize: vectors always are
            denses.append((place, Dense.read(read_object(place / "config.json"), str(place))))
    settings = next((read_object(file) for file in sorted(model_path.glob("sentence_*_config.json"))), {})
    saved = read_object(path / "config_sentence_transformers.json", required=False)
    prompt = (saved.get("prompts") or {}).get(saved.get("default_prompt_name"))
    return EncoderFolder(
        path,
        model_path,
        architecture,
        config,
        pooling,
        denses,
        _max_tokens(settings, model_path, config),
        bool(settings.get("do_lower_case", False)),
        str(prompt or ""),
    )


def _modules(path: Path) -> list[tuple[str, str]]:
    """(kind, sub-folder) of the modules in order; without `modules.json` a transformer, to be averaged."""
    file = path / "modules.json"
    if not file.exists():
        return [("Transformer", "")]
    listed = read_json(file)
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise InvalidFile(f"{file}: expected a list of modules")
    found = [(str(entry.get("type", "")).rpartition(".")[2], str(entry.get("path", ""))) for entry in listed]
    for number, (kind, place) in enumerate(found):
        if kind not in (("Transformer",) if number == 0 else ("Pooling", "Dense", "Normalize")):
            raise InvalidFile(
                f"{file}: module {number} is {kind or 'unnamed'}; here are a Transformer, then Pooling, "
                f"Dense and Normalize. {OTHER_ENGINE}."
            )
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise InvalidFile(f"{file}: module {number} lies at {place!r}, outside of the folder")
    if not found:
        raise InvalidFile(f"{file}: lists no module")
    return found


def _architecture(values: JsonObject, file: Path) -> tuple[type[TextModel], EncoderConfig]:
    kind = values.get("model_type")
    if kind not in ARCHITECTURES:
        known = f"is not one of {', '.join(ARCHITECTURES)}, computed in MLX"
        raise InvalidFile(f"{file}: model_type {kind!r} {known}. {OTHER_ENGINE}.")
    architecture, config = ARCHITECTURES[kind]
    return architecture, config.read(values, str(file))


def _max_tokens(settings: JsonObject, path: Path, config: EncoderConfig) -> int:
    """The settings' own number, else the tokenizer's; never past the model's positions."""
    said = settings.get("max_seq_length")
    if said is None:
        said = read_object(path / "tokenizer_config.json", required=False).get("model_max_length")
    if said is not None and (isinstance(said, bool) or not isinstance(said, (int, float)) or said < 1):
        raise InvalidFile(f"{path}: at most {said!r} tokens; expected a whole number from 1 on")
    bounds = [bound for bound in (said, config.positions) if bound is not None and bound < 1 << 30]
    return int(min(bounds, default=FURTHEST))


def read_object(path: Path, required: bool = True) -> JsonObject:
    """A JSON object; empty where the file is absent and not required."""
    if not required and not path.exists():
        return {}
    if not path.exists():
        raise InvalidFile(f"{path}: no such file; expected the folder of a sentence-transformers model")
    values = read_json(path)
    if not isinstance(values, dict):
        raise InvalidFile(f"{path}: expected a JSON object")
    return values
