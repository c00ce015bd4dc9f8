"""WebSocket /v1/audio/speech/stream, by the `websockets` client."""

from __future__ import annotations

import asyncio
import io
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="needs the extra 'server'")
websockets = pytest.importorskip("websockets", reason="needs the extra 'server'")

from serving import LONG, PATIENCE, Running, running  # noqa: E402

from qwen3tts_gguf import TTS, SpeechOptions  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog."


class Client:
    """One session; messages that came are kept in order, frames of sound as bytes."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def receive(self, *until: str) -> list[Any]:
        """Messages up to the first of one of these types."""
        got: list[Any] = []
        while True:
            frame = await asyncio.wait_for(self.socket.recv(), PATIENCE)
            got.append(frame if isinstance(frame, bytes) else json.loads(frame))
            if isinstance(got[-1], dict) and got[-1]["type"] in until:
                return got


def session(server: Running, talk: Any, query: str = "", **connect: Any) -> Any:
    """Run `await talk(client)` on a new connection."""

    async def run() -> Any:
        async with websockets.connect(
            server.url.replace("http", "ws") + f"/v1/audio/speech/stream{query}", **connect
        ) as socket:
            return await talk(Client(socket))

    return asyncio.run(run())


def types(messages: list[Any]) -> list[str]:
    """Their types, frames of sound in a row as one "sound"."""
    names = ["sound" if isinstance(message, bytes) else message["type"] for message in messages]
    return [name for i, name in enumerate(names) if name != "sound" or i == 0 or names[i - 1] != "sound"]


def sound(messages: list[Any]) -> bytes:
    return b"".join(message for message in messages if isinstance(message, bytes))


@lru_cache
def speech(text: str, seed: int, layout: Any = "stepwise") -> bytes:
    """What the library makes of it, as 16-bit PCM."""
    with TTS("nano") as tts:
        samples = tts.speak(text, options=SpeechOptions(seed=seed, layout=layout, retries=0))
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def test_text_in_pieces_makes_the_speech_of_the_whole_text(server: Running) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", seed=7, split_granularity="token")
        for start in range(0, len(TEXT), 5):
            await client.send("input.text", text=TEXT[start : start + 5])
        await client.send("input.done")
        return await client.receive("session.done")

    got = session(server, talk)
    assert types(got) == ["audio.start", "sound", "audio.done", "session.done"]
    assert got[0]["format"] == "pcm" and got[0]["sample_rate"] == 24000
    assert sound(got) == speech(TEXT, 7)
    assert got[-2]["total_bytes"] == len(sound(got)) and not got[-2]["error"]
    assert got[-1] == {"type": "session.done", "utterance_index": 0, "total_sentences": 1, "cancelled": False}


def test_sound_comes_before_the_text_is_complete(server: Running) -> None:
    async def talk(client: Client) -> tuple[Any, list[Any]]:
        await client.send("session.config", split_granularity="token")
        await client.send("input.text", text="Good morning Anna, today is sunny and ")
        first = await asyncio.wait_for(client.socket.recv(), PATIENCE)
        second = await asyncio.wait_for(client.socket.recv(), PATIENCE)
        await client.send("input.text", text="warm.")
        await client.send("input.done")
        return (first, second), await client.receive("session.done")

    (first, second), rest = session(server, talk)
    assert json.loads(first)["type"] == "audio.start" and isinstance(second, bytes)
    assert types(rest) == ["sound", "audio.done", "session.done"]


def test_one_session_holds_a_conversation(server: Running) -> None:
    async def talk(client: Client) -> list[list[Any]]:
        await client.send("session.config", seed=1)
        got = []
        for text in ("Hello?", "Yes, thank you."):
            await client.send("input.text", text=text)
            await client.send("input.done")
            got.append(await client.receive("session.done"))
        await client.send("session.close")
        await client.socket.wait_closed()
        assert client.socket.close_code == 1000
        return got

    first, second = session(server, talk)
    assert [message["utterance_index"] for message in (first[-1], second[-1])] == [0, 1]
    assert sound(first) and sound(second)


def test_utterances_sent_at_once_are_spoken_in_order(server: Running) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", seed=1)
        for text in ("One.", "Two.", "Three."):
            await client.send("input.text", text=text)
            await client.send("input.done")
        await client.send("session.close")
        return [json.loads(frame) for frame in [frame async for frame in client.socket] if isinstance(frame, str)]

    got = session(server, talk)
    assert [m["utterance_index"] for m in got if m["type"] == "audio.start"] == [0, 1, 2]
    assert [m["utterance_index"] for m in got if m["type"] == "session.done"] == [0, 1, 2]


def test_sentences_are_a_speech_each(server: Running) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", seed=3, split_granularity="sentence")
        for piece in ("It is ten ", "forty five. The tea", "cher walks. "):
            await client.send("input.text", text=piece)
        await client.send("input.done")
        return await client.receive("session.done")

    got = session(server, talk)
    starts = [m for m in got if isinstance(m, dict) and m["type"] == "audio.start"]
    assert [(m["sentence_index"], m["sentence_text"]) for m in starts] == [
        (0, "It is ten forty five."),
        (1, "The teacher walks."),
    ]
    assert got[-1]["total_sentences"] == 2


@pytest.mark.parametrize("format", ["mp3", "wav", "opus", "flac"])
def test_every_format_decodes(server: Running, format: str) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", seed=7, response_format=format, stream_audio=False)
        await client.send("input.text", text=TEXT)
        await client.send("input.done")
        return await client.receive("session.done")

    got = session(server, talk)
    assert sum(isinstance(message, bytes) for message in got) == 1
    samples, rate = soundfile.read(io.BytesIO(sound(got)))
    assert abs(len(samples) / rate - len(speech(TEXT, 7, "whole")) / 48000) < 0.12


def test_speed_is_followed(server: Running) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", seed=7, speed=2.0, split_granularity="token")
        await client.send("input.text", text=TEXT)
        await client.send("input.done")
        return await client.receive("session.done")

    assert abs(len(sound(session(server, talk))) - len(speech(TEXT, 7)) / 2) < 0.15 * 48_000


def test_barge_in_stops_a_speech(server: Running) -> None:
    async def talk(client: Client) -> tuple[list[Any], list[Any]]:
        await client.send("session.config", seed=7, split_granularity="token")
        await client.send("input.text", text=LONG)  # without its end, so that it cannot be over before the next message
        await client.receive("audio.start")
        await client.send("input.cancel")
        await client.send("input.text", text="Yes.")
        await client.send("input.done")
        return await client.receive("session.done"), await client.receive("session.done")

    stopped, after = session(server, talk)
    assert stopped[-1]["type"] == "session.done" and stopped[-1]["cancelled"]
    assert len(sound(stopped)) < len(speech(LONG, 7))
    assert types(after) == ["audio.start", "sound", "audio.done", "session.done"]
    assert after[0]["utterance_index"] == 1 and not after[-1]["cancelled"]


def test_barge_in_drops_what_waits(server: Running) -> None:
    async def ask(client: Client) -> list[Any]:
        await client.send("session.config")
        for _ in range(3):
            await client.send("input.text", text=TEXT)
            await client.send("input.done")
        await client.send("input.cancel")
        return [await client.receive("session.done") for _ in range(3)]

    with server.occupied():
        dropped = session(server, ask)
    assert [[message["type"] for message in messages] for messages in dropped] == [["session.done"]] * 3
    assert all(messages[-1]["cancelled"] for messages in dropped)
    server.wait_until(lambda: server.is_free)


def test_a_client_that_goes_leaves_nothing_behind(server: Running) -> None:
    async def talk(client: Client) -> None:
        await client.send("session.config")
        await client.send("input.text", text=TEXT * 20)
        await client.send("input.done")
        await client.receive("audio.start")

    session(server, talk)
    server.wait_until(lambda: server.is_free)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x00\xff", "invalid_message"),
        ("{", "invalid_json"),
        ("[1]", "invalid_json"),
        ('{"type": "input.text", "text": "too early"}', "invalid_message"),
        ('{"type": "nonsense"}', "invalid_message"),
        ('{"type": {"a": 1}}', "invalid_message"),
        ('{"type": "session.config", "response_format": "midi"}', "unsupported_response_format"),
        ('{"type": "session.config", "speed": NaN}', "invalid_json"),
        ('{"type": "session.config", "split_granularity": []}', "invalid_value"),
        ('{"type": "session.config", "stream_audio": "yes"}', "invalid_value"),
        ('{"type": "session.config", "voice": {}}', "invalid_value"),
        ("[" * 100_000, "invalid_json"),
    ],
)
def test_a_wrong_frame_is_an_error_and_the_session_continues(server: Running, frame: Any, code: str) -> None:
    async def talk(client: Client) -> tuple[list[Any], list[Any]]:
        await client.socket.send(frame)
        error = await client.receive("error")
        await client.send("session.config")
        await client.send("input.text", text="Yes.")
        await client.send("input.done")
        return error, await client.receive("session.done")

    error, after = session(server, talk)
    assert error[-1]["code"] == code
    assert sound(after)


@pytest.mark.parametrize(
    ("fields", "text", "code"),
    [
        ({"voice": "nobody"}, "Yes.", "voice_not_found"),
        ({"language": "tlhIngan"}, "Yes.", "invalid_option"),
        ({}, "...", "nothing_to_speak"),
    ],
)
def test_what_cannot_be_spoken_is_an_error_of_its_utterance(
    server: Running, fields: dict[str, Any], text: str, code: str
) -> None:
    async def talk(client: Client) -> tuple[list[Any], list[Any]]:
        await client.send("session.config", **fields)
        await client.send("input.text", text=text)
        await client.send("input.done")
        first = await client.receive("session.done")
        await client.send("session.config")
        await client.send("input.text", text="Yes.")
        await client.send("input.done")
        return first, await client.receive("session.done")

    first, after = session(server, talk)
    assert types(first) == ["error", "session.done"] and first[0]["code"] == code
    assert sound(after)


def test_too_much_text_is_refused(server: Running) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", split_granularity="none")
        await client.send("input.text", text="yes " * 1000)
        await client.send("input.text", text="yes " * 1000)
        return await client.receive("error")

    assert session(server, talk)[-1]["code"] == "input_too_long"


def test_a_flood_of_pings_changes_nothing(server: Running) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config", seed=7, split_granularity="token")
        await client.send("input.text", text=TEXT)
        await client.send("input.done")
        for i in range(2000):
            await client.socket.ping(str(i))
        return await client.receive("session.done")

    assert sound(session(server, talk)) == speech(TEXT, 7)


def test_a_client_that_sends_only_nonsense_is_closed(server: Running) -> None:
    async def talk(client: Client) -> tuple[int, int]:
        for _ in range(30):
            await client.socket.send("nonsense")
        n_errors = len([frame async for frame in client.socket if not isinstance(frame, bytes)])
        return n_errors, int(client.socket.close_code)

    with pytest.raises(websockets.ConnectionClosedError) as closed:
        session(server, talk)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_a_key_is_needed_where_the_server_has_one(tmp_path: Path) -> None:
    async def talk(client: Client) -> list[Any]:
        await client.send("session.config")
        await client.send("input.text", text="Yes.")
        await client.send("input.done")
        return await client.receive("session.done")

    with TTS("nano") as tts, running(tmp_path, tts, api_keys=("secret",)) as server:
        with pytest.raises(websockets.InvalidStatus):
            session(server, talk)
        assert sound(session(server, talk, additional_headers={"Authorization": "Bearer secret"}))
        assert sound(session(server, talk, query="?api_key=secret"))
        assert sound(session(server, talk, subprotocols=["realtime", "openai-insecure-api-key.secret"]))


@pytest.mark.parametrize("n_sessions", [60, pytest.param(300, marks=pytest.mark.soak)])
def test_sessions_leave_no_threads_tasks_or_files(server: Running, n_sessions: int) -> None:
    """Every third one hangs up in the middle."""

    async def talk(client: Client, i: int) -> None:
        await client.send("session.config", seed=i, max_frames=2)  # too short for it to end: fails
        await client.send("input.text", text="Yes.")
        await client.send("input.done")
        await client.receive("audio.start" if i % 3 == 0 else "session.done")

    for i in range(10):
        session(server, lambda client, i=i: talk(client, i))
    threads, tasks, files = server.counts()
    for i in range(n_sessions):
        session(server, lambda client, i=i: talk(client, i))
    assert server.comes_down_to((threads + 2, tasks + 2, files + 4)), server.counts()


def test_the_example_of_the_documentation_runs(server: Running) -> None:
    page = (Path(__file__).parents[1] / "docs" / "server.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL) if "websockets" in block]
    here = server.url.replace("http", "ws")
    names: dict[str, Any] = {}
    exec(code.replace("ws://127.0.0.1:8880", here), names)
    assert names["sound"] == speech("Good evening Maria, it is ten forty five.", 7)
