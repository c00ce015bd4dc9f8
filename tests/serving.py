"""A server on loopback in a thread of this process, for tests; its model is nano, loaded once."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import soundfile
import uvicorn

from qwen3tts_gguf import TTS
from qwen3tts_gguf.server.app import create_app
from qwen3tts_gguf.server.services import Services
from qwen3tts_gguf.server.settings import Settings

TEXT = "Seven three nine."
PATIENCE = 120
"""Seconds after which a test gives up: none takes so long, but on a machine that is busy with other work."""
LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen."


class Made:
    seconds = 0.0


def seconds_of(sound: bytes) -> float:
    """Of a decoded file."""
    samples, rate = soundfile.read(io.BytesIO(sound))
    return len(samples) / float(rate)


def is_about(seconds: float, wanted: float) -> bool:
    """But for what an encoder adds at the ends."""
    return abs(seconds - wanted) < 0.12


class Running:
    """url, a client, and what the server is made of. `on_loop` runs a function on its event loop."""

    def __init__(self, url: str, services: Services, loop: asyncio.AbstractEventLoop) -> None:
        self.url, self.services, self._loop = url, services, loop
        self.client = httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False)

    def speak(self, text: str = TEXT, **fields: Any) -> httpx.Response:
        return self.client.post("/v1/audio/speech", json={"input": text, **fields})

    def on_loop(self, function: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Of the server's state, looked at on its loop."""

        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(asyncio.wait_for(wait(), PATIENCE), self._loop).result(2 * PATIENCE)

    @contextmanager
    def occupied(self, *, live: bool = True) -> Iterator[None]:
        """Both lanes have a turn that makes nothing."""
        scheduler = self.services.scheduler

        async def enter() -> list[Any]:
            return [await scheduler.enter(client=f"holder {i}", live=live).__aenter__() for i in range(2)]

        turns = asyncio.run_coroutine_threadsafe(enter(), self._loop).result(PATIENCE)
        try:
            yield
        finally:
            for turn in turns:
                asyncio.run_coroutine_threadsafe(turn.__aexit__(None, None, None), self._loop).result(PATIENCE)

    def counts(self) -> tuple[int, int, int]:
        """Threads, tasks and open files, of a server that nobody uses."""
        self.wait_until(lambda: self.is_free)
        process = psutil.Process()
        return process.num_threads(), len(self.on_loop(asyncio.all_tasks)), process.num_fds()

    def comes_down_to(self, most: tuple[int, ...]) -> bool:
        """Whether the counts do, for which connections that were closed may need a moment."""
        for _ in range(3000):
            if all(count <= bound for count, bound in zip(self.counts(), most, strict=True)):
                return True
            time.sleep(0.01)
        return False

    @contextmanager
    def made(self) -> Iterator[Made]:
        """Counts the speech that is made inside the block, for answers whose seed the client does not choose."""
        count, made = self.services.metrics.audio._value.get, Made()
        self.wait_until(lambda: self.is_free)  # an answer is counted after its client has it
        before = count()
        yield made
        self.wait_until(lambda: self.is_free)
        made.seconds = count() - before
        assert made.seconds > 0.5

    @property
    def is_free(self) -> bool:
        scheduler, model = self.services.scheduler, self.services.model
        engine_is_free = model.tts is None or not model.tts.engine._lanes
        return not scheduler.n_running and not scheduler.n_waiting and engine_is_free


@contextmanager
def running(
    folder: Path,
    tts: TTS | None = None,
    *,
    load: Callable[[], TTS] | None = None,
    preload: bool = True,
    wyoming: socket.socket | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """A server with its voices in `folder`. A model that is given stays open."""

    def shared() -> TTS:
        assert tts is not None
        return tts

    app = create_app(
        Settings(**{"voices": folder, "n_lanes": 2, **settings}),
        load or shared,
        model_name="nano",
        version="0",
        preload=preload,
        closes_model=tts is None,
        wyoming=wyoming,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=5)
    )
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def serve() -> None:
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        started.set()
        await task

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_until_complete(loop.shutdown_default_executor())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(PATIENCE)
    host, port = listener.getsockname()
    server_at = Running(f"http://{host}:{port}", app.state.services, loop)
    try:
        yield server_at
    finally:
        server_at.client.close()
        server.should_exit = True
        thread.join(PATIENCE)
        loop.close()
