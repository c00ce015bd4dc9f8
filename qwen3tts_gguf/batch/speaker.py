"""One row -> one speech: the model, the voices, and as many speeches at once as the engine has lanes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import NoEndOfSpeech
from ..reading import passage_letters, read
from ..speech.passages import split_text
from ..tts import TTS
from ..voice.voice import Voice
from .job import OF_A_ROW, Job, Row
from .voices import VoiceBook

__all__ = ["Speaker", "Spoken", "Stopped"]


class _Cancels(Protocol):
    def cancel(self) -> None: ...


class Stopped(Exception):
    """`Speaker.stop` was called meanwhile."""


@dataclass(frozen=True, eq=False)
class Spoken:
    """What became of a row."""

    seed: int
    """Of the attempt that is in `samples`, or of the last one."""
    attempts: int | None
    """None for a text of several passages, each of which has its own."""
    voice: str
    ended: bool = False
    """Whether the model ended it itself."""
    samples: NDArray[np.float32] | None = None
    """[n] in [-1, 1] at 24 kHz; None if it failed."""
    error: str | None = None


class Speaker:
    """Speaks rows from any number of threads, of which as many as there are lanes are at work."""

    def __init__(self, tts: TTS, job: Job, voices: VoiceBook) -> None:
        self._tts, self._job, self._voices = tts, job, voices
        self.n_lanes = tts.engine.n_lanes
        self._turns = threading.Semaphore(self.n_lanes)
        self._lock = threading.Lock()  # of the fields below
        self._open: set[_Cancels] = set()
        self._is_stopped = False

    def speak(self, row: Row, seed: int) -> Spoken:
        """Raises Stopped, and Error for what concerns more than the row."""
        name = row.voice or self._job.voice
        spoken = Spoken(seed, 0, name or self._default_name())
        try:
            voice = self._voice(name, row.instruct or self._job.instruct)
            language = row.language or self._job.options.language
            if len(split_text(row.text, language=language, most=passage_letters(self._tts))) > 1:
                return self._read(row.text, voice, language, spoken)
            return self._attempted(row.text, voice, language, spoken)
        except NoEndOfSpeech as error:  # of a passage
            return replace(spoken, attempts=None, error=f"NoEndOfSpeech: {error.message}")
        except OF_A_ROW as error:
            return replace(spoken, error=f"{type(error).__name__}: {error.message}")

    def _default_name(self) -> str:
        voice = self._tts.default_voice
        return (voice.shipped_name if voice else None) or "none"

    def _voice(self, name: str | None, instruct: str | None) -> Voice | None:
        voice = self._voices.find(name)
        return voice if instruct is None else replace(voice or Voice(), instruct=instruct)

    def _attempted(self, text: str, voice: Voice | None, language: str | None, spoken: Spoken) -> Spoken:
        options = replace(self._job.options, seed=spoken.seed, language=language)
        for n_attempts, utterance in enumerate(self._tts.attempts(text, voice, options), 1):
            with self._turns, self._cancellable(utterance):
                utterance.finish()
            spoken = replace(spoken, seed=utterance.seed, attempts=n_attempts, ended=utterance.ended)
        if not utterance.ended and not options.endless:
            reason = utterance.runaway or "no reason is known"
            return replace(spoken, error=f"NoEndOfSpeech: no end of speech after {utterance.seconds:.1f} s: {reason}")
        return replace(spoken, samples=utterance.samples)

    def _read(self, text: str, voice: Voice | None, language: str | None, spoken: Spoken) -> Spoken:
        """A text of several passages, several of them at once."""
        options = replace(self._job.options, seed=spoken.seed, language=language)
        with read(self._tts, text, voice, options) as reading, self._turns, self._cancellable(reading):
            samples = np.concatenate([passage.sound for passage in reading])
        return replace(spoken, attempts=None, ended=True, samples=samples)

    @contextmanager
    def _cancellable(self, speech: _Cancels) -> Iterator[None]:
        with self._lock:
            if self._is_stopped:
                raise Stopped
            self._open.add(speech)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(speech)
                is_stopped = self._is_stopped
        if is_stopped:
            raise Stopped

    def stop(self) -> None:
        """End what is being spoken, with `Stopped` for its callers, from any thread."""
        with self._lock:
            self._is_stopped = True
            speeches = list(self._open)
        for speech in speeches:
            speech.cancel()
