"""What of a reference clip can be used: its length, its level, and whether its transcript fits."""

from __future__ import annotations

import warnings
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import QualityWarning

__all__ = ["MAX_REFERENCE_SECONDS", "REFERENCE_PAD_SECONDS", "SILENCE", "check_fit", "check_level", "windowed"]

REFERENCE_PAD_SECONDS = 0.5
"""Silence after the clip in its codes, without which its last sound runs into the speech (faster-qwen3-tts PR 9)."""
MAX_REFERENCE_SECONDS = 30.0
"""More reference does not sound closer, and all of it goes through the talker before the first sound."""
_SECONDS_PER_LETTER = (0.02, 0.4)
"""Speech takes about 0.07 s a Latin letter and 0.25 s a Chinese one; far outside, clip and transcript do not fit."""
SILENCE = 1e-4
_FULL_SCALE, _CLIPPED_SHARE = 0.999, 0.002
_OFFSET = 0.05

Value = TypeVar("Value", bound=np.generic)


def windowed(clip: NDArray[Value], rate_hz: float, transcript: str | None) -> tuple[NDArray[Value], str | None]:
    """At most MAX_REFERENCE_SECONDS of a clip's samples or frames, and as much of its transcript."""
    n = round(MAX_REFERENCE_SECONDS * rate_hz)
    if len(clip) <= n:
        return clip, transcript
    message = f"the reference lasts {len(clip) / rate_hz:.1f} s; its first {MAX_REFERENCE_SECONDS:.0f} s are used"
    if transcript:
        message += ", with as much of the transcript; a clip of 3 to 15 s with its own transcript sounds better"
        transcript = _beginning(transcript, n / len(clip))
    warnings.warn(message, QualityWarning, stacklevel=4)
    return clip[:n], transcript


def _beginning(text: str, share: float) -> str:
    """About that share of a text, cut between words."""
    cut = max(1, round(len(text) * share))
    space = text.rfind(" ", 0, cut + 1)
    return text[: space if space > 0 else cut].strip()


def check_level(samples: NDArray[np.float32]) -> None:
    loud = np.abs(samples)
    clipped = float((loud >= _FULL_SCALE).mean())
    if clipped > _CLIPPED_SHARE:
        message = f"{clipped:.1%} of the reference's samples are at full scale: it is clipped, and the voice sounds so"
        warnings.warn(message, QualityWarning, stacklevel=4)
    if abs(offset := float(samples.mean())) > _OFFSET:
        message = f"the reference lies {offset:+.2f} off its centre line: a clip without that offset sounds closer"
        warnings.warn(message, QualityWarning, stacklevel=4)


def check_fit(seconds: float, transcript: str) -> None:
    n_letters = sum(letter.isalnum() for letter in transcript)
    fastest, slowest = _SECONDS_PER_LETTER
    if not fastest * n_letters <= seconds <= slowest * n_letters:
        warnings.warn(
            f"a transcript of {n_letters} letters does not fit a clip of {seconds:.1f} s: the speech may degenerate; "
            "the transcript must say exactly what the clip says",
            QualityWarning,
            stacklevel=4,
        )
