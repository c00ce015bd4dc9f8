"""Spectra for the losses and for the code space."""

from __future__ import annotations

import functools

import librosa
import torch
from settings import RATE
from torch import Tensor


@functools.cache
def _filters(n_fft: int, n_mels: int) -> Tensor:
    return torch.from_numpy(librosa.filters.mel(sr=RATE, n_fft=n_fft, n_mels=n_mels, fmax=RATE / 2)).float()


@functools.cache
def _window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft)


def _magnitudes(x: Tensor, n_fft: int, hop: int) -> Tensor:
    return torch.stft(x, n_fft, hop, window=_window(n_fft), center=False, return_complex=True).abs()


def log_mel(x: Tensor, *, n_fft: int = 1024, hop: int = 240, n_mels: int = 80, floor: float = 1e-4) -> Tensor:
    """[batch, samples] -> [batch, n_mels, samples / hop], natural logarithm of magnitudes."""
    around = n_fft - hop
    x = torch.nn.functional.pad(x, (around // 2, around - around // 2))
    return torch.log((_filters(n_fft, n_mels) @ _magnitudes(x, n_fft, hop)).clamp(min=floor))


def spectral_distance(made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Two [batch, samples] -> (distance of magnitudes at three resolutions, distance of log-mels)."""
    total = made.new_zeros(())
    for n_fft in (2048, 512, 128):
        a, b = (_magnitudes(x, n_fft, n_fft // 4) for x in (made, wanted))
        floor = 1e-3 * n_fft**0.5 / 8
        total = total + (torch.log(a + floor) - torch.log(b + floor)).abs().mean()
        total = total + 4 * (a - b).abs().mean() / n_fft**0.5
    return total / 3, (log_mel(made) - log_mel(wanted)).abs().mean()
