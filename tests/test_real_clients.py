"""The clients people really use, against nano; `just clients` runs those that are installed.

What they play is as long as what the server made. They choose no seed, so that no two answers are the same.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from serving import TEXT, Running, running

from qwen3tts_gguf import TTS

pytestmark = pytest.mark.clients
ENCODER_DELAY = 0.12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with TTS("nano", n_lanes=2) as tts, running(tmp_path_factory.mktemp("voices"), tts) as server:
        yield server


class Made:
    """seconds: of sound that the server made inside the block."""

    seconds = 0.0


@contextmanager
def made(server: Running) -> Iterator[Made]:
    count, result = server.services.metrics.audio._value.get, Made()
    before = count()
    yield result
    server.wait_until(lambda: server.is_free)
    result.seconds = count() - before
    assert result.seconds > 0.5


def seconds_of(sound: bytes) -> float:
    samples, rate = soundfile.read(io.BytesIO(sound))
    return len(samples) / float(rate)


def is_about(seconds: float, wanted: float) -> bool:
    return abs(seconds - wanted) < ENCODER_DELAY


# -- ElevenLabs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def elevenlabs(server: Running) -> Any:
    module = pytest.importorskip("elevenlabs.client")
    return module.ElevenLabs(base_url=server.url, api_key="none")


@pytest.mark.parametrize("way", ["convert", "stream"])
def test_elevenlabs_speaks(server: Running, elevenlabs: Any, way: str) -> None:
    with made(server) as whole:
        sound = b"".join(getattr(elevenlabs.text_to_speech, way)(voice_id="alloy", text=TEXT))
    assert is_about(seconds_of(sound), whole.seconds)
    with made(server) as whole:
        speak = getattr(elevenlabs.text_to_speech, way)
        sound = b"".join(speak(voice_id="alloy", text=TEXT, output_format="pcm_16000", model_id="eleven_flash_v2_5"))
    assert is_about(len(sound) / 32_000, whole.seconds)


def test_elevenlabs_reads_sound_with_timestamps(server: Running, elevenlabs: Any) -> None:
    with made(server) as whole:
        one = elevenlabs.text_to_speech.convert_with_timestamps(voice_id="alloy", text=TEXT)
    assert is_about(seconds_of(base64.b64decode(one.audio_base_64)), whole.seconds)
    with made(server) as whole:
        pieces = list(elevenlabs.text_to_speech.stream_with_timestamps(voice_id="alloy", text=TEXT))
    assert len(pieces) > 1
    assert is_about(seconds_of(b"".join(base64.b64decode(piece.audio_base_64) for piece in pieces)), whole.seconds)


def test_elevenlabs_writes_as_it_goes(server: Running, elevenlabs: Any) -> None:
    """Its client takes wss alone, so that without a proxy with TLS the scheme is put right."""
    client = elevenlabs.text_to_speech
    client._ws_base_url = server.url.replace("http", "ws")
    with made(server) as whole:
        sound = b"".join(
            client.convert_realtime(voice_id="alloy", text=iter(TEXT.split()), model_id="eleven_flash_v2_5")
        )
    assert is_about(seconds_of(sound), whole.seconds)


def test_elevenlabs_lists_voices(elevenlabs: Any) -> None:
    assert {"alloy", "nova"} <= {voice.voice_id for voice in elevenlabs.voices.get_all().voices}


def test_elevenlabs_reports_an_error(elevenlabs: Any) -> None:
    errors = pytest.importorskip("elevenlabs.core.api_error")
    with pytest.raises(errors.ApiError) as raised:
        list(elevenlabs.text_to_speech.convert(voice_id="nobody", text=TEXT))
    assert raised.value.status_code == 400 and raised.value.body["error"]["code"] == "voice_not_found"


# -- Pipecat -----------------------------------------------------------------------------------------------------------


def spoken_by_pipecat(server: Running, service: Callable[[Any], Any]) -> None:
    """Two texts, one after the other, through a pipeline; service: makes it, given an aiohttp session."""
    aiohttp = pytest.importorskip("aiohttp")
    frames = pytest.importorskip("pipecat.frames.frames")
    from pipecat.pipeline.worker import PipelineParams
    from pipecat.tests.utils import run_test

    async def run() -> Any:
        async with aiohttp.ClientSession() as session:
            speak = [frames.TTSSpeakFrame(text, append_to_context=False) for text in (TEXT, "Good morning Anna.")]
            parameters = PipelineParams(audio_out_sample_rate=24_000)
            return await run_test(
                service(session), frames_to_send=speak, pipeline_params=parameters, start_timeout=30.0
            )

    with made(server) as whole:
        down, up = asyncio.run(run())
    assert [frame for frame in up if isinstance(frame, frames.ErrorFrame)] == []
    sounds = [frame for frame in down if isinstance(frame, frames.TTSAudioRawFrame)]
    assert {(frame.sample_rate, frame.num_channels) for frame in sounds} == {(24_000, 1)}
    assert is_about(sum(len(frame.audio) for frame in sounds) / 48_000, whole.seconds)
    stopped = [frame for frame in down if isinstance(frame, frames.TTSStoppedFrame)]
    assert len(stopped) == 2


def test_pipecat_speaks_by_openai(server: Running) -> None:
    services = pytest.importorskip("pipecat.services.openai.tts")
    settings = services.OpenAITTSService.Settings(voice="nova", model="gpt-4o-mini-tts")
    spoken_by_pipecat(
        server, lambda _: services.OpenAITTSService(api_key="none", base_url=f"{server.url}/v1", settings=settings)
    )


def test_pipecat_speaks_by_the_socket_of_elevenlabs(server: Running) -> None:
    services = pytest.importorskip("pipecat.services.elevenlabs.tts")
    url, settings = server.url.replace("http", "ws"), services.ElevenLabsTTSService.Settings(voice="alloy")
    spoken_by_pipecat(server, lambda _: services.ElevenLabsTTSService(api_key="none", url=url, settings=settings))


def test_pipecat_speaks_by_the_routes_of_elevenlabs(server: Running) -> None:
    services = pytest.importorskip("pipecat.services.elevenlabs.tts")
    settings = services.ElevenLabsHttpTTSService.Settings(voice="alloy")
    spoken_by_pipecat(
        server,
        lambda session: services.ElevenLabsHttpTTSService(
            api_key="none", base_url=server.url, aiohttp_session=session, settings=settings
        ),
    )


# -- LiveKit -----------------------------------------------------------------------------------------------------------


def spoken_by_livekit(server: Running, service: Callable[[Any], Any], *, streams: bool) -> None:
    """service: makes the plugin's TTS, given an aiohttp session. streams: it is given words, not a text."""
    aiohttp = pytest.importorskip("aiohttp")

    async def run() -> float:
        async with aiohttp.ClientSession() as session:
            speech = service(session)
            speech.prewarm()
            seconds = 0.0
            if streams:
                stream = speech.stream()
                for word in f"{TEXT} Good morning Anna.".split():
                    stream.push_text(f"{word} ")
                stream.end_input()
            else:
                stream = speech.synthesize(TEXT)
            async with stream:
                async for sound in stream:
                    seconds += sound.frame.duration
            await speech.aclose()
            return seconds

    with made(server) as whole:
        seconds = asyncio.run(asyncio.wait_for(run(), 60))
    assert is_about(seconds, whole.seconds)


