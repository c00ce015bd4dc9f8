"""Voices, models, keys, hosts, origins, sizes, health and documentation of the server."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx
from serving import TEXT, Running, running

from qwen3tts_gguf import TTS, ModelFileError
from qwen3tts_gguf.server.voices import OPENAI_VOICES

KEY = {"Authorization": "Bearer sesame"}


@pytest.fixture(scope="module")
def nano() -> Iterator[TTS]:
    with TTS("nano", n_lanes=2) as model:
        yield model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "voices"


@pytest.fixture(scope="module")
def server(nano: TTS, folder: Path) -> Iterator[Running]:
    with running(folder, nano, aliases={"boss": "f2"}, max_body=2_000_000, max_clip=1_000_000) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def clip(nano: TTS) -> bytes:
    return nano.shipped_voices["f2"].clip.read_bytes()


def upload(server: Running, clip: bytes, name: str = "anna", **fields: str) -> httpx.Response:
    data = {"name": name, "consent": "she agreed", **fields}
    return server.client.post("/v1/audio/voices", data=data, files={"audio_sample": ("a.flac", clip, "audio/flac")})


def code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


def names(server: Running) -> list[str]:
    return [voice["id"] for voice in server.client.get("/v1/audio/voices").json()["voices"]]


def test_a_voice_is_uploaded_listed_spoken_with_and_deleted(server: Running, folder: Path, clip: bytes) -> None:
    answer = upload(server, clip, ref_text="one two three")
    assert answer.status_code == 200 and answer.json()["name"] == "anna" and answer.json()["object"] == "audio.voice"
    assert [path.name for path in folder.iterdir()] == ["anna.voice.safetensors"]
    assert names(server)[0] == "anna"
    assert server.speak(voice="Anna").status_code == 200
    assert server.speak(voice={"id": "anna"}).status_code == 200
    assert code(upload(server, clip)) == "voice_exists"
    assert upload(server, clip, overwrite="true").status_code == 200
    deleted = server.client.delete("/v1/audio/voices/anna")
    assert deleted.status_code == 200 and deleted.json()["deleted"] is True
    assert not list(folder.iterdir())
    assert code(server.client.delete("/v1/audio/voices/anna")) == "voice_not_found"


def test_a_voice_is_uploaded_as_json(server: Running, clip: bytes) -> None:
    body = {"name": "json", "consent": "yes", "ref_audio": base64.b64encode(clip).decode()}
    assert server.client.post("/v1/audio/voices", json=body).status_code == 200
    assert server.client.delete("/v1/audio/voices/json").status_code == 200


@pytest.mark.parametrize(
    "name", ["../up", "..", "a/b", "C:\\x", "a\0b", "x" * 300, "none", " ", ".hidden", "a\nb", "/etc/passwd"]
)
def test_a_name_is_never_a_path(server: Running, folder: Path, clip: bytes, name: str) -> None:
    answer = upload(server, clip, name)
    assert answer.status_code == 400 and code(answer) in ("invalid_value", "missing_required_field")
    assert not folder.exists() or not list(folder.iterdir())
    assert not list(folder.parent.glob("*.safetensors"))


@pytest.mark.parametrize("path", ["..%2F..%2Fetc%2Fpasswd", "%00", "a%2Fb", "x" * 300, "..%5Cx"])
def test_what_is_no_name_deletes_nothing(server: Running, path: str) -> None:
    assert server.client.delete(f"/v1/audio/voices/{path}").status_code == 404


def test_voices_that_are_not_saved_cannot_be_deleted(server: Running) -> None:
    for name in ("f2", "alloy", "boss"):
        assert code(server.client.delete(f"/v1/audio/voices/{name}")) == "voice_is_preset"


def test_an_upload_without_consent_name_or_clip_is_refused(server: Running, clip: bytes) -> None:
    assert code(upload(server, clip, consent=" ")) == "missing_required_field"
    assert code(upload(server, clip, name="")) == "missing_required_field"
    assert code(server.client.post("/v1/audio/voices", json={"name": "a", "consent": "y"})) == "missing_required_field"


def test_a_clip_that_is_no_sound_or_too_large_is_refused(server: Running) -> None:
    answer = upload(server, b"MZ" + bytes(1000))
    assert (answer.status_code, code(answer)) == (400, "invalid_reference_audio")
    assert "/tmp" not in answer.text
    assert (upload(server, bytes(1_000_001)).status_code) == 413


def test_a_body_is_counted_whatever_its_header_says(server: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield bytes(10_000)

    for path in ("/v1/audio/speech", "/v1/audio/voices"):
        answer = server.client.post(path, content=b"a" * 2_000_001)
        assert (answer.status_code, code(answer)) == (413, "body_too_large")
        assert server.client.post(path, content=endless()).status_code == 413


def test_the_list_has_what_each_client_reads(server: Running, nano: TTS) -> None:
    for path in ("/v1/audio/voices", "/v1/voices", "/voices", "/audio/voices"):
        answer = server.client.get(path).json()
        assert (answer["object"] == "list" and "en" in answer["languages"]) or "english" in answer["languages"]
        voices = answer["voices"]
        assert all(voice["id"] == voice["name"] == voice["voice_id"] for voice in voices)
        listed = [voice["name"] for voice in voices]
        assert {*nano.shipped_voices, *OPENAI_VOICES, "boss"} == set(listed)
        assert listed.index("boss") > listed.index("f2")


def test_every_voice_of_the_list_is_one_the_model_speaks_with(server: Running, nano: TTS) -> None:
    for name in names(server):
        voice, follows = server.services.voices.voice(nano, name)
        assert voice is not None and follows and nano.resolve(voice).speaker is not None, name
    answers = [server.speak(voice=name, response_format="pcm", seed=1).content for name in ("boss", "f2")]
    assert answers[0] == answers[1]


def test_models_are_listed_as_each_client_reads_them(server: Running) -> None:
    assert server.client.get("/v1/models").json()["data"][0]["id"] == "nano"
    assert server.client.get("/v1/audio/models").json()["models"][0] == {"id": "nano", "name": "nano"}
    assert code(server.client.get("/v1/models/none/such")) == "model_not_found"


def test_the_documentation_loads_nothing_from_elsewhere(server: Running) -> None:
    page = server.client.get("/docs")
    assert page.status_code == 200 and "POST /v1/audio/speech" in page.text and "response_format" in page.text
    assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert server.client.get("/page/docs.css").status_code == 200
    assert server.client.get("/page/../app.py").status_code == 404
    schema = server.client.get("/openapi.json").json()
    assert (
        "input"
        in schema["paths"]["/v1/audio/speech"]["post"]["requestBody"]["content"]["application/json"]["schema"][
            "required"
        ]
    )


# -- keys, hosts, origins ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(nano: TTS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings: dict[str, Any] = {
        "api_keys": ("other", "sesame"),
        "allowed_hosts": ("localhost", "127.0.0.1"),
        "cors_origins": ("http://page.example",),
        "uploads": False,
        "strict_model": True,
    }
    with running(tmp_path_factory.mktemp("voices"), nano, **settings) as running_server:
        yield running_server


def speak(server: Running, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return server.client.post("/v1/audio/speech", json={"input": TEXT, **fields}, headers=headers)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer sesam"}, {"Authorization": "sesame"}, {"X-API-Key": ""}]
)
def test_a_wrong_key_is_401(guarded: Running, headers: dict[str, str]) -> None:
    answer = speak(guarded, headers)
    assert (answer.status_code, code(answer)) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [KEY, {"X-API-Key": "sesame"}, {"xi-api-key": "other"}])
def test_a_right_key_speaks(guarded: Running, headers: dict[str, str]) -> None:
    assert speak(guarded, headers).status_code == 200


def test_listings_and_health_need_no_key(guarded: Running) -> None:
    for path in ("/health", "/health/live", "/v1/models", "/v1/audio/models", "/v1/audio/voices", "/docs", "/metrics"):
        assert guarded.client.get(path).status_code == 200, path
    assert guarded.client.delete("/v1/audio/voices/a").status_code == 401


def test_another_host_or_origin_is_refused(guarded: Running) -> None:
    assert code(speak(guarded, {**KEY, "Host": "evil.example"})) == "host_not_allowed"
    assert code(speak(guarded, {**KEY, "Host": "evil.example:8880"})) == "host_not_allowed"
    assert speak(guarded, {**KEY, "Host": "LOCALHOST:1"}).status_code == 200
    assert code(speak(guarded, {**KEY, "Origin": "http://evil.example"})) == "origin_not_allowed"
    assert speak(guarded, {**KEY, "Origin": guarded.url}).status_code == 200


def test_a_page_of_an_allowed_origin_may_speak(guarded: Running) -> None:
    page = {"Origin": "http://page.example"}
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = guarded.client.options("/v1/audio/speech", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "http://page.example"
    assert "access-control-allow-credentials" not in preflight.headers
    assert speak(guarded, {**KEY, **page}).headers["access-control-allow-origin"] == "http://page.example"


def test_uploads_and_other_models_can_be_turned_off(guarded: Running) -> None:
    answer = guarded.client.post("/v1/audio/voices", data={"name": "a"}, headers=KEY)
    assert (answer.status_code, code(answer)) == (403, "uploads_off")
    assert code(speak(guarded, KEY, model="gpt-9")) == "model_not_found"


def test_a_request_id_is_echoed_when_it_is_plain(guarded: Running) -> None:
    assert guarded.client.get("/health", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert guarded.client.get("/health", headers={"X-Request-Id": "a" * 129}).headers["x-request-id"] != "a" * 129


# -- the model's life --------------------------------------------------------------------------------------------------


def test_the_first_request_loads_the_model_and_health_says_so(nano: TTS, tmp_path: Path) -> None:
    may_load = threading.Event()

    def load() -> TTS:
        assert may_load.wait(60)
        return nano

    with running(tmp_path, nano, load=load, preload=False) as server:
        health = server.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "idle")
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(server.speak()))
        thread.start()
        server.wait_until(lambda: server.services.model.state == "loading")
        health = server.client.get("/health")
        assert (health.status_code, health.json()["status"], health.json()["queue"]) == (200, "loading", 1)
        may_load.set()
        thread.join(60)
        assert answers[0].status_code == 200
        assert server.client.get("/health").json()["status"] == "ok"


def test_a_model_that_cannot_be_loaded_is_an_error_and_tried_again(nano: TTS, tmp_path: Path) -> None:
    attempts: list[int] = []

    def load() -> TTS:
        attempts.append(1)
        if len(attempts) == 1:
            raise ModelFileError("a.gguf: damaged")
        return nano

    with running(tmp_path, nano, load=load, preload=False) as server:
        answer = server.speak()
        assert (answer.status_code, code(answer)) == (500, "synthesis_failed")
        health = server.client.get("/health")
        assert (health.status_code, health.json()["status"], health.json()["error"]) == (
            503,
            "failed",
            "a.gguf: damaged",
        )
        assert server.speak().status_code == 200
        assert server.client.get("/health").status_code == 200


def test_an_idle_model_is_unloaded_and_loaded_again(tmp_path: Path) -> None:
    with running(tmp_path, load=lambda: TTS("nano"), preload=False, idle_unload=0.05) as server:
        first = server.speak(response_format="pcm", seed=5).content
        server.wait_until(lambda: server.services.model.state == "idle")
        assert server.services.model.tts is None
        assert server.speak(response_format="pcm", seed=5).content == first


def test_health_answers_while_the_engine_is_paused(server: Running, nano: TTS) -> None:
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        assert may_go.wait(60)

    thread = threading.Thread(target=lambda: nano.engine.call(hold))
    thread.start()
    try:
        assert is_held.wait(60)
        assert server.client.get("/health").json()["status"] == "ok"
        assert server.client.get("/v1/audio/voices").status_code == 200
    finally:
        may_go.set()
        thread.join()


def test_a_log_line_has_no_text(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "qwen3tts_gguf.server"):
        assert server.speak("Eleven.", response_format="pcm").status_code == 200
        server.wait_until(lambda: any("outcome=ok" in line for line in caplog.messages))
    assert not any("Eleven" in line for line in caplog.messages)
