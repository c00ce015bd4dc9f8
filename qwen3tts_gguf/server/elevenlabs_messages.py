"""ElevenLabs' messages and bodies, without a connection. Pipecat and LiveKit use the socket with contexts.

    stream-input        one text: text ..., then "" as its end
    multi-stream-input  several, by `context_id`: text ..., `flush`, `close_context`; "" keeps the connection alive

Real clients flush before they close a context whose text is complete, and close without a flush when they are
interrupted, so the former is spoken to its end and the latter stops at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .problems import Problem
from .settings import Settings
from .speech_fields import SpeechFields, parse_fields, parse_json

__all__ = [
    "CloseContext",
    "CloseSocket",
    "KeepAlive",
    "Message",
    "Text",
    "fields_of",
    "key_of",
    "read_message",
    "whole_fields",
]

_MOST_TEXT = 128 << 10
_MOST_CONTEXT = 256


@dataclass(frozen=True)
class Text:
    """Text of a context, and what is to happen after it. fields: given by a context's first message alone."""

    context: str
    text: str
    flush: bool
    ends: bool
    fields: dict[str, Any]


@dataclass(frozen=True)
class CloseContext:
    context: str


class CloseSocket:
    """Everything is spoken to its end, then the connection closes."""


class KeepAlive:
    """Nothing but a sign of life."""


Message = Text | CloseContext | CloseSocket | KeepAlive


def read_message(frame: str | bytes, *, has_contexts: bool) -> tuple[Message, dict[str, Any]]:
    """One frame of the client -> what it means, and its fields. Raises Problem."""
    if isinstance(frame, bytes):
        raise Problem(400, "invalid_message", "messages are JSON in text frames, not binary ones")
    message = parse_json(frame.encode("utf-8", "surrogatepass"))
    if message.get("close_socket") is True:
        return CloseSocket(), message
    context = message.get("context_id", "")
    if not isinstance(context, str) or len(context) > _MOST_CONTEXT or (context and not has_contexts):
        raise Problem(400, "invalid_value", "context_id is a short string, on multi-stream-input", param="context_id")
    if message.get("close_context") is True:
        return CloseContext(context), message
    text, flush = message.get("text", ""), message.get("flush") is True
    if not isinstance(text, str) or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Problem(400, "invalid_value", "text is a string of valid Unicode", param="text")
    if len(text.encode()) > _MOST_TEXT:
        raise Problem(400, "input_too_long", f"one message has at most {_MOST_TEXT >> 10} KiB of text", param="text")
    ends = not has_contexts and text == "" and "text" in message
    if not (text or flush or ends):
        return KeepAlive(), message
    return Text(context, text, flush, ends, _settings(message)), message


def _settings(message: dict[str, Any]) -> dict[str, Any]:
    """The speed; the other settings mean nothing to this model."""
    settings = message.get("voice_settings", {})
    if not isinstance(settings, dict) or not isinstance(message.get("generation_config", {}), dict):
        raise Problem(400, "invalid_value", "voice_settings and generation_config are objects", param="voice_settings")
    return {} if settings.get("speed") is None else {"speed": settings["speed"]}


def key_of(message: dict[str, Any]) -> list[str]:
    """The API keys of a first message."""
    given = [message.get(name) for name in ("xi_api_key", "xi-api-key", "authorization")]
    return [key.removeprefix("Bearer ") for key in given if isinstance(key, str)]


def fields_of(voice: str, query: dict[str, str], settings: Settings, more: dict[str, Any]) -> SpeechFields:
    """How to speak, from the address and a context's first message. Raises Problem."""
    given: dict[str, Any] = {"input": ".", "voice": voice, "response_format": "pcm", **more}
    if query.get("language_code"):
        given["language"] = query["language_code"]
    if "seed" in query:
        if not query["seed"].isdecimal() or len(query["seed"]) > 18:
            raise Problem(400, "invalid_value", "seed is a number", param="seed")
        given["seed"] = int(query["seed"])
    return parse_fields(given, settings)


def whole_fields(
    voice: str, body: dict[str, Any], settings: Settings, *, codec: str, is_streamed: bool
) -> SpeechFields:
    """How to speak, from the body of a POST. Other fields than text, language, seed and speed are ignored. Raises
    Problem."""
    text = body.get("text")
    if text is None:
        raise Problem(400, "missing_required_field", "the field text is missing", param="text")
    if not isinstance(text, str):
        raise Problem(400, "invalid_value", "text is a string", param="text")
    given = {"input": text, "voice": voice, "response_format": codec, "stream": is_streamed, **_settings(body)}
    for name, theirs in (("language", "language_code"), ("seed", "seed")):
        if theirs in body:
            given[name] = body[theirs]
    return parse_fields(given, settings)
