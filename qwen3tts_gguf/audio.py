"""Audio in: any file libsndfile reads, as 24 kHz mono."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from .container import identify, repaired
from .errors import AudioError, Note
from .model.schema import SAMPLE_RATE_HZ

__all__ = ["MAX_SECONDS", "Clip", "read_audio", "read_clip", "resample", "sample_problem"]

_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 192_000
_LOUDEST = 10.0  # floating point may pass full scale a little; far beyond, it was meant in other units
_BLOCK_VALUES = 1 << 18
_HASH_BYTES = 1 << 20

MAX_SECONDS = 600
"""The longest clip that is taken: a codec encoder's memory grows with its square."""


@dataclass(frozen=True)
class Clip:
    """A file's sound, and what it was."""

    samples: NDArray[np.float32]
    """Mono [n] at 24 kHz."""
    rate_hz: int
    """The file's own sample rate."""
    sha256: str
    """Of the file's bytes."""
    notes: tuple[Note, ...] = ()


def read_audio(path: Path) -> NDArray[np.float32]:
    """A file's sound as mono float32 samples at 24 kHz. Raises AudioError."""
    return read_clip(path).samples


def read_clip(path: Path) -> Clip:
    """A file's sound. Raises AudioError.

    It is read block by block, so memory follows what is there and not what a header claims.
    """
    if path.exists() and not path.is_file():  # a pipe, which could not be read twice
        raise AudioError(f"{path}: this is a folder or a pipe, not an audio file")
    try:
        with soundfile.SoundFile(repaired(path) or path) as file:
            rate_hz = int(file.samplerate)
            _require_rate(rate_hz)
            samples, notes = _mono(file, MAX_SECONDS * rate_hz)
        if problem := sample_problem(samples):
            raise AudioError(problem)
        return Clip(resample(samples, rate_hz), rate_hz, _sha256(path), notes)
    except AudioError as error:
        raise AudioError(f"{path}: {error.message}", hint=error.hint) from None
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> AudioError:
    try:
        what, hint = identify(path)
    except FileNotFoundError:
        return AudioError(f"{path}: no such file")
    except OSError as error:
        return AudioError(f"{path}: cannot be read ({error.strerror})")
    return AudioError(f"{path}: not an audio file that can be read, because {what}", hint=hint)


_DEAD, _CANCELLED = 1e-4, 0.1
"""Of the loudest channel's power: -40 dB, and -10 dB, where the mean of two equal channels that have nothing in common
has half."""


_ONE_CHANNEL = "save the channel you want as a clip of its own"


def _mono(file: soundfile.SoundFile, most: int) -> tuple[NDArray[np.float32], tuple[Note, ...]]:
    """The mean of the channels [n]; where some are silent or they cancel each other, that of the others or the loudest.

    Read twice in that case, so that memory holds one channel whatever their number.
    """
    channels, mean = np.zeros(file.channels), 0.0
    blocks = []
    for block in _blocks(file, most):
        blocks.append(block.mean(axis=1))
        channels += len(block) * block.var(axis=0, dtype=np.float64)
        mean += len(block) * float(blocks[-1].var(dtype=np.float64))
    if not blocks:
        raise AudioError("has no sound in it")
    loudest = float(channels.max())
    if not np.isfinite(loudest):  # the caller refuses such samples
        return np.concatenate(blocks), ()
    live = np.flatnonzero(channels >= _DEAD * loudest)
    if len(live) == file.channels and mean >= _CANCELLED * loudest:
        return np.concatenate(blocks), ()
    del blocks
    samples = _mean_of(file, live, most)
    if float(samples.var(dtype=np.float64)) * len(samples) >= _CANCELLED * loudest:
        message = f"only channel {_numbers(live)} of {file.channels} has sound: the others are left out"
        return samples, (Note(message, _ONE_CHANNEL),)
    best = np.array([int(channels.argmax())])
    message = f"the channels cancel each other, one is inverted: channel {_numbers(best)} alone is used"
    return _mean_of(file, best, most), (Note(message, _ONE_CHANNEL),)


def _blocks(file: soundfile.SoundFile, most: int) -> Iterator[NDArray[np.float32]]:
    """The file from its start, as blocks [n, channels]. Raises AudioError past `most` frames."""
    file.seek(0)
    n_frames = max(1, _BLOCK_VALUES // file.channels)
    while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
        most -= len(block)
        if most < 0:
            raise AudioError(f"is longer than {MAX_SECONDS / 60:.0f} minutes", hint="cut out the part you need")
        yield block


def _mean_of(file: soundfile.SoundFile, channels: NDArray[np.intp], most: int) -> NDArray[np.float32]:
    return np.concatenate([block[:, channels].mean(axis=1) for block in _blocks(file, most)])


def _numbers(channels: NDArray[np.intp]) -> str:
    return " and ".join(str(i + 1) for i in channels)


def sample_problem(samples: NDArray[np.float32]) -> str | None:
    """What keeps samples from being sound, as the end of a sentence."""
    if not np.isfinite(samples).all():
        return "has samples that are NaN or infinite"
    if (peak := float(np.abs(samples).max(initial=0.0))) > _LOUDEST:
        return f"has samples of up to {peak:g}, far above full scale, which is 1"
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def resample(samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """samples [n] at `rate_hz` -> at 24 kHz, as the reference does it (soxr, HQ, length rounded up)."""
    if rate_hz == SAMPLE_RATE_HZ:
        return samples
    _require_rate(rate_hz)
    n = -(-len(samples) * SAMPLE_RATE_HZ // rate_hz)
    resampled = np.asarray(soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ, quality="HQ"), np.float32)
    return np.pad(resampled[:n], (0, max(0, n - len(resampled))))


def _require_rate(rate_hz: int) -> None:
    if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ:
        raise AudioError(f"a sample rate of {rate_hz} Hz is outside {_MIN_RATE_HZ}..{_MAX_RATE_HZ}")
