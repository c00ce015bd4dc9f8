"""What the WebSocket wires share: frames in, tasks that end together, close codes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from .conversation import ConnectionLost

__all__ = ["NORMAL", "POLICY", "closed_when_idle", "frames_of", "served_by"]

NORMAL, POLICY = 1000, 1008


async def frames_of(socket: WebSocket) -> AsyncIterator[str | bytes]:
    """What the client sends. Raises WebSocketDisconnect when it goes."""
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
