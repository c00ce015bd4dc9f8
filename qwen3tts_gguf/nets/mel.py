"""The mel spectrogram the speaker encoder listens to, in NumPy.

    samples [n] at 24 kHz -> reflect pad 384 -> frames of 1024 every 256, periodic Hann -> |FFT| -> 128 mels -> log

Mirrors `mel_spectrogram` of the official package (qwen-tts 0.1.1, core/models/modeling_qwen3_tts.py), whose filters are
librosa's: Slaney's scale, each triangle normalised to unit area.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..model.schema import SAMPLE_RATE_HZ

__all__ = ["HOP", "log_mel"]

N_FFT = 1024
HOP = 256
_MAGNITUDE_FLOOR = 1e-9
_MEL_FLOOR = 1e-5


def log_mel(samples: NDArray[np.float32], n_mels: int = 128) -> NDArray[np.float32]:
    """samples [n] -> [n // 256, n_mels]"""
    if len(samples) < HOP:
        return np.empty((0, n_mels), np.float32)
    padding = (N_FFT - HOP) // 2
    padded = np.pad(samples.astype(np.float32), padding, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    mels = np.empty((len(frames), n_mels), np.float32)
    for start in range(0, len(frames), 1024):  # a long clip's spectrum is never whole in memory
        spectrum = np.fft.rfft(frames[start : start + 1024] * window)
        magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + _MAGNITUDE_FLOOR).astype(np.float32)
        mels[start : start + 1024] = magnitude @ _filters(n_mels)
    return np.log(np.maximum(mels, _MEL_FLOOR))


@cache
def _filters(n_mels: int) -> NDArray[np.float32]:
    """[N_FFT // 2 + 1, n_mels] triangles from 0 Hz to half the sample rate."""
    top_mel = _hz_to_mel(np.array([SAMPLE_RATE_HZ / 2]))[0]
    edges_hz = _mel_to_hz(np.linspace(0.0, top_mel, n_mels + 2))
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1)[:, None]
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return (np.maximum(0.0, triangles) * 2.0 / (high - low)).astype(np.float32)


# Slaney's mel scale: linear below 1 kHz, 27 mels to a factor of 6.4 above.
_HZ_PER_MEL = 200.0 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _LOG_FROM_MEL + np.log(np.maximum(hz, _LOG_FROM_HZ) / _LOG_FROM_HZ) / _LOG_STEP
    return np.where(hz < _LOG_FROM_HZ, hz / _HZ_PER_MEL, above)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - _LOG_FROM_MEL))
    return np.where(mel < _LOG_FROM_MEL, mel * _HZ_PER_MEL, above)
