"""`within`: a result in time, a timeout, and a cancel that is never lost."""

from __future__ import annotations

import asyncio

import pytest

from qwen3tts_gguf.server.deadline import within


def test_a_result_in_time_is_returned() -> None:
    async def soon() -> int:
        await asyncio.sleep(0)
        return 7

    assert asyncio.run(within(60, soon())) == 7


def test_an_error_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("sent nowhere")

    with pytest.raises(ValueError, match="sent nowhere"):
        asyncio.run(within(60, fails()))


def test_what_is_late_is_cancelled() -> None:
    ended = []

    async def never() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        asyncio.run(within(0.01, never()))
    assert ended == [True]


@pytest.mark.parametrize("n_turns", range(5))
def test_a_cancel_is_not_lost_when_it_comes_as_the_awaitable_ends(n_turns: int) -> None:
    """Whatever turn of the event loop it comes in, before the caller goes on."""

    async def main() -> None:
        gate = asyncio.get_running_loop().create_future()
        went_on = []

        async def send() -> None:
            await gate

        async def caller() -> None:
            await within(60, send())
            went_on.append(True)

        task = asyncio.create_task(caller())
        for _ in range(3):
            await asyncio.sleep(0)
        gate.set_result(None)
        for _ in range(n_turns):
            await asyncio.sleep(0)
        if went_on:  # over before the cancel
            return
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not went_on

    asyncio.run(main())
