"""The server as one ASGI application, and the loop that runs it."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from ..errors import Error
from ..tts import TTS
from ..voice.store import VoiceStore
from . import elevenlabs_routes, openai_models, openai_speech, socket_routes, voice_routes
from .docs_page import docs_page
from .guard import Guard
from .metrics import Metrics
from .model import ModelHolder
from .problems import Problem, problem_of
from .scheduler import Scheduler
from .services import Services
from .settings import Settings
from .voices import Voices
from .wyoming_server import serve_wyoming

__all__ = ["create_app", "run"]

_PAGE = Path(__file__).parent / "page"
_GRACE_SECONDS = 10
_MOST_WEBSOCKET_BYTES = 4 << 20
_EXPOSED = ("X-Request-Id", "X-Qwen3tts-Seed", "X-Qwen3tts-Model", "X-Qwen3tts-Warning", "X-Qwen3tts-Ignored")


def create_app(
    settings: Settings,
    load: Callable[[], TTS],
    *,
    model_name: str,
    version: str,
    preload: bool = False,
    closes_model: bool = True,
    wyoming: socket.socket | None = None,
) -> FastAPI:
    """The application. `app.state.services` has its parts, once it has started.

    load: makes the model, in a thread, at the first request, or at the start if `preload`. model_name: as clients see
    it. closes_model: whether the model is the server's own, to be closed when it stops. wyoming:
    a socket that listens, for Home Assistant.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if preload:
            async with services.model.lease():
                pass
        async with AsyncExitStack() as wires:
            if wyoming is not None:
                await wires.enter_async_context(serve_wyoming(services, wyoming, version))
            yield
        await services.scheduler.stop(grace_seconds=1)
        if closes_model:
            await services.model.stop()

    app = FastAPI(
        title="qwen3tts",
        description="Speech by Qwen3-TTS, on OpenAI's routes.",
        version=version,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    model = ModelHolder(load, idle_unload=settings.idle_unload)
    scheduler = Scheduler(model, n_lanes=settings.n_lanes, n_queue=settings.n_queue)
    voices = Voices(VoiceStore(settings.voices), settings.aliases, most=settings.max_voices)
    metrics = Metrics()
    metrics.watch("qwen3tts_lanes_busy", "Speeches being made", lambda: scheduler.n_running)
    metrics.watch("qwen3tts_queue_length", "Requests that wait", lambda: scheduler.n_waiting)
    services = Services(settings, model, scheduler, voices, metrics, model_name)
    app.state.services = services
    for wire in (openai_speech, openai_models, voice_routes, elevenlabs_routes, socket_routes):
        app.include_router(wire.router(services))
    _add_operations(app, services, version)
    _add_errors(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    app.add_middleware(Guard, settings=settings)
    return app


def _add_operations(app: FastAPI, services: Services, version: str) -> None:
    @app.get("/health", tags=["operations"])
    async def health() -> JSONResponse:
        """200 while the server takes requests: "idle" (the first request loads the model), "loading", "ok". 503 for
        "failed" and "stopping"."""
        state, scheduler = services.model.state, services.scheduler
        if scheduler.is_stopping:
            state = "stopping"
        answer: dict[str, Any] = {
            "status": state,
            "model": services.model_name,
            "kind": services.model.tts.kind if services.model.tts else None,
            "version": version,
            "lanes": {"busy": scheduler.n_running, "all": scheduler.n_lanes},
            "queue": scheduler.n_waiting,
        }
        if isinstance(services.model.error, Error):
            answer["error"] = str(services.model.error)
        return JSONResponse(answer, 503 if state in ("failed", "stopping") else 200)

    @app.get("/health/live", tags=["operations"])
    async def live() -> dict[str, str]:
        """200 while the process answers at all."""
        return {"status": "ok"}

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters in Prometheus's text format."""
        return Response(services.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def root() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=_PAGE))


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    async def ours(_request: Request, error: Exception) -> Response:
        return problem_of(error).response()

    async def of_http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: ("not_found", "there is nothing here"), 405: ("method_not_allowed", "not with this method")}
        code, message = codes.get(error.status_code, ("invalid_request", str(error.detail)))
        return Problem(error.status_code, code, message, headers=error.headers).response()

    async def of_fields(_request: Request, error: Exception) -> Response:
        return Problem(400, "invalid_value", "the request has a field of the wrong type").response()

    app.add_exception_handler(Problem, ours)
    app.add_exception_handler(Error, ours)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_fields)
    app.add_exception_handler(Exception, ours)


class _Server(uvicorn.Server):
    """Refuses new requests as soon as it is asked to stop."""

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler) -> None:
        super().__init__(config)
        self._scheduler = scheduler

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._scheduler.refuse_more()
        super().handle_exit(sig, frame)


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve on a socket that listens already, until SIGTERM or Ctrl-C; then what speaks has 10 s to end."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ws_max_size=_MOST_WEBSOCKET_BYTES,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    _Server(config, app.state.services.scheduler).run(sockets=[listener])
