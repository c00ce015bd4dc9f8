"""Audio in and out: any file libsndfile reads to 24 kHz mono, and samples to files or a pipe as they come."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from .errors import AudioError
from .model.schema import SAMPLE_RATE_HZ
from .whole_file import whole_file

__all__ = ["MAX_SECONDS", "AudioSink", "open_sink", "origin", "read_audio", "resample", "sample_problem"]

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_LENGTH_UNKNOWN = 0xFFFF_FFFF
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 192_000
_LOUDEST = 10.0  # floating point may pass full scale a little; far beyond, it was meant in other units
_BLOCK_VALUES = 1 << 18
_HASH_BYTES = 1 << 20

MAX_SECONDS = 600
"""The longest clip that is taken: a codec encoder's memory grows with its square."""


class AudioSink(Protocol):
    """Where speech goes."""

    def write(self, samples: NDArray[np.float32]) -> None:
        """samples [n] in [-1, 1] at 24 kHz"""


def read_audio(path: Path) -> NDArray[np.float32]:
    """A file's sound as mono float32 samples at 24 kHz. Raises AudioError.

    It is read block by block, so memory follows what is there and not what a header claims.
    """
    if path.exists() and not path.is_file():  # a pipe, which could not be read twice
        raise AudioError(f"{path}: not an audio file, but a folder or a pipe")
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz = int(file.samplerate)
            _require_rate(rate_hz)
            samples = _mono(file, MAX_SECONDS * rate_hz)
        if problem := sample_problem(samples):
            raise AudioError(problem)
        return resample(samples, rate_hz)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError, ValueError) as error:
        if not path.exists():
            raise AudioError(f"{path}: no such file") from None
        reason = str(error).removeprefix(f"Error opening {str(path)!r}: ")
        raise AudioError(
            f"{path}: not an audio file that can be read ({reason}); of a video save the sound alone, as WAV or FLAC"
        ) from None


def _mono(file: soundfile.SoundFile, most: int) -> NDArray[np.float32]:
    """The mean of the channels [n]."""
    blocks, n_frames = [], max(1, _BLOCK_VALUES // file.channels)
    while len(block := file.read(n_frames, dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1))
        most -= len(block)
        if most < 0:
            raise AudioError(f"lasts longer than {MAX_SECONDS / 60:.0f} minutes: cut out what is needed")
    if not blocks:
        raise AudioError("holds no sound")
    return np.concatenate(blocks)


def sample_problem(samples: NDArray[np.float32]) -> str | None:
    """What keeps samples from being sound, as the end of a sentence."""
    if not np.isfinite(samples).all():
        return "holds samples that are not numbers (NaN or infinity)"
    if (peak := float(np.abs(samples).max(initial=0.0))) > _LOUDEST:
        return f"holds samples of up to {peak:g}, where 1 is full scale"
    return None


def origin(path: Path) -> tuple[int, str]:
    """A readable file's own sample rate, and the sha256 of its bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return int(soundfile.info(path).samplerate), digest.hexdigest()


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


@contextmanager
def open_sink(target: Path | BinaryIO) -> Iterator[AudioSink]:
    """A sink for a file, its format by suffix, or for a stream, as 16-bit WAV.

    A file appears under its name only when the block ends well; until then it is a hidden one beside it.
    Raises AudioError for an unknown suffix or a file that cannot be written.
    """
    if not isinstance(target, Path):
        yield _WavStream(target)
        return
    if target.suffix.lower() not in _FORMATS:
        kind = target.suffix or "a file without suffix"
        raise AudioError(f"{target}: cannot write audio as {kind}; choose one of {', '.join(_FORMATS)}")
    container, subtype = _FORMATS[target.suffix.lower()]
    try:
        with (
            whole_file(target) as unfinished,
            soundfile.SoundFile(
                unfinished, "w", samplerate=SAMPLE_RATE_HZ, channels=1, format=container, subtype=subtype
            ) as file,
        ):
            yield _File(file, is_pcm=subtype == "PCM_16")
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{target}: cannot be written ({error})") from None


class _File:
    def __init__(self, file: soundfile.SoundFile, *, is_pcm: bool) -> None:
        self._file, self._is_pcm = file, is_pcm

    def write(self, samples: NDArray[np.float32]) -> None:
        self._file.write(_pcm(samples) if self._is_pcm else samples)


class _WavStream:
    """WAV for a pipe: the header cannot know the length, so it says the largest, as other streaming tools do."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        byte_rate = 2 * SAMPLE_RATE_HZ
        format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, byte_rate, 2, 16)
        riff = struct.pack("<4sI4s", b"RIFF", _LENGTH_UNKNOWN, b"WAVE")
        stream.write(riff + format + struct.pack("<4sI", b"data", _LENGTH_UNKNOWN))
        stream.flush()

    def write(self, samples: NDArray[np.float32]) -> None:
        self._stream.write(_pcm(samples).astype("<i2").tobytes())
        self._stream.flush()


def _pcm(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded to 16 bits, which libsndfile rounds down in WAV files."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
