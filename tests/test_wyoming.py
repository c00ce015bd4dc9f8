"""Wyoming, by its own client and by Home Assistant's sequence of events."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")
pytest.importorskip("wyoming", reason="needs the extra 'server'")

from serving import LONG, PATIENCE, TEXT, Running, running
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from qwen3tts_gguf import TTS

Talk = Callable[[AsyncTcpClient], Awaitable[Any]]


@dataclass
class Wyoming:
    server: Running
    port: int

    def talk(self, talk: Talk) -> Any:
        """Run `await talk(client)` on a new connection."""

        async def run() -> Any:
            async with AsyncTcpClient("127.0.0.1", self.port) as client:
                return await asyncio.wait_for(talk(client), PATIENCE)

        return asyncio.run(run())


@pytest.fixture(scope="module")
def wyoming(nano: TTS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wyoming]:
    listener = socket.create_server(("127.0.0.1", 0))
    with running(tmp_path_factory.mktemp("voices"), nano, wyoming=listener) as server:
        yield Wyoming(server, listener.getsockname()[1])


async def read_whole(client: AsyncTcpClient) -> tuple[list[str], bytes]:
    """As Home Assistant reads the answer to `synthesize`: up to audio-stop."""
    types, sound = [], b""
    while (event := await client.read_event()) is not None:
        types.append(event.type)
        if AudioStop.is_type(event.type):
            break
        if AudioChunk.is_type(event.type):
            sound += AudioChunk.from_event(event).audio
    return types, sound


async def read_streamed(client: AsyncTcpClient) -> AsyncIterator[bytes]:
    """As Home Assistant reads a stream: the format of the first audio-start, sound, the end at synthesize-stopped."""
    has_format = False
    while (event := await client.read_event()) is not None:
        if AudioStart.is_type(event.type) and not has_format:
            start = AudioStart.from_event(event)
            assert (start.rate, start.width, start.channels) == (24000, 2, 1)
            has_format = True
        elif AudioChunk.is_type(event.type):
            assert has_format
            yield AudioChunk.from_event(event).audio
        elif SynthesizeStopped.is_type(event.type):
            return
    raise AssertionError("the connection ended before synthesize-stopped")


async def write_streamed(client: AsyncTcpClient, pieces: list[str], voice: SynthesizeVoice | None = None) -> None:
    """As Home Assistant writes a text that is being made: at the end once more as a whole."""
    await client.write_event(SynthesizeStart(voice=voice).event())
    for piece in pieces:
        await client.write_event(SynthesizeChunk(piece).event())
    await client.write_event(Synthesize("".join(pieces), voice=voice).event())
    await client.write_event(SynthesizeStop().event())


def test_it_describes_voices_with_their_languages(wyoming: Wyoming) -> None:
    async def talk(client: AsyncTcpClient) -> Info:
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None
        return Info.from_event(event)

    (program,) = wyoming.talk(talk).tts
    assert program.installed and program.supports_synthesize_streaming
    voices = {voice.name: voice for voice in program.voices}
    assert {"alloy", "nova"} <= set(voices)
    assert all(voice.languages == ["en"] and voice.installed and voice.attribution.url for voice in program.voices)


def test_a_whole_text_is_spoken(wyoming: Wyoming) -> None:
    async def talk(client: AsyncTcpClient) -> list[tuple[list[str], bytes]]:
        got = []
        for text in (TEXT, "Yes."):
            await client.write_event(Synthesize(text, voice=SynthesizeVoice(name="alloy")).event())
            got.append(await read_whole(client))
        return got

    for types, sound in wyoming.talk(talk):
        assert types[0] == "audio-start" and types[-1] == "audio-stop"
        assert set(types[1:-1]) == {"audio-chunk"}
        assert len(sound) == 3840 * types.count("audio-chunk")


def test_a_stream_is_spoken_once_though_its_text_comes_twice(wyoming: Wyoming) -> None:
    async def talk(client: AsyncTcpClient) -> list[int]:
        lengths = []
        for pieces in (["Seven thr", "ee nine", "."], [TEXT]):
            await write_streamed(client, pieces)
            lengths.append(len(b"".join([sound async for sound in read_streamed(client)])))
        await client.write_event(Ping("after").event())  # nothing is left over
        event = await client.read_event()
        assert event is not None and Pong.from_event(event).text == "after"
        return lengths

    assert all(20_000 < n < 200_000 for n in wyoming.talk(talk))


def test_sound_comes_while_the_text_is_being_made(wyoming: Wyoming) -> None:
    async def talk(client: AsyncTcpClient) -> int:
        await client.write_event(SynthesizeStart().event())
        await client.write_event(SynthesizeChunk("Good morning Anna, today is Monday and it is ").event())
        stream = read_streamed(client)
        n = len(await anext(stream))
        await client.write_event(SynthesizeChunk("sunny.").event())
        await client.write_event(SynthesizeStop().event())
        return n + sum([len(sound) async for sound in stream])

    assert wyoming.talk(talk) > 48_000


def test_an_empty_stream_is_over_at_once(wyoming: Wyoming) -> None:
    async def talk(client: AsyncTcpClient) -> str:
        await write_streamed(client, ["", " "])
        event = await client.read_event()
        assert event is not None
        return event.type

    assert wyoming.talk(talk) == "synthesize-stopped"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Synthesize("").event(), "nothing_to_speak"),
        (Synthesize("...").event(), "nothing_to_speak"),
        (Synthesize(TEXT, voice=SynthesizeVoice(name="nobody")).event(), "voice_not_found"),
        (Synthesize(TEXT, voice=SynthesizeVoice(language="tlh")).event(), "invalid_option"),
        (Synthesize("yes " * 2000).event(), "input_too_long"),
        (Event("synthesize", {"text": 5}), "invalid_event"),
        (Event("synthesize", {"text": TEXT, "voice": {"name": []}}), "invalid_event"),
        (SynthesizeChunk("too early").event(), "invalid_event"),
    ],
)
def test_what_cannot_be_spoken_is_an_error_and_the_end(wyoming: Wyoming, event: Event, code: str) -> None:
    async def talk(client: AsyncTcpClient) -> tuple[Event | None, Event | None]:
        await client.write_event(event)
        return await client.read_event(), await client.read_event()

    error, end = wyoming.talk(talk)
    assert Error.from_event(error).code == code
    assert end is None


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"nonsense\n",
        b"[1, 2]\n",
        b'{"type": 5}\n',
        b'{"type": "synthesize", "data": [1]}\n',
        b'{"type": "synthesize", "data_length": "many"}\n',
        b'{"type": "synthesize", "data_length": 99999999999}\n',
        b'{"type": "synthesize", "data_length": -1}\n',
        b'{"type": "synthesize", "data_length": 2}\n[]',
        b'{"type": "x", "payload_length": 1e300}\n',
        b"[" * 50_000 + b"\n",
        b"x" * 200_000,
    ],
)
def test_hostile_bytes_end_their_connection_alone(wyoming: Wyoming, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", wyoming.port), timeout=PATIENCE) as hostile:
        hostile.sendall(data)
        answer = b""
        try:
            while piece := hostile.recv(65536):
                answer += piece
        except ConnectionResetError:  # what it sent was not read to its end
            pass
        assert len(answer) < 1000
    wyoming.server.wait_until(lambda: wyoming.server.is_free)


def test_a_client_that_goes_leaves_nothing_behind(wyoming: Wyoming) -> None:
    async def begin(client: AsyncTcpClient) -> None:
        await client.write_event(Synthesize(LONG).event())
        while not AudioChunk.is_type((await client.read_event()).type):  # type: ignore[union-attr]
            pass

    for _ in range(5):
        wyoming.talk(begin)
    most = tuple(count + 4 for count in wyoming.server.counts())
    for _ in range(40):
        wyoming.talk(begin)
    assert wyoming.server.comes_down_to(most), wyoming.server.counts()
