"""What the WebSocket wires share: frames in, tasks that end together, close codes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .conversation import ConnectionLost
from .problems import Problem

__all__ = ["NORMAL", "POLICY", "closed_when_idle", "received", "served_by"]

NORMAL, POLICY = 1000, 1008
_MOST_PROBLEMS = 20
"""Wrong messages of one connection, after which it is closed."""


async def received(
    socket: WebSocket,
    act: Callable[[str | bytes], None],
    refuse: Callable[[Problem], Awaitable[None]],
    forgives: Callable[[], bool] = lambda: True,
) -> int:
    """Hand every frame to `act`, and the Problem it raises to `refuse`. The code to close with after too many problems.

    forgives: asked after a problem; false closes at once. Raises WebSocketDisconnect when the client goes.
    """
    n_problems = 0
    async for frame in _frames_of(socket):
        try:
            act(frame)
        except Problem as problem:
            await refuse(problem)
            n_problems += 1
            if n_problems >= _MOST_PROBLEMS or not forgives():
                return POLICY
    return NORMAL


async def _frames_of(socket: WebSocket) -> AsyncIterator[str | bytes]:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or NORMAL)
        text = message.get("text")
        yield text if text is not None else message.get("bytes") or b""


async def served_by(socket: WebSocket, *tasks: Coroutine[Any, Any, int]) -> None:
    """Run the tasks until one of them returns the code to close with, or the client goes; cancel the others."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        code = next(iter(done)).result()
    except (WebSocketDisconnect, ConnectionLost):
        return
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client may have gone meanwhile
        await socket.close(code)


async def closed_when_idle(seconds_left: Callable[[], float]) -> None:
    """Return when `seconds_left`, asked again each time it has passed, is no longer above 0."""
    while (seconds := seconds_left()) > 0:
        await asyncio.sleep(seconds)
