"""Which request speaks next, and which wait: the scheduler with speeches that are made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi")

import numpy as np

from qwen3tts_gguf.server import scheduler as module
from qwen3tts_gguf.server.model import ModelHolder
from qwen3tts_gguf.server.pace import Pace
from qwen3tts_gguf.server.problems import Problem
from qwen3tts_gguf.server.scheduler import Scheduler


class Speech:
    """Frames that the test hands out."""

    timings = None

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.ended = self.closed = self.cancelled = self.held = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.apieces()

    async def apieces(self) -> Any:
        while (frame := await self.frames.get()) is not None:
            yield frame

    def hold(self, held: bool) -> None:
        self.held = held

    def cancel(self) -> None:
        self.cancelled = True
        self.frames.put_nowait(None)

    def close(self) -> None:
        self.closed = True


FRAME = np.zeros(1920, np.float32)


def with_scheduler(test: Callable[[Scheduler], Awaitable[None]], n_lanes: Any = 1, n_queue: int = 8) -> None:
    async def run() -> None:
        model: Any = SimpleNamespace(engine=SimpleNamespace(n_lanes=4), close=lambda: None)
        scheduler = Scheduler(ModelHolder(lambda: model), n_lanes=n_lanes, n_queue=n_queue)
        async with scheduler.model.lease():
            scheduler.model_is_loaded(model)
        await asyncio.wait_for(test(scheduler), 120)
        await scheduler.stop(grace_seconds=0.1)

    asyncio.run(run())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Asking:
    """A request: in its turn it reads a speech until the test stops it."""

    def __init__(self, scheduler: Scheduler, client: str, *, live: bool = True, order: list[str] | None = None) -> None:
        self.speech, self.turn = Speech(), scheduler.enter(client=client, live=live)
        self._order = [] if order is None else order
        self.task = asyncio.ensure_future(self._run(client))
        self.reads = asyncio.Event()
        self.reads.set()
        self.n_read = 0

    async def _run(self, client: str) -> None:
        async with self.turn:
            self._order.append(client)
            async for _ in self.turn.read(self.speech):
                self.n_read += 1
                await self.reads.wait()

    async def end(self) -> None:
        self.speech.frames.put_nowait(None)
        await self.task

    @property
    def runs(self) -> bool:
        return self.turn.started_at is not None


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    async def test(scheduler: Scheduler) -> None:
        order: list[str] = []
        asking = [Asking(scheduler, name, order=order) for name in ("a", "a", "a", "b", "c")]
        for _ in asking:
            await settle()
            current = next(each for each in asking if each.runs and not each.task.done())
            await current.end()
        assert order == ["a", "a", "b", "c", "a"]  # the first got the free lane before the others came

    with_scheduler(test)


def test_live_speech_goes_before_files_and_pauses_them() -> None:
    async def test(scheduler: Scheduler) -> None:
        file = Asking(scheduler, "a", live=False)
        await settle()
        assert file.runs and not file.speech.held
        waiting_file, live = Asking(scheduler, "b", live=False), Asking(scheduler, "c")
        await settle()
        assert live.runs and file.speech.held and not waiting_file.runs
        live.speech.frames.put_nowait(FRAME)
        await settle()
        assert file.speech.held  # the only lane
        await live.end()
        await settle()
        assert not file.speech.held and not waiting_file.runs
        await file.end()
        await settle()
        assert waiting_file.runs
        await waiting_file.end()

    with_scheduler(test)


def test_a_file_continues_once_a_live_speech_has_its_first_sound() -> None:
    async def test(scheduler: Scheduler) -> None:
        live, file = Asking(scheduler, "a"), Asking(scheduler, "b", live=False)
        await settle()
        assert live.runs and not file.runs
        live.speech.frames.put_nowait(FRAME)
        await settle()
        assert file.runs and not file.speech.held
        newer = Asking(scheduler, "c")
        await settle()
        assert newer.runs and file.speech.held
        await newer.end()
        await settle()
        assert not file.speech.held
        await file.end()
        await live.end()

    with_scheduler(test, n_lanes=2)


def test_live_speech_does_not_stop_files_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many live requests come, all of which need the only lane."""
    monkeypatch.setattr(module, "_FILES_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "_FILES_GO_ON_SECONDS", 0.01)

    async def test(scheduler: Scheduler) -> None:
        file, waiting_file = Asking(scheduler, "a", live=False), Asking(scheduler, "b", live=False)
        await settle()
        live = [Asking(scheduler, "c") for _ in range(3)]
        await settle()
        assert file.runs and file.speech.held
        for _ in range(3):
            while file.speech.held:
                await asyncio.sleep(0.001)
            assert live[0].runs and not waiting_file.runs
            while not file.speech.held:
                await asyncio.sleep(0.001)
        await file.end()
        while not waiting_file.runs:
            await asyncio.sleep(0.001)
        assert live[0].runs and not live[0].speech.cancelled
        for each in (waiting_file, *live):
            await each.end()
            await settle()

    with_scheduler(test)


def test_a_slow_reader_gives_its_lane_to_others_and_takes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AWAY_SECONDS", 0.001)

    async def test(scheduler: Scheduler) -> None:
        slow = Asking(scheduler, "a")
        slow.reads.clear()
        slow.speech.frames.put_nowait(FRAME)
        fast = Asking(scheduler, "b")
        while not fast.runs:
            await asyncio.sleep(0.001)
        assert slow.turn.is_away
        slow.reads.set()
        await settle()
        assert not slow.turn.is_away and not slow.speech.cancelled
        await fast.end()
        await slow.end()

    with_scheduler(test)


def test_a_full_queue_refuses_and_one_client_gets_half_of_it() -> None:
    async def test(scheduler: Scheduler) -> None:
        asking = [Asking(scheduler, "a") for _ in range(3)]
        await settle()
        asking += [Asking(scheduler, "b")]
        with pytest.raises(Problem) as refused:
            scheduler.enter(client="a", live=True)
        assert refused.value.status == 429
        asking += [Asking(scheduler, "c")]
        with pytest.raises(Problem):
            scheduler.enter(client="d", live=True)
        assert scheduler.n_waiting == 4 and scheduler.n_running == 1
        await settle()
        for each in asking:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in asking), return_exceptions=True)
        assert scheduler.n_waiting == scheduler.n_running == 0

    with_scheduler(test, n_queue=4)


