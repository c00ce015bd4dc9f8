"""ElevenLabs' sockets, as Pipecat, LiveKit and ElevenLabs' own client use them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the extra 'server'")
websockets = pytest.importorskip("websockets", reason="needs the extra 'server'")

from serving import LONG, PATIENCE, TEXT, Running, running  # noqa: E402

from qwen3tts_gguf import TTS  # noqa: E402
from qwen3tts_gguf.server.elevenlabs_formats import elevenlabs_encoder  # noqa: E402

SINGLE, MULTI = "stream-input", "multi-stream-input"


class Client:
    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def until(self, is_last: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
        got: list[dict[str, Any]] = []
        while not got or not is_last(got[-1]):
            got.append(json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE)))
        return got

    async def rest(self) -> list[dict[str, Any]]:
        """Everything up to a close with 1000."""
        got = [json.loads(message) async for message in self.socket]
        assert self.socket.close_code == 1000
        return got


def connected(
    server: Running,
    talk: Callable[[Client], Awaitable[Any]],
    kind: str,
    *,
    voice: str = "alloy",
    headers: dict[str, str] | None = None,
    **query: Any,
) -> Any:
    query = {"model_id": "eleven_flash_v2_5", "output_format": "pcm_24000", **query}
    url = f"{server.url.replace('http', 'ws')}/v1/text-to-speech/{voice}/{kind}?{urlencode(query)}"

    async def run() -> Any:
        async with websockets.connect(url, additional_headers=headers) as socket:
            return await asyncio.wait_for(talk(Client(socket)), PATIENCE)

    return asyncio.run(run())


def sound(messages: list[dict[str, Any]], context: str | None = None) -> bytes:
    wanted = [m for m in messages if m.get("audio") and (context is None or m["contextId"] == context)]
    return b"".join(base64.b64decode(message["audio"]) for message in wanted)


def is_final(message: dict[str, Any]) -> bool:
    return message.get("isFinal") is True


async def one_text(client: Client) -> list[dict[str, Any]]:
    """As ElevenLabs' client: settings, words, the empty text."""
    settings = {"stability": 0.5, "similarity_boost": 0.8}
    config = {"chunk_length_schedule": [50]}
    await client.send(text=" ", try_trigger_generation=True, voice_settings=settings, generation_config=config)
    for word in TEXT.split():
        await client.send(text=f"{word} ", try_trigger_generation=True)
    await client.send(text="")
    return await client.rest()


def test_one_text_in_pieces(server: Running) -> None:
    got = connected(server, one_text, SINGLE, seed=3)
    assert is_final(got[-1]) and got[-1]["audio"] is None
    assert all(m["isFinal"] is None and m["alignment"] is None and "contextId" not in m for m in got[:-1])
    assert len(sound(got)) > 24_000 and len(sound(got)) % 3840 == 0
    assert sound(got) == sound(connected(server, one_text, SINGLE, seed=3))


@pytest.mark.parametrize("format", ["pcm_24000", "pcm_16000", "mp3_44100_128"])
def test_twice_the_speed_takes_half_the_time(server: Running, format: str) -> None:
    def seconds(speed: float) -> float:
        async def talk(client: Client) -> list[dict[str, Any]]:
            await client.send(text=" ", voice_settings={"speed": speed})
            await client.send(text=f"{TEXT} ")
            await client.send(text="")
            return await client.rest()

        got = sound(connected(server, talk, SINGLE, seed=3, output_format=format))
        if format.startswith("pcm"):
            return len(got) / 2 / int(format.partition("_")[2])
        samples, rate = soundfile.read(io.BytesIO(got))
        return len(samples) / float(rate)

    assert abs(seconds(2.0) - seconds(1.0) / 2) < 0.15


@pytest.mark.parametrize("format", ["mp3_44100_128", "mp3_22050_32", "opus_48000_64"])
def test_compressed_formats_decode(server: Running, format: str) -> None:
    plain = len(sound(connected(server, one_text, SINGLE, seed=3))) / 48_000
    samples, rate = soundfile.read(io.BytesIO(sound(connected(server, one_text, SINGLE, seed=3, output_format=format))))
    assert abs(len(samples) / rate - plain) < 0.12


