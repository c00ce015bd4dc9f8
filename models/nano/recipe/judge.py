"""Who speaks? A judge that shares nothing with the model: the long-term spectrum, and a linear discriminant.

Fitted once on espeak-ng's own speech (publish.py); its few numbers are stored with the model in judge.npz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3tts_gguf.nets.mel import log_mel

_SHRINKAGE = 0.3


def _features(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """[256]: mean and deviation of the louder half of a 128-band log-mel; loudness itself taken out."""
    mel = log_mel(samples / (np.abs(samples).max() + 1e-6))
    loudness = mel.mean(1)
    mel = mel[loudness >= np.median(loudness)]
    return np.concatenate([mel.mean(0) - mel.mean(), mel.std(0)])


class VoiceJudge:
    """names: of the voices; weights [256, voices], bias [voices]."""

    def __init__(self, names: list[str], weights: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self._names, self._weights, self._bias = names, weights, bias

    @classmethod
    def fitted(cls, speech: dict[str, list[NDArray[np.float32]]]) -> VoiceJudge:
        """Linear discriminant analysis with a covariance shrunk towards its diagonal."""
        x = {name: np.stack([_features(s) for s in samples]) for name, samples in speech.items()}
        means = np.stack([v.mean(0) for v in x.values()])
        within = np.concatenate([v - v.mean(0) for v in x.values()])
        covariance = within.T @ within / len(within)
        covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * np.diag(np.diag(covariance))
        weights = np.linalg.solve(covariance, means.T)
        return cls(list(x), weights.astype(np.float32), (-0.5 * (means.T * weights).sum(0)).astype(np.float32))

    @classmethod
    def load(cls, path: Path) -> VoiceJudge:
        with np.load(path) as kept:
            return cls([str(n) for n in kept["names"]], kept["weights"], kept["bias"])

    def save(self, path: Path) -> None:
        np.savez(path, names=np.array(self._names), weights=self._weights, bias=self._bias)

    def voice(self, samples: NDArray[np.float32]) -> str:
        """The name of the likeliest voice."""
        return self._names[int(np.argmax(_features(samples) @ self._weights + self._bias))]
