"""File names of chapters, and digests of all that a chapter's sound depends on."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..speech.options import SpeechOptions
from ..voice.voice import Voice

__all__ = ["chapter_name", "digest", "model_digest", "options_text", "voice_digest"]

_MOST_BYTES = 120
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')
_SAMPLED_BYTES, _N_SAMPLED = 1 << 16, 64


def chapter_name(number: int, n_chapters: int, title: str, suffix: str) -> str:
    """As 03 The Letter.mp3: a name that every file system takes, and never a path."""
    title = unicodedata.normalize("NFC", _NOT_IN_NAMES.sub(" ", title))
    title = "".join(letter for letter in title if letter.isprintable())
    title = " ".join(title.split()).encode()[:_MOST_BYTES].decode(errors="ignore").strip(" .")
    return f"{number:0{max(2, len(str(n_chapters)))}} {title}".strip() + suffix


def digest(*values: Any) -> str:
    """Of what JSON can write."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def model_digest(*files: Path) -> str:
    """Of the size and of samples all over the files: two gigabytes are not read for it."""
    whole = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        whole.update(f"{size} ".encode())
        with path.open("rb") as file:
            for i in range(_N_SAMPLED):
                file.seek(i * max(0, size - _SAMPLED_BYTES) // max(1, _N_SAMPLED - 1))
                whole.update(file.read(_SAMPLED_BYTES))
    return whole.hexdigest()[:32]


def voice_digest(voice: Voice) -> str:
    """Of what of a voice changes speech."""
    whole = hashlib.sha256()
    for values in (voice.speaker, voice.codes):
        whole.update(b"-" if values is None else f"{values.dtype} {values.shape}".encode() + values.tobytes())
    words = (voice.transcript, voice.preset_name, voice.instruct, voice.language, voice.vector_only)
    whole.update(json.dumps(words).encode())
    return whole.hexdigest()[:32]


def options_text(options: SpeechOptions) -> str:
    """Of what of them changes speech that ends: the seed included, the number of retries not."""
    return repr(replace(options, retries=0))
