"""The edges of a passage: silence before and after its sound is cut to a fixed length, and faded, so nothing clicks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["EdgeTrimmer", "trimmed"]

Samples = NDArray[np.float32]

_BLOCK = 240
"""Samples, 10 ms: the grid on which silence is found, and the length of a fade."""
_BEFORE, _AFTER = 4 * _BLOCK, 8 * _BLOCK
"""Silence that stays: a soft consonant begins and ends below the threshold."""
_SILENT = 1e-3
"""Deviation of a block in which nothing is audible: -60 dB of full scale,"""
_SILENT_TO_LOUDEST = 1e-2
"""or 40 dB below the loudest block so far."""
_FADE = np.linspace(0, 1, _BLOCK, dtype=np.float32)


class EdgeTrimmer:
    """Trims one passage that comes in pieces; however it is cut, the result is the same. Not thread-safe.

    Silence is held back until sound follows it, and so are 10 ms of sound for the fade. A passage without any sound
    comes out whole.
    """

    def __init__(self) -> None:
        self._held = np.zeros(0, np.float32)
        self._loudest = 0.0
        self._has_started = False

    def feed(self, samples: Samples) -> Samples:
        """samples [n] in [-1, 1] at 24 kHz -> those that can be handed on by now [m]"""
        self._held = np.concatenate([self._held, samples])
        levels = self._held[: len(self._held) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).std(axis=1)
        loudest = np.maximum.accumulate(np.concatenate([[self._loudest], levels]))[1:]
        loud = np.flatnonzero(levels > np.maximum(_SILENT, _SILENT_TO_LOUDEST * loudest))
        if not len(loud):
            return np.zeros(0, np.float32)
        self._loudest = float(loudest[-1])
        start = 0
        if not self._has_started:
            self._has_started = True
            start = max(0, int(loud[0]) * _BLOCK - _BEFORE)
            self._held[start : start + _BLOCK] *= _FADE
        stop = max(start, int(loud[-1]) * _BLOCK)  # the last loud block stays for the fade
        released, self._held = self._held[start:stop], self._held[stop:]
        return released

    def end(self) -> Samples:
        """What is left: the last of the sound and as much of the silence after it as stays."""
        rest, self._held = self._held, np.zeros(0, np.float32)
        if self._has_started:
            rest = rest[: _BLOCK + _AFTER].copy()
            rest[-_BLOCK:] *= _FADE[::-1]
        return rest


def trimmed(samples: Samples) -> Samples:
    """A whole passage, trimmed at once."""
    trimmer = EdgeTrimmer()
    return np.concatenate([trimmer.feed(samples), trimmer.end()])
