"""Speaks the corpus: 24 kHz, every word beginning on a codec frame.

    $WORK/wav.npy     int16, all utterances one after the other
    $WORK/items.json  per utterance: text, voice, held out or not, first sample, samples, [word, frames] ...

Words that begin on frames are what lets so small a talker learn so fast: a word in a voice becomes nearly one string
of codes instead of one for every place in the frame at which it may begin. espeak-ng reports when its words begin; each
is stretched to the nearest whole number of frames by overlapping and adding similar waveforms (WSOLA, Verhelst 1993).
"""

from __future__ import annotations

import json
import multiprocessing
import random
import zlib
from itertools import pairwise

import numpy as np
import soxr
from domain import plainly, sentence, word_string, words
from espeak import RATE as ESPEAK_RATE
from espeak import say
from numpy.typing import NDArray
from settings import (
    FRAME,
    HELD_OUT,
    HELD_OUT_SHARE,
    LOUDNESS,
    PITCH_RANGE,
    RATE,
    SEED,
    SENTENCE_SHARE,
    SHORT_SHARE,
    UTTERANCES,
    VOICES,
    WORK,
)

Samples = NDArray[np.float32]

_WINDOW, _HOP, _REACH = 720, 360, 200
_TAIL_FRAMES = 1


def is_held_out(text: str) -> bool:
    """These words in this order are not in the training, however they are written."""
    return zlib.crc32(" ".join(words(text)).encode()) % HELD_OUT_SHARE == 0


def stretched(source: Samples, marks_in: list[float], marks_out: list[float]) -> Samples:
    """Moves `marks_in` (samples of `source`) to `marks_out`, keeping the pitch."""
    n = int(marks_out[-1])
    beyond = max(0, int(marks_in[-1]) - len(source))
    x = np.pad(source, (_WINDOW + _REACH, beyond + 3 * _WINDOW + _REACH))
    window = np.hanning(_WINDOW + 1)[:_WINDOW].astype(np.float32)
    out = np.zeros(n + 2 * _WINDOW, np.float32)
    previous: int | None = None
    for at in range(0, n + _HOP, _HOP):
        wanted = int(np.interp(at, marks_out, marks_in)) + _REACH + _WINDOW // 2
        if previous is None:
            best = wanted
        else:
            follows = x[previous + _HOP : previous + _HOP + _WINDOW]
            near = x[wanted - _REACH : wanted + _REACH + _WINDOW]
            energy = np.cumsum(np.pad(near**2, (1, 0)))
            likeness = np.correlate(near, follows) / np.sqrt(energy[_WINDOW:] - energy[:-_WINDOW] + 1e-4)
            best = wanted - _REACH + int(np.argmax(likeness))
        out[at : at + _WINDOW] += window * x[best : best + _WINDOW]
        previous = best
    return out[_WINDOW // 2 : _WINDOW // 2 + n]


def spoken(text: str, voice: str) -> tuple[Samples, list[tuple[str, int]]]:
    """[frames * FRAME] samples at RATE, and how many frames each word takes."""
    speech = say(text, VOICES[voice], pitch_range=PITCH_RANGE)
    source = soxr.resample(speech.samples, ESPEAK_RATE, RATE).astype(np.float32)
    starts = [s * RATE for _, s in speech.words] + [speech.end * RATE]
    frames = [max(1, round((b - a) / FRAME)) for a, b in pairwise(starts)]
    marks_in = [*starts, starts[-1] + _TAIL_FRAMES * FRAME]
    marks_out = list(np.cumsum([0, *frames, _TAIL_FRAMES]) * FRAME)
    samples = stretched(source[: int(starts[-1])], marks_in, marks_out)
    samples *= LOUDNESS / (np.sqrt(np.mean(samples**2)) + 1e-6)
    return np.clip(samples, -0.99, 0.99), [(w, n) for (w, _), n in zip(speech.words, frames, strict=True)]


def _texts() -> list[tuple[str, str, bool]]:
    """(text, voice, held out), the held-out first."""
    rng, voices = random.Random(SEED), list(VOICES)
    held: dict[str, None] = {}
    while len(held) < HELD_OUT:
        text = sentence(rng)
        if is_held_out(text):
            held[text] = None
    chosen = [(text, voices[i % len(voices)], True) for i, text in enumerate(held)]
    while len(chosen) < UTTERANCES:
        draw = rng.random()
        if draw < SENTENCE_SHARE:
            text = sentence(rng)
        elif draw < SENTENCE_SHARE + SHORT_SHARE:
            text = word_string(rng, 1, 3)
        else:
            text = word_string(rng, 3, 7)
        if not is_held_out(text):
            chosen.append((plainly(text, rng), rng.choice(voices), False))
    return chosen


def _make(item: tuple[str, str, bool]) -> tuple[NDArray[np.int16], list[tuple[str, int]]]:
    samples, counted = spoken(item[0], item[1])
    return (samples * 32767).astype(np.int16), counted


def main() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    texts, items, waves, first = _texts(), [], [], 0
    with multiprocessing.Pool(2) as pool:
        for (text, voice, held), (wave, counted) in zip(texts, pool.imap(_make, texts, chunksize=50), strict=True):
            items.append(dict(text=text, voice=voice, held=held, first=first, samples=len(wave), words=counted))
            waves.append(wave)
            first += len(wave)
            if len(items) % 2000 == 0:
                print(f"{len(items)} utterances, {first / RATE / 3600:.2f} hours", flush=True)
    np.save(WORK / "wav.npy", np.concatenate(waves))
    (WORK / "items.json").write_text(json.dumps(items))


if __name__ == "__main__":
    main()
