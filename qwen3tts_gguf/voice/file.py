"""The file a voice is kept in: safetensors, its texts as JSON in the metadata. No pickle, nothing trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import VoiceError
from ..model.schema import N_CODEBOOKS
from ..whole_file import whole_file

__all__ = ["read_voice_file", "write_voice_file"]

_FORMAT = "qwen3tts-voice-1"
_ARRAYS = ("speaker", "codes")
_TEXTS = ("transcript", "preset_name", "instruct", "language", "codec", "speaker_encoder", "clip_sha256")
_NUMBERS = ("clip_rate_hz",)
_MAX_VECTOR, _MAX_FRAMES = 16_384, 4_096
_MAX_FILE_BYTES = 1 << 20
_MAX_VALUE = 1e4  # of a speaker vector; a row a thousand times larger than the rest drowns the text


def write_voice_file(path: Path, fields: Mapping[str, Any]) -> None:
    """fields: a voice's, by name. The file appears only when it is whole. Raises VoiceError."""
    arrays = {name: fields[name] for name in _ARRAYS if fields[name] is not None}
    texts = {name: fields[name] for name in (*_TEXTS, *_NUMBERS) if fields[name]}
    if problem := _problem(arrays, texts):
        raise VoiceError(f"{path}: this voice cannot be saved: {problem}")
    if not arrays:  # safetensors wants a tensor, and a preset or a description has none
        arrays = {"nothing": np.zeros(1, np.float32)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # safetensors ignores strides
    content = save(arrays, metadata={"format": _FORMAT, "voice": json.dumps(texts, ensure_ascii=False)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise VoiceError(f"{path}: cannot be written ({error.strerror})") from None


def read_voice_file(path: Path) -> dict[str, Any]:
    """A voice's fields by name, those it has. Raises VoiceError for anything that is not one, whole and sound."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise VoiceError(f"{path}: not a voice file")
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise VoiceError(f"{path}: too large for a voice file")
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise VoiceError(f"{path}: not a voice saved by qwen3tts")
            arrays = {name: file.get_tensor(name) for name in file.keys() if name in _ARRAYS}  # noqa: SIM118
        texts = json.loads(metadata["voice"])
    except FileNotFoundError:
        raise VoiceError(f"{path}: no such file") from None
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise VoiceError(f"{path}: not a voice file, or a damaged one ({type(error).__name__})") from None
    if problem := _problem(arrays, texts):
        raise VoiceError(f"{path}: the voice file is damaged: {problem}")
    return {**arrays, **texts}


def _problem(arrays: dict[str, NDArray[Any]], texts: Any) -> str | None:
    """What keeps these from being a voice."""
    if not isinstance(texts, dict) or not all(_is_known(name, value) for name, value in texts.items()):
        return "it has a text of the wrong type, or one of an unknown name"
    speaker, codes = arrays.get("speaker"), arrays.get("codes")
    if speaker is not None and not (
        speaker.dtype == np.float32
        and speaker.ndim == 1
        and 0 < speaker.size <= _MAX_VECTOR
        and (np.abs(speaker) <= _MAX_VALUE).all()
    ):
        return "its speaker vector has the wrong type, shape or values"
    if codes is not None and not (
        codes.dtype == np.int32
        and codes.ndim == 2
        and codes.shape[1] == N_CODEBOOKS
        and 0 < len(codes) <= _MAX_FRAMES
        and codes.min() >= 0
    ):
        return f"its codes have the wrong type, shape or values, or more than {_MAX_FRAMES} frames"
    if (codes is None) != ("transcript" not in texts):
        return "it has codes without a transcript, or a transcript without codes"
    return None


def _is_text(value: Any) -> bool:
    """A string that can be written out again: JSON may contain halves of surrogate pairs."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_known(name: str, value: Any) -> bool:
    if name in _NUMBERS:
        return type(value) is int and 0 < value < 1 << 31
    return name in _TEXTS and _is_text(value)
