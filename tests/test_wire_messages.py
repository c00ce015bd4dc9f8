"""Messages of the WebSocket and Wyoming wires without a connection: whatever comes, it is understood or refused."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="needs the extra 'server'")
pytest.importorskip("wyoming", reason="needs the extra 'server'")

from wyoming.event import Event

from qwen3tts_gguf.server.elevenlabs_messages import CloseContext, CloseSocket, KeepAlive, Text, read_message
from qwen3tts_gguf.server.problems import Problem
from qwen3tts_gguf.server.settings import Settings
from qwen3tts_gguf.server.speech_messages import Config, Reader
from qwen3tts_gguf.server.wyoming_events import Begin, End, Order, Piece, read_event

SETTINGS = Settings(Path("voices"))
WORDS = st.sampled_from(
    "type text session.config input.text input.done input.cancel session.close voice speed seed stream_audio"  # noqa: SIM905
    " split_granularity token none response_format pcm context_id close_context close_socket flush voice_settings"
    " generation_config xi_api_key ref_audio language id max_frames task_type Base".split()
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=6),
    max_leaves=12,
)
MESSAGES = st.dictionaries(WORDS, ANYTHING, max_size=8)
FRAMES = st.one_of(MESSAGES.map(json.dumps), ANYTHING.map(json.dumps), st.text(max_size=60), st.binary(max_size=60))


@settings(max_examples=150)
@given(st.lists(FRAMES, max_size=6))
def test_our_socket_understands_or_refuses_any_frame(frames: list[str | bytes]) -> None:
    reader = Reader(SETTINGS)
    for frame in frames:
        try:
            message = reader.read(frame)
        except Problem as problem:
            assert 400 <= problem.status < 500  # noqa: PT017
        else:
            assert reader.is_configured or isinstance(message, Config)


@settings(max_examples=150)
@given(FRAMES, st.booleans())
def test_elevenlabs_sockets_understand_or_refuse_any_frame(frame: str | bytes, has_contexts: bool) -> None:
    try:
        message, _ = read_message(frame, has_contexts=has_contexts)
    except Problem as problem:
        assert 400 <= problem.status < 500  # noqa: PT017
    else:
        assert isinstance(message, Text | CloseContext | CloseSocket | KeepAlive)


@settings(max_examples=150)
@given(st.lists(st.tuples(WORDS | st.sampled_from(["synthesize", "synthesize-start", "synthesize-stop"]), MESSAGES)))
def test_wyoming_understands_or_refuses_any_event(events: list[tuple[str, dict[str, Any]]]) -> None:
    order = Order()
    for type, data in events:
        try:
            steps = order.steps(Event(type, data))
        except Problem as problem:
            assert problem.status == 400  # noqa: PT017
        else:
            assert all(isinstance(step.text, str) for step in steps if isinstance(step, Piece))


@pytest.mark.parametrize("seed", range(8))
def test_wyoming_reads_or_refuses_any_bytes(seed: int) -> None:
    """2000 damaged streams in all: cut, with bytes changed, doubled and put in."""
    random_ = random.Random(seed)
    data = json.dumps({"text": "Yes."}).encode()
    whole = json.dumps({"type": "synthesize", "data_length": len(data)}).encode() + b"\n" + data

    async def read(stream: bytes) -> None:
        reader = asyncio.StreamReader(limit=1 << 16)
        reader.feed_data(stream)
        reader.feed_eof()
        try:
            while await read_event(reader) is not None:
                pass
        except Problem as problem:
            assert problem.code == "invalid_event"  # noqa: PT017

    async def read_all() -> None:
        for _ in range(250):
            stream = bytearray(whole * random_.randint(1, 3))
            for _ in range(random_.randint(1, 6)):
                at = random_.randrange(len(stream))
                stream[at : at + random_.randint(0, 3)] = random_.randbytes(random_.randint(0, 3))
            await read(bytes(stream[: random_.randint(1, len(stream))]))

    asyncio.run(read_all())


def test_what_home_assistant_sends_is_one_text() -> None:
    order = Order()
    names = ("synthesize-start", "synthesize-chunk", "synthesize-chunk", "synthesize", "synthesize-stop", "synthesize")
    steps = [step for name in names for step in order.steps(Event(name, {"text": "Yes. "}))]
    once, piece = Begin(None, None, streams=True), Piece("Yes. ")
    assert steps == [once, piece, piece, End(), Begin(None, None, streams=False), piece, End()]
