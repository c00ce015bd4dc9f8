"""A request is spoken, encoded and sent: whole, or as it is made, in the framing of its wire.

The status is sent with the first bytes of sound, so whatever fails before is a clean error. What fails later is a
connection that breaks: the chunked body never ends, and no client takes it for whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..engine.utterance import Utterance
from ..errors import NoEndOfSpeech
from ..model.schema import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from ..reading import read
from ..speech.passages import split_text
from ..tts import TTS
from .deadline import within
from .encoding import Encoder, encoder
from .framing import Bare, Events, Framing
from .long_speech import LongSpeech
from .problems import Problem, problem_of
from .record import Record, client_of, log, record_of
from .scheduler import Turn
from .services import Services
from .speech_fields import SpeechFields

__all__ = ["SpeechResponse"]

AnySpeech = Utterance | LongSpeech
_MOST_WARNING = 200


class SpeechResponse(Response):
    """Speaks when it is sent. Ends the speech when the client goes, in the queue too.

    wire: its name in the counters. made, framing: the bytes of the sound, and what is sent around them; the default is
    what the fields ask for.
    """

    def __init__(
        self,
        services: Services,
        fields: SpeechFields,
        *,
        wire: str = "openai",
        made: Encoder | None = None,
        framing: Framing | None = None,
    ) -> None:
        super().__init__()
        self._services, self._fields = services, fields
        self._is_started = self._is_sent = False
        self._ignores_instructions = False
        self._n_samples = 0
        self._wire = wire
        self._encoder = made or encoder(fields.response_format, whole=not fields.is_streamed, speed=fields.speed)
        self._framing = framing or (Events() if fields.stream_format == "sse" else Bare())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_disconnected(receive))
        work = asyncio.ensure_future(self._answer(scope, send))
        try:
            await asyncio.wait([gone, work], return_when=asyncio.FIRST_COMPLETED)
            if self._is_sent:  # a server reports the end of the answer as a client that is gone
                await asyncio.wait([work])
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    async def _answer(self, scope: Scope, send: Send) -> None:
        record, metrics = record_of(scope), self._services.metrics
        fields = self._fields
        record.facts.update(letters=len(fields.text), format=fields.response_format)
        outcome = "cancelled"
        try:
            await self._speak(scope, send, record)
            outcome = "ok"
        except Exception as error:
            problem = problem_of(error)
            outcome = _outcome(problem)
            record.facts["error"] = problem.code
            if isinstance(error, NoEndOfSpeech):
                metrics.runaways.inc()
                if fields.seed is not None and fields.seed >= 0:
                    problem.headers["x-should-retry"] = "false"
            if problem.code == "internal_error" and not isinstance(error, OSError):
                log.error("%s failed", record.id, exc_info=error)
            if not self._is_started:
                await problem.response()(scope, _no_receive, send)
            elif event := self._framing.error(problem):
                await self._send(send, event)
            # A started answer is left unfinished: the server then breaks the connection.
        finally:
            record.facts.update(audio=self._n_samples / SAMPLE_RATE_HZ, outcome=outcome)
            metrics.requests.labels(self._wire, outcome).inc()
            metrics.audio.inc(self._n_samples / SAMPLE_RATE_HZ)

    # -- speaking ------------------------------------------------------------------------------------------------------

    async def _speak(self, scope: Scope, send: Send, record: Record) -> None:
        services, fields = self._services, self._fields
        async with services.scheduler.enter(client=client_of(scope), live=fields.is_live) as turn:
            record.facts["queue"] = record.seconds
            services.metrics.queue_time.observe(record.seconds)
            run = services.scheduler.prepare if fields.ref_audio is None else services.scheduler.encode
            attempts = await run(lambda: self._attempts(turn.tts))
            if fields.is_streamed:
                await self._stream(turn, attempts, send, record)
            else:
                await self._whole(turn, attempts, send, record)
            if self._n_samples and turn.started_at is not None:
                seconds = time.perf_counter() - turn.started_at
                services.metrics.factor.observe(seconds * SAMPLE_RATE_HZ / self._n_samples)

    def _attempts(self, tts: TTS) -> Iterator[AnySpeech]:
        """In a thread: the voice is found, or encoded where a clip came with the request."""
        services, fields = self._services, self._fields
        voice, follows = fields.chosen_voice(tts, services.voices, services.settings)
        self._ignores_instructions = bool(fields.instructions) and not follows
        options = fields.options(tts)
        if len(split_text(fields.text, fields.split, language=options.language)) > 1:
            reading = read(tts, fields.text, voice, options, split=fields.split)
            return iter([LongSpeech(reading, tts.n_tokens(fields.text))])
        return tts.attempts(fields.text, voice, options)

    async def _stream(self, turn: Turn, attempts: Iterator[AnySpeech], send: Send, record: Record) -> None:
        """One attempt: what was sent cannot be taken back."""
        speech = await turn.prepare(lambda _: next(attempts))
        async with aclosing(self._encoded(turn, speech, record)) as blocks:
            async for block in blocks:
                if not self._is_started:
                    await self._start(send, speech, turn.tts.name)
                if block:
                    await self._send(send, self._framing.block(block))
        speech.require_end()
        await self._send(send, self._framing.end(_usage(speech)), more=False)

    async def _encoded(self, turn: Turn, speech: AnySpeech, record: Record) -> AsyncGenerator[bytes, None]:
        """Bytes as they are made, and nothing before there are some, so that the first ones decide the status."""
        async with aclosing(turn.read(speech)) as frames:
            async for samples in frames:
                self._count(samples, record)
                if (block := await asyncio.to_thread(self._encoder.write, samples)) or self._is_started:
                    yield block
        if speech.ended or self._is_started:
            yield await asyncio.to_thread(self._encoder.finish)

    async def _whole(self, turn: Turn, attempts: Iterator[AnySpeech], send: Send, record: Record) -> None:
        while (speech := await turn.prepare(lambda _: next(attempts, None))) is not None:
            last, pieces = speech, []
            async with aclosing(turn.read(speech, whole=True)) as blocks:
                async for samples in blocks:
                    pieces.append(samples)
                    self._count(samples, record)
        last.require_end()
        body = self._framing.block(await asyncio.to_thread(self._encode_all, pieces))
        await self._start(send, last, turn.tts.name, length=len(body))
        await self._send(send, body, more=False)

    def _encode_all(self, pieces: list[NDArray[np.float32]]) -> bytes:
        return b"".join([*map(self._encoder.write, pieces), self._encoder.finish()])

    def _count(self, samples: NDArray[np.float32], record: Record) -> None:
        if not self._n_samples:
            record.facts["first"] = record.seconds
            self._services.metrics.first_audio.labels(self._wire).observe(record.seconds)
        self._n_samples += len(samples)

    # -- sending -------------------------------------------------------------------------------------------------------

    async def _start(self, send: Send, speech: AnySpeech, model: str, *, length: int | None = None) -> None:
        headers = {
            **self._encoder.headers,
            "x-qwen3tts-seed": str(speech.seed),
            "x-qwen3tts-model": _ascii(model),
            "x-accel-buffering": "no",
        }
        if self._framing.media_type is not None:
            headers["content-type"] = self._framing.media_type
        if length is not None:
            headers["content-length"] = str(length)
            headers["accept-ranges"] = "none"
            if self._framing.media_type is None:
                format = self._fields.response_format
                headers["content-disposition"] = f'inline; filename="speech.{"ogg" if format == "opus" else format}"'
        if self._ignores_instructions:
            headers["x-qwen3tts-ignored"] = "instructions"
        if speech.notes:
            headers["x-qwen3tts-warning"] = _ascii("; ".join(map(str, speech.notes)))[:_MOST_WARNING]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._is_started = True
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Waits while the client does not read; not for ever."""
        message = {"type": "http.response.body", "body": body, "more_body": more}

        async def sent() -> None:
            await send(message)
            self._is_sent = not more

        await within(self._services.settings.stall_timeout, sent())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _no_receive() -> Any:
    raise AssertionError("an error is sent without reading")


def _outcome(problem: Problem) -> str:
    if problem.status in (429, 503):
        return "refused"
    return "invalid" if problem.status < 500 else "failed"


def _usage(speech: AnySpeech) -> dict[str, int]:
    """In tokens of text and frames of speech."""
    n_text, n_frames = speech.n_text_tokens, round(speech.seconds * SAMPLE_RATE_HZ / SAMPLES_PER_FRAME)
    return {"input_tokens": n_text, "output_tokens": n_frames, "total_tokens": n_text + n_frames}


def _ascii(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
