"""The JSON of a request for speech: OpenAI's fields, and those that other servers' clients send."""

from __future__ import annotations

import base64
import binascii
import json
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ..speech.options import SpeechOptions
from ..speech.passages import Split
from ..tts import TTS
from ..voice.voice import Voice
from .encoding import FORMATS
from .problems import Problem
from .settings import Settings
from .voices import Voices, voice_of_clip

__all__ = ["SpeechFields", "parse_fields", "parse_json"]

_INSTRUCTIONS = 4096
_KINDS = {"base": "Base", "custom_voice": "CustomVoice", "voice_design": "VoiceDesign"}
_CODES = {
    "response_format": "unsupported_response_format",
    "speed": "invalid_speed",
}


class _VoiceObject(BaseModel):
    """OpenAI's other form of `voice`."""

    id: Annotated[str, Field(max_length=256)]


class SpeechFields(BaseModel):
    """The body of `POST /v1/audio/speech`. null is the same as absent; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    text: Annotated[str, Field(description="What to speak.", min_length=1, alias="input")]
    model: Annotated[str | None, Field(description="Any name; it means the loaded model.")] = None
    voice: Annotated[
        str | _VoiceObject | None,
        Field(
            description='A name of GET /v1/audio/voices, or an object with it as "id".',
            validation_alias=AliasChoices("voice", "speaker"),
        ),
    ] = None
    instructions: Annotated[
        str | None,
        Field(
            description="How to speak; for VoiceDesign models, what voice.",
            max_length=_INSTRUCTIONS,
            validation_alias=AliasChoices("instructions", "instruct"),
        ),
    ] = None
    response_format: Annotated[
        Literal["mp3", "opus", "ogg", "aac", "flac", "wav", "pcm"], Field(description="pcm is 24 kHz, 16 bit, mono.")
    ] = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    stream_format: Annotated[Literal["audio", "sse"], Field(description="Bytes, or events with base64.")] = "audio"
    stream: Annotated[
        bool | None, Field(description="false: whole, with a length and true totals. Default: streamed, FLAC whole.")
    ] = None
    priority: Annotated[
        Literal["live", "file"] | None, Field(description="Whether somebody listens meanwhile. Default: if streamed.")
    ] = None
    language: Annotated[
        str | None,
        Field(
            description="A name, ISO code or locale, or auto.",
            max_length=64,
            validation_alias=AliasChoices("language", "lang_code"),
        ),
    ] = None
    seed: Annotated[int | None, Field(ge=-1, lt=1 << 63, description="Repeats a speech. -1: a new one.")] = None
    greedy: bool = False
    temperature: Annotated[float | None, Field(ge=0, le=100, description="0 takes the likeliest code.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=0, le=1 << 31)] = None
    repetition_penalty: Annotated[float | None, Field(gt=0, le=100)] = None
    layout: Literal["whole", "stepwise"] | None = None
    non_streaming_mode: Annotated[bool | None, Field(description="true: layout whole; false: stepwise.")] = None
    max_frames: Annotated[int | None, Field(ge=1, le=1 << 20, description="80 ms each.")] = None
    max_new_tokens: Annotated[int | None, Field(ge=1, description="As max_frames, lowered to what fits.")] = None
    retries: Annotated[int, Field(ge=0, le=10, description="Of a whole answer whose speech did not end.")] = 2
    split: Annotated[
        Split, Field(description="What is spoken in one go: what suits the text, all, or each of these.")
    ] = "auto"
    task_type: Literal["Base", "CustomVoice", "VoiceDesign"] | None = None
    ref_audio: Annotated[
        str | None, Field(description="A clip to speak like: base64, or a data: URL. No other URL and no path.")
    ] = None
    ref_text: Annotated[str | None, Field(description="What the clip says.", max_length=4096)] = None
    x_vector_only_mode: bool = False

    @property
    def is_streamed(self) -> bool:
        """Whether the answer is sent as it is made. FLAC is not by default: its readers want the totals."""
        if self.stream_format == "sse":
            return True
        return self.response_format != "flac" if self.stream is None else self.stream

    @property
    def is_live(self) -> bool:
        return self.is_streamed if self.priority is None else self.priority == "live"

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, _VoiceObject) else self.voice

    def options(self, tts: TTS) -> SpeechOptions:
        """Raises OptionError."""
        layout = self.layout or ("stepwise" if self.non_streaming_mode is False else "whole")
        frames = self.max_frames
        if frames is None and self.max_new_tokens is not None and self.max_new_tokens < tts.defaults.max_new_tokens:
            frames = self.max_new_tokens
        return SpeechOptions(
            language=self.language or None,
            seed=None if self.seed == -1 else self.seed,
            greedy=self.greedy or self.temperature == 0,
            max_frames=frames,
            retries=self.retries,
            layout=layout,
            temperature=self.temperature or None,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
        )

    def chosen_voice(self, tts: TTS, voices: Voices, settings: Settings) -> tuple[Voice | None, bool]:
        """As `Voices.voice`; of the clip where one is given. May compute for seconds. Raises Problem, Error."""
        if self.task_type is not None and self.task_type != _KINDS[tts.kind]:
            raise Problem(400, "invalid_value", f"the loaded model is {_KINDS[tts.kind]}", param="task_type")
        if self.ref_audio is None:
            return voices.voice(tts, self.voice_name, self.instructions)
        clip = clip_bytes(self.ref_audio, settings.max_clip)
        transcript = None if self.x_vector_only_mode or not (self.ref_text or "").strip() else self.ref_text
        return voice_of_clip(tts, clip, transcript), not self.instructions


def clip_bytes(text: str, most: int) -> bytes:
    """The bytes of a clip in base64 or in a data: URL. Raises Problem."""
    invalid = partial(Problem, 400, "invalid_reference_audio", param="ref_audio")
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise invalid("a data: URL of a clip must be base64")
    elif ":" in text[:10]:
        raise invalid("ref_audio takes base64 or a data: URL; this server fetches no other URLs")
    if len(text) > most * 4 // 3 + 4:
        raise invalid(f"the clip is larger than {most >> 20} MiB")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("ref_audio is not base64; a path is not taken") from None


def parse_json(body: bytes) -> dict[str, Any]:
    """An object; null fields are left out. Raises Problem."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Problem(400, "invalid_json", "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Problem(400, "invalid_json", "the body is not a JSON object")
    return {name: field for name, field in value.items() if field is not None}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def parse_fields(body: dict[str, Any], settings: Settings) -> SpeechFields:
    """Raises Problem with the first field that is wrong."""
    text = body.get("input")
    if isinstance(text, str) and len(text) > settings.max_input:
        message = f"input has {len(text)} letters; this server takes at most {settings.max_input}"
        raise Problem(400, "input_too_long", message, param="input")
    if "response_format" in body and body["response_format"] not in FORMATS:
        message = f"unknown response_format {body['response_format']!r:.40}; there are {', '.join(FORMATS)}"
        raise Problem(400, "unsupported_response_format", message, param="response_format")
    try:
        return SpeechFields.model_validate(body)
    except ValidationError as error:
        raise _problem_of(error) from None


def _problem_of(error: ValidationError) -> Problem:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "missing":
        return Problem(400, "missing_required_field", f"the field {param} is missing", param=param)
    return Problem(400, _CODES.get(param or "", "invalid_value"), f"{param}: {first['msg']}", param=param)
