"""The one model of the server: loaded when first needed, shared by all, unloaded when nobody has spoken for a while.

    idle ──first request──> loading ──> ok ──no request for `idle_unload` seconds──> idle
                               └──────> failed ──next request──> loading

Used from the event loop alone, so it has no lock; loading and closing run in threads.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from ..tts import TTS

__all__ = ["ModelHolder", "State"]

State = Literal["idle", "loading", "ok", "failed", "stopping"]


class ModelHolder:
    """load: makes the TTS, in a thread. idle_unload: seconds without a lease after which it is closed; None: never."""

    def __init__(self, load: Callable[[], TTS], *, idle_unload: float | None = None) -> None:
        self.state: State = "idle"
        self.error: BaseException | None = None
        """Why the state is "failed"."""
        self.tts: TTS | None = None
        """The model, while the state is "ok"."""
        self._load, self._idle_unload = load, idle_unload
        self._loading: asyncio.Task[TTS] | None = None
        self._n_leases = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[TTS]:
        """The model, loaded if need be, for as long as the block lasts. Raises what loading raised."""
        self._n_leases += 1
        self._stop_timer()
        try:
            yield await self._loaded()
        finally:
            self._n_leases -= 1
            self._start_timer()

    async def _loaded(self) -> TTS:
        if self.tts is not None:
            return self.tts
        if self._loading is None:
            self.state = "loading"
            self._loading = asyncio.create_task(self._run_load())
        return await asyncio.shield(self._loading)  # one client that leaves does not stop it for the others

    async def _run_load(self) -> TTS:
        try:
            if self._closing is not None:
                await self._closing
            self.tts = await asyncio.to_thread(self._load)
        except Exception as error:
            self.state, self.error = "failed", error
            raise
        else:
            self.state, self.error = "ok", None
            return self.tts
        finally:
            self._loading = None
            self._start_timer()  # of a model whose only client has left meanwhile

    def _start_timer(self) -> None:
        self._stop_timer()
        if self._idle_unload is not None and self._n_leases == 0 and self.tts is not None and self.state == "ok":
            self._timer = asyncio.get_running_loop().call_later(self._idle_unload, self._unload)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unload(self) -> None:
        tts, self.tts, self.state = self.tts, None, "idle"
        if tts is not None:
            self._closing = asyncio.ensure_future(asyncio.to_thread(_close, tts))

    async def stop(self) -> None:
        """Close the model for good; a load that is under way is waited for."""
        self.state = "stopping"
        self._stop_timer()
        if self._loading is not None:
            await asyncio.wait([self._loading])
            self.state = "stopping"
        if self._closing is not None:
            await self._closing
        tts, self.tts = self.tts, None
        if tts is not None:
            await asyncio.to_thread(_close, tts)


def _close(tts: TTS) -> None:
    tts.close()
    del tts
    gc.collect()  # utterances and their engine refer to each other
