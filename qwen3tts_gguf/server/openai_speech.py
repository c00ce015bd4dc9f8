"""`POST /v1/audio/speech`"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from .answer import SpeechResponse
from .encoding import MEDIA_TYPES
from .problems import Problem
from .services import Services
from .speech_fields import SpeechFields, parse_fields, parse_json

__all__ = ["router"]

ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names of models that clients have built in, which mean the loaded one."""

_ERROR: dict[str, Any] = {
    "description": "OpenAI's error object",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}
ERRORS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 405, 409, 413, 429, 500, 503), _ERROR)
"""For every route's `responses`."""


def router(services: Services) -> APIRouter:
    """The speech route."""
    routes = APIRouter(tags=["speech"])
    binary = {"schema": {"type": "string", "format": "binary"}}
    media = {**dict.fromkeys(MEDIA_TYPES.values(), binary), "text/event-stream": {"schema": {"type": "string"}}}
    body = {"required": True, "content": {"application/json": {"schema": SpeechFields.model_json_schema()}}}

    @routes.post(
        "/v1/audio/speech",
        response_class=Response,
        responses={200: {"description": "Sound in the format asked for.", "content": media}, **ERRORS},
        openapi_extra={"requestBody": body},
    )
    async def speech(request: Request) -> Response:
        """Speak a text: streamed as it is made, or whole with `stream: false`.

        `X-Qwen3tts-Seed` repeats the speech. A stream that fails breaks the connection before the body's end.
        """
        fields = parse_fields(parse_json(await request.body()), services.settings)
        known = {services.model_name, *ALIASES}
        if services.settings.strict_model and fields.model is not None and fields.model not in known:
            raise Problem(404, "model_not_found", f"there is no model {fields.model!r:.80}", param="model")
        return SpeechResponse(services, fields)

    return routes
