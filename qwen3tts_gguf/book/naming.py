"""File names of chapters."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["chapter_name"]

_MOST_BYTES = 120
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')


def chapter_name(number: int, n_chapters: int, title: str, suffix: str) -> str:
    """As 03 The Letter.mp3: a name that every file system takes, and never a path."""
    title = unicodedata.normalize("NFC", _NOT_IN_NAMES.sub(" ", title))
    title = "".join(letter for letter in title if letter.isprintable())
    title = " ".join(title.split()).encode()[:_MOST_BYTES].decode(errors="ignore").strip(" .")
    return f"{number:0{max(2, len(str(n_chapters)))}} {title}".strip() + suffix
