"""The messages of WebSocket `/v1/audio/speech/stream`, without a connection: what a client may send, and when.

session.config ──> input.text ... input.done ──> input.text ... input.done ──> ... session.close
                       │ input.cancel: stop speaking, forget what is not spoken
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .arriving_text import Pacing
from .problems import Problem
from .settings import Settings
from .speech_fields import SpeechFields, parse_fields, parse_json

__all__ = ["MOST_TEXT", "Cancel", "Close", "Config", "Done", "Message", "Reader", "Text"]

MOST_TEXT = 128 << 10
"""Bytes of one message of text."""
_PACINGS: dict[str, Pacing] = {
    "auto": "auto",
    "token": "token",
    "sentence": "sentence",
    "clause": "sentence",
    "none": "none",
}


@dataclass(frozen=True)
class Config:
    """How to speak from the next utterance on."""

    fields: SpeechFields
    pacing: Pacing


@dataclass(frozen=True)
class Text:
    text: str


class Done:
    """The utterance's text is complete."""


class Cancel:
    """Barge-in."""


class Close:
    """The session is over when all is spoken."""


Message = Config | Text | Done | Cancel | Close


class Reader:
    """Reads one session's messages in their order."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.is_configured = False

    def read(self, frame: str | bytes) -> Message:
        """One frame of the client. Raises Problem; the session may go on after it."""
        if isinstance(frame, bytes):
            raise Problem(400, "invalid_message", "messages are JSON in text frames, not binary ones")
        message = parse_json(frame.encode("utf-8", "surrogatepass"))
        kind = message.get("type")
        if kind == "session.config":
            return self._config(message)
        if kind not in ("input.text", "input.done", "input.cancel", "session.close"):
            raise Problem(400, "invalid_message", f"unknown message type {kind!r:.60}", param="type")
        if not self.is_configured:
            raise Problem(400, "invalid_message", "the first message must be session.config", param="type")
        if kind == "input.text":
            return self._text(message)
        return Done() if kind == "input.done" else Cancel() if kind == "input.cancel" else Close()

    def _text(self, message: dict[str, Any]) -> Text:
        text = message.get("text")
        if not isinstance(text, str):
            raise Problem(400, "invalid_value", "input.text needs a string as text", param="text")
        if len(text.encode("utf-8", "surrogatepass")) > MOST_TEXT:
            raise Problem(400, "input_too_long", f"one message has at most {MOST_TEXT >> 10} KiB of text", param="text")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise Problem(400, "invalid_value", "the text contains unpaired surrogates", param="text")
        return Text(text)

    def _config(self, message: dict[str, Any]) -> Config:
        streams = message.get("stream_audio", True)
        if not isinstance(streams, bool):
            raise Problem(400, "invalid_value", "stream_audio is true or false", param="stream_audio")
        given = {"response_format": "pcm", **message, "input": ".", "stream": streams}
        split = given.get("split_granularity", "auto" if streams else "none")
        if not isinstance(split, str) or split not in _PACINGS:
            message_ = f"split_granularity is one of {', '.join(_PACINGS)}"
            raise Problem(400, "invalid_value", message_, param="split_granularity")
        config = Config(parse_fields(given, self._settings), _PACINGS[split])
        self.is_configured = True
        return config
