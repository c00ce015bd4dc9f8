"""The codec decoder in the engine: in parallel with talker and predictor where there are threads for both.

Work with all threads runs on the engine's own thread; work in parallel with the other nets runs on the codec's thread,
which never takes more than the plan's share. (Each thread that computes with ggml has its own team of OpenMP threads.
Once the teams together have more threads than there are processors, libgomp's threads sleep instead of spinning while
they wait for each other: a frame of the predictor took 87 ms instead of 27, Intel Xeon, 2 cores.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend
from ..nets.codec_decoder import CodecDecoder, CodecState
from ..voice.voice import Voice
from .lane import Lane
from .mailbox import Ending, Piece
from .threads import Shares

__all__ = ["CodecStage", "Due"]


@dataclass(frozen=True)
class Due:
    """Frames of a lane that are to be decoded, and the lane's ending if they are its last."""

    lane: Lane
    codes: NDArray[np.int32]  # [n, 16]
    ending: Ending | None


class CodecStage:
    """Decodes lanes' frames into their mailboxes. For the engine's thread; at most one call runs in parallel with it.

    wake: called when a lane's speech was stopped here.
    """

    def __init__(
        self, decoder: CodecDecoder, backend: Backend, shares: Shares, thread_name: str, wake: Callable[[], None]
    ) -> None:
        self.decoder = decoder
        self._backend, self._shares, self._wake = backend, shares, wake
        self._thread = ThreadPoolExecutor(1, thread_name) if shares.side_by_side else None
        self._running: Future[None] | None = None
        self._primed: WeakKeyDictionary[Voice, CodecState] = WeakKeyDictionary()

    @property
    def is_busy(self) -> bool:
        """Whether the codec is computing in parallel with the engine's thread."""
        return self._running is not None and not self._running.done()

    def settle(self) -> None:
        """Wait for the work that runs in parallel."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def prime(self, lane: Lane, *, in_parallel: bool) -> None:
        """Give a lane its codec state: of silence, or of its reference clip, so that the onset follows from it."""

        def work() -> None:
            try:
                lane.codec_state = self._state(lane.request.reference)
            except Exception as error:
                lane.mailbox.end(Ending(error=error))

        self._run(work, in_parallel)

    def decode_due(self, due: Sequence[Due], *, in_parallel: bool) -> None:
        """Decode frames and put them into the lanes' mailboxes; what goes wrong ends the lanes with an error."""

        def work() -> None:
            try:
                self._deliver([each for each in due if not each.lane.is_over])
            except Exception as error:
                for each in due:
                    each.lane.mailbox.end(Ending(error=error))

        self._run(work, in_parallel)

    def decode(self, state: CodecState, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """codes [T, 16] -> samples [T * 1920], at once and with all threads. Raises CodesError."""
        self.settle()
        self._backend.use_threads(self._shares.all)
        return self.decoder.decode([(state, codes)])[0]

    def new_state(self, reference: Voice | None) -> CodecState:
        """A state as `prime` makes it, at once and with all threads. Raises CodesError."""
        self.settle()
        self._backend.use_threads(self._shares.all)
        return self._state(reference)

    def close(self) -> None:
        self.settle()
        if self._thread is not None:
            self._thread.shutdown()
        self._primed.clear()

    def _run(self, work: Callable[[], None], in_parallel: bool) -> None:
        self.settle()
        if in_parallel and self._thread is not None:
            self._backend.use_threads(self._shares.codec)
            self._running = self._thread.submit(work)
        else:
            self._backend.use_threads(self._shares.all)
            work()

    def _state(self, reference: Voice | None) -> CodecState:
        if reference is None or reference.codes is None:
            return self.decoder.new_state()
        if reference not in self._primed:
            self._primed[reference] = self.decoder.prime(reference.codes)
        return self._primed[reference].copy()

    def _deliver(self, due: Sequence[Due]) -> None:
        with_frames = [each for each in due if len(each.codes)]
        jobs = [(each.lane.codec_state, each.codes) for each in with_frames if each.lane.codec_state is not None]
        started = time.perf_counter()
        decoded = self.decoder.decode(jobs)
        seconds = time.perf_counter() - started
        for each, samples in zip(with_frames, decoded, strict=True):
            n = len(each.codes)
            each.lane.timings.codec += [seconds / n] * n
            self._put(each.lane, each.codes, samples.reshape(n, -1))
        for each in due:
            if each.ending is not None:
                each.lane.mailbox.end(each.ending)

    def _put(self, lane: Lane, codes: NDArray[np.int32], frames: NDArray[np.float32]) -> None:
        """codes [n, 16], frames [n, 1920]: up to the frame in which the watch finds that it is no longer speech."""
        complaint, n = None, 0
        while n < len(codes) and complaint is None:
            complaint = lane.watch.check(int(codes[n][0]), frames[n]) if lane.watch else None
            n += 1
        lane.mailbox.put(Piece(codes[:n], frames[:n].reshape(-1)))
        if complaint:
            lane.mailbox.end(Ending(runaway=complaint))
            self._wake()
