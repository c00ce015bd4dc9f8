"""How fast this machine turns out to be, learned from the speeches it made."""

from __future__ import annotations

import statistics

from ..engine.lane import Timings
from ..model.schema import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

__all__ = ["Pace"]

_FRAME_SECONDS = SAMPLES_PER_FRAME / SAMPLE_RATE_HZ
_ENOUGH_FRAMES = 8
_WEIGHT = 0.3  # of the newest speech


class Pace:
    """Moving averages. A live stream needs a frame every 80 ms, so the time for one says how many streams are held."""

    def __init__(self) -> None:
        self.frame_seconds: float | None = None
        """Work per frame of one stream, lanes sharing their steps; None before the first speech."""
        self.turn_seconds = 5.0
        """How long a request has its lane."""

    @property
    def streams(self) -> int:
        """Live streams that the machine makes in real time; at least one, and one before anything is known."""
        return 1 if self.frame_seconds is None else max(1, int(_FRAME_SECONDS / self.frame_seconds))

    def learn(self, timings: Timings, n_lanes: int) -> None:
        """Take a speech into account that shared its steps with n_lanes - 1 others. The talker and the codec may have
        worked at the same time, so their sum is on the safe side."""
        parts = (timings.talker[1:], timings.predictor[1:], timings.codec[1:])
        if min(map(len, parts)) < _ENOUGH_FRAMES:
            return
        seconds = sum(statistics.median(part) for part in parts) / n_lanes
        old = seconds if self.frame_seconds is None else self.frame_seconds
        self.frame_seconds = old + _WEIGHT * (seconds - old)

    def turn_took(self, seconds: float) -> None:
        self.turn_seconds += _WEIGHT * (seconds - self.turn_seconds)
