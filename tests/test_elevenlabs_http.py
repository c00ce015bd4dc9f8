"""`POST /v1/text-to-speech/{voice}`, as ElevenLabs' clients send it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the extra 'server'")

import httpx
from serving import LONG, TEXT, Running, running

from qwen3tts_gguf import TTS
from qwen3tts_gguf.server import elevenlabs_routes
from qwen3tts_gguf.server.elevenlabs_messages import whole_fields


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with TTS("nano", n_lanes=2) as tts, running(tmp_path_factory.mktemp("voices"), tts) as server:
        yield server


@pytest.fixture(scope="module")
def alone(server: Running) -> bytes:
    """TEXT with seed 5, as PCM."""
    return server.speak(response_format="pcm", seed=5).content


def speak(server: Running, way: str = "", format: str | None = "pcm_24000", **fields: Any) -> httpx.Response:
    """As ElevenLabs' own client, with all that it sends."""
    body = {
        "text": TEXT,
        "model_id": "eleven_multilingual_v2",
        "voice_settings": {"stability": 0.5, "similarity_boost": 0.75, "style": 0, "use_speaker_boost": True},
        "previous_text": "Before.",
        "apply_text_normalization": "auto",
        "language_code": None,
        "seed": 5,
        **fields,
    }
    query = {} if format is None else {"output_format": format}
    headers = {"xi-api-key": "none", "X-Fern-Language": "Python", "accept": "*/*"}
    return server.client.post(f"/v1/text-to-speech/alloy{way}", json=body, params=query, headers=headers)


@pytest.mark.parametrize("way", ["", "/stream"])
def test_it_is_the_speech_of_the_other_routes(server: Running, alone: bytes, way: str) -> None:
    answer = speak(server, way)
    assert (answer.status_code, answer.content) == (200, alone)
    assert (answer.headers["content-type"], answer.headers["x-sample-rate"]) == ("audio/pcm", "24000")
    assert ("content-length" in answer.headers) == (way == "")


@pytest.mark.parametrize("way", ["/with-timestamps", "/stream/with-timestamps"])
def test_sound_comes_in_lines_of_json(server: Running, alone: bytes, way: str) -> None:
    answer = speak(server, way)
    assert answer.headers["content-type"] == "application/json"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert b"".join(base64.b64decode(line["audio_base64"]) for line in lines) == alone
    assert {(line["alignment"], line["normalized_alignment"]) for line in lines} == {(None, None)}
    assert (len(lines) == 1) == (way == "/with-timestamps")


@pytest.mark.parametrize("way", ["", "/stream"])
@pytest.mark.parametrize("format", [None, "mp3_22050_32", "opus_48000_64"])
def test_compressed_sound_decodes_to_its_length(server: Running, alone: bytes, way: str, format: str | None) -> None:
    answer = speak(server, way, format)
    assert answer.headers["content-type"] == ("audio/opus" if format == "opus_48000_64" else "audio/mpeg")
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert abs(len(samples) / rate - len(alone) / 48_000) < 0.12


@pytest.mark.parametrize(("format", "rate", "width"), [("pcm_16000", 16_000, 2), ("ulaw_8000", 8000, 1)])
def test_bare_samples_have_their_rate_in_a_header(
    server: Running, alone: bytes, format: str, rate: int, width: int
) -> None:
    answer = speak(server, "/stream", format)
    assert (answer.headers["x-sample-rate"], answer.headers["x-bit-depth"]) == (str(rate), str(8 * width))
    assert abs(len(answer.content) / rate / width - len(alone) / 48_000) < 0.002


def test_the_speed_of_the_settings_is_followed(server: Running, alone: bytes) -> None:
    assert len(speak(server, voice_settings={"speed": 2.0}).content) == pytest.approx(len(alone) / 2, abs=2)


@pytest.mark.parametrize(
    ("format", "fields", "code", "param"),
    [
        ("midi_1", {}, "unsupported_output_format", "output_format"),
        (None, {"text": None}, "missing_required_field", "text"),
        (None, {"text": 5}, "invalid_value", "text"),
        (None, {"text": "..."}, "nothing_to_speak", "input"),
        (None, {"seed": "many"}, "invalid_value", "seed"),
        (None, {"voice_settings": [1]}, "invalid_value", "voice_settings"),
        (None, {"voice_settings": {"speed": 9}}, "invalid_speed", "speed"),
        (None, {"language_code": "tlh"}, "invalid_option", None),
    ],
)
def test_what_is_wrong_is_named(
    server: Running, format: str | None, fields: dict[str, Any], code: str, param: str | None
) -> None:
    answer = speak(server, format=format, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


def test_a_stream_that_fails_ends_with_the_error_and_is_cut(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*arguments: Any, **more: Any) -> Any:
        return whole_fields(*arguments, **more).model_copy(update={"max_frames": 3})

    monkeypatch.setattr(elevenlabs_routes, "whole_fields", short)
    lines: list[str] = []
    url = "/v1/text-to-speech/alloy/stream/with-timestamps"
    with (
        server.client.stream("POST", url, json={"text": LONG, "seed": 5}) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        lines.extend(answer.iter_lines())
    assert json.loads(lines[-1])["error"]["code"] == "no_end_of_speech"
    server.wait_until(lambda: server.is_free)


def test_a_client_that_leaves_frees_its_lane(server: Running) -> None:
    for way in ("/stream", "/stream/with-timestamps"):
        with server.client.stream("POST", f"/v1/text-to-speech/alloy{way}", json={"text": LONG}) as answer:
            next(answer.iter_raw())
        server.wait_until(lambda: server.is_free)
    assert b'outcome="cancelled",wire="elevenlabs"' in server.client.get("/metrics").content
