"""Voices: listed, uploaded, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile

from ..model.vocabulary import AUTO
from .openai_speech import ERRORS
from .problems import Problem
from .services import Services
from .speech_fields import clip_bytes, parse_json
from .voices import Named

__all__ = ["router"]

_LISTS = ("/v1/audio/voices", "/v1/voices", "/audio/voices", "/voices")
_CONSENTS = ("consent", "consent_attestation", "consent_confirmed")
_CLIPS = ("audio_sample", "voice", "audio", "file", "ref_audio", "wav_b64")
_TRANSCRIPTS = ("ref_text", "transcript", "ref_transcript")
_MOST_FIELDS, _MOST_FIELD_BYTES = 16, 65_536


def router(services: Services) -> APIRouter:
    """`GET` and `POST /v1/audio/voices`, `DELETE /v1/audio/voices/{name}`."""
    routes = APIRouter(tags=["voices"], responses=ERRORS)

    async def list_voices() -> dict[str, Any]:
        """Saved voices, those of the model, then OpenAI's names. Those of the model are listed once it is loaded."""
        tts = services.model.tts
        named = await asyncio.to_thread(services.voices.list, tts)
        languages = [AUTO] if tts is None else tts.vocabulary.spoken_languages()
        listed = [_listed(voice) for voice in named]
        uploaded = [
            {"name": voice.name, "created_at": voice.created_at, "consent": ""}
            for voice in named
            if voice.kind == "saved"
        ]
        return {"object": "list", "voices": listed, "uploaded_voices": uploaded, "languages": languages}

    for path in _LISTS:
        routes.get(path, include_in_schema=path == _LISTS[0])(list_voices)

    @routes.post("/v1/audio/voices")
    async def save_voice(request: Request) -> dict[str, Any]:
        """Save the voice of a clip: multipart (`name`, `audio_sample`, `consent`, `ref_text`, `language`, `overwrite`)
        or the same as JSON with the clip in base64.

        `consent` is any text that says the speaker agreed. With `ref_text`, the words of the clip, the voice comes
        closer to it.
        """
        _require_uploads(services)
        fields, clip = await _upload(request, services.settings.max_clip)
        name = fields.get("name", "")
        if not name:
            raise Problem(400, "missing_required_field", "the field name is missing", param="name")
        if not any(fields.get(field, "").strip() for field in _CONSENTS):
            message = "the field consent is missing: say that the speaker agreed to have this voice cloned"
            raise Problem(400, "missing_required_field", message, param="consent")
        if not clip:
            raise Problem(400, "missing_required_field", "the file audio_sample is missing", param="audio_sample")
        overwrite = fields.get("overwrite", "").lower() in ("true", "1", "yes")
        await asyncio.to_thread(services.voices.require_free, name, overwrite=overwrite)
        async with services.model.lease() as tts:
            transcript = next((fields[field] for field in _TRANSCRIPTS if fields.get(field, "").strip()), None)
            await services.scheduler.encode(
                lambda: services.voices.save(
                    tts, name, clip, transcript=transcript, language=fields.get("language") or None, overwrite=overwrite
                )
            )
        named = await asyncio.to_thread(services.voices.list, None)
        voice = next((_listed(voice) for voice in named if voice.name == name), {"id": name, "name": name})
        return {**voice, "success": True, "voice": voice}

    @routes.delete("/v1/audio/voices/{name:path}")
    async def delete_voice(name: str) -> dict[str, Any]:
        """Delete a saved voice."""
        _require_uploads(services)
        await asyncio.to_thread(services.voices.delete, services.model.tts, name)
        answer = {"id": name, "object": "audio.voice", "deleted": True, "success": True, "status": "deleted"}
        return {**answer, "message": f"the voice {name} is deleted"}

    return routes


def _require_uploads(services: Services) -> None:
    if not services.settings.uploads:
        raise Problem(403, "uploads_off", "this server saves and deletes no voices", may_retry=False)


def _listed(voice: Named) -> dict[str, Any]:
    """The keys of every server's list, for every server's clients."""
    return {
        "id": voice.name,
        "voice_id": voice.name,
        "name": voice.name,
        "object": "audio.voice",
        "kind": voice.kind,
        "category": "cloned" if voice.kind == "saved" else "premade",
        "language": voice.language,
        "description": voice.description,
        "created_at": voice.created_at,
        "preview_url": None,
    }


async def _upload(request: Request, most: int) -> tuple[Mapping[str, str], bytes]:
    """The text fields and the clip. Raises Problem."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        body = parse_json(await request.body())
        fields = {name: str(value) for name, value in body.items() if isinstance(value, str | bool)}
        encoded = next((fields[name] for name in _CLIPS if name in fields), "")
        return fields, clip_bytes(encoded, most)
    fields, clip = {}, b""
    async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in _CLIPS:
                    raise Problem(400, "invalid_value", "the clip belongs into audio_sample", param="audio_sample")
                clip = await value.read(most + 1)
            else:
                fields[name] = value
    if len(clip) > most:
        raise Problem(413, "body_too_large", f"the clip is larger than {most >> 20} MiB", param="audio_sample")
    return fields, clip
