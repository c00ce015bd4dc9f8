"""OpenAI's own client for Python."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

import openai
import soundfile
from serving import LONG, TEXT, Running, running

from qwen3tts_gguf import TTS

ASK: dict[str, Any] = {"model": "tts-1", "voice": "alloy", "input": TEXT, "extra_body": {"seed": 5}}


def client_of(server: Running, key: str = "none", *, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=retries)


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture(scope="module")
def alone(server: Running) -> bytes:
    """TEXT with seed 5, as PCM: alloy is the default voice."""
    return server.speak(response_format="pcm", seed=5).content


def n_requests(server: Running, outcome: str) -> float:
    return float(server.services.metrics.requests.labels("openai", outcome)._value.get())


def test_it_speaks_whole_and_streamed(client: openai.OpenAI, alone: bytes) -> None:
    assert client.audio.speech.create(**ASK, response_format="pcm").content == alone
    with client.audio.speech.with_streaming_response.create(**ASK, response_format="pcm") as streamed:
        assert b"".join(streamed.iter_bytes(1024)) == alone


@pytest.mark.parametrize("format", ["mp3", "wav", "opus"])
def test_every_format_streams(client: openai.OpenAI, alone: bytes, format: Any) -> None:
    with client.audio.speech.with_streaming_response.create(**ASK, response_format=format) as streamed:
        samples, rate = soundfile.read(io.BytesIO(b"".join(streamed.iter_bytes())))
    assert abs(len(samples) / rate - len(alone) / 48_000) < 0.12


def test_a_voice_may_be_an_object(client: openai.OpenAI, alone: bytes) -> None:
    ask: dict[str, Any] = {**ASK, "voice": {"id": "alloy"}}
    assert client.audio.speech.create(**ask, response_format="pcm").content == alone


def test_errors_are_its_own(client: openai.OpenAI) -> None:
    ask = {**ASK, "voice": "nobody"}
    with pytest.raises(openai.BadRequestError) as raised:
        client.audio.speech.create(**ask)
    assert raised.value.code == "voice_not_found" and raised.value.param == "voice"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_a_wrong_key_is_its_authentication_error(nano: TTS, tmp_path: Path) -> None:
    with running(tmp_path, nano, api_keys=("sesame",)) as server:
        with pytest.raises(openai.AuthenticationError):
            client_of(server, "wrong", retries=2).audio.speech.create(**ASK)
        assert client_of(server, "sesame").audio.speech.create(**ASK).content


def test_it_comes_back_to_a_full_server_when_it_is_told_to(nano: TTS, tmp_path: Path) -> None:
    with running(tmp_path, nano, n_queue=0) as server, server.occupied():
        server.services.scheduler.pace.turn_seconds = 0.0  # the shortest Retry-After, a second
        with pytest.raises(openai.RateLimitError) as raised:
            client_of(server, retries=1).audio.speech.create(**ASK)
        assert raised.value.response.headers["retry-after"] == "1"
        server.wait_until(lambda: n_requests(server, "refused") == 2)  # an answer is counted after its client has it


def test_speech_that_cannot_end_is_not_made_again(server: Running) -> None:
    """Whole, it is an error; cut in the middle, the client asks again and gets the error then."""
    client = client_of(server, retries=2)
    ask: dict[str, Any] = {**ASK, "input": LONG, "response_format": "pcm"}
    n_failed = n_requests(server, "failed")
    for stream, n_more in ((False, 1), (True, 2)):
        ask["extra_body"] = {"seed": 7, "max_frames": 3, "retries": 0, "stream": stream}
        with pytest.raises(openai.InternalServerError) as raised:
            client.audio.speech.create(**ask)
        assert raised.value.code == "no_end_of_speech"
        n_failed += n_more
        server.wait_until(lambda: n_requests(server, "failed") == n_failed)  # noqa: B023


def test_it_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()][:2] == ["nano", "tts-1"]
    assert client.models.retrieve("tts-1").id == "tts-1"
