"""What ships with the package: corpora (`<name>.safetensors`) and released models
(`<name>/model.safetensors`).
"""

from pathlib import Path

HERE = Path(__file__).parent


def corpora() -> dict[str, Path]:
    """Shipped corpora by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.safetensors"))}


def released() -> dict[str, Path]:
    """Folders of the released models by name."""
    return {path.parent.name: path.parent for path in sorted(HERE.glob("*/model.safetensors"))}
