"""The model that comes with the package: small, trained on synthetic speech, and limited to two hundred words.

Its card, its ten voices and the recipe that makes it are in models/nano of the repository.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ..errors import ModelFileError, Note

__all__ = ["DOMAIN", "NAME", "folder", "resolved", "word_notes"]

NAME = "nano"
PASSAGE_LETTERS = 60
"""It learned single sentences. Of eight texts each, spoken in one go against sentence by sentence: two sentences of 64
letters together take 1.14 of the time, four of 132 letters 0.76, because words are left out."""
"""What stands for it where a path is asked for."""
DOMAIN = "English numbers, times, dates and short commands, some two hundred words"

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "nano_model", _PACKAGE.parent / "models" / NAME)  # in an installed package; in a checkout


def folder() -> Path:
    """Where its pair lies. Raises ModelFileError where the package came without it."""
    for place in _PLACES:
        if any(place.glob("*.gguf")):
            return place
    raise ModelFileError(f"this installation does not contain the model {NAME!r}")


def word_notes(text: str) -> tuple[Note, ...]:
    """Which words of a text it was not trained on."""
    found = [word.lower() for word in _WORD.findall(text)]
    unknown = list(dict.fromkeys(word for word in found if word not in _words()))
    if not unknown:
        return ()
    more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
    named = ", ".join(unknown[:_MOST_NAMED])
    return (
        Note(f"nano does not know: {named}{more}", f"nano only speaks {DOMAIN}; a converted model speaks any text"),
    )


_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_MOST_NAMED = 10


@cache
def _words() -> frozenset[str]:
    return frozenset((folder() / "words.txt").read_text("utf-8").split())


def resolved(path: Path) -> Path:
    """The path itself; nano's folder for its name, unless there is something of that name. Raises ModelFileError."""
    return folder() if path == Path(NAME) and not path.exists() else path
