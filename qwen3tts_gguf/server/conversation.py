"""Text that still arrives, and its sound as it is made: what the WebSocket wires and Wyoming share.

    feed("Good mor") feed("ning. ") flush()  ──>  Conversation  ──>  SoundStart, Sound, ..., SoundEnd, UtteranceEnd

A flush ends an utterance; the next text begins another. They are spoken in order, each in a turn of its own. `pacing`
says what the talker is given of an utterance that is not complete:

    token      every word as it comes, in one speech without seams; the speech waits where the text is late
    sentence   whole sentences, a speech each; for texts that are written more slowly than they are spoken
    none       nothing before the flush
    auto       token, if the first 40 letters arrive as fast as they are spoken; otherwise sentence
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from ..errors import TextError
from ..speech.live_text import LiveText
from ..speech.passages import Splitter
from ..speech.text import is_pronounceable
from ..tts import TTS, SpeechOptions
from ..voice.voice import Voice
from .arriving_text import ArrivingText, Pacing
from .deadline import within
from .problems import Problem, problem_of
from .scheduler import Turn
from .services import Services
from .speech_fields import SpeechFields

__all__ = ["ConnectionLost", "Conversation", "Output", "Sound", "SoundEnd", "SoundStart", "UtteranceEnd"]

_MOST_UTTERANCES = 64
"""Utterances that wait to be spoken, or are."""
_PATIENCE_SECONDS = 30.0
"""Text that does not go on for so long is taken as complete, so that it does not keep a lane."""


@dataclass(frozen=True)
class SoundStart:
    """A speech begins. text: of it, where it is complete. fields: how it was asked for."""

    utterance: int
    sentence: int
    text: str
    fields: SpeechFields


@dataclass(frozen=True)
class Sound:
    """The next frame: samples float32 [1920] in [-1, 1] at 24 kHz."""

    utterance: int
    samples: NDArray[np.float32]


@dataclass(frozen=True)
class SoundEnd:
    """A speech is over; with an error or cancelled, it is not whole."""

    utterance: int
    sentence: int
    problem: Problem | None = None
    cancelled: bool = False


@dataclass(frozen=True)
class UtteranceEnd:
    """Nothing more comes of this utterance. problem: also where no speech began."""

    utterance: int
    n_sentences: int
    problem: Problem | None = None
    cancelled: bool = False


Output = SoundStart | Sound | SoundEnd | UtteranceEnd


class ConnectionLost(Exception):
    """An output could not be sent: nobody listens any more."""


@dataclass
class _Spoken:
    """One utterance on its way."""

    index: int
    fields: SpeechFields
    pacing: Pacing
    arriving: ArrivingText = field(default_factory=ArrivingText)
    n_sentences: int = 0
    is_sounding: bool = False
    is_cancelled: bool = False


class Conversation:
    """The utterances of one client, in order.

    wire: its name in the counters. client: as in `Scheduler.enter`. fields, pacing: how to speak utterances that begin
    from now on; may be set at any time. send: is given each output in turn; the speech waits while it runs. `run` is
    the task that speaks; the other methods are called in the same event loop.
    """

    def __init__(
        self,
        services: Services,
        wire: str,
        client: str,
        fields: SpeechFields,
        send: Callable[[Output], Awaitable[None]],
    ) -> None:
        self.fields = fields
        self.pacing: Pacing = "auto"
        self._services, self._wire, self._client, self._send_output = services, wire, client, send
        self._queue: deque[_Spoken] = deque()
        self._open: _Spoken | None = None
        self._current: asyncio.Task[None] | None = None
        self._n_started = 0
        self._news = asyncio.Event()
        self._is_ending = False
        self._late: asyncio.TimerHandle | None = None
        self._voice: tuple[SpeechFields, ReferenceType[TTS], Voice | None] | None = None

    # -- what comes in -------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is spoken and no text has come for the next utterance."""
        return not self._queue

    @property
    def is_open(self) -> bool:
        """Whether an utterance waits for more text."""
        return self._open is not None

    def feed(self, text: str) -> int | None:
        """Add text, cut anywhere -> the number of its utterance, which begins with the first letter; None before it.

        Raises Problem where it is too much.
        """
        if self._open is None:
            if not text.strip():
                return None
            if len(self._queue) >= _MOST_UTTERANCES:
                raise Problem(429, "queue_full", f"{_MOST_UTTERANCES} utterances wait already: flush less often")
            self._open = _Spoken(self._n_started, self.fields, self.pacing)
            self._n_started += 1
            self._queue.append(self._open)
            self._news.set()
        most = self._services.settings.max_input
        if len(self._open.arriving.text) + len(text) > most:
            raise Problem(400, "input_too_long", f"an utterance has at most {most} letters", param="text")
        self._open.arriving.feed(text)
        self._stop_waiting()
        self._late = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self.flush)
        return self._open.index

    def flush(self) -> None:
        """The utterance's text is complete."""
        self._stop_waiting()
        if self._open is not None:
            self._open.arriving.complete()
            self._open = None

    def cancel(self) -> None:
        """Stop speaking within one frame, and drop all text that is not spoken yet."""
        self.flush()
        for spoken in self._queue:
            spoken.is_cancelled = True
        if self._current is not None:
            self._current.cancel()

    def end(self) -> None:
        """No more text: `run` returns when all is spoken."""
        self.flush()
        self._is_ending = True
        self._news.set()

    # -- speaking ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Speak until `end`. What goes wrong with an utterance is sent, and the next one is spoken. Raises
        ConnectionLost."""
        try:
            while True:
                while not self._queue:
                    if self._is_ending:
                        return
                    self._news.clear()
                    await self._news.wait()
                await self._speak_and_report(self._queue[0])
        finally:
            self._stop_waiting()

    async def _speak_and_report(self, spoken: _Spoken) -> None:
        error: BaseException | None = None
        if not spoken.is_cancelled:
            current = self._current = asyncio.create_task(self._speak(spoken))
            try:
                await asyncio.wait([current])
            finally:
                self._current = None
                current.cancel()
                await asyncio.gather(current, return_exceptions=True)
            if current.cancelled():
                spoken.is_cancelled = True
            else:
                error = current.exception()
        if spoken is self._open:
            self.flush()  # what comes after an error is another utterance
        self._queue.popleft()
        if isinstance(error, ConnectionLost):
            raise error
        problem = None if error is None else problem_of(error)
        outcome = "cancelled" if spoken.is_cancelled else "ok" if problem is None else "failed"
        self._services.metrics.requests.labels(self._wire, outcome).inc()
        if spoken.is_sounding:
            await self._send(SoundEnd(spoken.index, spoken.n_sentences - 1, problem, spoken.is_cancelled))
        await self._send(UtteranceEnd(spoken.index, spoken.n_sentences, problem, spoken.is_cancelled))

    async def _send(self, output: Output) -> None:
        timeout = self._services.settings.stall_timeout
        try:
            await within(timeout, self._send_output(output))
        except Exception as error:
            raise ConnectionLost("nobody listens any more") from error

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    async def _speak(self, spoken: _Spoken) -> None:
        arriving, fields = spoken.arriving, spoken.fields
        pacing = spoken.pacing
        if pacing == "auto":
            pacing = await arriving.pacing()
        if pacing == "none":
            await arriving.wait_until(lambda: False)
        async with self._services.scheduler.enter(client=self._client, live=True) as turn:
            voice = await self._chosen_voice(turn, fields)
            options = fields.options(turn.tts)
            if pacing == "token":
                await self._speak_live(turn, spoken, voice, options)
            elif pacing == "none":
                await self._speak_text(turn, spoken, arriving.text, voice, options)
            else:
                splitter = Splitter("sentence", language=fields.language)
                async for piece in arriving.pieces():
                    for passage in splitter.feed(piece):
                        await self._speak_text(turn, spoken, passage.text, voice, options)
                for passage in splitter.end():
                    await self._speak_text(turn, spoken, passage.text, voice, options)
                if not spoken.n_sentences:
                    raise TextError("there is nothing to pronounce in the text")

    async def _chosen_voice(self, turn: Turn, fields: SpeechFields) -> Voice | None:
        """Of a clip it is computed once for all utterances."""
        known = self._voice
        if known is None or known[0] is not fields or known[1]() is not turn.tts:
            settings, voices = self._services.settings, self._services.voices
            voice, _ = await turn.prepare(lambda tts: fields.chosen_voice(tts, voices, settings))
            known = self._voice = (fields, ref(turn.tts), voice)
        return known[2]

    async def _speak_live(self, turn: Turn, spoken: _Spoken, voice: Voice | None, options: SpeechOptions) -> None:
        text = LiveText()
        whole = spoken.arriving.text if spoken.arriving.is_complete else ""

        async def feed() -> None:
            async for piece in spoken.arriving.pieces():
                if not text.feed(piece):
                    return
            text.finish()

        feeding = asyncio.create_task(feed())
        try:
            await self._speak_text(turn, spoken, text, voice, options, shown=whole)
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def _speak_text(
        self,
        turn: Turn,
        spoken: _Spoken,
        text: str | LiveText,
        voice: Voice | None,
        options: SpeechOptions,
        *,
        shown: str = "",
    ) -> None:
        if isinstance(text, str) and spoken.n_sentences and not is_pronounceable(text):
            return  # a dash between sentences
        utterance = await turn.prepare(lambda tts: tts.utter(text, voice, options))
        index = spoken.n_sentences
        async with aclosing(turn.read(utterance)) as frames:
            async for samples in frames:
                if not spoken.is_sounding:
                    spoken.n_sentences, spoken.is_sounding = index + 1, True
                    shown = text if isinstance(text, str) else shown
                    await self._send(SoundStart(spoken.index, index, shown, spoken.fields))
                self._services.metrics.audio.inc(len(samples) / TTS.sample_rate_hz)
                await self._send(Sound(spoken.index, samples))
        if utterance.cancelled:  # the server is stopping
            raise Problem(503, "shutting_down", "the server is stopping")
        utterance.require_end()
        if spoken.is_sounding:
            spoken.is_sounding = False
            await self._send(SoundEnd(spoken.index, index))
