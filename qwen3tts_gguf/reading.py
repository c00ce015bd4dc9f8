"""Text of any length, or text that is still arriving, as one reading in one voice.

    text ──passages.py──> passages ──tts──> utterances ──edges.py──> Passage, Passage, ...   whole, several at once
                                                       └───────────> Sound, Sound, ...       as it is made, in order

A text that fits into one passage is spoken exactly as `TTS.speak` and `TTS.stream` speak it. Of a longer text, each
passage has a seed of its own, made from the reading's seed, the passage's text and how often that text came before: a
change elsewhere leaves it as it is.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .engine.utterance import Utterance
from .errors import NoEndOfSpeech, Note, UsageError
from .handover import Handover
from .model import nano
from .speech.edges import EdgeTrimmer, trimmed
from .speech.options import SpeechOptions
from .speech.passages import MOST_LETTERS, Boundary, Split
from .speech.script import PAUSES, Line, pauses_in_samples, script
from .speech.spoken import Passage, PassageStore, Sound, Take
from .tts import TTS
from .voice.compatibility import BASE, VOICE_DESIGN
from .voice.voice import Voice

__all__ = ["Reading", "passage_letters", "read"]

_MOST_AHEAD = 125
"""Frames of a stream that may wait for its reader, 10 s: the next passage starts before this one was played."""
_WAIT_SECONDS = 1.0  # a wait with a timeout lets Ctrl-C through on Windows too


def passage_letters(tts: TTS) -> int:
    """The most letters (`speech.passages.n_letters`) of a passage that a model speaks well."""
    return nano.PASSAGE_LETTERS if tts.name.lower() == nano.NAME else MOST_LETTERS


def read(
    tts: TTS,
    text: str | Iterable[str],
    voice: Voice | None = None,
    options: SpeechOptions = SpeechOptions(),
    *,
    split: Split = "auto",
    pause: float | tuple[float, float] = PAUSES,
    keep_unended: bool = False,
    store: PassageStore | None = None,
    name: str = "",
) -> Reading:
    """Speak a text of any length in one voice.

        for passage in read(tts, story, Voice.shipped("ken")):
            file.write(passage.sound)

    Passages are made by as many lanes as `tts` has, and come in order, each bit-identical to the same passage made
    with one lane. `Reading.stream` gives the sound as it is made instead.

    Args:
        text: the whole text, or pieces of it that still arrive; an iterable is read in step with the speech.
        voice: as for `TTS.speak`. `Voice()`, where a Base model chooses, is the voice of the first passage throughout.
        options: `seed` is that of the reading; `max_frames` and `retries` are those of each passage. A passage that
            does not end is retried alone.
        split: what becomes a passage (`speech.passages.Split`). "auto" speaks a text of up to 300
            letters in one go (nano: 60).
        pause: seconds after a sentence, and after a paragraph; one number is for both. Half of the first follows a
            passage that stops inside a sentence. Pauses inside a passage are the model's own.
        keep_unended: hand out what was spoken of a passage whose attempts all failed, with a note, and go on.
        store: keeps passages between readings that may be stopped; `stream` does not use it.
        name: of the text in messages, as "chapter 2".

    Raises TextError, OptionError; while it is read NoEndOfSpeech. The text is split at once, nothing else is computed
    before the first read.
    """
    return Reading(
        tts, text, voice, options, split=split, pause=pause, keep_unended=keep_unended, store=store, name=name
    )


@dataclass(frozen=True)
class _Spoken:
    """A passage that was spoken, or decoded from what a store had."""

    samples: NDArray[np.float32]
    codes: NDArray[np.int32]
    seed: int
    ended: bool
    notes: tuple[Note, ...] = ()


_DRIFT = Note(
    "a designed voice may drift from passage to passage",
    "save one speech as a voice (`Voice.from_speech`) and read the text with a Base model",
)


class Reading:
    """A text as it is read: iterate over its passages once, or over `stream()`; leave its `with` block when you want
    no more. One thread reads; `cancel` may be called from any thread at any time."""

    def __init__(
        self,
        tts: TTS,
        text: str | Iterable[str],
        voice: Voice | None,
        options: SpeechOptions,
        *,
        split: Split,
        pause: float | tuple[float, float],
        keep_unended: bool,
        store: PassageStore | None,
        name: str = "",
    ) -> None:
        self.seed = secrets.randbits(32) if options.seed is None else options.seed
        """Makes the same reading again."""
        self._tts, self._voice, self._options = tts, voice, options
        self._keep_unended, self._store = keep_unended, store
        self._where = f"{name}, " if name else ""
        self._pauses = pauses_in_samples(pause)
        self._lines = script(
            text, split, options.language, self.seed, shares_seed=tts.kind == VOICE_DESIGN, most=passage_letters(tts)
        )
        self._voice_is_to_come = False
        self._noted: set[Note] = set()
        self._position = 0  # samples handed out
        self._before: Boundary | None = None  # what ended with the last passage
        self._sounds_made: Handover[Sound] = Handover(_MOST_AHEAD)
        self._lock = threading.Lock()  # of the fields below
        self._is_claimed = self._is_cancelled = self._is_held = False
        self._open: set[Utterance] = set()

    # -- whole passages ------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Passage]:
        """The passages, in order, each once it is whole. Raises UsageError the second time, NoEndOfSpeech."""
        self._claim()
        return self._whole()

    def _whole(self) -> Iterator[Passage]:
        n_lanes = self._tts.engine.n_lanes
        pending: deque[tuple[Line, Future[_Spoken]]] = deque()
        threads = ThreadPoolExecutor(n_lanes, "qwen3tts-reading")
        try:
            self._choose_voice()
            for line in self._lines:
                if self._voice_is_to_come:
                    yield self._passage(line, self._spoken(line))
                    continue
                pending.append((line, threads.submit(self._spoken, line)))
                if len(pending) == 2 * n_lanes:  # so that no lane waits while the first is read
                    yield self._passage(*_first_of(pending))
            while pending:
                yield self._passage(*_first_of(pending))
        except _Cancelled:
            return
        finally:
            self.cancel()
            threads.shutdown(cancel_futures=True)

    def _spoken(self, line: Line) -> _Spoken:
        """Speak a passage whole, retried where it does not end, unless it is in the store; in any thread."""
        if self._store and not self._voice_is_to_come and (take := self._store.load(line)) is not None:
            samples = self._tts.decode(take.codes, self._tts.resolve(self._voice))
            return _Spoken(self._edged(line, samples), take.codes, take.seed, ended=True)
        notes: list[Note] = []
        n_failed = 0
        for utterance in self._tts.attempts(line.text, self._voice, self._options_of(line)):
            with self._opened(utterance):
                utterance.finish()
            if utterance.cancelled:
                raise _Cancelled
            notes += utterance.notes
            n_failed += not utterance.ended
        if not utterance.ended and not self._keep_unended:
            raise _failure(line, utterance)
        if n_failed:
            what = "was spoken again with another seed" if utterance.ended else "is incomplete or has noise"
            notes.append(Note(f"{self._where}passage {line.index + 1} did not end ({n_failed} times) and {what}"))
        codes, seed = utterance.codes, utterance.seed
        if self._store and utterance.ended and not self._voice_is_to_come:
            self._store.save(line, Take(codes, seed))
        return _Spoken(self._edged(line, utterance.samples), codes, seed, utterance.ended, tuple(notes))

    def _edged(self, line: Line, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """A text that is a single passage is left as it is."""
        return samples if line.is_all else trimmed(samples)

    def _passage(self, line: Line, spoken: _Spoken) -> Passage:
        pause = self._pause_before(line)
        start = self._position + pause
        self._position = start + len(spoken.samples)
        self._carry_on(line, spoken)
        return Passage(
            index=line.index, text=line.text, boundary=line.boundary, pause=pause, start=start,
            samples=spoken.samples, codes=spoken.codes, seed=spoken.seed, ended=spoken.ended,
            notes=self._new(line, spoken.notes),
        )  # fmt: skip

    # -- a stream ------------------------------------------------------------------------------------------------------

    def stream(self) -> Iterator[Sound]:
        """The same sound as it is made, passage after passage; the engine stays up to 10 s ahead of the reader.

        Nothing is retried, as what was handed out cannot be taken back. Raises UsageError the second time,
        NoEndOfSpeech after the last sound of a passage that did not end.
        """
        self._claim()
        # A daemon: it may wait for text that never comes, after its reader has left.
        threading.Thread(target=self._make_sounds, name="qwen3tts-reading", daemon=True).start()
        try:
            yield from self._sounds_made
        finally:
            self.cancel()

    def _make_sounds(self) -> None:
        try:
            self._choose_voice()
            for line in self._lines:
                with closing(self._sounds(line)) as sounds:
                    if not all(self._sounds_made.put(sound) for sound in sounds):
                        return
            self._sounds_made.end()
        except _Cancelled:
            self._sounds_made.end()
        except BaseException as error:  # its reader's to know
            self._sounds_made.end(error)

    def _sounds(self, line: Line) -> Generator[Sound, None, None]:
        with self._tts.utter(line.text, self._voice, self._options_of(line)) as utterance, self._opened(utterance):
            if n_pause := self._pause_before(line):
                yield self._sound(line, np.zeros(n_pause, np.float32), is_pause=True)
            notes = self._new(line, utterance.notes)
            trimmer = None if line.is_all else EdgeTrimmer()
            for samples in utterance:
                if trimmer is not None:
                    samples = trimmer.feed(samples)
                if len(samples):
                    yield self._sound(line, samples, notes=notes)
                    notes = ()
            if utterance.cancelled:
                raise _Cancelled
            if trimmer is not None and len(samples := trimmer.end()):
                yield self._sound(line, samples, notes=notes)
        if not utterance.ended and not self._keep_unended:
            raise _failure(line, utterance)
        self._carry_on(line, utterance)

    def _sound(
        self, line: Line, samples: NDArray[np.float32], *, is_pause: bool = False, notes: tuple[Note, ...] = ()
    ) -> Sound:
        start, self._position = self._position, self._position + len(samples)
        return Sound(samples, start, line.index, line.text, is_pause, notes)

    # -- what comes next -----------------------------------------------------------------------------------------------

    def _options_of(self, line: Line) -> SpeechOptions:
        return replace(self._options, seed=line.seed)

    def _pause_before(self, line: Line) -> int:
        """Samples of silence between the passage before and this one."""
        before, self._before = self._before, line.boundary
        return 0 if before is None else self._pauses[before]

    def _choose_voice(self) -> None:
        """Find out whether the first passage is still to give the voice that the others have."""
        voice = self._tts.resolve(self._voice)
        self._voice_is_to_come = self._tts.kind == BASE and not voice.is_clone

    def _carry_on(self, line: Line, spoken: _Spoken | Utterance) -> None:
        """Speak the other passages in the voice of the first one, where the model chose it."""
        if self._voice_is_to_come and spoken.ended:
            language = None if self._voice is None else self._voice.language
            voice = Voice.from_speech(spoken.codes, line.text, self._tts.codec_fingerprint)
            self._voice, self._voice_is_to_come = replace(voice, language=language, notes=()), False

    def _new(self, line: Line, notes: tuple[Note, ...]) -> tuple[Note, ...]:
        """Those that were not noted with an earlier passage."""
        if self._tts.kind == VOICE_DESIGN and not line.is_all:
            notes = (*notes, _DRIFT)
        new = tuple(note for note in dict.fromkeys(notes) if note not in self._noted)
        self._noted.update(new)
        return new

    # -- one reader, and no more ---------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """End the reading now, from any thread: its reader's iteration ends without an error, within one frame."""
        with self._lock:
            self._is_cancelled = True
            utterances = [*self._open]
        for utterance in utterances:
            utterance.cancel()
        self._sounds_made.close()

    def hold(self, held: bool) -> None:
        """Pause the reading within one frame, or let it go on; from any thread. What is made already can be read."""
        with self._lock:
            self._is_held = held
            for utterance in self._open:
                utterance.hold(held)

    def __enter__(self) -> Reading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _claim(self) -> None:
        with self._lock:
            if self._is_claimed:
                raise UsageError("this reading was already read", hint="make a new one, with the same seed")
            self._is_claimed = True

    @contextmanager
    def _opened(self, utterance: Utterance) -> Iterator[None]:
        """While an utterance is read, `cancel` reaches it. Raises _Cancelled."""
        with self._lock:
            if self._is_cancelled:
                raise _Cancelled
            self._open.add(utterance)
            utterance.hold(self._is_held)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(utterance)


class _Cancelled(Exception):
    """The reader wants no more."""


def _first_of(pending: deque[tuple[Line, Future[_Spoken]]]) -> tuple[Line, _Spoken]:
    """Take the first passage out, once it is spoken. Raises what speaking it raised."""
    line, spoken = pending.popleft()
    while True:
        wait([spoken], _WAIT_SECONDS)
        if spoken.done():
            return line, spoken.result()


def _failure(line: Line, utterance: Utterance) -> NoEndOfSpeech:
    try:
        utterance.require_end()
    except NoEndOfSpeech as error:
        if not line.is_all:
            error.message = f"passage {line.index + 1}: {error.message}"
        return error
    raise AssertionError("the utterance ended")
