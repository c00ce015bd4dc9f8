"""Audio out: samples to a file or a stream as they come."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from .errors import AudioError
from .model.schema import SAMPLE_RATE_HZ
from .whole_file import whole_file

__all__ = ["FORMATS", "AudioSink", "encoded", "open_sink", "pcm16", "require_stream_format", "require_writable"]

_CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
PCM = "pcm"
"""Samples alone: 16 bits, signed, little-endian, mono, 24 kHz."""
FORMATS = (*_CONTAINERS, PCM)
_STREAM_FORMATS = ("wav", PCM)
_LENGTH_UNKNOWN = 0xFFFF_FFFF
_BLOCK = SAMPLE_RATE_HZ
"""Samples that libsndfile's compressors are given at a time: Ogg's keep all of one call on the stack."""


class AudioSink(Protocol):
    """Where speech goes."""

    def write(self, samples: NDArray[np.float32]) -> None:
        """samples [n] in [-1, 1] at 24 kHz"""


@contextmanager
def open_sink(target: Path | BinaryIO, format: str | None = None, *, keep_partial: bool = False) -> Iterator[AudioSink]:
    """A sink for a file, its format by suffix unless it is given, or for a stream, as WAV or PCM of 16 bits.

    A file appears under its name only when the block ends well; until then it is a hidden one in the same folder, which
    grows with the sound. keep_partial: it appears too where the block raises. Raises AudioError for an unknown suffix
    or format, and for a file that cannot be written.
    """
    if not isinstance(target, Path):
        require_stream_format(format)
        yield from _stream(target, format)
        return
    format = _format_of(target, format)
    require_writable(target, format)
    try:
        with whole_file(target, keep_partial=keep_partial) as unfinished:
            if format == PCM:
                with unfinished.open("wb") as stream:
                    yield _PcmStream(stream)
                return
            container, subtype = _CONTAINERS[format]
            with soundfile.SoundFile(
                unfinished, "w", samplerate=SAMPLE_RATE_HZ, channels=1, format=container, subtype=subtype
            ) as file:
                yield _File(file, is_pcm=subtype == "PCM_16")
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{target}: cannot be written ({error.error_string})") from None
    except OSError as error:
        raise AudioError(f"{target}: cannot be written ({error.strerror})") from None


def _stream(target: BinaryIO, format: str | None) -> Iterator[AudioSink]:
    if format == PCM:
        yield _PcmStream(target)
        return
    stream = _WavStream(target)
    try:
        yield stream
    finally:
        stream.correct_sizes()


def encoded(samples: NDArray[np.float32], format: str) -> bytes:
    """samples [n] in [-1, 1] at 24 kHz -> a file: flac, wav, mp3, ogg or opus. Raises AudioError."""
    container, subtype = _CONTAINERS[format]
    memory = io.BytesIO()
    try:
        with soundfile.SoundFile(
            memory, "w", samplerate=SAMPLE_RATE_HZ, channels=1, format=container, subtype=subtype
        ) as file:
            _File(file, is_pcm=subtype == "PCM_16").write(samples)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"this libsndfile cannot write {format} ({error.error_string})") from None
    return memory.getvalue()


def require_writable(target: Path, format: str | None = None) -> None:
    """Before the work is done: that the format is known and the folder is there. Raises AudioError."""
    if target.is_dir():
        raise AudioError(f"{target}: cannot be written, because it is a folder")
    _format_of(target, format)
    if not target.parent.is_dir():
        raise AudioError(f"{target}: cannot be written, because there is no folder {target.parent}")


def require_stream_format(format: str | None) -> None:
    """Raises AudioError for a format that needs a file."""
    if format is not None and format not in _STREAM_FORMATS:
        raise AudioError(f"{format} cannot be streamed", hint=f"choose {' or '.join(_STREAM_FORMATS)}, or a file")


def _format_of(target: Path, format: str | None) -> str:
    """As given, or by suffix. Raises AudioError."""
    if format is None:
        format = target.suffix.lower().lstrip(".")
        if format not in FORMATS:
            kind = target.suffix or "a file without suffix"
            known = ", ".join(f".{each}" for each in FORMATS)
            raise AudioError(f"{target}: audio cannot be written as {kind}", hint=f"choose one of {known}")
    elif format not in FORMATS:
        raise AudioError(f"unknown audio format {format!r}", hint=f"choose one of {', '.join(FORMATS)}")
    return format


class _File:
    def __init__(self, file: soundfile.SoundFile, *, is_pcm: bool) -> None:
        self._file, self._is_pcm = file, is_pcm

    def write(self, samples: NDArray[np.float32]) -> None:
        values = pcm16(samples) if self._is_pcm else samples
        for start in range(0, len(values), _BLOCK):
            self._file.write(values[start : start + _BLOCK])


class _PcmStream:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, samples: NDArray[np.float32]) -> None:
        self._stream.write(pcm16(samples).astype("<i2").tobytes())
        self._stream.flush()


class _WavStream:
    """WAV for a stream: the header cannot know the length, so it has the largest, as other streaming tools write it.
    Where the stream is a file, the sizes are corrected at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = stream.tell() if _is_file(stream) else None
        byte_rate = 2 * SAMPLE_RATE_HZ
        format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, byte_rate, 2, 16)
        riff = struct.pack("<4sI4s", b"RIFF", _LENGTH_UNKNOWN, b"WAVE")
        stream.write(riff + format + struct.pack("<4sI", b"data", _LENGTH_UNKNOWN))
        stream.flush()

    def write(self, samples: NDArray[np.float32]) -> None:
        self._stream.write(pcm16(samples).astype("<i2").tobytes())
        self._stream.flush()

    def correct_sizes(self) -> None:
        """Write the sizes of what was written."""
        if self._start is None:
            return
        end = self._stream.tell()
        n = end - self._start
        for offset, size in ((4, n - 8), (40, n - 44)):
            self._stream.seek(self._start + offset)
            self._stream.write(struct.pack("<I", min(size, _LENGTH_UNKNOWN)))
        self._stream.seek(end)
        self._stream.flush()


def _is_file(stream: BinaryIO) -> bool:
    """Whether what was written can be written over: not in a pipe, nor in a file opened to append, where all goes to
    the end."""
    try:
        descriptor = stream.fileno()
    except OSError:  # in memory
        return False
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    try:
        import fcntl
    except ImportError:  # Windows
        return stream.seekable()
    return not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND


def pcm16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Samples in [-1, 1], clipped and rounded to 16 bits. libsndfile would round down."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
