"""Wyoming over TCP, as Home Assistant speaks to its voices: text whole or in pieces, sound out as it is made.

Wyoming has no keys: whoever reaches the port may speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error as ErrorEvent
from wyoming.event import Eventable, async_write_event
from wyoming.info import Attribution, Info, TtsProgram, TtsVoice
from wyoming.ping import Pong
from wyoming.tts import SynthesizeStopped

from ..model.vocabulary import AUTO, LANGUAGE_CODES
from ..tts import TTS
from .conversation import ConnectionLost, Conversation, Output, Sound, SoundEnd, SoundStart
from .encoding import encoder
from .problems import Problem, problem_of
from .record import log
from .services import Services
from .speech_fields import parse_fields
from .wyoming_events import MOST_LINE, AskedInfo, AskedPing, Begin, Order, Piece, Step, read_event

__all__ = ["serve_wyoming"]

_WIRE = "wyoming"
_MOST_CONNECTIONS = 64
_IDLE_SECONDS = 300.0
_ATTRIBUTION = Attribution("Qwen team, Alibaba Cloud", "https://github.com/QwenLM/Qwen3-TTS")
_SOUND = {"rate": TTS.sample_rate_hz, "width": 2, "channels": 1}


@asynccontextmanager
async def serve_wyoming(services: Services, listener: socket.socket, version: str) -> AsyncIterator[None]:
    """Serve on a socket that listens already, for as long as the block lasts; its connections end with it."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            if len(connections) <= _MOST_CONNECTIONS:
                await _Connection(services, reader, writer, version).serve()
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would report it
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, sock=listener, limit=MOST_LINE)
    try:
        yield
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@dataclass
class _Text:
    """One that is spoken. streams: as in `Begin`."""

    streams: bool
    has_sound: bool = False


class _Connection:
    def __init__(
        self, services: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str
    ) -> None:
        self._services, self._version = services, version
        self._reader, self._writer = reader, writer
        peer = writer.get_extra_info("peername")
        fields = parse_fields({"input": ".", "response_format": "pcm"}, services.settings)
        self._conversation = Conversation(services, _WIRE, str(peer[0]) if peer else "", fields, self._send)
        self._order = Order()
        self._started: _Text | None = None
        self._texts: dict[int, _Text] = {}
        self._pcm = encoder("pcm", whole=False)
        self._written = asyncio.Lock()
        self._last_message_at = time.monotonic()

    async def serve(self) -> None:
        tasks = [asyncio.ensure_future(task) for task in (self._receive(), self._conversation.run(), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            next(iter(done)).result()
        except (ConnectionLost, OSError):
            pass
        except Exception as error:
            problem = problem_of(error)
            if problem.code == "internal_error":
                log.error("wyoming failed", exc_info=error)
            with contextlib.suppress(OSError):
                await self._write(ErrorEvent(problem.message, problem.code))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        while (event := await read_event(self._reader)) is not None:
            self._last_message_at = time.monotonic()
            for step in self._order.steps(event):
                await self._take(step)

    async def _take(self, step: Step) -> None:
        if isinstance(step, AskedInfo):
            await self._write(await self._info())
        elif isinstance(step, AskedPing):
            await self._write(Pong(step.text))
        elif isinstance(step, Begin):
            wanted = {"voice": step.voice, "language": step.language, "response_format": "pcm", "input": "."}
            given = {name: value for name, value in wanted.items() if value is not None}
            self._conversation.fields = parse_fields(given, self._services.settings)
            self._started = _Text(step.streams)
        elif isinstance(step, Piece):
            self._feed(step.text)
        elif self._started is None:
            self._conversation.flush()
        elif self._started.streams:  # nothing came
            self._started = None
            await self._write(SynthesizeStopped())
        else:
            raise Problem(400, "nothing_to_speak", "there is no text to speak")

    def _feed(self, text: str) -> None:
        index = self._conversation.feed(text)
        if index is not None and self._started is not None:
            self._texts[index] = self._started
            self._started = None

    async def _watch(self) -> None:
        while not self._conversation.is_idle or time.monotonic() < self._last_message_at + _IDLE_SECONDS:
            await asyncio.sleep(max(1.0, self._last_message_at + _IDLE_SECONDS - time.monotonic()))

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def _send(self, output: Output) -> None:
        text = self._texts[output.utterance]
        if isinstance(output, SoundStart):
            if not text.has_sound:  # of several sentences only the first has a start: readers keep its format
                text.has_sound = True
                await self._write(AudioStart(**_SOUND))
        elif isinstance(output, Sound):
            await self._write(AudioChunk(**_SOUND, audio=self._pcm.write(np.asarray(output.samples))))
        elif not isinstance(output, SoundEnd):
            del self._texts[output.utterance]
            if output.problem is not None:
                await self._write(ErrorEvent(output.problem.message, output.problem.code))
                raise ConnectionLost("closed, so that nobody takes the sound for whole")
            await self._write(AudioStop())
            if text.streams:
                await self._write(SynthesizeStopped())

    async def _write(self, event: Eventable) -> None:
        async with self._written:
            await async_write_event(event.event(), self._writer)

    async def _info(self) -> Info:
        """Every voice with every language; this needs the model."""
        services = self._services
        async with services.model.lease() as tts:
            named = await asyncio.to_thread(services.voices.list, tts)
            languages = [_code(name) for name in tts.vocabulary.spoken_languages() if name != AUTO]
        voices = [
            TtsVoice(
                voice.name,
                _ATTRIBUTION,
                installed=True,
                description=voice.description or voice.name,
                version=self._version,
                languages=languages,
            )
            for voice in named
        ]
        program = TtsProgram(
            "qwen3tts",
            _ATTRIBUTION,
            installed=True,
            description=f"Qwen3-TTS ({services.model_name})",
            version=self._version,
            voices=voices,
            supports_synthesize_streaming=True,
        )
        return Info(tts=[program])


def _code(language: str) -> str:
    """The ISO code of a language's name."""
    return next((code for code, name in LANGUAGE_CODES.items() if name == language), language)
