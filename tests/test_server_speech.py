"""`POST /v1/audio/speech` over a real connection: formats, fields, errors, events, clients that leave."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

import httpx
import soundfile
from serving import LONG, PATIENCE, TEXT, Running, running

from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.reading import read
from qwen3tts_gguf.server.answer import SpeechResponse

ENCODER_DELAY = 4096  # samples that an encoder may add at both ends


@pytest.fixture(scope="module")
def alone(nano: TTS) -> bytes:
    """What the library makes of TEXT with seed 5, as PCM."""
    return pcm(nano.speak(TEXT, None, SpeechOptions(seed=5)))


def pcm(samples: Any) -> bytes:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_pcm_is_what_the_library_makes_with_the_same_seed(server: Running, alone: bytes) -> None:
    answer = server.speak(response_format="pcm", seed=5)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/pcm"
    assert answer.headers["x-qwen3tts-seed"] == "5"
    assert answer.headers["x-sample-rate"] == "24000"
    assert answer.content == alone


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("format", "head"), [("mp3", b"\xff"), ("opus", b"OggS"), ("flac", b"fLaC"), ("wav", b"RIFF")])
def test_every_format_decodes_to_the_length_of_the_speech(
    server: Running, alone: bytes, format: str, head: bytes, stream: bool
) -> None:
    answer = server.speak(response_format=format, stream=stream, seed=5)
    assert answer.status_code == 200 and answer.content.startswith(head)
    assert ("content-length" in answer.headers) == (not stream)
    n = len(alone) // 2
    if format == "flac" and stream:  # libsndfile cannot read it without its totals
        assert n_samples_by_ffmpeg(answer.content) == n
        return
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert n <= round(len(samples) * 24_000 / rate) <= n + ENCODER_DELAY


def n_samples_by_ffmpeg(sound: bytes) -> int:
    """At 24 kHz."""
    av = pytest.importorskip("av", reason="needs the extra 'aac'")
    with av.open(io.BytesIO(sound)) as container:
        frames = list(container.decode(audio=0))
    assert {frame.sample_rate for frame in frames} == {24_000}
    return sum(frame.samples for frame in frames)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("format", ["mp3", "opus", "wav", "aac"])
def test_ffmpeg_decodes_it_too(server: Running, alone: bytes, format: str, stream: bool) -> None:
    av = pytest.importorskip("av", reason="needs the extra 'aac'")
    answer = server.speak(response_format=format, stream=stream, seed=5)
    assert answer.status_code == 200
    with av.open(io.BytesIO(answer.content)) as container:
        seconds = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    n = len(alone) // 2
    assert n <= round(seconds * 24_000) <= n + ENCODER_DELAY


def test_aac_is_refused_where_its_library_is_not_installed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    answer = server.speak(response_format="aac")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unsupported_response_format")
    assert "without aac" in error_of(answer)["message"]


def test_mp3_is_the_default_and_two_answers_joined_are_one_file(server: Running, alone: bytes) -> None:
    answers = [server.speak(seed=5) for _ in range(2)]
    assert {answer.headers["content-type"] for answer in answers} == {"audio/mpeg"}
    samples, rate = soundfile.read(io.BytesIO(b"".join(answer.content for answer in answers)))
    assert len(samples) * 24_000 / rate >= 2 * (len(alone) // 2)


def test_a_wave_file_has_its_sizes_when_whole_and_the_largest_when_streamed(server: Running) -> None:
    whole = server.speak(response_format="wav", stream=False).content
    streamed = server.speak(response_format="wav").content
    assert struct.unpack_from("<I", whole, 4)[0] == len(whole) - 8
    assert struct.unpack_from("<I", whole, 40)[0] == len(whole) - 44
    assert struct.unpack_from("<I", streamed, 4)[0] == struct.unpack_from("<I", streamed, 40)[0] == 0xFFFF_FFFF


def test_events_carry_the_same_bytes_and_the_usage(server: Running, alone: bytes) -> None:
    answer = server.speak(response_format="pcm", seed=5, stream_format="sse")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    *deltas, done = events
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == alone
    assert {event["type"] for event in deltas} == {"speech.audio.delta"} and done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["output_tokens"] == len(alone) // 2 // 1920
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_null_is_absent_and_unknown_fields_are_ignored(server: Running, alone: bytes) -> None:
    fields = dict.fromkeys(("instructions", "speed", "voice", "stream", "language", "temperature", "model"))
    assert server.speak(response_format="pcm", seed=5, user="me", volume_multiplier=2, **fields).content == alone


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": ""}, "invalid_value", "input"),
        ({"input": None}, "missing_required_field", "input"),
        ({"input": 7}, "invalid_value", "input"),
        ({"input": " \n "}, "nothing_to_speak", "input"),
        ({"input": "a" * 4097}, "input_too_long", "input"),
        ({"voice": "nobody"}, "voice_not_found", "voice"),
        ({"voice": "../../etc/passwd"}, "voice_not_found", "voice"),
        ({"voice": {}}, "invalid_value", "voice"),
        ({"voice": 3}, "invalid_value", "voice"),
        ({"response_format": "midi"}, "unsupported_response_format", "response_format"),
        ({"response_format": ["mp3"]}, "unsupported_response_format", "response_format"),
        ({"speed": 9}, "invalid_speed", "speed"),
        ({"speed": "fast"}, "invalid_speed", "speed"),
        ({"speed": 0}, "invalid_speed", "speed"),
        ({"split": "letter"}, "invalid_value", "split"),
        ({"stream_format": "smoke"}, "invalid_value", "stream_format"),
        ({"language": "klingon"}, "invalid_option", None),
        ({"seed": -7}, "invalid_value", "seed"),
        ({"max_frames": 10**6}, "invalid_option", None),
        ({"task_type": "VoiceDesign"}, "invalid_value", "task_type"),
        ({"ref_audio": "https://example.org/a.wav"}, "invalid_reference_audio", "ref_audio"),
        ({"ref_audio": "file:///etc/passwd"}, "invalid_reference_audio", "ref_audio"),
        ({"ref_audio": "/etc/passwd"}, "invalid_reference_audio", "ref_audio"),
        ({"ref_audio": base64.b64encode(b"no sound").decode()}, "invalid_reference_audio", "ref_audio"),
    ],
)
def test_what_is_wrong_is_named(server: Running, fields: dict[str, Any], code: str, param: str | None) -> None:
    answer = server.client.post("/v1/audio/speech", json={"input": TEXT, **fields})
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert "/tmp" not in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"input": NaN}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(server: Running, body: bytes) -> None:
    answer = server.client.post("/v1/audio/speech", content=body)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_json")


def test_a_lone_surrogate_is_no_server_error(server: Running) -> None:
    assert server.client.post("/v1/audio/speech", content=b'{"input": "one \\ud800 two"}').status_code in (200, 400)


def test_no_answer_is_in_the_shape_of_a_framework(server: Running) -> None:
    assert error_of(server.client.get("/v1/nothing"))["code"] == "not_found"
    answer = server.client.get("/v1/audio/speech")
    assert (answer.status_code, error_of(answer)["code"]) == (405, "method_not_allowed")


def test_a_clip_in_the_request_is_spoken_like(server: Running, nano: TTS) -> None:
    clip = next(iter(nano.shipped_voices.values())).clip
    uri = "data:audio/flac;base64," + base64.b64encode(clip.read_bytes()).decode()
    answer = server.speak(response_format="pcm", seed=3, ref_audio=uri)
    expected = nano.speak(TEXT, Voice.from_audio(clip, nano), SpeechOptions(seed=3))
    assert answer.content == pcm(expected)


@pytest.mark.parametrize("stream", [True, False])
def test_a_text_of_several_passages_is_what_read_makes(server: Running, nano: TTS, stream: bool) -> None:
    text = "Seven three nine. Ten past four. Open the door."
    expected = [passage.sound for passage in read(nano, text, None, SpeechOptions(seed=4), split="sentence")]
    assert len(expected) == 3
    answer = server.speak(text, response_format="pcm", seed=4, split="sentence", stream=stream)
    assert answer.content == pcm(np.concatenate(expected)) and answer.headers["x-qwen3tts-seed"] == "4"
    server.wait_until(lambda: server.is_free)


def test_a_client_that_leaves_a_long_text_frees_its_lane_and_its_threads(server: Running) -> None:
    body = {"input": f"{LONG}\n\n" * 4, "response_format": "pcm"}
    with server.client.stream("POST", "/v1/audio/speech", json=body) as answer:
        next(answer.iter_raw())
    server.wait_until(lambda: server.is_free)
    server.wait_until(lambda: not any("qwen3tts-long" in thread.name for thread in threading.enumerate()))


def test_speed_changes_the_length(server: Running, alone: bytes) -> None:
    for speed in (0.5, 2.0):
        answer = server.speak(response_format="pcm", seed=5, speed=speed)
        assert len(answer.content) == pytest.approx(len(alone) / speed, abs=2)


def test_instructions_that_the_model_cannot_follow_are_named_in_a_header(server: Running) -> None:
    answer = server.speak(instructions="Whisper.")
    assert (answer.status_code, answer.headers["x-qwen3tts-ignored"]) == (200, "instructions")


def test_speech_that_does_not_end_is_an_error_when_whole_and_cut_when_streamed(server: Running) -> None:
    answer = server.speak(LONG, max_frames=3, stream=False, retries=0, seed=1)
    assert (answer.status_code, error_of(answer)["code"]) == (500, "no_end_of_speech")
    assert answer.headers["x-should-retry"] == "false"
    with pytest.raises(httpx.RemoteProtocolError):
        server.speak(LONG, max_frames=3, response_format="pcm")
    lines = []
    body = {"input": LONG, "max_frames": 3, "stream_format": "sse"}
    with server.client.stream("POST", "/v1/audio/speech", json=body) as events:
        try:
            for line in events.iter_lines():
                lines.append(line)
        except httpx.RemoteProtocolError:
            lines.append("cut")
    assert lines.pop() == "cut"
    types = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert types[0] == "speech.audio.delta" and types[-1] == "speech.audio.error"
    server.wait_until(lambda: server.is_free)


def test_a_client_that_leaves_frees_its_lane(server: Running) -> None:
    for fields in ({"response_format": "pcm"}, {"response_format": "mp3", "stream_format": "sse"}):
        body = {"input": LONG, **fields}
        with server.client.stream("POST", "/v1/audio/speech", json=body) as answer:
            next(answer.iter_raw())
        server.wait_until(lambda: server.is_free)
    assert b'outcome="cancelled"' in server.client.get("/metrics").content


def test_a_client_that_leaves_the_queue_is_forgotten(server: Running) -> None:
    scheduler = server.services.scheduler
    with server.occupied(), httpx.Client(base_url=server.url, timeout=0.2, trust_env=False) as impatient:
        with pytest.raises(httpx.TimeoutException):
            impatient.post("/v1/audio/speech", json={"input": TEXT})
        server.wait_until(lambda: scheduler.n_waiting == 0)
        assert scheduler.n_running == 2
    server.wait_until(lambda: server.is_free)


def test_a_client_that_does_not_read_holds_up_nobody(
    nano: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the only lane: it waits for its reader, while others have theirs in between, and is complete at the end."""
    monkeypatch.setattr("qwen3tts_gguf.server.scheduler._AWAY_SECONDS", 0.01)
    may_read, send, n_sent = threading.Event(), SpeechResponse._send, 0

    async def slow(self: SpeechResponse, *message: Any, **more: Any) -> None:
        nonlocal n_sent
        if self._fields.seed == 7:
            n_sent += 1
            if n_sent == 3:  # as when the connection's buffers are full
                await asyncio.to_thread(may_read.wait, PATIENCE)
        await send(self, *message, **more)

    with running(tmp_path, nano, n_lanes=1) as server:
        whole = server.speak(LONG, response_format="pcm", seed=7, stream=False).content
        expected = server.speak(response_format="pcm", seed=5).content
        monkeypatch.setattr(SpeechResponse, "_send", slow)
        body = {"input": LONG, "response_format": "pcm", "seed": 7}
        with server.client.stream("POST", "/v1/audio/speech", json=body) as answer:
            blocks = answer.iter_raw()
            first = next(blocks)
            for _ in range(3):
                assert server.speak(response_format="pcm", seed=5).content == expected
            may_read.set()
            assert first + b"".join(blocks) == whole