@pytest.mark.parametrize(
    ("format", "bytes_per_second"), [("pcm_16000", 32_000), ("pcm_44100", 88_200), ("ulaw_8000", 8000)]
)
def test_resampled_formats_have_the_same_length(server: Running, format: str, bytes_per_second: int) -> None:
    plain = len(sound(connected(server, one_text, SINGLE, seed=3))) / 48_000
    n_bytes = len(sound(connected(server, one_text, SINGLE, seed=3, output_format=format)))
    assert abs(n_bytes / bytes_per_second - plain) < 0.002


@pytest.mark.parametrize(("format", "subtype"), [("ulaw_8000", "ULAW"), ("alaw_8000", "ALAW")])
def test_telephone_codes_are_those_of_a_decoder(format: str, subtype: str) -> None:
    t = np.arange(24_000, dtype=np.float32) / 24_000
    tone = 0.7 * np.sin(2 * np.pi * 440 * t)
    encoder = elevenlabs_encoder(format)
    data = b"".join(encoder.write(tone[i : i + 1920]) for i in range(0, len(tone), 1920)) + encoder.finish()
    decoded, _ = soundfile.read(io.BytesIO(data), channels=1, samplerate=8000, format="RAW", subtype=subtype)
    wanted = 0.7 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    middle = slice(500, 7500)  # the filter rings at the ends
    error = decoded[middle] - wanted[middle]
    assert len(decoded) == 8000
    assert 10 * np.log10(np.mean(wanted[middle] ** 2) / np.mean(error**2)) > 33


def test_contexts_as_livekit_uses_them(server: Running) -> None:
    """A flush after each sentence, then a flush and the close at once; the sound is still complete."""

    async def talk(client: Client) -> list[dict[str, Any]]:
        await client.send(text=" ", voice_settings={}, context_id="a")
        for sentence in ("It is ten forty five. ", "Thank you. "):
            await client.send(text=sentence, context_id="a", flush=True)
        await client.send(text="", context_id="a", flush=True)
        await client.send(context_id="a", close_context=True)
        got = await client.until(is_final)
        await client.send(close_socket=True)
        return got + await client.rest()

    got = connected(server, talk, MULTI, output_format="mp3_22050_32", auto_mode="true", inactivity_timeout=180)
    assert all(m["contextId"] == m["context_id"] == "a" for m in got)
    samples, rate = soundfile.read(io.BytesIO(sound(got)))
    assert len(samples) / rate > 1.5


def test_contexts_as_pipecat_uses_them(server: Running) -> None:
    """Turn after turn on one connection, with keep-alives that belong to no context or to one."""

    async def talk(client: Client) -> dict[str, list[dict[str, Any]]]:
        got = {}
        await client.send(text="")
        for context, text in (("first", "Good morning Anna. "), ("second", "Yes. ")):
            await client.send(text=" ", context_id=context, voice_settings={"stability": 0.4})
            await client.send(text="", context_id=context)
            await client.send(text=text, context_id=context)
            await client.send(context_id=context, flush=True)
            await client.send(context_id=context, close_context=True)
            got[context] = await client.until(is_final)
        await client.send(close_socket=True)
        assert await client.rest() == []
        return got

    got = connected(server, talk, MULTI, language_code="en")
    for context, messages in got.items():
        assert {message["contextId"] for message in messages} == {context}
        assert len(sound(messages)) > 12_000


