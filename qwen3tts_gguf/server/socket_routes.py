"""The WebSocket routes."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from .elevenlabs_socket import speak_as_elevenlabs
from .services import Services
from .speech_socket import speak_on_socket

__all__ = ["router"]


def router(services: Services) -> APIRouter:
    routes = APIRouter()

    @routes.websocket("/v1/audio/speech/stream")
    async def speech(socket: WebSocket) -> None:
        await socket.accept(_subprotocol(socket))
        await speak_on_socket(socket, services)

    @routes.websocket("/v1/text-to-speech/{voice}/stream-input")
    async def elevenlabs(socket: WebSocket, voice: str) -> None:
        await socket.accept(_subprotocol(socket))
        await speak_as_elevenlabs(socket, services, voice, has_contexts=False)

    @routes.websocket("/v1/text-to-speech/{voice}/multi-stream-input")
    async def elevenlabs_contexts(socket: WebSocket, voice: str) -> None:
        await socket.accept(_subprotocol(socket))
        await speak_as_elevenlabs(socket, services, voice, has_contexts=True)

    return routes


def _subprotocol(socket: WebSocket) -> str | None:
    """One that the client offers, as it expects; a key is not sent back."""
    offered: list[str] = socket.scope.get("subprotocols", [])
    return next((name for name in offered if not name.startswith("openai-insecure-api-key.")), None)
