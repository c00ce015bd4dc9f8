"""What a reading hands out, passage by passage or as it is made, and where passages may be kept meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import Note
from ..model.schema import SAMPLE_RATE_HZ
from .passages import Boundary
from .script import Line

__all__ = ["Passage", "PassageStore", "Sound", "Take"]


@dataclass(frozen=True, eq=False)
class Passage:
    """A part of a reading that was spoken in one go."""

    index: int
    text: str
    boundary: Boundary
    """What of the text ends with it."""
    pause: int
    """Samples of silence before it."""
    start: int
    """Where its samples start in the whole reading, the pause before it included in the count."""
    samples: NDArray[np.float32]
    """[n] in [-1, 1] at 24 kHz, edges trimmed and faded, without the pause."""
    codes: NDArray[np.int32]
    """[frames, 16], untrimmed."""
    seed: int
    """Of the attempt that is in `samples`."""
    ended: bool
    """Whether the model ended it; always, unless `keep_unended` was set."""
    notes: tuple[Note, ...] = ()
    """What could be better, and was not noted with an earlier passage."""

    @property
    def start_seconds(self) -> float:
        return self.start / SAMPLE_RATE_HZ

    @property
    def seconds(self) -> float:
        """Length of its samples."""
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def sound(self) -> NDArray[np.float32]:
        """The pause before it and its samples: joined, those of all passages are the reading."""
        return np.concatenate([np.zeros(self.pause, np.float32), self.samples])


@dataclass(frozen=True, eq=False)
class Sound:
    """The next samples of a reading that is streamed."""

    samples: NDArray[np.float32]
    """[n] in [-1, 1] at 24 kHz."""
    start: int
    """Where they start in the whole reading, in samples."""
    index: int
    """Of the passage."""
    text: str
    """Of the passage."""
    is_pause: bool = False
    """Whether it is the silence before the passage."""
    notes: tuple[Note, ...] = ()
    """With the first sound of a passage: what could be better, and was not noted before."""


@dataclass(frozen=True, eq=False)
class Take:
    """How a passage was spoken: what its sound is decoded from."""

    codes: NDArray[np.int32]
    """[frames, 16]"""
    seed: int
    """Of the attempt that ended."""


class PassageStore(Protocol):
    """Keeps passages of one model, voice and set of options. Called from several threads."""

    def load(self, line: Line) -> Take | None:
        """What was saved of a passage with this text and seed; None if nothing was."""

    def save(self, line: Line, take: Take) -> None: ...
