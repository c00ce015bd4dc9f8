"""espeak-ng through its C library: speech, and the moments at which its words begin."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 22050

_SYNCHRONOUS, _UTF8, _PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 2, 1, 1, 3, 4
_EVENT_LIST_END, _EVENT_WORD = 0, 1


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h; its last member is a union of eight bytes."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Speaker:
    variant: str
    pitch: int
    words_per_minute: int


@dataclass(frozen=True)
class Speech:
    samples: NDArray[np.float32]
    """[n] at RATE."""
    words: list[tuple[str, float]]
    """What is written, and the second at which it begins; words espeak-ng runs together ("in the") are one."""
    end: float
    """Seconds at which the last word has ended."""


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libespeak-ng.so.1")
    rate = library.espeak_Initialize(_SYNCHRONOUS, 500, None, 0)
    if rate != RATE:
        raise RuntimeError(f"espeak-ng speaks at {rate} Hz, not {RATE}")
    return library


def say(text: str, speaker: Speaker, *, pitch_range: int) -> Speech:
    """Speaks a text. One process may call it from one thread only."""
    library = _library()
    chunks: list[NDArray[np.float32]] = []
    words: dict[int, float] = {}

    @_Callback
    def heard(samples, n, events):  # type: ignore[no-untyped-def]
        if n > 0:
            chunks.append(np.ctypeslib.as_array(samples, (n,)).astype(np.float32) / 32768)
        i = 0
        while events[i].type != _EVENT_LIST_END:
            if events[i].type == _EVENT_WORD and events[i].length > 0:
                words.setdefault(events[i].text_position - 1, events[i].audio_position / 1000)
            i += 1
        return 0

    library.espeak_SetSynthCallback(heard)
    if library.espeak_SetVoiceByName(speaker.variant.encode()):
        raise RuntimeError(f"espeak-ng has no voice {speaker.variant}")
    library.espeak_SetParameter(_PARAMETER_RATE, speaker.words_per_minute, 0)
    library.espeak_SetParameter(_PARAMETER_PITCH, speaker.pitch, 0)
    library.espeak_SetParameter(_PARAMETER_RANGE, pitch_range, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
    samples = np.concatenate(chunks)
    loud = np.flatnonzero(np.abs(samples) > 0.004)
    places = sorted(words)
    spelt = [text[a:b].strip() for a, b in zip(places, [*places[1:], None], strict=True)]
    return Speech(samples, [(w, words[p]) for w, p in zip(spelt, places, strict=True)], (loud[-1] + 1) / RATE)