def test_leaving_by_a_cancelled_task_cancels_the_speech() -> None:
    async def test(scheduler: Scheduler) -> None:
        asking = Asking(scheduler, "a")
        await settle()
        asking.task.cancel()
        await asyncio.gather(asking.task, return_exceptions=True)
        assert asking.speech.closed and scheduler.n_running == 0

    with_scheduler(test)


def test_cancel_ends_the_reading_without_an_error() -> None:
    async def test(scheduler: Scheduler) -> None:
        asking = Asking(scheduler, "a")
        await settle()
        asking.turn.cancel()
        await asking.task
        assert asking.speech.cancelled

    with_scheduler(test)


def test_a_stopping_scheduler_refuses_and_ends_what_does_not_end() -> None:
    async def test(scheduler: Scheduler) -> None:
        asking = Asking(scheduler, "a")
        await settle()
        await scheduler.stop(grace_seconds=0.01)
        await asking.task
        with pytest.raises(Problem) as refused:
            scheduler.enter(client="a", live=True)
        assert refused.value.status == 503

    with_scheduler(test)


@pytest.mark.parametrize("n_turns", range(5))
def test_a_cancel_of_the_stop_is_not_lost_when_the_last_request_leaves(n_turns: int) -> None:
    """Whatever turn of the event loop it comes in, before the stop goes on."""

    async def test(scheduler: Scheduler) -> None:
        asking = Asking(scheduler, "a")
        await settle()
        stopping = asyncio.create_task(scheduler.stop(grace_seconds=60))
        await settle()
        asking.task.cancel()
        for _ in range(n_turns):
            await asyncio.sleep(0)
        was_over = stopping.done()
        stopping.cancel()
        await asyncio.gather(stopping, asking.task, return_exceptions=True)
        assert was_over or stopping.cancelled()

    with_scheduler(test)


def test_auto_lets_in_one_stream_until_the_machine_has_shown_more() -> None:
    async def test(scheduler: Scheduler) -> None:
        asking = [Asking(scheduler, name) for name in "abcd"]
        await settle()
        assert [each.runs for each in asking] == [True, False, False, False]
        timings: Any = SimpleNamespace(talker=[0.01] * 20, predictor=[0.01] * 20, codec=[0.005] * 20)
        scheduler.learn(timings)  # 25 ms per frame: three streams
        scheduler.balance()
        await settle()
        assert [each.runs for each in asking] == [True, True, True, False]
        for each in asking:
            await each.end()
            await settle()

    with_scheduler(test, n_lanes="auto")


def test_a_short_speech_teaches_nothing_about_the_pace() -> None:
    pace = Pace()
    timings: Any = SimpleNamespace(talker=[9.0] * 3, predictor=[9.0] * 3, codec=[9.0] * 3)
    pace.learn(timings, 1)
    assert pace.frame_seconds is None and pace.streams == 1


def test_no_turn_is_lost_when_requests_leave_at_random() -> None:
    async def test(scheduler: Scheduler) -> None:
        rng = np.random.default_rng(0)
        asking: list[Asking] = []
        for i in range(300):
            with suppress(Problem):  # a full queue
                asking.append(Asking(scheduler, f"client {i % 5}", live=bool(rng.integers(2))))
            for _ in range(rng.integers(1, 4)):
                await asyncio.sleep(0)
            for each in list(asking):
                if rng.random() < 0.2:
                    each.task.cancel()
                    asking.remove(each)
        for each in asking:
            each.task.cancel()
        await settle()
        assert scheduler.n_running == scheduler.n_waiting == 0
        last = Asking(scheduler, "last")
        await settle()
        assert last.runs
        await last.end()

    with_scheduler(test, n_lanes=2)
