"""A text of several passages, with the reader's side of an `Utterance`."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ..errors import Note
from ..model.schema import SAMPLE_RATE_HZ
from ..reading import Reading

__all__ = ["LongSpeech"]


class LongSpeech:
    """A reading on an event loop: read it once, by `async for` as it is made, or by `apieces` passage by passage.

    What `Utterance` has under the same names means the same. Its own thread waits for the reading.
    """

    timings = None
    """Its utterances have theirs."""

    def __init__(self, reading: Reading, n_text_tokens: int) -> None:
        self.seed, self.n_text_tokens = reading.seed, n_text_tokens
        self.ended = False
        self._is_cancelled = False
        self._notes: list[Note] = []
        self._n_samples = 0
        self._reading = reading
        self._thread = ThreadPoolExecutor(1, "qwen3tts-long-speech")
        self._source: Iterator[NDArray[np.float32]] | None = None

    @property
    def notes(self) -> tuple[Note, ...]:
        return tuple(self._notes)

    @property
    def seconds(self) -> float:
        return self._n_samples / SAMPLE_RATE_HZ

    def require_end(self) -> None:
        """A reading raises NoEndOfSpeech itself, when it is read."""

    def hold(self, held: bool) -> None:
        self._reading.hold(held)

    def cancel(self) -> None:
        self._is_cancelled = True
        self._reading.cancel()

    def close(self) -> None:
        self.cancel()
        if self._source is not None:
            self._thread.submit(self._source.close)  # type: ignore[attr-defined]  # a generator
        self._thread.shutdown(wait=False)

    def __aiter__(self) -> AsyncGenerator[NDArray[np.float32], None]:
        return self._read(self._sounds)

    def apieces(self) -> AsyncGenerator[NDArray[np.float32], None]:
        return self._read(self._passages)

    async def _read(
        self, source: Callable[[], Iterator[NDArray[np.float32]]]
    ) -> AsyncGenerator[NDArray[np.float32], None]:
        self._source = source()
        while (samples := await get_running_loop().run_in_executor(self._thread, next, self._source, None)) is not None:
            self._n_samples += len(samples)
            yield samples
        self.ended = not self._is_cancelled

    def _sounds(self) -> Iterator[NDArray[np.float32]]:
        for sound in self._reading.stream():
            self._notes += sound.notes
            yield sound.samples

    def _passages(self) -> Iterator[NDArray[np.float32]]:
        for passage in self._reading:
            self._notes += passage.notes
            yield passage.sound
