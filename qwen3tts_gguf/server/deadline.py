"""Waiting no longer than so many seconds, without losing a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["within"]

Result = TypeVar("Result")


async def within(seconds: float, awaitable: Awaitable[Result]) -> Result:
    """The result of an awaitable, which is cancelled when the caller is, or after so many seconds. Raises TimeoutError.

    `asyncio.wait_for` before Python 3.12 returns normally if the caller is cancelled just as the awaitable ends. Speech
    is sent frame by frame, so that a send ends all the time, and a cancel would often be lost.
    """
    future = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([future], timeout=seconds)
    finally:
        is_late = future.cancel()  # False where it is done
        await asyncio.gather(future, return_exceptions=True)
    if is_late:
        raise TimeoutError
    return future.result()
