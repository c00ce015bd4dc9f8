"""Samples to bytes, as they come: one encoder per answer.

What libsndfile's muxers write at the start and rewrite at the end is made for files. In a stream nothing is rewritten:
MP3 is sent with a constant bitrate and without its header frame of totals, Opus with a page per frame of speech, WAV
with the largest sizes, FLAC with unknown totals. A whole answer has true totals in all of them. Encoders are slow
enough (0.4 to 0.9 ms per 80 ms) to be kept off the event loop.
"""

from __future__ import annotations

import ctypes
import io
import struct
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..audio_sink import pcm16
from ..audio_speed import SpeedChanger
from ..model.schema import SAMPLE_RATE_HZ
from .problems import Problem

__all__ = ["FORMATS", "MEDIA_TYPES", "Encoder", "at_speed", "encoder", "sample_headers"]

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_SYNONYMS = {"ogg": "opus"}
FORMATS = (*MEDIA_TYPES, *_SYNONYMS)
_LENGTH_UNKNOWN = 0xFFFF_FFFF
_SET_OGG_PAGE_LATENCY_MS = 0x1302  # of libsndfile's sf_command
_PAGE_MS = 80.0
_AAC_BITS_PER_SECOND = 96_000


class Encoder(Protocol):
    """One answer's bytes."""

    headers: dict[str, str]
    """Of an answer with its bytes: the type, and the form of samples that have no header of their own."""

    def write(self, samples: NDArray[np.float32]) -> bytes:
        """samples [n] in [-1, 1] at 24 kHz -> what can be sent of them now, which may be nothing."""

    def finish(self) -> bytes:
        """The rest. Of a whole answer: all of it."""


def encoder(format: str, *, whole: bool, speed: float = 1.0) -> Encoder:
    """An encoder for a `response_format`. whole: nothing is sent before the end, so the totals can be true. speed: of
    the speech, at its pitch.

    Raises Problem for a format that is unknown, or whose library is not installed.
    """
    made = _encoder(format, whole=whole)
    return at_speed(made, speed)


def at_speed(made: Encoder, speed: float) -> Encoder:
    """The same encoder with the speech's speed changed before it."""
    return made if speed == 1 else _Faster(made, speed)


def _encoder(format: str, *, whole: bool) -> Encoder:
    format = _SYNONYMS.get(format, format)
    if format == "aac":
        return _Aac()
    if format == "pcm":
        return _Pcm()
    if format == "wav":
        return _WholeWav() if whole else _Wav()
    if format in _SOUNDFILE:
        return _Whole(format) if whole else _Streamed(format)
    raise _unsupported(f"unknown response_format {format!r:.40}; there are {', '.join(MEDIA_TYPES)}")


def sample_headers(media_type: str, rate_hz: int) -> dict[str, str]:
    """Of samples without a header of their own, one channel."""
    bits = "16" if media_type == MEDIA_TYPES["pcm"] else "8"
    return {"content-type": media_type, "x-sample-rate": str(rate_hz), "x-channels": "1", "x-bit-depth": bits}


def _type(format: str) -> dict[str, str]:
    return {"content-type": MEDIA_TYPES[format]}


def _unsupported(message: str) -> Problem:
    return Problem(400, "unsupported_response_format", message, param="response_format")


def _pcm(samples: NDArray[np.float32]) -> bytes:
    return pcm16(samples).astype("<i2", copy=False).tobytes()


class _Faster:
    """Another encoder behind a change of speed."""

    def __init__(self, encoder: Encoder, speed: float) -> None:
        self.headers = encoder.headers
        self._encoder, self._changer = encoder, SpeedChanger(speed)

    def write(self, samples: NDArray[np.float32]) -> bytes:
        changed = self._changer.feed(samples)
        return self._encoder.write(changed) if len(changed) else b""

    def finish(self) -> bytes:
        rest = self._changer.end()
        return (self._encoder.write(rest) if len(rest) else b"") + self._encoder.finish()


class _Pcm:
    headers = sample_headers(MEDIA_TYPES["pcm"], SAMPLE_RATE_HZ)

    def write(self, samples: NDArray[np.float32]) -> bytes:
        return _pcm(samples)

    def finish(self) -> bytes:
        return b""


