"""An offline judge of the words: pocketsphinx, which recognises nothing but the templates' sentences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pocketsphinx
import soxr
from domain import grammar, words
from numpy.typing import NDArray

_RATE = 16_000


@functools.cache
def _decoder() -> pocketsphinx.Decoder:
    decoder = pocketsphinx.Decoder(pocketsphinx.Config(lm=None, loglevel="FATAL"))
    decoder.add_jsgf_string("nano", grammar())
    decoder.activate_search("nano")
    return decoder


def hear(samples: NDArray[np.float32], rate: int) -> list[str]:
    """The words of the likeliest sentence; [] where nothing fits."""
    silence = np.zeros(int(0.25 * rate), np.float32)
    x = soxr.resample(np.concatenate([silence, samples, silence]), rate, _RATE)
    x = 0.7 * x / (np.abs(x).max() + 1e-6)
    x = x + 2e-4 * np.random.default_rng(0).standard_normal(len(x))  # pocketsphinx dislikes digital silence
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw((x * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr.split() if hypothesis else []


def edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to insert, delete or replace (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


@dataclass
class WordErrors:
    """Counts over many utterances."""

    errors: int = 0
    words: int = 0

    def add(self, text: str, samples: NDArray[np.float32], rate: int) -> list[str]:
        said, heard = words(text), hear(samples, rate)
        self.errors += edits(said, heard)
        self.words += len(said)
        return heard

    @property
    def rate(self) -> float:
        """Word error rate."""
        return self.errors / max(1, self.words)
