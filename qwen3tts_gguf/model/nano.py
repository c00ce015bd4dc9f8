"""The model that comes with the package: small, trained on synthetic speech, and at home in two hundred words.

Its card, its ten voices and the recipe that makes it lie in models/nano of the repository.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelFileError

__all__ = ["DOMAIN", "NAME", "folder", "resolved"]

NAME = "nano"
"""What stands for it where a path is asked for."""
DOMAIN = "English numbers, times, dates and short commands, some two hundred words"

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "nano_model", _PACKAGE.parent / "models" / NAME)  # in an installed package; in a checkout


def folder() -> Path:
    """Where its pair lies. Raises ModelFileError where the package came without it."""
    for place in _PLACES:
        if any(place.glob("*.gguf")):
            return place
    raise ModelFileError(f"this installation came without the model {NAME!r}")


def resolved(path: Path) -> Path:
    """The path itself; nano's folder for its name, unless there is something of that name. Raises ModelFileError."""
    return folder() if path == Path(NAME) and not path.exists() else path
