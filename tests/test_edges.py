"""The edges of a passage: silence trimmed, faded, and the same however the sound comes in."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_gguf.speech.edges import EdgeTrimmer

RATE = 24_000


def tone(seconds: float) -> NDArray[np.float32]:
    return (0.5 * np.sin(np.arange(round(seconds * RATE)) * 0.05)).astype(np.float32)


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * RATE), np.float32)


def trimmed(sound: NDArray[np.float32], n_piece: int) -> NDArray[np.float32]:
    trimmer = EdgeTrimmer()
    pieces = [trimmer.feed(sound[i : i + n_piece]) for i in range(0, len(sound), n_piece)]
    return np.concatenate([*pieces, trimmer.end()])


def test_silence_at_the_edges_goes_and_silence_inside_stays() -> None:
    sound = np.concatenate([silence(0.5), tone(1), silence(0.7), tone(1), silence(0.9)])
    found = trimmed(sound, len(sound))
    assert len(found) == pytest.approx((0.04 + 2.7 + 0.08) * RATE, abs=2 * 240)
    middle = slice(len(found) // 4, -len(found) // 4)
    assert np.array_equal(found[middle], sound[round(0.46 * RATE) :][: len(found)][middle])


def test_a_sound_without_silence_is_faded() -> None:
    sound = np.full(RATE, 0.5, np.float32) * np.sign(np.sin(np.arange(RATE))).astype(np.float32)
    found = trimmed(sound, 1920)
    assert len(found) == len(sound) and found[0] == 0 and found[-1] == 0
    assert np.array_equal(found[240:-240], sound[240:-240])


@pytest.mark.parametrize("n_piece", [1, 100, 239, 240, 1920, 7777])
def test_pieces_give_what_the_whole_gives(n_piece: int) -> None:
    rng = np.random.default_rng(1)
    loud = np.repeat(rng.random(80) < 0.4, 300) * rng.normal(0, 0.2, 80 * 300)
    sound = np.concatenate([silence(0.1), loud.astype(np.float32), silence(0.123)])
    before = sound.copy()
    assert np.array_equal(trimmed(sound, n_piece), trimmed(sound, len(sound)))
    assert np.array_equal(sound, before)  # the caller's samples stay as they are


def test_silence_alone_comes_out_whole() -> None:
    assert np.array_equal(trimmed(silence(0.5), 1920), silence(0.5))
    assert len(EdgeTrimmer().end()) == 0