def test_an_interrupted_context_stops_and_the_next_one_speaks(server: Running) -> None:
    """Closed without a flush, its last word is not spoken."""

    async def talk(client: Client) -> list[dict[str, Any]]:
        await client.send(text=LONG, context_id="whole", flush=True)
        await client.send(context_id="whole", close_context=True)
        whole = await client.until(is_final)
        await client.send(text=LONG, context_id="a")
        got = await client.until(lambda message: message.get("audio"))
        await client.send(context_id="a", close_context=True)
        got += await client.until(is_final)
        await client.send(text="Yes. ", context_id="b", flush=True)
        await client.send(context_id="b", close_context=True)
        return whole + got + await client.until(is_final)

    got = connected(server, talk, MULTI, seed=5)
    assert 0 < len(sound(got, "a")) < len(sound(got, "whole"))
    assert len(sound(got, "b")) > 12_000
    server.wait_until(lambda: server.is_free)


def test_two_contexts_speak_at_once(server: Running) -> None:
    async def talk(client: Client) -> list[dict[str, Any]]:
        for context in ("a", "b"):
            await client.send(text=TEXT, context_id=context, flush=True)
        for context in ("a", "b"):
            await client.send(context_id=context, close_context=True)
        return await client.until(is_final) + await client.until(is_final)

    got = connected(server, talk, MULTI, seed=5)
    assert sound(got, "a") == sound(got, "b") != b""


@pytest.mark.parametrize(
    ("kind", "query", "frame", "error"),
    [
        (SINGLE, {"output_format": "midi_8000"}, {"text": "Yes. "}, "unsupported_output_format"),
        (SINGLE, {"output_format": "pcm_" + "9" * 400}, {"text": "Yes. "}, "unsupported_output_format"),
        (SINGLE, {"seed": "many"}, {"text": "Yes. "}, "invalid_value"),
        (SINGLE, {"voice": "nobody"}, {"text": "Yes. ", "flush": True}, "voice_not_found"),
        (SINGLE, {}, {"text": 5}, "invalid_value"),
        (SINGLE, {}, {"text": "\ud800"}, "invalid_value"),
        (SINGLE, {}, {"text": " ", "voice_settings": []}, "invalid_value"),
        (MULTI, {}, {"text": "Yes. ", "context_id": 5}, "invalid_value"),
        (MULTI, {}, {"text": "Yes. ", "context_id": "x" * 1000}, "invalid_value"),
        (MULTI, {}, "nonsense", "invalid_json"),
        (MULTI, {}, b"\x00", "invalid_message"),
        (MULTI, {}, {"text": "yes " * 2000}, "input_too_long"),
        (MULTI, {"language_code": "tlh"}, {"text": "Yes. ", "flush": True}, "invalid_option"),
    ],
)
def test_what_is_wrong_is_an_error(server: Running, kind: str, query: dict[str, Any], frame: Any, error: str) -> None:
    async def talk(client: Client) -> list[dict[str, Any]]:
        await client.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)
        return await client.until(lambda message: "error" in message)

    assert connected(server, talk, kind, **query)[-1]["error"] == error
    server.wait_until(lambda: server.is_free)


def test_there_are_bounds_to_contexts(server: Running) -> None:
    async def talk(client: Client) -> list[dict[str, Any]]:
        for i in range(17):
            await client.send(text=" ", context_id=str(i))
        return await client.until(lambda message: "error" in message)

    assert connected(server, talk, MULTI)[-1]["error"] == "too_many_contexts"


def test_the_key_comes_by_header_or_in_the_first_message(tmp_path: Path) -> None:
    def first(**key: str) -> Callable[[Client], Awaitable[Any]]:
        async def talk(client: Client) -> Any:
            await client.send(text=" ", **key)
            await client.send(text="Yes. ")
            await client.send(text="")
            return await client.until(lambda message: is_final(message) or "error" in message)

        return talk

    with TTS("nano") as tts, running(tmp_path, tts, api_keys=("secret",)) as server:
        for key in ({"xi_api_key": "secret"}, {"xi-api-key": "secret"}, {"authorization": "Bearer secret"}):
            assert sound(connected(server, first(**key), SINGLE))
        assert sound(connected(server, first(), SINGLE, headers={"xi-api-key": "secret"}))
        for wrong in ({}, {"xi_api_key": "wrong"}):
            assert connected(server, first(**wrong), SINGLE)[-1]["error"] == "invalid_api_key"
