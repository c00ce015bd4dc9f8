"""Which request speaks next, and which wait: turns on the engine's lanes, handed out on the event loop.

    enter ──> queue (bounded; live first, then round robin by client) ──> turn: prepare, read ──> left, next one

A request holds one turn from its first sound to its last, however many utterances it reads in it (attempts, passages,
sentences of a conversation). Live turns, which somebody listens to, go before file turns, whose answer is sent whole:

- a file turn is held, within a frame, while a live one waits for its first sound or needs the machine; but after some
  seconds without any progress of file turns, one of them gets a share of the machine for a while;
- at most as many live turns run as the machine makes in real time (`Pace`), others wait in the queue;
- a turn whose reader is away gives its lane to the next one, and takes it again when the reader is back.

Everything here belongs to one event loop and has no lock. Native calls happen in the engine's threads and in one thread
that prepares speeches.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..engine.lane import Timings
from ..tts import TTS
from .deadline import within
from .model import ModelHolder
from .pace import Pace
from .problems import busy, stopping

__all__ = ["Scheduler", "Speech", "Turn"]

Result = TypeVar("Result")

_AWAY_SECONDS = 0.5
"""A reader who does not come back for that long gives up its lane until it does."""
_FILES_WAIT_SECONDS, _FILES_GO_ON_SECONDS = 5.0, 2.0
"""While live turns need the whole machine, a file turn gets a share of it for 2 s whenever all have waited for 5 s."""


class Speech(Protocol):
    """What a turn reads: an `Utterance`, or a `LongSpeech`."""

    @property
    def ended(self) -> bool: ...
    @property
    def timings(self) -> Timings | None: ...
    def __aiter__(self) -> Any: ...
    def apieces(self) -> Any: ...
    def hold(self, held: bool) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class Turn:
    """A request's place: in the queue until its `async with` block is entered, then on a lane until it is left.

    async with scheduler.enter(client="10.0.0.7", live=True) as turn:      # waits; loads the model if need be
        utterance = await turn.prepare(lambda tts: tts.utter("Hello."))    # off the loop
        async for samples in turn.read(utterance):                         # float32 [1920] per frame
            await connection.send(samples)

    Leaving the block, by an error or a cancelled task too, cancels the speech within one frame. `cancel` does so from
    elsewhere on the loop, for barge-in; the reader's iteration then ends without an error.
    """

    def __init__(self, scheduler: Scheduler, client: str, live: bool) -> None:
        self.client, self.live = client, live
        self.queued_at = time.perf_counter()
        self.started_at: float | None = None
        """When it got its lane."""
        self.has_sound = False
        self.is_away = False
        """Whether its reader has not come back for the last samples it was given."""
        self._scheduler = scheduler
        self._granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lease = AsyncExitStack()
        self._tts: TTS | None = None
        self._speech: Speech | None = None
        self._is_held = False

    @property
    def tts(self) -> TTS:
        """The model; inside the block."""
        assert self._tts is not None
        return self._tts

    async def __aenter__(self) -> Turn:
        try:
            self._tts = await self._lease.enter_async_context(self._scheduler.model.lease())
            self._scheduler.model_is_loaded(self._tts)
            await self._granted
        except BaseException:
            self._scheduler.leave(self)
            await self._lease.aclose()
            raise
        self.started_at = time.perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        self._scheduler.leave(self)
        await self._lease.aclose()

    async def prepare(self, function: Callable[[TTS], Result]) -> Result:
        """Run a function that makes an utterance, or whatever takes time, in the preparing thread."""
        return await self._scheduler.prepare(lambda: function(self.tts))

    async def read(self, speech: Speech, *, whole: bool = False) -> AsyncGenerator[NDArray[np.float32], None]:
        """The samples of a speech as they are made; `whole`: several frames at a time, with less work."""
        loop = asyncio.get_running_loop()
        self._speech = speech
        speech.hold(self._is_held)
        try:
            async with aclosing(speech.apieces() if whole else aiter(speech)) as pieces:
                async for samples in pieces:
                    if not self.has_sound:
                        self.has_sound = True
                        self._scheduler.balance()
                    timer = loop.call_later(_AWAY_SECONDS, self._went_away)
                    try:
                        yield samples
                    finally:
                        timer.cancel()
                        self._came_back()
        finally:
            speech.close()
            self._speech = None
            if speech.ended and speech.timings is not None:
                self._scheduler.learn(speech.timings)

    def cancel(self) -> None:
        """End what is being spoken, within one frame."""
        if self._speech is not None:
            self._speech.cancel()

    def grant(self) -> None:
        """For the scheduler: the turn has a lane."""
        if not self._granted.done():
            self._granted.set_result(None)

    def hold(self, held: bool) -> None:
        """For the scheduler: pause the speech, or let it go on."""
        if held != self._is_held:
            self._is_held = held
            if self._speech is not None:
                self._speech.hold(held)

    def _went_away(self) -> None:
        self.is_away = True
        self._scheduler.balance()

    def _came_back(self) -> None:
        if self.is_away:
            self.is_away = False
            self._scheduler.balance()


class Scheduler:
    """The queue and the lanes of one model.

    n_lanes: turns that run at once; "auto" takes the model's own number, and lets as many live ones run as the machine
    makes in real time. n_queue: turns that may wait.
    """

    def __init__(self, model: ModelHolder, *, n_lanes: int | Literal["auto"] = "auto", n_queue: int = 16) -> None:
        self.model = model
        self.pace = Pace()
        self._n_lanes: int | None = None if n_lanes == "auto" else n_lanes
        self._is_auto = n_lanes == "auto"
        self._n_queue = n_queue
        self._waiting: dict[bool, OrderedDict[str, deque[Turn]]] = {True: OrderedDict(), False: OrderedDict()}
        self._running: list[Turn] = []
        self.is_stopping = False
        """Whether every new request is refused."""
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._files_are_due = False
        self._files_timer: asyncio.TimerHandle | None = None
        self._preparing = ThreadPoolExecutor(1, "qwen3tts-prepare")
        self._encoding = ThreadPoolExecutor(1, "qwen3tts-encode")

    # -- what is going on ----------------------------------------------------------------------------------------------

    @property
    def n_lanes(self) -> int | None:
        """Turns that run at once; None before the model is loaded, where it follows the model."""
        return self._n_lanes

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        return sum(len(turns) for clients in self._waiting.values() for turns in clients.values())

    # -- for requests --------------------------------------------------------------------------------------------------

    def enter(self, *, client: str, live: bool) -> Turn:
        """A place in the queue, at once. Leave it by leaving the turn's block, which must be entered.

        client: who sent the request, a key or an address; clients take turns, and one that is not alone in the queue
        gets at most half of the queue. live: somebody listens while it is made. Raises Problem (429, 503).
        """
        if self.is_stopping:
            raise stopping()
        n_waiting = self.n_waiting
        if n_waiting >= self._n_queue + self._n_free:
            raise busy(self._seconds_until_free())
        own = sum(len(clients[client]) for clients in self._waiting.values() if client in clients)
        if own and own < n_waiting and own >= max(1, self._n_queue // 2):
            raise busy(self._seconds_until_free())
        turn = Turn(self, client, live)
        self._waiting[live].setdefault(client, deque()).append(turn)
        self._is_empty.clear()
        self.balance()
        return turn

    async def prepare(self, function: Callable[[], Result]) -> Result:
        """Run a function in the one thread that prepares speeches."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, function)

    async def encode(self, function: Callable[[], Result]) -> Result:
        """Run a function that encodes a clip, for seconds perhaps, in a thread that nobody else's speech waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._encoding, function)

    # -- for turns -----------------------------------------------------------------------------------------------------

    def model_is_loaded(self, tts: TTS) -> None:
        """The number of lanes is known now."""
        if self._is_auto:
            self._n_lanes = tts.engine.n_lanes
        self.balance()

    def leave(self, turn: Turn) -> None:
        """Give up a place in the queue or a lane; doing so twice is fine."""
        if turn in self._running:
            self._running.remove(turn)
            if turn.started_at is not None:
                self.pace.turn_took(time.perf_counter() - turn.started_at)
        clients = self._waiting[turn.live]
        if turn.client in clients and turn in clients[turn.client]:
            clients[turn.client].remove(turn)
            if not clients[turn.client]:
                del clients[turn.client]
        if not self._running and not self.n_waiting:
            self._is_empty.set()
        self.balance()

    def learn(self, timings: Timings) -> None:
        """Take the speed of a speech into account."""
        n_at_work = sum(not turn.is_away for turn in self._running)
        self.pace.learn(timings, max(1, min(n_at_work, self._n_lanes or 1)))

    def balance(self) -> None:
        """Hand out free lanes, and hold the file turns that live ones need to go before."""
        if self.model.tts is None or self._n_lanes is None:
            return
        while self._n_live < self._most_live and (turn := self._next(live=True)) is not None:
            self._running.append(turn)
            turn.grant()
        files = [turn for turn in self._running if not turn.live and not turn.is_away]
        n_files = self._most_files
        while len(files) < n_files and (turn := self._next(live=False)) is not None:
            self._running.append(turn)
            files.append(turn)
            turn.grant()
        for position, turn in enumerate(files):
            turn.hold(position >= n_files)
        if not self._files_are_due:
            self._watch_files(n_files == 0 and bool(files or self._waiting[False]))

    def _watch_files(self, are_stuck: bool) -> None:
        if not are_stuck:
            self._stop_watching_files()
        elif self._files_timer is None:
            loop = asyncio.get_running_loop()
            self._files_timer = loop.call_later(_FILES_WAIT_SECONDS, self._set_files_due, True)

    def _set_files_due(self, are_due: bool) -> None:
        self._stop_watching_files()
        self._files_are_due = are_due
        if are_due:
            loop = asyncio.get_running_loop()
            self._files_timer = loop.call_later(_FILES_GO_ON_SECONDS, self._set_files_due, False)
        self.balance()

    def _stop_watching_files(self) -> None:
        if self._files_timer is not None:
            self._files_timer.cancel()
            self._files_timer = None

    async def stop(self, *, grace_seconds: float) -> None:
        """Take no more requests, wait for those that are here, then cancel what still speaks."""
        self.is_stopping = True
        try:
            await within(grace_seconds, self._is_empty.wait())
        except TimeoutError:
            for turn in self._running:
                turn.cancel()
        self._stop_watching_files()
        for threads in (self._preparing, self._encoding):
            threads.shutdown(wait=False, cancel_futures=True)

    def refuse_more(self) -> None:
        """From now on every new request is refused with 503."""
        self.is_stopping = True

    # -- the rules -----------------------------------------------------------------------------------------------------

    @property
    def _n_live(self) -> int:
        """Live turns that somebody reads right now."""
        return sum(turn.live and not turn.is_away for turn in self._running)

    @property
    def _most_live(self) -> int:
        """How many live turns may run at once."""
        assert self._n_lanes is not None
        return max(1, min(self._n_lanes, self.pace.streams)) if self._is_auto else self._n_lanes

    @property
    def _most_files(self) -> int:
        """How many file turns may run at once now: all lanes where nobody listens, otherwise what is to spare."""
        assert self._n_lanes is not None
        if not self._n_live:
            return self._n_lanes
        least = int(self._files_are_due)
        if any(turn.live and not turn.has_sound for turn in self._running):
            return least
        return max(least, self._most_live - self._n_live)

    @property
    def _n_free(self) -> int:
        """Lanes that nobody has; before the model is loaded, one."""
        return max(0, (self._n_lanes or 1) - len(self._running))

    def _next(self, *, live: bool) -> Turn | None:
        """The first turn of the client who has waited longest for one."""
        clients = self._waiting[live]
        if not clients:
            return None
        client, turns = clients.popitem(last=False)
        turn = turns.popleft()
        if turns:
            clients[client] = turns  # at the end
        return turn

    def _seconds_until_free(self) -> float:
        return self.pace.turn_seconds * max(1, self.n_waiting) / (self._n_lanes or 1)
