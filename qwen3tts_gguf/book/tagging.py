"""Tags of the chapters' files, by mutagen (extra `book`)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError

__all__ = ["Tags", "require_mutagen", "write_tags"]

_GENRE = "Audiobook"
_FRONT_COVER = 3


@dataclass(frozen=True)
class Tags:
    """What players show."""

    title: str
    """Of the chapter."""
    book: str
    author: str
    number: int
    n_chapters: int
    cover: bytes = b""

    @property
    def digest(self) -> str:
        """Equal for equal tags."""
        words = repr((self.title, self.book, self.author, self.number, self.n_chapters)).encode()
        return hashlib.sha256(hashlib.sha256(self.cover).digest() + words).hexdigest()[:32]

    @property
    def cover_type(self) -> str:
        return "image/png" if self.cover.startswith(b"\x89PNG") else "image/jpeg"


def require_mutagen() -> Any:
    """Raises OptionError if it is not installed."""
    try:
        import mutagen
    except ImportError:
        raise OptionError("books need mutagen", hint="pip install 'qwen3tts-gguf[book]'") from None
    return mutagen


def write_tags(path: Path, tags: Tags) -> None:
    """path: an .mp3, .flac, .opus, .ogg or .wav file."""
    file = require_mutagen().File(path)
    if file.tags is None:
        file.add_tags()
    if path.suffix in (".mp3", ".wav"):
        _write_id3(file, tags)
    else:
        _write_comments(file, tags)
    file.save()


def _write_id3(file: Any, tags: Tags) -> None:
    from mutagen.id3 import APIC, TALB, TCON, TIT2, TPE1, TRCK

    file.tags.add(TIT2(encoding=3, text=tags.title))
    file.tags.add(TALB(encoding=3, text=tags.book))
    if tags.author:
        file.tags.add(TPE1(encoding=3, text=tags.author))
    file.tags.add(TRCK(encoding=3, text=f"{tags.number}/{tags.n_chapters}"))
    file.tags.add(TCON(encoding=3, text=_GENRE))
    if tags.cover:
        file.tags.add(APIC(encoding=3, mime=tags.cover_type, type=_FRONT_COVER, data=tags.cover))


def _write_comments(file: Any, tags: Tags) -> None:
    from mutagen.flac import FLAC, Picture

    file["title"], file["album"], file["genre"] = tags.title, tags.book, _GENRE
    file["tracknumber"], file["tracktotal"] = str(tags.number), str(tags.n_chapters)
    if tags.author:
        file["artist"] = tags.author
    if tags.cover:
        picture = Picture()
        picture.type, picture.mime, picture.data = _FRONT_COVER, tags.cover_type, tags.cover
        if isinstance(file, FLAC):
            file.clear_pictures()
            file.add_picture(picture)
        else:
            file["metadata_block_picture"] = base64.b64encode(picture.write()).decode("ascii")