def test_a_full_queue_refuses_with_429_and_when_to_come_back(nano: TTS, tmp_path: Path) -> None:
    with running(tmp_path, nano, n_queue=0) as server, server.occupied():
        answer = server.speak()
        assert (answer.status_code, error_of(answer)["code"]) == (429, "queue_full")
        assert error_of(answer)["type"] == "rate_limit_error"
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert server.client.get("/health").status_code == 200


def test_many_clients_at_once_get_their_own_speech_or_429(nano: TTS, tmp_path: Path) -> None:
    with running(tmp_path, nano, n_lanes=2, n_queue=6) as server:
        start = threading.Barrier(32)

        def ask(seed: int) -> httpx.Response:
            with httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as client:
                start.wait()
                return client.post("/v1/audio/speech", json={"input": TEXT, "response_format": "pcm", "seed": seed})

        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(ask, range(32)))
        spoken = {seed: answer.content for seed, answer in enumerate(answers) if answer.status_code == 200}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(spoken) + len(refused) == 32 and len(spoken) >= 8 and refused
        assert spoken == {seed: server.speak(response_format="pcm", seed=seed).content for seed in spoken}
        for answer in refused:
            assert error_of(answer)["type"] == "rate_limit_error"
            assert int(answer.headers["retry-after"]) >= 1
