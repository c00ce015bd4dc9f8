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

__all__ = ["AudioSink", "encoded", "open_sink", "require_writable"]

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_LENGTH_UNKNOWN = 0xFFFF_FFFF


_OPUS = ("OGG", "OPUS")


class AudioSink(Protocol):
    """Where speech goes."""

    def write(self, samples: NDArray[np.float32]) -> None:
        """samples [n] in [-1, 1] at 24 kHz"""


@contextmanager
def open_sink(target: Path | BinaryIO) -> Iterator[AudioSink]:
    """A sink for a file, its format by suffix, or for a stream, as 16-bit WAV.

    A file appears under its name only when the block ends well; until then it is a hidden one in the same folder.
    Raises AudioError for an unknown suffix or a file that cannot be written.
    """
    if not isinstance(target, Path):
        stream = _WavStream(target)
        try:
            yield stream
        finally:
            stream.mend_sizes()
        return
    require_writable(target)
    container, subtype = _FORMATS[target.suffix.lower()]
    try:
        with (
            whole_file(target) as unfinished,
            soundfile.SoundFile(
                unfinished, "w", samplerate=SAMPLE_RATE_HZ, channels=1, format=container, subtype=subtype
            ) as file,
        ):
            yield _File(file, is_pcm=subtype == "PCM_16")
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{target}: cannot be written ({error.error_string})") from None
    except OSError as error:
        raise AudioError(f"{target}: cannot be written ({error.strerror})") from None


def encoded(samples: NDArray[np.float32], format: str) -> bytes:
    """samples [n] in [-1, 1] at 24 kHz -> a file: flac, wav, mp3, ogg or opus. Raises AudioError."""
    container, subtype = _OPUS if format == "opus" else _FORMATS[f".{format}"]
    file = io.BytesIO()
    values = _pcm(samples) if subtype == "PCM_16" else samples
    try:
        soundfile.write(file, values, SAMPLE_RATE_HZ, format=container, subtype=subtype)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"this libsndfile cannot write {format} ({error.error_string})") from None
    return file.getvalue()


def require_writable(target: Path) -> None:
    """Before the work is done: that the suffix is known and the folder is there. Raises AudioError."""
    if target.suffix.lower() not in _FORMATS:
        kind = target.suffix or "a file without suffix"
        raise AudioError(f"{target}: cannot write audio as {kind}", hint=f"choose one of {', '.join(_FORMATS)}")
    if target.is_dir():
        raise AudioError(f"{target}: cannot be written, it is a folder")
    if not target.parent.is_dir():
        raise AudioError(f"{target}: cannot be written, there is no folder {target.parent}")


class _File:
    def __init__(self, file: soundfile.SoundFile, *, is_pcm: bool) -> None:
        self._file, self._is_pcm = file, is_pcm

    def write(self, samples: NDArray[np.float32]) -> None:
        self._file.write(_pcm(samples) if self._is_pcm else samples)


class _WavStream:
    """WAV for a stream: the header cannot know the length, so it has the largest, as other streaming tools write it.
    Where the stream is a file, the sizes are mended at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._start = stream.tell() if _is_file(stream) else None
        byte_rate = 2 * SAMPLE_RATE_HZ
        format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, byte_rate, 2, 16)
        riff = struct.pack("<4sI4s", b"RIFF", _LENGTH_UNKNOWN, b"WAVE")
        stream.write(riff + format + struct.pack("<4sI", b"data", _LENGTH_UNKNOWN))
        stream.flush()

    def write(self, samples: NDArray[np.float32]) -> None:
        self._stream.write(_pcm(samples).astype("<i2").tobytes())
        self._stream.flush()

    def mend_sizes(self) -> None:
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


def _pcm(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    """Rounded to 16 bits, which libsndfile rounds down in WAV files."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
