"""Digests of what a speech depends on: the model, the voice and the options. Work that resumes compares them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from .model import nano
from .model.files import ModelFiles
from .speech.options import SpeechOptions
from .voice.voice import Voice

__all__ = ["digest", "model_digest", "model_fingerprint", "options_text", "voice_digest"]

_SAMPLED_BYTES, _N_SAMPLED = 1 << 16, 64
_BLOCK = 1 << 20


def digest(*values: Any) -> str:
    """A digest of any values that JSON can write."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def model_digest(*files: Path) -> str:
    """A digest of the sizes and of samples from all over the files, which takes no time even for large models."""
    whole = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        whole.update(f"{size} ".encode())
        with path.open("rb") as file:
            for i in range(_N_SAMPLED):
                file.seek(i * max(0, size - _SAMPLED_BYTES) // max(1, _N_SAMPLED - 1))
                whole.update(file.read(_SAMPLED_BYTES))
    return whole.hexdigest()[:32]


def model_fingerprint(model: Path, mmproj: Path | None = None) -> str:
    """A digest of every byte of a pair, for data sets and for comparing machines. Raises ModelFileError."""
    files = ModelFiles(nano.resolved(model), mmproj)
    whole = hashlib.sha256()
    for path in (files.talker.file.path, files.mmproj.file.path):
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
    return whole.hexdigest()[:16]


def voice_digest(voice: Voice) -> str:
    """A digest of everything in a voice that changes speech."""
    whole = hashlib.sha256()
    for values in (voice.speaker, voice.codes):
        whole.update(b"-" if values is None else f"{values.dtype} {values.shape}".encode() + values.tobytes())
    words = (voice.transcript, voice.preset_name, voice.instruct, voice.language, voice.vector_only)
    whole.update(json.dumps(words).encode())
    return whole.hexdigest()[:32]


def options_text(options: SpeechOptions) -> str:
    """The options that change a speech that ends, as text: all but the number of retries."""
    return repr(replace(options, retries=0))
