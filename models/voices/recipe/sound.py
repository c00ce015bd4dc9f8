"""What the recipe does to a sound, and what it measures of one: samples float [n] at 24 kHz."""

from __future__ import annotations

import numpy as np
from settings import FADE_SECONDS, LEAD_SECONDS, LEVEL_DBFS, PEAK_DBFS, RATE_HZ, SPEECH_DB, TAIL_SECONDS

__all__ = ["cut_and_levelled", "db", "edges", "pitch_hz", "quiet_db"]

_WINDOW = RATE_HZ // 100
_PITCHES_HZ = (60, 400)
_VOICED = 0.6  # autocorrelation at the period, relative to lag 0


def db(value: float) -> float:
    """An amplitude relative to full scale."""
    return 20 * float(np.log10(max(value, 1e-6)))


def _levels_db(samples: np.ndarray) -> np.ndarray:
    """Of each window of 10 ms [n // 240]."""
    windows = samples[: len(samples) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
    return 20 * np.log10(np.sqrt((windows**2).mean(1)) + 1e-6)


def edges(samples: np.ndarray) -> tuple[int, int]:
    """Where speech begins and ends, in samples."""
    levels = _levels_db(samples)
    speech = np.flatnonzero(levels > levels.max() + SPEECH_DB)
    return int(speech[0]) * _WINDOW, (int(speech[-1]) + 1) * _WINDOW


def quiet_db(samples: np.ndarray) -> float:
    """The level that the quietest tenth of the windows stays below: pauses and noise floor."""
    return float(np.quantile(_levels_db(samples), 0.1))


def cut_and_levelled(samples: np.ndarray) -> np.ndarray:
    """Speech with a little silence around it, faded in and out, without offset, at the level of the settings."""
    first, last = edges(samples)
    around = samples[max(0, first - round(LEAD_SECONDS * RATE_HZ)) : last + round(TAIL_SECONDS * RATE_HZ)]
    sound = around - around.mean()
    ramp = np.linspace(0, 1, round(FADE_SECONDS * RATE_HZ))
    sound[: len(ramp)] *= ramp
    sound[-len(ramp) :] *= ramp[::-1]
    gain = 10 ** (LEVEL_DBFS / 20) / np.sqrt((sound**2).mean())
    return sound * min(gain, 10 ** (PEAK_DBFS / 20) / np.abs(sound).max())


def pitch_hz(samples: np.ndarray) -> int:
    """The median of the voiced windows' pitch, by autocorrelation."""
    shortest, longest = RATE_HZ // _PITCHES_HZ[1], RATE_HZ // _PITCHES_HZ[0]
    n, pitches = 2 * longest, []
    loud = np.sqrt((samples**2).mean())
    for start in range(0, len(samples) - n, n // 4):
        window = samples[start : start + n] - samples[start : start + n].mean()
        if np.sqrt((window**2).mean()) < loud / 2:
            continue
        correlation = np.correlate(window, window, "full")[n - 1 :]
        lag = shortest + int(correlation[shortest:longest].argmax())
        if correlation[lag] > _VOICED * correlation[0]:
            pitches.append(RATE_HZ / lag)
    return round(float(np.median(pitches)))
