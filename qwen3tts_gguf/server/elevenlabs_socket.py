"""WebSocket `/v1/text-to-speech/{voice}/stream-input` and `multi-stream-input`, as ElevenLabs has them."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

from starlette.websockets import WebSocket

from .conversation import Conversation, Output, Sound, UtteranceEnd
from .elevenlabs_formats import DEFAULT, elevenlabs_encoder
from .elevenlabs_messages import CloseContext, CloseSocket, KeepAlive, Text, fields_of, key_of, read_message
from .encoding import Encoder
from .guard import matching_key
from .problems import Problem
from .record import client_of, record_of
from .services import Services
from .sockets import NORMAL, POLICY, closed_when_idle, frames_of, served_by

__all__ = ["speak_as_elevenlabs"]

_WIRE = "elevenlabs"
_MOST_CONTEXTS = 16
_MOST_PROBLEMS = 20
_INACTIVITY_SECONDS = (20, 5, 180)
"""Default, least and most of `inactivity_timeout`."""


async def speak_as_elevenlabs(socket: WebSocket, services: Services, voice: str, *, has_contexts: bool) -> None:
    """Serve one connection that was accepted, until it is closed."""
    await _Session(socket, services, voice, has_contexts).serve()


class _Context:
    """One text and its sound. unflushed: whether text came after the last flush."""

    def __init__(self, id: str, conversation: Conversation, encoder: Encoder) -> None:
        self.id, self.conversation, self.encoder = id, conversation, encoder
        self.unflushed = self.is_closed = self.has_failed = False


class _Session:
    def __init__(self, socket: WebSocket, services: Services, voice: str, has_contexts: bool) -> None:
        self._socket, self._services, self._voice, self._has_contexts = socket, services, voice, has_contexts
        self._query = dict(socket.query_params)
        self._format = self._query.get("output_format") or DEFAULT
        self._contexts: dict[str, _Context] = {}
        self._speaking: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._is_ending = False
        self._is_known = not services.settings.api_keys or bool(record_of(socket.scope).key)
        self._last_message_at = time.monotonic()

    async def serve(self) -> None:
        try:
            await served_by(self._socket, self._receive(), self._watch(), self._wait())
        finally:
            for task in self._speaking:
                task.cancel()
            await asyncio.gather(*self._speaking, return_exceptions=True)

    async def _wait(self) -> int:
        return await self._over

    async def _watch(self) -> int:
        default, least, most = _INACTIVITY_SECONDS
        wanted = self._query.get("inactivity_timeout", "")
        seconds = max(least, min(most, int(wanted))) if wanted.isdecimal() and len(wanted) < 9 else default

        def seconds_left() -> float:
            if any(not context.conversation.is_idle for context in self._contexts.values()):
                return float(seconds)
            return self._last_message_at + seconds - time.monotonic()

        await closed_when_idle(seconds_left)
        await self._send_problem(Problem(408, "input_timeout_exceeded", f"no message came for {seconds} s"))
        return POLICY

    # -- what comes in -------------------------------------------------------------------------------------------------

    async def _receive(self) -> int:
        n_problems = 0
        async for frame in frames_of(self._socket):
            self._last_message_at = time.monotonic()
            try:
                self._act(frame)
            except Problem as problem:
                await self._send_problem(problem)
                n_problems += 1
                if not self._is_known or not self._has_contexts or n_problems >= _MOST_PROBLEMS:
                    return POLICY
        return NORMAL

    def _act(self, frame: str | bytes) -> None:
        message, fields = read_message(frame, has_contexts=self._has_contexts)
        if not self._is_known:
            if matching_key(self._services.settings.api_keys, key_of(fields)) is None:
                raise Problem(401, "invalid_api_key", "this server needs an API key")
            self._is_known = True
        if isinstance(message, KeepAlive):
            return
        if isinstance(message, CloseSocket):
            self._end_all()
        elif isinstance(message, CloseContext):
            if (context := self._contexts.get(message.context)) is not None:
                self._close(context)
        else:
            self._feed(message)

    def _feed(self, message: Text) -> None:
        context = self._contexts.get(message.context) or self._begin(message)
        if context.is_closed:
            raise Problem(400, "context_closed", f"the context {context.id!r:.60} is closed", param="context_id")
        if context.conversation.feed(message.text) is not None:
            context.unflushed = True
        if message.flush:
            context.conversation.flush()
            context.unflushed = False
        if message.ends:
            self._end_all()

    def _begin(self, message: Text) -> _Context:
        if self._is_ending:
            raise Problem(400, "invalid_message", "the connection is closing")
        if len(self._contexts) >= _MOST_CONTEXTS:
            raise Problem(429, "too_many_contexts", f"there are at most {_MOST_CONTEXTS} contexts: close some")
        fields = fields_of(self._voice, self._query, self._services.settings, message.fields)
        encoder = elevenlabs_encoder(self._format, fields.speed)
        id = message.context

        async def send(output: Output) -> None:
            await self._send(context, output)

        context = _Context(
            id, Conversation(self._services, _WIRE, client_of(self._socket.scope), fields, send), encoder
        )
        self._contexts[id] = context
        task = asyncio.create_task(self._speak(context))
        self._speaking.add(task)
        task.add_done_callback(self._speaking.discard)
        return context

    def _close(self, context: _Context) -> None:
        if context.unflushed or context.is_closed:
            context.conversation.cancel()
        context.is_closed = True
        context.conversation.end()

    def _end_all(self) -> None:
        self._is_ending = True
        for context in self._contexts.values():
            context.is_closed = True
            context.conversation.end()
        if not self._contexts:
            self._finish(NORMAL)

    def _finish(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def _speak(self, context: _Context) -> None:
        try:
            await context.conversation.run()
            await self._send_audio(context, await asyncio.to_thread(context.encoder.finish))
            await self._send_json(context, {"audio": None, "isFinal": True})
        except Exception as error:
            if not self._over.done():
                self._over.set_exception(error)
            return
        del self._contexts[context.id]
        if context.has_failed and not self._has_contexts:
            self._finish(POLICY)
        elif self._is_ending and not self._contexts:
            self._finish(NORMAL)

    async def _send(self, context: _Context, output: Output) -> None:
        if isinstance(output, Sound):
            await self._send_audio(context, await asyncio.to_thread(context.encoder.write, output.samples))
        elif isinstance(output, UtteranceEnd) and output.problem is not None:
            context.has_failed = True
            await self._send_problem(output.problem, context)

    async def _send_audio(self, context: _Context, data: bytes) -> None:
        """alignment is null: the model does not report when it speaks which letter."""
        if data:
            audio = base64.b64encode(data).decode()
            message = {"audio": audio, "isFinal": None, "alignment": None, "normalizedAlignment": None}
            await self._send_json(context, message)

    async def _send_problem(self, problem: Problem, context: _Context | None = None) -> None:
        await self._send_json(context, {"message": problem.message, "error": problem.code, "param": problem.param})

    async def _send_json(self, context: _Context | None, message: dict[str, Any]) -> None:
        names = {"contextId": context.id, "context_id": context.id} if context and self._has_contexts else {}
        await self._socket.send_json({**message, **names})
