"""What is no longer speech: codes that repeat in a loop, and silence that does not end.

Both are judged over one stretch of 75 frames, 6 s in which nothing new was spoken. Speech does not come near it:

- A pause, where code 0 hardly changes and the level is low, takes 1 s at a comma and 2 to 3 s at a paragraph.
- A text that repeats itself ("la la la") is seldom spoken twice alike, nor do its rounds last a whole number of frames,
  so its codes fall differently each time. (Those of nano do: it can be stopped after 6 s of one word.) A circle is
  exact but for a stray code here and there: nine in ten must be what they were one round earlier, and a round takes
  1.2 s at most, so that five of them pass.
- A quiet voice, of a quiet clip, is measured against its own loudest frame, and only below -60 dB of full scale by
  itself. Between a loud vowel and the softest sound lie 40 dB at most, and in 6 s there is a vowel.

What takes less than 6 s, the budget of frames ends. The talker chooses code 0 alone and knows the other fifteen only by
their sum, so it is code 0 that goes round; the others are drawn again each time and hide it.
"""

from __future__ import annotations

import re
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRETCH", "SpeechWatch", "frame_budget", "n_spelled"]

_FRAMES_PER_TOKEN = 10
"""Speech takes 2.5 to 3.1 frames per text token; 6 cut off slow speech in other runtimes."""
_FRAMES_PER_LETTER = 8
"""Of an acronym, whose letters are words of their own: four to five usually, nine for a W."""
_PAUSE_FRAMES = 25
"""2 s before and after the words. Nano speaks each of its words by itself in at most 14 frames, 540 tries."""
_SHORT = 75
"""Frames, 6 s: up to here the pauses count."""
_SPELLED = re.compile(r"[^\W\d_]{2,}")


def frame_budget(n_tokens: int, n_letters: int) -> int:
    """Frames that are enough for a text of so many tokens and spelled letters; speech that needs more is babble."""
    words = max(_FRAMES_PER_TOKEN * n_tokens, _FRAMES_PER_LETTER * n_letters)
    return max(words, min(_SHORT, words + _PAUSE_FRAMES))


def n_spelled(text: str) -> int:
    """Letters of a text that may be spoken one by one: those of words in capitals, as in AWS, SQL, GPUs."""
    words = (word[:-1] if word[-1] == "s" else word for word in _SPELLED.findall(text))
    return sum(len(word) for word in words if len(word) > 1 and word.isupper())


STRETCH = 75
"""Frames, 6 s."""
_LONGEST_ROUND = 15
_REPEATED = 0.9
_SILENT = 1e-3
"""Root mean square of a silent frame: -60 dB of full scale,"""
_SILENT_TO_LOUDEST = 1e-2
"""or 40 dB below the loudest frame."""


class SpeechWatch:
    """Listens to one utterance."""

    def __init__(self) -> None:
        self._codes: deque[int] = deque(maxlen=STRETCH)
        self._levels: deque[float] = deque(maxlen=STRETCH)
        self._loudest = 0.0

    def check(self, code0: int, samples: NDArray[np.float32]) -> str | None:
        """Takes a frame's code 0 and its samples [1920] in [-1, 1]; returns what is wrong by now, in words, or None."""
        level = float(np.sqrt(np.square(samples).mean()))
        self._codes.append(code0)
        self._levels.append(level)
        self._loudest = max(self._loudest, level)
        if len(self._codes) < STRETCH:
            return None
        if max(self._levels) < max(_SILENT, _SILENT_TO_LOUDEST * self._loudest):
            return "silence that does not end"
        if self._is_loop():
            return "codes that repeat in a loop"
        return None

    def _is_loop(self) -> bool:
        codes = np.array(self._codes)
        return any((codes[n:] == codes[:-n]).mean() >= _REPEATED for n in range(1, _LONGEST_ROUND + 1))
