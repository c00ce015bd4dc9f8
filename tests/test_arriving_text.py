"""How the server decides to speak a text that is still arriving: word by word, or sentence by sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from qwen3tts_gguf.server.arriving_text import ArrivingText, Pacing


def pacing_of(pieces: Sequence[str], *, asked_after: int) -> Pacing:
    """The decision for pieces that arrive at once, where the speaker asks after the first few of them."""

    async def run() -> Pacing:
        text = ArrivingText()
        for piece in pieces[:asked_after]:
            text.feed(piece)
        decision = asyncio.create_task(text.pacing())
        await asyncio.sleep(0)
        for piece in pieces[asked_after:]:
            text.feed(piece)
        text.complete()
        return await decision

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "pacing"),
    [
        ("Seven three nine.", "sentence"),
        ("Yes. Then there comes a second sentence, which is longer.", "sentence"),
        ("no end", "sentence"),
        ("A first sentence that is long enough to be judged by its pace.", "token"),
    ],
)
def test_the_decision_does_not_depend_on_when_the_speaker_asks(text: str, pacing: Pacing) -> None:
    words = [f"{word} " for word in text.split()]
    assert {pacing_of(words, asked_after=n) for n in range(len(words) + 1)} == {pacing}


@pytest.mark.parametrize(("seconds", "pacing"), [(0.5, "token"), (5.0, "sentence")])
def test_the_decision_follows_the_pace_of_the_beginning(seconds: float, pacing: Pacing) -> None:
    async def run() -> Pacing:
        text = ArrivingText()
        text.began -= seconds
        text.feed("The quick brown fox jumps over the lazy dog and")
        return await asyncio.wait_for(text.pacing(), 10)

    assert asyncio.run(run()) == pacing