@pytest.mark.parametrize("model", ["gpt-4o-mini-tts", "tts-1"])  # events, bytes
@pytest.mark.parametrize("format", ["mp3", "opus", "wav", "pcm"])
def test_livekit_speaks_by_openai(server: Running, model: str, format: str) -> None:
    plugin = pytest.importorskip("livekit.plugins.openai")
    spoken_by_livekit(
        server,
        lambda _: plugin.TTS(
            base_url=f"{server.url}/v1", api_key="none", voice="ash", model=model, response_format=format
        ),
        streams=False,
    )


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("encoding", ["mp3_22050_32", "pcm_24000"])
def test_livekit_speaks_by_elevenlabs(server: Running, streams: bool, encoding: str) -> None:
    plugin = pytest.importorskip("livekit.plugins.elevenlabs")
    spoken_by_livekit(
        server,
        lambda session: plugin.TTS(
            base_url=f"{server.url}/v1", api_key="none", voice_id="alloy", encoding=encoding, http_session=session
        ),
        streams=streams,
    )


# -- OpenAI for Node ---------------------------------------------------------------------------------------------------

NODE = """
import OpenAI from "openai";
import { writeFileSync } from "node:fs";

const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none" });
const ask = { model: "tts-1", voice: "alloy", input: "Seven three nine." };
const whole = await client.audio.speech.create(ask);
writeFileSync("whole.mp3", Buffer.from(await whole.arrayBuffer()));
const streamed = await client.audio.speech.create({ ...ask, response_format: "wav", speed: 1, instructions: null });
const parts = [];
for await (const part of streamed.body) parts.push(part);
writeFileSync("streamed.wav", Buffer.concat(parts.map((part) => Buffer.from(part))));
const models = [];
for await (const model of client.models.list()) models.push(model.id);
let refused;
try {
  await client.audio.speech.create({ ...ask, voice: "nobody" });
} catch (error) {
  refused = [error instanceof OpenAI.BadRequestError, error.code, error.param];
}
console.log(JSON.stringify({ type: whole.headers.get("content-type"), parts: parts.length, models, refused }));
"""


@pytest.mark.parametrize("version", ["4.95.1", "6"])  # the first is AnythingLLM's
def test_openai_for_node_speaks(server: Running, tmp_path: Path, version: str) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node.js")
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", f"openai@{version}"], cwd=tmp_path, check=False
    )
    if installed.returncode:
        pytest.skip("openai for Node cannot be installed")
    (tmp_path / "speak.mjs").write_text(NODE, "utf-8")
    with made(server) as both:
        run = subprocess.run([node, "speak.mjs", server.url], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    found = json.loads(run.stdout)
    assert found["type"] == "audio/mpeg" and found["parts"] > 1 and found["models"][:2] == ["nano", "tts-1"]
    assert found["refused"] == [True, "voice_not_found", "voice"]
    lengths = [seconds_of((tmp_path / name).read_bytes()) for name in ("whole.mp3", "streamed.wav")]
    assert is_about(sum(lengths), both.seconds)
