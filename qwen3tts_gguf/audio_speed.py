"""Speech faster or slower at the same pitch: WSOLA (waveform similarity overlap-add, Verhelst and Roelands 1993).

    input   ──windows of 30 ms, `speed` times as far apart as in the output──┐
    output  <──overlapped by half, each shifted to where it fits what the window before it would go on with

The sound is the same however it comes in, and its length is that of the input divided by the speed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

__all__ = ["MAX_SPEED", "MIN_SPEED", "SpeedChanger"]

Samples = NDArray[np.float32]

MIN_SPEED, MAX_SPEED = 0.25, 4.0
_WINDOW = 720
"""Samples, 30 ms: two to three periods of a low voice."""
_HOP = _WINDOW // 2
_SEARCH = 300
"""Samples to both sides, 12.5 ms: one period of 80 Hz."""
_RISE = (0.5 - 0.5 * np.cos(np.pi * (np.arange(_HOP) + 0.5) / _HOP)).astype(np.float32)
_SILENT = 1e-8


class SpeedChanger:
    """Changes the speed of one sound that comes in pieces, 24 kHz. 1 changes nothing. Not thread-safe.

    Raises OptionError for a speed outside 0.25 to 4.
    """

    def __init__(self, speed: float) -> None:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise OptionError(f"`speed` must be {MIN_SPEED} to {MAX_SPEED:.0f}, not {speed}")
        self._speed = speed
        self._input = np.zeros(0, np.float32)  # from sample `_start` on
        self._start = 0
        self._n_windows = 0
        self._window_at = 0  # of the last window, in samples of the input
        self._tail = np.zeros(_HOP, np.float32)  # its second half, faded out

    def feed(self, samples: Samples) -> Samples:
        """samples [n] -> those that are ready [m]"""
        if self._speed == 1:
            return samples
        self._input = np.concatenate([self._input, samples])
        n = self._start + len(self._input)
        ready = []
        while self._next_needs() <= n and (self._n_windows + 1) * _HOP <= n / self._speed:
            ready.append(self._next_window())
        keep = min(self._next_at() - _SEARCH, self._window_at + _HOP)
        if keep > self._start:
            self._input, self._start = self._input[keep - self._start :], keep
        return np.concatenate([np.zeros(0, np.float32), *ready])

    def end(self) -> Samples:
        """The rest [m]."""
        if self._speed == 1:
            return np.zeros(0, np.float32)
        n_left = round((self._start + len(self._input)) / self._speed) - self._n_windows * _HOP
        ready = [np.zeros(0, np.float32)]
        for _ in range(-(-n_left // _HOP)):
            missing = self._next_needs() - self._start - len(self._input)
            self._input = np.pad(self._input, (0, max(0, missing)))
            ready.append(self._next_window())
        return np.concatenate(ready)[: max(0, n_left)]

    def _next_at(self) -> int:
        """Where the next window would be without the search."""
        return round(self._n_windows * _HOP * self._speed)

    def _next_needs(self) -> int:
        """Samples of the input that must be there for it."""
        return max(self._next_at() + _SEARCH, self._window_at + _HOP) + _WINDOW

    def _next_window(self) -> Samples:
        """The next samples of the output [_HOP]."""
        if self._n_windows == 0:
            window = self._at(0, _WINDOW)
            samples: Samples = window[:_HOP].copy()
        else:
            self._window_at = self._best_at()
            window = self._at(self._window_at, _WINDOW)
            samples = self._tail + window[:_HOP] * _RISE
        self._tail = window[_HOP:] * _RISE[::-1]
        self._n_windows += 1
        return samples

    def _best_at(self) -> int:
        """Where the input is most like what follows the last window."""
        wanted = self._at(self._window_at + _HOP, _WINDOW)
        first = max(0, self._next_at() - _SEARCH)
        found = self._at(first, self._next_at() + _SEARCH - first + _WINDOW)
        energy = np.cumsum(np.concatenate([[0.0], np.square(found, dtype=np.float64)]))
        energy = energy[_WINDOW:] - energy[:-_WINDOW]
        if float(np.square(wanted).sum()) < _SILENT or energy.max() < _SILENT:
            return self._next_at()
        return first + int(np.argmax(np.correlate(found, wanted) / np.sqrt(energy + _SILENT)))

    def _at(self, start: int, n: int) -> Samples:
        return self._input[start - self._start :][:n]
