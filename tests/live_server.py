"""A server of nano on a free port of this machine, in a thread, for tests with real clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from qwen3tts_gguf import TTS
from qwen3tts_gguf.server.app import create_app
from qwen3tts_gguf.server.services import Services
from qwen3tts_gguf.server.settings import Settings


@dataclass(frozen=True)
class LiveServer:
    """port: on 127.0.0.1. loop: the server's, for what tests look at inside."""

    port: int
    services: Services
    loop: asyncio.AbstractEventLoop

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def n_busy(self) -> int:
        """Turns that run or wait, asked in the server's loop."""

        async def count() -> int:
            return self.services.scheduler.n_running + self.services.scheduler.n_waiting

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)


class _Server(uvicorn.Server):
    """Reports its loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.is_up.set()


@contextmanager
def served(tts: TTS, voices: Path, **settings: Any) -> Iterator[LiveServer]:
    """The server of a loaded model, which it closes at its end."""
    app = create_app(Settings(voices, **settings), lambda: tts, model_name="nano", version="0")
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws_max_size=4 << 20))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="test-server")
    thread.start()
    try:
        assert server.is_up.wait(30) and server.loop is not None
        yield LiveServer(listener.getsockname()[1], app.state.services, server.loop)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
