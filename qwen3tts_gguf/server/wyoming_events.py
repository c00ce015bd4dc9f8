"""Wyoming's events, read within bounds, and the order in which a client of speech sends them. No connection here but
the stream that is read.

    synthesize                                                            ──> one text
    synthesize-start, synthesize-chunk ..., synthesize, synthesize-stop   ──> one text, in pieces

Home Assistant sends the whole text again as `synthesize` before the stop, for servers that know no pieces.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from wyoming.event import Event
from wyoming.info import Describe
from wyoming.ping import Ping
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeVoice

from .problems import Problem

__all__ = ["MOST_LINE", "AskedInfo", "AskedPing", "Begin", "End", "Order", "Piece", "read_event"]

MOST_LINE = 64 << 10
"""Bytes of an event's first line."""
_MOST_DATA = 1 << 20
_MOST_PAYLOAD = 1 << 20
"""What comes as bytes is sound for other services; it is skipped."""


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event; None at the end. The library's own reader believes any length. Raises Problem; the stream cannot
    be read on after it."""
    try:
        line = await reader.readline()
        if not line:
            return None
        head = _object(line)
        data = head.get("data") or {}
        n_data, n_payload = _length(head, "data_length", _MOST_DATA), _length(head, "payload_length", _MOST_PAYLOAD)
        if n_data:
            data = {**data, **_object(await reader.readexactly(n_data))}
        if n_payload:
            await reader.readexactly(n_payload)
    except asyncio.IncompleteReadError:
        return None
    except (ValueError, TypeError, RecursionError):
        raise _invalid("this is no Wyoming event") from None
    kind = head.get("type")
    if not isinstance(kind, str):
        raise _invalid("an event needs a type")
    return Event(kind, data)


def _object(line: bytes) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _length(head: dict[str, Any], name: str, most: int) -> int:
    n = head.get(name) or 0
    if not isinstance(n, int) or not 0 <= n <= most:
        raise _invalid(f"{name} must be 0 to {most}")
    return n


def _invalid(message: str) -> Problem:
    return Problem(400, "invalid_event", message)


class AskedInfo:
    """What can be spoken with?"""


@dataclass(frozen=True)
class AskedPing:
    text: str | None


@dataclass(frozen=True)
class Begin:
    """A text begins. streams: it comes in pieces, and `synthesize-stopped` ends its sound."""

    voice: str | None
    language: str | None
    streams: bool


@dataclass(frozen=True)
class Piece:
    text: str


@dataclass(frozen=True)
class End:
    """The text is complete."""


Step = AskedInfo | AskedPing | Begin | Piece | End


class Order:
    """One connection's events, as steps."""

    def __init__(self) -> None:
        self._is_streaming = False

    def steps(self, event: Event) -> list[Step]:
        """What an event means; nothing for those of other services. Raises Problem."""
        if Describe.is_type(event.type):
            return [AskedInfo()]
        if Ping.is_type(event.type):
            text = event.data.get("text")
            return [AskedPing(text if isinstance(text, str) else None)]
        if Synthesize.is_type(event.type):
            if self._is_streaming:
                return []
            return [_begin(event, streams=False), Piece(_text(event)), End()]
        if SynthesizeStart.is_type(event.type):
            if self._is_streaming:
                raise _invalid("synthesize-start came twice")
            begin = _begin(event, streams=True)
            self._is_streaming = True
            return [begin]
        if SynthesizeChunk.is_type(event.type):
            if not self._is_streaming:
                raise _invalid("synthesize-chunk came before synthesize-start")
            return [Piece(_text(event))]
        if SynthesizeStop.is_type(event.type) and self._is_streaming:
            self._is_streaming = False
            return [End()]
        return []


def _text(event: Event) -> str:
    text = event.data.get("text")
    if not isinstance(text, str):
        raise _invalid(f"{event.type} needs a string as text")
    return text


def _begin(event: Event, *, streams: bool) -> Begin:
    data = event.data.get("voice")
    voice = SynthesizeVoice.from_dict(data) if isinstance(data, dict) else None
    name = voice.name if voice is not None else None
    language = voice.language if voice is not None else None
    if not isinstance(name, str | None) or not isinstance(language, str | None):
        raise _invalid("a voice's name and language are strings")
    return Begin(name or None, language or None, streams)
