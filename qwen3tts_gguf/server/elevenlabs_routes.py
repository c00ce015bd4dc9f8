"""`POST /v1/text-to-speech/{voice}`, as ElevenLabs has it: a text that is complete, for clients made for it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from .answer import SpeechResponse
from .elevenlabs_formats import DEFAULT, codec_of, elevenlabs_encoder
from .elevenlabs_messages import whole_fields
from .encoding import MEDIA_TYPES
from .framing import Bare, Timed
from .openai_speech import ERRORS
from .services import Services
from .speech_fields import parse_json

__all__ = ["router"]

_BODY = {
    "type": "object",
    "required": ["text"],
    "properties": {
        "text": {"type": "string", "description": "What to speak."},
        "language_code": {"type": "string", "description": "ISO code."},
        "seed": {"type": "integer", "minimum": 0, "description": "Repeats a speech."},
        "voice_settings": {
            "type": "object",
            "properties": {"speed": {"type": "number", "minimum": 0.25, "maximum": 4}},
            "description": "`speed`; the others mean nothing to this model.",
        },
    },
}


def router(services: Services) -> APIRouter:
    """Whole or as it is made, as sound or as JSON with the sound in base64."""
    routes = APIRouter(tags=["ElevenLabs"])

    def add(path: str, description: str, *, is_streamed: bool, is_timed: bool) -> None:
        async def speech(voice: str, request: Request, output_format: str = DEFAULT) -> Response:
            body = parse_json(await request.body())
            codec = codec_of(output_format)
            fields = whole_fields(voice, body, services.settings, codec=codec, is_streamed=is_streamed)
            made = elevenlabs_encoder(output_format, fields.speed, whole=not is_streamed)
            framing = Timed() if is_timed else Bare()
            return SpeechResponse(services, fields, wire="elevenlabs", made=made, framing=framing)

        binary: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
        content: dict[str, Any] = {"application/json": {}}
        if not is_timed:
            content = dict.fromkeys((*MEDIA_TYPES.values(), "audio/basic"), binary)
        routes.post(
            f"/v1/text-to-speech/{{voice}}{path}",
            response_class=Response,
            responses={200: {"description": "Sound in the `output_format`.", "content": content}, **ERRORS},
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}}},
            description=description,
        )(speech)

    add("", "Speak a text, whole.", is_streamed=False, is_timed=False)
    add("/stream", "Speak a text, sent as it is made.", is_streamed=True, is_timed=False)
    add("/with-timestamps", "Whole, as one JSON object; its alignment is null.", is_streamed=False, is_timed=True)
    add("/stream/with-timestamps", "As it is made, a JSON object per line.", is_streamed=True, is_timed=True)
    return routes
