"""ElevenLabs' `output_format`, as `codec_rate[_kbit]`: PCM and telephone codes resampled, MP3 and Opus as here."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from ..audio_sink import pcm16
from ..model.schema import SAMPLE_RATE_HZ
from .encoding import Encoder, at_speed, encoder, sample_headers
from .problems import Problem

__all__ = ["DEFAULT", "codec_of", "elevenlabs_encoder"]

DEFAULT = "mp3_44100_128"
_PCM_RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
_COMPRESSED = {
    **dict.fromkeys((DEFAULT, "mp3_22050_32", "mp3_24000_48", "mp3_44100_32", "mp3_44100_64"), "mp3"),
    **dict.fromkeys(("mp3_44100_96", "mp3_44100_192"), "mp3"),
    **dict.fromkeys((f"opus_48000_{kbit}" for kbit in (32, 64, 96, 128, 192)), "opus"),
}
"""MP3 is sent at 24 kHz and one bitrate whatever is requested: its frames state their rate, and decoders follow."""
_ULAW_BIAS, _ULAW_CLIP = 132, 32635


def codec_of(format: str) -> Literal["mp3", "opus", "pcm"]:
    """What its name says, telephone codes as "pcm"."""
    return "mp3" if format.startswith("mp3") else "opus" if format.startswith("opus") else "pcm"


def elevenlabs_encoder(format: str, speed: float = 1.0, *, whole: bool = False) -> Encoder:
    """speed: of the speech, at its pitch. whole: as `encoding.encoder`. Raises Problem for an unknown format."""
    codec, _, rate = format.partition("_")
    if codec == "pcm" and rate.isdecimal() and int(rate[:9]) in _PCM_RATES:
        return at_speed(_Resampled(int(rate), "audio/pcm", _pcm), speed)
    if format == "ulaw_8000":
        return at_speed(_Resampled(8000, "audio/basic", _ulaw), speed)
    if format == "alaw_8000":
        return at_speed(_Resampled(8000, "audio/PCMA", _alaw), speed)
    if format in _COMPRESSED:
        return encoder(_COMPRESSED[format], whole=whole, speed=speed)
    raise Problem(400, "unsupported_output_format", f"unknown output_format {format!r:.40}", param="output_format")


class _Coding(Protocol):
    def __call__(self, samples: NDArray[np.int16]) -> bytes: ...


class _Resampled:
    def __init__(self, rate_hz: int, media_type: str, coding: _Coding) -> None:
        self.headers = sample_headers(media_type, rate_hz)
        self._stream = None if rate_hz == SAMPLE_RATE_HZ else soxr.ResampleStream(SAMPLE_RATE_HZ, rate_hz, 1)
        self._coding = coding

    def write(self, samples: NDArray[np.float32]) -> bytes:
        return self._code(samples, last=False)

    def finish(self) -> bytes:
        return self._code(np.zeros(0, np.float32), last=True)

    def _code(self, samples: NDArray[np.float32], *, last: bool) -> bytes:
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.asarray(samples, np.float32), last=last)
        return self._coding(pcm16(samples))


def _pcm(samples: NDArray[np.int16]) -> bytes:
    return samples.astype("<i2").tobytes()


def _ulaw(samples: NDArray[np.int16]) -> bytes:
    """G.711, µ-law: sign, exponent and four bits of the magnitude, all inverted."""
    value = samples.astype(np.int32)
    magnitude = np.minimum(np.abs(value), _ULAW_CLIP) + _ULAW_BIAS
    exponent = np.frexp(magnitude.astype(np.float32))[1] - 8
    mantissa = magnitude >> (exponent + 3) & 0x0F
    code = ~(np.where(value < 0, 0x80, 0) | exponent << 4 | mantissa)
    return bytes((code & 0xFF).astype(np.uint8))


def _alaw(samples: NDArray[np.int16]) -> bytes:
    """G.711, A-law: the same of 13 bits without a bias, every second bit inverted."""
    value = samples.astype(np.int32) >> 3
    magnitude = np.where(value < 0, ~value, value)
    exponent = np.maximum(np.frexp(magnitude.astype(np.float32))[1] - 5, 0)
    mantissa = magnitude >> np.maximum(exponent, 1) & 0x0F
    code = (np.where(value < 0, 0, 0x80) | exponent << 4 | mantissa) ^ 0x55
    return bytes(code.astype(np.uint8))
