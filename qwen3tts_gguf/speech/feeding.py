"""From an iterable of strings into a `LiveText`, while somebody reads the speech."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from .live_text import LiveText

__all__ = ["fed_by_thread", "fed_in_loop"]

_LONG_PIECE = 10_000
"""Characters, from which an event loop would notice the tokenizer: it takes about 1 ms for as many."""


@contextmanager
def fed_by_thread(text: LiveText, pieces: Iterable[str]) -> Iterator[None]:
    """Feed from a thread, which may wait for the next piece as long as it likes.

    Nothing can wake it then: when the block is left early, the thread ends with the next piece, and never keeps the
    process from ending.
    """

    def feed() -> None:
        try:
            for piece in pieces:
                if not text.feed(piece):
                    return
            text.finish()
        except BaseException as error:
            text.fail(error)

    threading.Thread(target=feed, name="live-text", daemon=True).start()
    yield


@asynccontextmanager
async def fed_in_loop(text: LiveText, pieces: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[None]:
    """Feed from a task of the running event loop, which is cancelled when the block is left; what is not an async
    iterable from a thread."""
    if not isinstance(pieces, AsyncIterable):
        with fed_by_thread(text, pieces):
            yield
        return

    async def feed() -> None:
        try:
            async for piece in pieces:
                is_long = isinstance(piece, str) and len(piece) >= _LONG_PIECE
                if not (await asyncio.to_thread(text.feed, piece) if is_long else text.feed(piece)):
                    return
            text.finish()
        except Exception as error:
            text.fail(error)

    task = asyncio.create_task(feed(), name="live-text")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
