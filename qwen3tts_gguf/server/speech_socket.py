"""WebSocket `/v1/audio/speech/stream`: text in as it is written, sound out as it is made, a session per conversation.

The server's messages: `audio.start`, binary frames, `audio.done`; `session.done` after each utterance; `error`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.websockets import WebSocket

from ..model.schema import SAMPLE_RATE_HZ
from .conversation import Conversation, Output, Sound, SoundEnd, SoundStart, UtteranceEnd
from .encoding import Encoder, encoder
from .problems import Problem
from .record import client_of
from .services import Services
from .sockets import NORMAL, POLICY, closed_when_idle, frames_of, served_by
from .speech_fields import parse_fields
from .speech_messages import Cancel, Close, Config, Done, Reader, Text

__all__ = ["speak_on_socket"]

_WIRE = "websocket"
_CONFIG_SECONDS = 10.0
_IDLE_SECONDS = 300.0
"""Without a message while nothing is spoken, after which the session is closed."""
_MOST_PROBLEMS = 20
"""Wrong messages of one session, after which it is closed."""


async def speak_on_socket(socket: WebSocket, services: Services) -> None:
    """Serve one session that was accepted, until it is closed."""
    await _Session(socket, services).serve()


class _Session:
    def __init__(self, socket: WebSocket, services: Services) -> None:
        self._socket = socket
        self._reader = Reader(services.settings)
        fields = parse_fields({"input": ".", "response_format": "pcm"}, services.settings)
        self._conversation = Conversation(services, _WIRE, client_of(socket.scope), fields, self._send)
        self._encoder: Encoder | None = None
        self._n_bytes = 0
        self._last_message_at = time.monotonic()

    async def serve(self) -> None:
        await served_by(self._socket, self._receive(), self._speak(), self._watch())

    async def _receive(self) -> int:
        n_problems = 0
        async for frame in frames_of(self._socket):
            self._last_message_at = time.monotonic()
            try:
                self._act(frame)
            except Problem as problem:
                await self._send_problem(problem)
                n_problems += 1
                if n_problems >= _MOST_PROBLEMS:
                    return POLICY
        return NORMAL

    def _act(self, frame: str | bytes) -> None:
        message = self._reader.read(frame)
        if isinstance(message, Config):
            if self._conversation.is_open:
                raise Problem(400, "invalid_message", "session.config comes between utterances: send input.done first")
            self._conversation.fields, self._conversation.pacing = message.fields, message.pacing
        elif isinstance(message, Text):
            self._conversation.feed(message.text)
        elif isinstance(message, Done):
            self._conversation.flush()
        elif isinstance(message, Cancel):
            self._conversation.cancel()
        elif isinstance(message, Close):
            self._conversation.end()

    async def _speak(self) -> int:
        await self._conversation.run()
        return NORMAL

    async def _watch(self) -> int:
        def seconds_left() -> float:
            if not self._reader.is_configured:
                return self._last_message_at + _CONFIG_SECONDS - time.monotonic()
            if not self._conversation.is_idle:
                return _IDLE_SECONDS
            return self._last_message_at + _IDLE_SECONDS - time.monotonic()

        await closed_when_idle(seconds_left)
        await self._send_problem(Problem(408, "timeout", "no message came for too long"))
        return NORMAL if self._reader.is_configured else POLICY

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def _send(self, output: Output) -> None:
        if isinstance(output, SoundStart):
            await self._start(output)
        elif isinstance(output, Sound):
            assert self._encoder is not None
            await self._send_bytes(await asyncio.to_thread(self._encoder.write, output.samples))
        elif isinstance(output, SoundEnd):
            await self._finish(output)
        else:
            await self._end(output)

    async def _start(self, start: SoundStart) -> None:
        format = start.fields.response_format
        self._encoder = encoder(format, whole=not start.fields.is_streamed, speed=start.fields.speed)
        self._n_bytes = 0
        place: dict[str, Any] = {"utterance_index": start.utterance, "sentence_index": start.sentence}
        sound = {"format": format, "sample_rate": SAMPLE_RATE_HZ, "channels": 1}
        await self._send_json("audio.start", **place, sentence_text=start.text, **sound)

    async def _finish(self, end: SoundEnd) -> None:
        assert self._encoder is not None
        is_whole = not end.cancelled and end.problem is None
        if is_whole:
            await self._send_bytes(await asyncio.to_thread(self._encoder.finish))
        self._encoder = None
        place: dict[str, Any] = {"utterance_index": end.utterance, "sentence_index": end.sentence}
        facts = {"total_bytes": self._n_bytes, "error": end.problem is not None, "cancelled": end.cancelled}
        await self._send_json("audio.done", **place, **facts)

    async def _end(self, end: UtteranceEnd) -> None:
        if end.problem is not None:
            await self._send_problem(end.problem, utterance_index=end.utterance, partial_audio=end.n_sentences > 0)
        facts = {"total_sentences": end.n_sentences, "cancelled": end.cancelled}
        await self._send_json("session.done", utterance_index=end.utterance, **facts)

    async def _send_bytes(self, data: bytes) -> None:
        if data:
            self._n_bytes += len(data)
            await self._socket.send_bytes(data)

    async def _send_problem(self, problem: Problem, **facts: Any) -> None:
        await self._send_json("error", message=problem.message, code=problem.code, param=problem.param, **facts)

    async def _send_json(self, type: str, **facts: Any) -> None:
        await self._socket.send_json({"type": type, **facts})
