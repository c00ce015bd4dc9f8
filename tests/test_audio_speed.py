"""Speed: the pitch stays, the length follows, and pieces give what the whole gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_gguf.audio_speed import SpeedChanger
from qwen3tts_gguf.errors import OptionError

RATE = 24_000
SPEEDS = (0.25, 0.5, 0.8, 1.25, 2.0, 3.7, 4.0)


def voiced(hz: float, seconds: float = 2.0) -> NDArray[np.float32]:
    """A sound with overtones, as a vowel has."""
    t = np.arange(round(seconds * RATE)) / RATE
    return sum(np.sin(2 * np.pi * hz * i * t) / i for i in range(1, 8)).astype(np.float32) * 0.2


def changed(samples: NDArray[np.float32], speed: float, n_piece: int) -> NDArray[np.float32]:
    changer = SpeedChanger(speed)
    pieces = [changer.feed(samples[i : i + n_piece]) for i in range(0, len(samples), n_piece)]
    return np.concatenate([*pieces, changer.end()])


def pitch(samples: NDArray[np.float32]) -> float:
    """Hz, by autocorrelation between 60 and 400 Hz, with a parabola through the peak."""
    middle = samples[len(samples) // 2 - 2400 :][:4800].astype(np.float64)
    similar = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    lags = np.arange(RATE // 400, RATE // 60)
    best = lags[np.argmax(similar[lags])]
    left, peak, right = similar[best - 1 : best + 2]
    return RATE / (best + 0.5 * (left - right) / (left - 2 * peak + right))


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("hz", [90.0, 130.0, 210.0])
def test_the_pitch_stays_and_the_length_follows(speed: float, hz: float) -> None:
    found = changed(voiced(hz), speed, 1920)
    assert len(found) == round(2 * RATE / speed)
    assert pitch(found) == pytest.approx(hz, rel=0.01)
    steady = found[1000:-1000]
    assert np.std(steady) == pytest.approx(np.std(voiced(hz)), rel=0.1)  # windows that do not fit cancel each other
    assert np.abs(np.diff(found)).max() < 1.5 * np.abs(np.diff(voiced(hz))).max()  # no clicks


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("n_piece", [1, 719, 1920, 50_000])
def test_pieces_give_what_the_whole_gives(speed: float, n_piece: int) -> None:
    rng = np.random.default_rng(1)
    sound = np.concatenate([voiced(120, 0.1), np.zeros(3000, np.float32), rng.normal(0, 0.1, 5000).astype(np.float32)])
    whole = changed(sound, speed, len(sound))
    assert len(whole) == round(len(sound) / speed)
    assert np.array_equal(changed(sound, speed, n_piece), whole)


@pytest.mark.parametrize("n", [0, 1, 100, 719, 720, 2000])
def test_a_sound_of_any_length_is_changed(n: int) -> None:
    for speed in SPEEDS:
        assert len(changed(voiced(100)[:n], speed, 1920)) == round(n / speed)


def test_speed_1_changes_nothing() -> None:
    sound = voiced(100)
    assert np.array_equal(changed(sound, 1, 1920), sound)


def test_memory_follows_the_window_and_not_the_sound() -> None:
    changer = SpeedChanger(0.7)
    for _ in range(200):
        changer.feed(voiced(100, 0.08))
    assert len(changer._input) < 4000


@pytest.mark.parametrize("speed", [0.2, 4.1, float("nan"), -1])
def test_other_speeds_are_refused(speed: float) -> None:
    with pytest.raises(OptionError, match="`speed` must be"):
        SpeedChanger(speed)
