"""Voices kept under a name: one safetensors file each, in one folder."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import VoiceError
from .schema import N_CODEBOOKS
from .voice import Voice

__all__ = ["SUFFIX", "VoiceStore", "load_voice", "mix", "save_voice"]

SUFFIX = ".voice.safetensors"
_FORMAT = "qwen3tts-voice-1"
_NAME = re.compile(r"[\w][\w .-]{0,63}")
_TEXTS = ("transcript", "preset_name", "instruct", "language", "codec", "speaker_encoder", "clip_sha256")
_NUMBERS = ("clip_rate_hz",)
_MAX_VECTOR, _MAX_FRAMES = 16_384, 4_096
_MAX_FILE_BYTES = 1 << 20
_MAX_NAME_BYTES = 200  # of the 255 that file systems take, with the suffix and that of an unfinished file


@dataclass(frozen=True)
class VoiceStore:
    """A folder of voices. Names are letters, digits, spaces, `.`, `-` and `_`, so that none can leave the folder."""

    folder: Path

    def path(self, name: str) -> Path:
        """Raises VoiceError for what cannot be a name."""
        if not _is_name(name):
            raise VoiceError(f"{name!r} cannot be a voice's name: letters, digits, spaces, . - _, at most 64")
        return self.folder / f"{name}{SUFFIX}"

    def names(self) -> list[str]:
        """Of the files here that can be loaded by name."""
        return sorted(filter(_is_name, (path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))))

    def load(self, name: str) -> Voice:
        path = self.path(name)
        if not path.is_file():
            known = ", ".join(self.names()) or "none yet"
            raise VoiceError(f"no voice named {name!r} in {self.folder} ({known})")
        return load_voice(path)

    def save(self, name: str, voice: Voice, *, overwrite: bool = False) -> Path:
        path = self.require_free(name, overwrite=overwrite)
        save_voice(path, voice)
        return path

    def require_free(self, name: str, *, overwrite: bool = False) -> Path:
        """The path for a new voice of that name. Raises VoiceError when there is one already."""
        path = self.path(name)
        if path.exists() and not overwrite:
            raise VoiceError(f"there is a voice named {name!r} already; delete it first, or say --force")
        return path

    def delete(self, name: str) -> None:
        path = self.path(name)
        if not path.is_file():
            raise VoiceError(f"no voice named {name!r} in {self.folder}")
        try:
            path.unlink()
        except OSError as error:
            raise VoiceError(f"{path}: cannot be deleted ({error.strerror})") from None


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name[-1] not in " ." and len(name.encode()) <= _MAX_NAME_BYTES


def save_voice(path: Path, voice: Voice) -> None:
    """Write a voice; the file appears only when it is whole. Raises VoiceError."""
    arrays = {name: array for name in ("speaker", "codes") if (array := getattr(voice, name)) is not None}
    texts = {name: value for name in (*_TEXTS, *_NUMBERS) if (value := getattr(voice, name))}
    if problem := _problem(arrays, texts):
        raise VoiceError(f"{path}: this voice cannot be kept: {problem}")
    if not arrays:  # safetensors wants a tensor, and a preset or a description has none
        arrays = {"nothing": np.zeros(1, np.float32)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # safetensors ignores strides
    content = save(arrays, metadata={"format": _FORMAT, "voice": json.dumps(texts, ensure_ascii=False)})
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise VoiceError(f"{path}: cannot be written ({error.strerror})") from None


def load_voice(path: Path) -> Voice:
    """Read a voice. Raises VoiceError for anything that is not one, whole and sound."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise VoiceError(f"{path}: too large for a voice")
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise VoiceError(f"{path}: not a voice saved by qwen3tts")
            arrays = {name: file.get_tensor(name) for name in file.keys() if name in ("speaker", "codes")}  # noqa: SIM118
        texts = json.loads(metadata["voice"])
    except FileNotFoundError:
        raise VoiceError(f"{path}: no such file") from None
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise VoiceError(f"{path}: not a voice file, or a damaged one ({type(error).__name__})") from None
    if problem := _problem(arrays, texts):
        raise VoiceError(f"{path}: a damaged voice: {problem}")
    return Voice(**arrays, **texts)


def _problem(arrays: dict[str, NDArray[Any]], texts: Any) -> str | None:
    """What keeps these from being a voice."""
    if not isinstance(texts, dict) or not all(_is_known(name, value) for name, value in texts.items()):
        return "its texts are not texts"
    speaker, codes = arrays.get("speaker"), arrays.get("codes")
    if speaker is not None and not (
        speaker.dtype == np.float32
        and speaker.ndim == 1
        and 0 < speaker.size <= _MAX_VECTOR
        and np.isfinite(speaker).all()
    ):
        return "its speaker vector is not one"
    if codes is not None and not (
        codes.dtype == np.int32
        and codes.ndim == 2
        and codes.shape[1] == N_CODEBOOKS
        and 0 < len(codes) <= _MAX_FRAMES
        and codes.min() >= 0
    ):
        return f"its codes are not codes, or more than {_MAX_FRAMES} frames"
    if (codes is None) != ("transcript" not in texts):
        return "codes and transcript belong together"
    return None


def _is_text(value: Any) -> bool:
    """A string that can be written out again: JSON may hold halves of surrogate pairs."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_known(name: str, value: Any) -> bool:
    if name in _NUMBERS:
        return type(value) is int and 0 < value < 1 << 31
    return name in _TEXTS and _is_text(value)


def mix(voices: list[Voice], weights: list[float]) -> Voice:
    """The weighted mean of speaker vectors; what else the voices have cannot be mixed. Raises VoiceError."""
    if len(voices) != len(weights) or len(voices) < 2:
        raise VoiceError("mixing takes two voices or more, and a weight for each")
    vectors = [voice.speaker for voice in voices if voice.speaker is not None]
    if len(vectors) != len(voices):
        raise VoiceError("only voices with a speaker vector can be mixed")
    if len({(vector.size, voice.speaker_encoder) for vector, voice in zip(vectors, voices, strict=True)}) != 1:
        raise VoiceError("these voices are of different models: their speaker vectors cannot be mixed")
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < float("inf"):
        raise VoiceError("weights must be numbers, not negative, and not all zero")
    mixed = sum(weight / total * vector for weight, vector in zip(weights, vectors, strict=True))
    return Voice(speaker=np.asarray(mixed, np.float32), speaker_encoder=voices[0].speaker_encoder)
