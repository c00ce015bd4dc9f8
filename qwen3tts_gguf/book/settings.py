"""How a book is made, besides voice and options, and what can be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..audio_speed import SpeedChanger
from ..errors import OptionError
from ..speech.passages import Split
from ..speech.script import PAUSES
from .m4b import require_av
from .tagging import require_mutagen

__all__ = ["FORMATS", "Settings", "chapter_format", "is_m4b", "require_output"]

FORMATS = ("mp3", "opus", "flac", "wav")
_FORMAT_IN_M4B = "flac"


@dataclass(frozen=True)
class Settings:
    format: str = "mp3"
    """Of a folder's files: one of `FORMATS`."""
    split: Split = "auto"
    pauses: tuple[float, float] = PAUSES
    speed: float = 1.0
    subtitles: str = ""
    """"srt" or "vtt": each chapter has a file of them, or the .m4b one; sentences are then passages of their own."""


def is_m4b(out: Path) -> bool:
    return out.suffix.lower() == ".m4b"


def chapter_format(out: Path, settings: Settings) -> str:
    """Of the chapters' files; those of an .m4b are kept without loss until it is encoded."""
    return _FORMAT_IN_M4B if is_m4b(out) else settings.format


def require_output(out: Path, settings: Settings) -> None:
    """That the output can be made, before a model is loaded. Raises OptionError."""
    require_mutagen()
    SpeedChanger(settings.speed)
    if settings.format not in FORMATS:
        raise OptionError(f"unknown format {settings.format!r} of chapters", hint=f"choose one of {', '.join(FORMATS)}")
    if settings.subtitles not in ("", "srt", "vtt"):
        raise OptionError(f"unknown subtitles {settings.subtitles!r}", hint="choose srt or vtt")
    if is_m4b(out):
        require_av()
        if out.is_dir() or not out.parent.is_dir():
            raise OptionError(f"{out}: cannot be written there")
    elif out.exists() and not out.is_dir():
        raise OptionError(f"{out}: this is a file", hint="give a folder, or a name that ends in .m4b")
    elif out.suffix.lower().lstrip(".") in (*FORMATS, "ogg", "m4a"):
        raise OptionError(f"{out}: a book is a folder of files, or one .m4b", hint="give a folder, and `format`")
