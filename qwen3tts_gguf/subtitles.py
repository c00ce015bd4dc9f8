"""Subtitles: the times of passages as .srt or .vtt, by pysubs2."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pysubs2

from .errors import OptionError
from .whole_file import whole_file

__all__ = ["Cue", "require_subtitles", "write_subtitles"]

_SUFFIXES = (".srt", ".vtt")
_PLAIN = str.maketrans({"{": "(", "}": ")", "\\": "/"})


@dataclass(frozen=True)
class Cue:
    """Words on the screen, and when; seconds from the start."""

    start: float
    stop: float
    text: str


def require_subtitles(path: Path) -> None:
    """Before the work is done: that the suffix is known and the folder is there. Raises OptionError."""
    if path.suffix.lower() not in _SUFFIXES:
        raise OptionError(f"{path}: subtitles are saved as {' or '.join(_SUFFIXES)}")
    if path.is_dir():
        raise OptionError(f"{path}: cannot be written, because it is a folder")
    if not path.parent.is_dir():
        raise OptionError(f"{path}: cannot be written, because there is no folder {path.parent}")


def write_subtitles(path: Path, cues: Iterable[Cue]) -> None:
    """A file that appears only when it is whole. Raises OptionError."""
    require_subtitles(path)
    format = path.suffix.lower().lstrip(".")
    subtitles = pysubs2.SSAFile()
    for cue in cues:
        event = pysubs2.SSAEvent(start=round(cue.start * 1000), end=round(cue.stop * 1000))
        event.plaintext = _shown(cue.text, format)
        subtitles.append(event)
    try:
        with whole_file(path) as unfinished:
            unfinished.write_text(subtitles.to_string(format), "utf-8")
    except OSError as error:
        raise OptionError(f"{path}: cannot be written ({error.strerror})") from None


def _shown(text: str, format: str) -> str:
    """A text on one line, without what pysubs2 would take for styles, or players for markup."""
    text = " ".join(text.split()).translate(_PLAIN).replace("-->", "\N{RIGHTWARDS ARROW}")
    return html.escape(text, quote=False) if format == "vtt" else text
