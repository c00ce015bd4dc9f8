"""What a caller holds of a speech: read it, cancel it, and see how it ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import TracebackType
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ..errors import NoEndOfSpeech, Note, UsageError
from ..model.schema import N_CODEBOOKS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from .engine import Engine
from .lane import Request, Timings
from .mailbox import Ending, Piece

__all__ = ["Utterance"]


class Utterance:
    """One speech: iterate over it once, or `finish` it; leave its `with` block, or `close` it, when you want no more.

    Nothing is computed before the first read. The engine then stays at most 25 frames ahead of the reader. One thread
    reads; `cancel` and `close` may be called from any thread at any time. `codes`, `samples` and `seconds` are of what
    was read so far.

        with tts.utter("Hello.") as utterance:
            for samples in utterance:      # float32 [1920] in [-1, 1] at 24 kHz, 80 ms each
                play(samples)
        utterance.seed, utterance.ended, utterance.codes
    """

    def __init__(self, engine: Engine, request: Request, *, notes: tuple[Note, ...] = (), owner: object = None) -> None:
        self.seed = request.seed
        """Generates the same speech again."""
        self.notes = notes
        """What about this speech could be better."""
        self._engine, self._owner = engine, owner  # the owner, a TTS, is not closed while the utterance lives
        self._lane = engine.open(request)
        self._release = finalize(self, self._lane.cancel)
        self._release.atexit = False
        self._state = threading.Lock()  # of the fields below
        self._is_claimed = self._is_started = False
        self._is_reading = threading.Lock()
        self._ending: Ending | None = None
        self._frames: list[NDArray[np.int32]] = []
        self._samples: list[NDArray[np.float32]] = []

    # -- how it went ---------------------------------------------------------------------------------------------------

    @property
    def n_text_tokens(self) -> int:
        """Length of the text, as far as it has arrived."""
        return self._lane.request.prompt.n_text_tokens

    @property
    def ended(self) -> bool:
        """Whether the model ended the speech itself, and all of it was read."""
        return self._ending is not None and self._ending.ended

    @property
    def runaway(self) -> str | None:
        """Why the speech was stopped, if the model did not end it: its budget, silence, a loop."""
        return self._ending.runaway if self._ending else None

    @property
    def max_frames(self) -> int:
        """The budget: a speech that needs more frames is stopped. Of a text that is still arriving it is not known
        before the text is complete; until then this is the most it may be."""
        return self._lane.max_frames

    @property
    def cancelled(self) -> bool:
        """Whether the speech was cancelled before it ended."""
        ending = self._ending or self._lane.mailbox.ending
        return ending is not None and ending.cancelled

    @property
    def codes(self) -> NDArray[np.int32]:
        """Codes of the frames read so far [frames, 16]."""
        return np.concatenate([np.zeros((0, N_CODEBOOKS), np.int32), *self._frames])

    @property
    def samples(self) -> NDArray[np.float32]:
        """Samples read so far [n], in [-1, 1] at 24 kHz."""
        return np.concatenate([np.zeros(0, np.float32), *self._samples])

    @property
    def seconds(self) -> float:
        """Length of what was read so far."""
        return sum(len(codes) for codes in self._frames) * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ

    @property
    def timings(self) -> Timings:
        """Where the time went."""
        return self._lane.timings

    def require_end(self) -> None:
        """Raises NoEndOfSpeech, with all that was generated, if the model did not end the speech."""
        if not self.ended:
            raise NoEndOfSpeech(
                f"the speech did not end after {self.seconds:.1f} s with seed {self.seed}: "
                f"{self.runaway or 'it was not read to the end'}",
                self.samples,
                self.codes,
                self.seed,
                hint="try another `seed`, other words or a larger `max_frames`",
            )

    # -- reading -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Each frame's samples [1920] as soon as they are there. Raises UsageError the second time."""
        self._claim()
        return self._read(frames_at_once=1)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """The same samples a few frames at a time, later but with less work: for a speech that goes to a file."""
        self._claim()
        return self._read(self._engine.plan.frames_at_once)

    def __aiter__(self) -> AsyncIterator[NDArray[np.float32]]:
        """The same in an event loop, which it never blocks."""
        self._claim()
        return self._read_in_loop(frames_at_once=1)

    def apieces(self) -> AsyncIterator[NDArray[np.float32]]:
        """`pieces` in an event loop."""
        self._claim()
        return self._read_in_loop(self._engine.plan.frames_at_once)

    def finish(self) -> None:
        """Read on to the end, from the start or after a partial read; the samples are in `samples`."""
        for _ in self._read(self._engine.plan.frames_at_once):
            pass

    def _claim(self) -> None:
        with self._state:
            if self._is_claimed:
                raise UsageError("this utterance has been read already", hint="make a new one with the same seed")
            self._is_claimed = True

    def _start(self, frames_at_once: int) -> None:
        """Hand the lane to the engine, the first time."""
        with self._state:
            if self._is_started:
                return
            self._is_started = self._is_claimed = True
        self._lane.frames_at_once = frames_at_once
        if not self._lane.is_over:
            self._engine.start(self._lane)

    def _read(self, frames_at_once: int) -> Iterator[NDArray[np.float32]]:
        self._start(frames_at_once)
        while self._ending is None:
            if not self._is_reading.acquire(blocking=False):
                raise UsageError("another thread is reading this utterance")
            try:
                piece = self._received(self._lane.mailbox.take())
            finally:
                self._is_reading.release()
            if piece is not None:
                yield piece.samples.copy()  # the reader may change them

    async def _read_in_loop(self, frames_at_once: int) -> AsyncIterator[NDArray[np.float32]]:
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop may be closed by now; that must not harm other speeches
                loop.call_soon_threadsafe(news.set)

        self._lane.mailbox.listen(wake)
        self._start(frames_at_once)
        try:
            while self._ending is None:
                news.clear()
                if (found := self._lane.mailbox.poll()) is None:
                    await news.wait()
                elif (piece := self._received(found)) is not None:
                    yield piece.samples.copy()
        finally:
            self._lane.mailbox.listen(lambda: None)

    def _received(self, found: Piece | Ending) -> Piece | None:
        if isinstance(found, Piece):
            self._frames.append(found.codes)
            self._samples.append(found.samples)
            return found
        self._ending = found
        if found.error is not None:
            raise found.error
        return None

    # -- pausing and stopping ------------------------------------------------------------------------------------------

    def hold(self, held: bool) -> None:
        """Pause the speech within one frame, or let it go on; from any thread. What is made already can be read."""
        self._lane.hold(held)

    def cancel(self) -> None:
        """End the speech now, from any thread: its reader's iteration ends without an error, within one frame."""
        self._lane.cancel()

    def close(self) -> None:
        """Cancel what is still being made; what was read stays. Closing twice is fine."""
        self._lane.cancel()

    def __enter__(self) -> Utterance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
