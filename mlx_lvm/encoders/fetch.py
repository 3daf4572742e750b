"""An encoder's folder by its name: a local folder, the Hub's cache on this machine, or the Hub itself.

`huggingface_hub` keeps what it fetched, and its variables hold here (HF_HOME, HF_HUB_OFFLINE, HF_TOKEN).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_lvm.errors import InvalidFile, SetupInvalid, needing, one_line

FILES = ["*.json", "*.safetensors"]  # never a pickle
OTHERS = ["onnx/*", "openvino/*", "*/onnx/*"]
HOME = "sentence-transformers"  # the Hub's organisation that a bare name is looked for in


def hub_id(name: str) -> str:
    """A bare name is one of the organisation HOME."""
    return name if "/" in name else f"{HOME}/{name}"


def local_folder(name: str) -> Path | None:
    """The folder of that name, None where it can only be a Hub id. Raises InvalidFile for any other path."""
    path = Path(name).expanduser()
    if path.is_file():
        raise InvalidFile(f"encoder {name}: a file; give the folder of a sentence-transformers model")
    if not path.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InvalidFile(f"encoder {name}: no such folder")
    return path if path.is_dir() else None


def find_encoder(name: str, revision: str | None = None) -> tuple[Path, str]:
    """(folder, commit of the Hub, empty for a local folder). What is in the cache needs no network.

    Raises InvalidFile for a path that is no folder, SetupInvalid for what is not here and cannot be fetched.
    """
    local = local_folder(name)
    if local is not None:
        return local, ""
    with needing("embed", f"encoder {name}: to fetch it needs huggingface_hub"):
        from huggingface_hub import constants, snapshot_download
    options: dict[str, Any] = {"revision": revision, "allow_patterns": FILES, "ignore_patterns": OTHERS}
    repository = hub_id(name)
    why = "only a part of it is in the cache"
    for only_local in (True, False):
        try:
            folder = Path(snapshot_download(repository, local_files_only=only_local, **options))
        except Exception as error:  # a dozen kinds, and those of the HTTP library under it
            why = one_line(error)
            continue
        if _is_whole(folder) or not (only_local or constants.HF_HUB_OFFLINE):
            return folder, folder.name  # of a model without them, the reader says what is missing
    at = f" at {revision}" if revision else ""
    raise SetupInvalid(
        f"encoder '{repository}'{at} is not on this machine and cannot be fetched ({why}). "
        "With a network it is downloaded once; without one, pass --encoder FOLDER of a model."
    )


def _is_whole(folder: Path) -> bool:
    """Whether a cached snapshot holds an encoder; another program may have fetched one file of it."""
    weights = any(folder.glob("*.safetensors")) or any(folder.glob("*/*.safetensors"))
    return weights and (folder / "config.json").exists() and any(folder.glob("tokenizer.json"))