def _wav_header(n_bytes: int | None) -> bytes:
    """44 bytes; without a size, the largest, which players read as "until the end"."""
    riff, data = (_LENGTH_UNKNOWN,) * 2 if n_bytes is None else (36 + n_bytes, n_bytes)
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + format + struct.pack("<4sI", b"data", data)


class _Wav:
    headers = _type("wav")

    def __init__(self) -> None:
        self._header = _wav_header(None)

    def write(self, samples: NDArray[np.float32]) -> bytes:
        header, self._header = self._header, b""
        return header + _pcm(samples)

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header


class _WholeWav:
    headers = _type("wav")

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, samples: NDArray[np.float32]) -> bytes:
        self._data += _pcm(samples)
        return b""

    def finish(self) -> bytes:
        return _wav_header(len(self._data)) + bytes(self._data)


_SOUNDFILE: dict[str, dict[str, Any]] = {
    # A variable bitrate is misread where the header with the totals is missing (libsndfile reads a fifth of it).
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.5},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
}


def _open(sink: Any, format: str) -> soundfile.SoundFile:
    file = soundfile.SoundFile(sink, "w", samplerate=SAMPLE_RATE_HZ, channels=1, **_SOUNDFILE[format])
    if format == "opus":  # python-soundfile has no name for this command: pages of 1 s otherwise
        latency = soundfile._ffi.new("double *", _PAGE_MS)
        soundfile._snd.sf_command(file._file, _SET_OGG_PAGE_LATENCY_MS, latency, ctypes.sizeof(ctypes.c_double))
    return file


class _Whole:
    """A file in memory, with true totals."""

    def __init__(self, format: str) -> None:
        self.headers = _type(format)
        self._sink = io.BytesIO()
        self._file = _open(self._sink, format)

    def write(self, samples: NDArray[np.float32]) -> bytes:
        self._file.write(pcm16(samples) if self._file.subtype == "PCM_16" else samples)
        return b""

    def finish(self) -> bytes:
        self._file.close()
        return self._sink.getvalue()


class _Streamed:
    """What libsndfile writes for the first time, without what it writes over at the end."""

    def __init__(self, format: str) -> None:
        self.headers = _type(format)
        self._sink = _Forward(skips_placeholder=format == "mp3")
        self._file = _open(self._sink, format)

    def write(self, samples: NDArray[np.float32]) -> bytes:
        self._file.write(pcm16(samples) if self._file.subtype == "PCM_16" else samples)
        return self._sink.taken()

    def finish(self) -> bytes:
        self._file.close()
        return self._sink.taken()


class _Forward:
    """A file that is written once: bytes written over earlier ones are dropped.

    skips_placeholder: also the first write where it is the frame of totals, filled in at the end, that starts an MP3
    file; decoders play an empty one as silence or stop there.
    """

    def __init__(self, *, skips_placeholder: bool) -> None:
        self._position = self._end = 0
        self._new = bytearray()
        self._skips_placeholder = skips_placeholder

    def write(self, data: Any) -> int:
        data = bytes(data)
        if self._skips_placeholder and self._end == 0 and not any(data[4:]):
            self._position = self._end = len(data)
            self._skips_placeholder = False
            return len(data)
        fresh = data[max(0, self._end - self._position) :]
        self._position += len(data)
        self._end = max(self._end, self._position)
        self._new += fresh
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def taken(self) -> bytes:
        new = bytes(self._new)
        self._new.clear()
        return new


class _Aac:
    """ADTS frames by PyAV, which comes with the extra `aac`."""

    headers = _type("aac")

    def __init__(self) -> None:
        try:
            import av
        except ImportError:
            raise _unsupported("this server was installed without aac; ask for mp3 or opus") from None
        self._frame = av.AudioFrame.from_ndarray
        self._sink = io.BytesIO()
        self._container = av.open(self._sink, "w", format="adts")
        self._stream = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        self._stream.bit_rate = _AAC_BITS_PER_SECOND
        self._n_samples = 0

    def write(self, samples: NDArray[np.float32]) -> bytes:
        frame = self._frame(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._n_samples
        self._n_samples += len(samples)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        return self._taken()

    def finish(self) -> bytes:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data
