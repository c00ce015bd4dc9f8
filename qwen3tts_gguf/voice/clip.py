"""What of a reference clip can be used: its length, its level, and whether its transcript fits."""

from __future__ import annotations

import unicodedata
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import Note

__all__ = [
    "MAX_REFERENCE_SECONDS",
    "REFERENCE_PAD_SECONDS",
    "SILENCE",
    "fit_notes",
    "level_notes",
    "rate_notes",
    "windowed",
    "without_silent_edges",
]  # fmt: skip

REFERENCE_PAD_SECONDS = 0.5
"""Silence after the clip in its codes, without which its last sound runs into the speech (faster-qwen3-tts PR 9)."""
MAX_REFERENCE_SECONDS = 30.0
"""More reference does not bring the voice closer, and all of it goes through the talker before the first sound."""
SILENCE = 1e-4
_GOOD_LENGTH = "a clip of 3 to 15 s of one speaker sounds better"

Value = TypeVar("Value", bound=np.generic)


# -- length ------------------------------------------------------------------------------------------------------------

_MAX_EDGE_SECONDS, _KEPT_EDGE_SECONDS = 1.0, 0.2
_BLOCK_SECONDS = 0.02
_SILENT_TO_LOUDEST = 1e-2
"""40 dB: between a loud vowel and the softest sound of the same speaker lies less."""


def without_silent_edges(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """The clip [n] without silence of more than a second before and after its sound. Shorter silence stays: the
    official encoders see the whole clip too."""
    n_block = round(_BLOCK_SECONDS * rate_hz)
    blocks = samples[: len(samples) // n_block * n_block].reshape(-1, n_block)
    if not len(blocks):
        return samples
    level = blocks.std(axis=1)  # without the offset, which is no sound
    loud = np.flatnonzero(level > max(SILENCE, _SILENT_TO_LOUDEST * float(level.max())))
    if not len(loud):
        return samples
    first, last = int(loud[0]) * n_block, (int(loud[-1]) + 1) * n_block
    most, kept = round(_MAX_EDGE_SECONDS * rate_hz), round(_KEPT_EDGE_SECONDS * rate_hz)
    start = first - kept if first > most else 0
    stop = last + kept if len(samples) - last > most else len(samples)
    return samples[start:stop]


def windowed(
    clip: NDArray[Value], rate_hz: float, transcript: str | None
) -> tuple[NDArray[Value], str | None, tuple[Note, ...]]:
    """At most MAX_REFERENCE_SECONDS of a clip's samples or frames, and as much of its transcript."""
    n = round(MAX_REFERENCE_SECONDS * rate_hz)
    if len(clip) <= n:
        return clip, transcript, ()
    message = f"the reference lasts {len(clip) / rate_hz:.1f} s; its first {MAX_REFERENCE_SECONDS:.0f} s are used"
    if transcript:
        message += ", with as much of the transcript"
        transcript = _beginning(transcript, n / len(clip))
    return clip[:n], transcript, (Note(message, _GOOD_LENGTH),)


_NEAR = 24
"""Letters between the share of a text and the boundary where it is cut: a long word and a half."""
_PAUSES = "\n,.;:!?\u2026。，、！？；：．｡､"


def _beginning(text: str, share: float) -> str:
    """About that share of a text: cut after a pause or between words near it, else between letters."""
    cut = max(1, round(len(text) * share))
    for i in range(cut, max(0, cut - _NEAR), -1):
        if text[i : i + 1].isspace() or text[i - 1] in _PAUSES:
            return text[:i].strip()
    while 1 < cut < len(text) and unicodedata.category(text[cut])[0] == "M":  # an accent stays with its letter
        cut -= 1
    return text[:cut].strip()


# -- sound -------------------------------------------------------------------------------------------------------------

_FULL_SCALE, _CLIPPED_SHARE = 0.999, 0.002
_OFFSET = 0.05
_QUIET = 0.03
"""Peak, -30 dB of full scale: speech that was recorded well peaks above -20."""
_SHORT_SECONDS = 1.0
_MIN_RATE_HZ = 16_000


def level_notes(samples: NDArray[np.float32], rate_hz: int) -> tuple[Note, ...]:
    """What of the sound [n] could be better."""
    notes = []
    loud = np.abs(samples)
    if (seconds := len(samples) / rate_hz) < _SHORT_SECONDS:
        notes.append(Note(f"the reference clip has only {seconds:.1f} s, which is short for a voice", _GOOD_LENGTH))
    if (clipped := float((loud >= _FULL_SCALE).mean())) > _CLIPPED_SHARE:
        message = f"{clipped:.1%} of the reference's samples are at full scale: it is clipped, and the voice sounds so"
        notes.append(Note(message, "record it at a lower level"))
    if abs(offset := float(samples.mean())) > _OFFSET:
        notes.append(
            Note(
                f"the reference has an offset of {offset:+.2f}", "with a clip without an offset the voice comes closer"
            )
        )
    if 0 < (peak := float(loud.max(initial=0.0))) < _QUIET:
        message = f"the reference is quiet: it peaks at {20 * np.log10(peak):.0f} dB of full scale"
        notes.append(Note(message, "record or save it at a higher level"))
    return tuple(notes)


def rate_notes(rate_hz: int) -> tuple[Note, ...]:
    """Of a clip's own sample rate."""
    if rate_hz >= _MIN_RATE_HZ:
        return ()
    message = f"the reference has {rate_hz} samples per second, and so no sound above {rate_hz / 2000:g} kHz"
    return (Note(message, "with a clip of 16 kHz or more the voice comes closer"),)


# -- transcript --------------------------------------------------------------------------------------------------------

_SECONDS = {
    "LATIN": 0.08, "CYRILLIC": 0.08, "GREEK": 0.08, "CJK": 0.25, "HIRAGANA": 0.13, "KATAKANA": 0.13, "HANGUL": 0.19,
}  # fmt: skip
"""Speech of one letter, pauses and all. English read aloud has 150 words a minute, 0.085 s a letter; the clips of nano
have 0.074 to 0.104."""
_OTHER_SECONDS = 0.1  # Arabic, Hebrew, Devanagari, Thai: vowels are not all written
_DIGIT_SECONDS = 0.3  # a word each
_FASTEST, _SLOWEST = 0.45, 1.6
"""Of the seconds that are usual. A transcript of half the clip makes it 1.8 and more with every clip of nano."""


def fit_notes(seconds: float, transcript: str) -> tuple[Note, ...]:
    """Whether a clip of that length can contain the transcript, by the usual pace of its script."""
    usual = sum(_letter_seconds(letter) for letter in transcript)
    if _FASTEST * usual <= seconds <= _SLOWEST * usual:
        return ()
    n_letters = sum(letter.isalnum() for letter in transcript)
    return (
        Note(
            f"a transcript of {n_letters} letters does not fit a clip of {seconds:.1f} s; "
            "the speech may become unintelligible",
            "give exactly the words of the clip, or clone with the speaker vector only (`Voice.without_codes`)",
        ),
    )


def _letter_seconds(letter: str) -> float:
    if letter.isdigit():
        return _DIGIT_SECONDS
    if not letter.isalpha():
        return 0.0
    return _SECONDS.get(unicodedata.name(letter, "").partition(" ")[0], _OTHER_SECONDS)
