"""What is sent around the bytes of an answer's sound."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Protocol

from .problems import Problem

__all__ = ["Bare", "Events", "Framing", "Timed"]


class Framing(Protocol):
    """One answer's."""

    @property
    def media_type(self) -> str | None:
        """Of the answer, where it is no longer that of the sound."""

    def block(self, sound: bytes) -> bytes:
        """Some bytes of the sound; of a whole answer, all of them."""

    def end(self, usage: Mapping[str, int]) -> bytes:
        """After the last ones of a stream. usage: tokens of text and frames of speech."""

    def error(self, problem: Problem) -> bytes:
        """The last that is sent of a stream that fails; its connection breaks after it."""


class Bare:
    """Nothing around them."""

    media_type = None

    def block(self, sound: bytes) -> bytes:
        return sound

    def end(self, usage: Mapping[str, int]) -> bytes:
        return b""

    def error(self, problem: Problem) -> bytes:
        return b""


class Events:
    """OpenAI's server-sent events, named by their type too, which `EventSource` listens for."""

    media_type = "text/event-stream; charset=utf-8"

    def block(self, sound: bytes) -> bytes:
        return _event("speech.audio.delta", audio=base64.b64encode(sound).decode())

    def end(self, usage: Mapping[str, int]) -> bytes:
        return _event("speech.audio.done", usage=usage)

    def error(self, problem: Problem) -> bytes:
        return _event("speech.audio.error", error=problem.error)


class Timed:
    """ElevenLabs' `with-timestamps`: a JSON object per line. There are no times, because the model does not report when
    it speaks which letter."""

    media_type = "application/json"

    def block(self, sound: bytes) -> bytes:
        audio = base64.b64encode(sound).decode()
        return _line({"audio_base64": audio, "alignment": None, "normalized_alignment": None})

    def end(self, usage: Mapping[str, int]) -> bytes:
        return b""

    def error(self, problem: Problem) -> bytes:
        return _line({"error": problem.error})


def _event(type: str, **fields: Any) -> bytes:
    return f"event: {type}\ndata: ".encode() + _line({"type": type, **fields}) + b"\n"


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
