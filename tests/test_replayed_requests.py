"""What other programs send, body and headers, and what each of them makes of the answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

import httpx
from serving import PATIENCE, TEXT, Running, is_about, seconds_of

JSON = {"Content-Type": "application/json"}
KEY = {"Authorization": "Bearer none"}
NODE_SDK = {
    "Accept": "application/octet-stream",
    "User-Agent": "OpenAI/JS 4.95.1",
    "X-Stainless-Lang": "js",
    "X-Stainless-Package-Version": "4.95.1",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Timeout": "600",
}
PYTHON_SDK = {
    "Accept": "application/octet-stream",
    "User-Agent": "AsyncOpenAI/Python 3.57.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Async": "async:asyncio",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Raw-Response": "stream",
}


def events(answer: httpx.Response) -> bytes:
    """As LiveKit reads them."""
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    read = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert read[-1]["type"] == "speech.audio.done" and read[-1]["usage"]["output_tokens"] > 0
    return b"".join(base64.b64decode(event["audio"]) for event in read[:-1])


def plain(answer: httpx.Response) -> bytes:
    return answer.content


@dataclass(frozen=True)
class Request:
    name: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "audio/mpeg"
    read: Callable[[httpx.Response], bytes] = plain
    path: str = "/v1/audio/speech"


REQUESTS = (
    Request("Open WebUI", {"input": TEXT, "voice": "alloy", "model": "tts-1"}, JSON | KEY),
    Request(
        "Open WebUI with the user's name and parameters of its administrator",
        {"input": TEXT, "voice": "nova", "model": "nano", "response_format": "opus", "speed": 1.0},
        JSON | KEY | {"X-OpenWebUI-User-Name": "Jos%C3%A9", "X-OpenWebUI-User-Role": "admin"},
        type="audio/opus",
    ),
    Request("LibreChat", {"input": TEXT, "model": "tts-1", "voice": "alloy"}, JSON | KEY),
    Request("LibreChat, by its LocalAI", {"input": TEXT, "model": "alloy", "backend": "piper"}, JSON),
    Request(
        "LibreChat, by its ElevenLabs",
        {"model_id": "eleven_multilingual_v2", "text": TEXT, "voice_settings": {"stability": 0.5, "style": 0}},
        JSON | {"xi-api-key": "none", "Accept": "audio/mpeg"},
        path="/v1/text-to-speech/alloy/stream",
    ),
    Request("AnythingLLM", {"model": "tts-1", "voice": "alloy", "input": TEXT}, JSON | KEY | NODE_SDK),
    Request(
        "SillyTavern without a key",
        {"input": TEXT, "response_format": "mp3", "voice": "echo", "speed": 1, "model": "tts-1"},
        JSON | {"Authorization": "Bearer", "User-Agent": "node-fetch", "Accept": "*/*"},
    ),
    Request(
        "openai-agents",
        {"input": TEXT, "model": "gpt-4o-mini-tts", "voice": "ash", "response_format": "pcm", "instructions": None},
        JSON | KEY | PYTHON_SDK,
        type="audio/pcm",
    ),
    Request(
        "LiveKit",
        {"input": TEXT, "model": "gpt-4o-mini-tts", "voice": "ash", "response_format": "mp3", "speed": 1.0}
        | {"stream_format": "sse"},
        JSON | KEY | PYTHON_SDK,
        type="text/event-stream",
        read=events,
    ),
    Request(
        "openai_tts for Home Assistant",
        {"model": "tts-1", "input": TEXT, "voice": "shimmer", "speed": 1.0, "response_format": "wav"},
        JSON | KEY | {"User-Agent": "Python-urllib/3.13"},
        type="audio/wav",
    ),
    Request(
        "Kokoro-FastAPI's clients",
        {"model": "kokoro", "input": TEXT, "voice": "shimmer", "response_format": "opus", "speed": 1.0}
        | {"lang_code": "en", "volume_multiplier": 1.0, "normalization_options": {"normalize": True}}
        | {"return_download_link": False, "stream": True},
        JSON,
        type="audio/opus",
    ),
    Request(
        "vllm-omni's clients",
        {"input": TEXT, "speaker": "verse", "language": "Auto", "task_type": "Base", "max_new_tokens": 2048}
        | {"instruct": "calm", "response_format": "wav", "stream": False},
        JSON,
        type="audio/wav",
    ),
    Request("curl -d", {"input": TEXT}, {"Content-Type": "application/x-www-form-urlencoded", "Accept": "*/*"}),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=[request.name for request in REQUESTS])
def test_the_answer_decodes_to_all_that_was_spoken(server: Running, request_: Request) -> None:
    with server.made() as made:
        answer = server.client.post(request_.path, content=json.dumps(request_.body), headers=request_.headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].split(";")[0] == request_.type
    sound = request_.read(answer)
    seconds = len(sound) / 48_000 if request_.type == "audio/pcm" else seconds_of(sound)
    assert is_about(seconds, made.seconds)


def test_anythingllm_knows_the_format_by_its_first_bytes(server: Running) -> None:
    heads = {"mp3": b"\xff", "wav": b"RIFF", "opus": b"OggS", "flac": b"fLaC"}
    for format, head in heads.items():
        assert server.speak("Yes.", response_format=format).content.startswith(head)
    sound = server.speak("Yes.").content
    assert sound[0] == 0xFF and sound[1] & 0xE0 == 0xE0


def test_librechat_writes_the_pieces_of_a_long_text_into_one_answer(server: Running) -> None:
    with server.made() as made:
        pieces = [
            server.client.post("/v1/audio/speech", json={"input": text, "model": "tts-1", "voice": "alloy"}).content
            for text in (TEXT, "Good morning Anna.", "Thank you.")
        ]
    assert abs(seconds_of(b"".join(pieces)) - made.seconds) < 3 * 0.12


def test_open_webui_asks_for_every_sentence_at_once(server: Running) -> None:
    texts = ("Seven.", "Three nine.", "Yes.", "Open the door.", "Good morning Anna.", "Thank you.")

    def ask(text: str) -> httpx.Response:
        with httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as client:
            body = {"input": text, "voice": "alloy", "model": "tts-1"}
            return client.post("/v1/audio/speech", json=body, headers=JSON | KEY)

    with server.made() as made, ThreadPoolExecutor(len(texts)) as threads:
        answers = list(threads.map(ask, texts))
    assert [answer.status_code for answer in answers] == [200] * len(texts)
    assert abs(sum(seconds_of(answer.content) for answer in answers) - made.seconds) < len(texts) * 0.12


def test_open_webui_fills_its_lists_without_a_key(server: Running) -> None:
    models = server.client.get("/v1/audio/models").json()["models"]
    assert {"nano", "tts-1"} <= {model["id"] for model in models}
    assert {"nano", "tts-1"} <= {model["id"] for model in server.client.get("/v1/models").json()["data"]}
    voices = {voice["id"]: voice["name"] for voice in server.client.get("/v1/audio/voices").json()["voices"]}
    assert voices["alloy"] == "alloy" and len(voices) > 13


def test_open_webui_shows_the_error_it_gets(server: Running) -> None:
    body = {"input": TEXT, "voice": "nobody", "model": "tts-1"}
    answer = server.client.post("/v1/audio/speech", json=body, headers=JSON | KEY)
    assert answer.status_code == 400 and "nobody" in answer.json()["error"]["message"]


def test_livekit_opens_the_connection_before_it_speaks(server: Running) -> None:
    assert server.client.get("/v1/", headers=KEY).status_code == 404
    assert server.client.get("/", headers=KEY).status_code == 200
