"""Clips that no user should send: each has a defined answer, an AudioError of one line or a voice, in little memory."""

from __future__ import annotations

import os
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwen3tts_gguf import TTS, Voice
from qwen3tts_gguf.audio import MAX_SECONDS, read_audio
from qwen3tts_gguf.errors import AudioError

RATE_HZ = 24_000
SPEECH = (0.3 * np.sin(np.arange(2 * RATE_HZ) ** 1.3 / 400)).astype(np.float32)


def refusal(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def wav(path: Path, *, claims: int, holds: int) -> Path:
    """A 16-bit mono WAV whose header claims so many bytes of sound, and that holds so many."""
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + claims, 0xFFFF_FFFF), b"WAVE")
    path.write_bytes(riff + format + struct.pack("<4sI", b"data", claims) + b"\x10\x20" * (holds // 2))
    return path


def test_a_header_of_a_gigabyte_without_sound_takes_no_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    assert "has no sound in it" in refusal(wav(tmp_path / "huge.wav", claims=1 << 30, holds=0))
    assert len(read_audio(wav(tmp_path / "cut.wav", claims=1 << 30, holds=9_600))) == 4_800
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_flac_that_claims_centuries_is_read_as_far_as_it_goes_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, SPEECH, RATE_HZ)
    data = bytearray(path.read_bytes())
    data[21:26] = bytes([data[21] | 0x0F]) + b"\xff" * 4  # total samples, 36 bits of STREAMINFO
    path.write_bytes(data)
    tracemalloc.start()
    with suppress(AudioError):  # libsndfile may say that the end is damaged
        assert len(read_audio(path)) <= len(SPEECH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_ten_minutes_are_read_and_more_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(SPEECH[:8_000], MAX_SECONDS), 8_000, subtype="PCM_U8")
    assert len(read_audio(path)) == MAX_SECONDS * RATE_HZ
    soundfile.write(path, np.tile(SPEECH[:8_000], MAX_SECONDS + 1), 8_000, subtype="PCM_U8")
    assert "is longer than 10 minutes" in refusal(path)


def test_of_ten_minutes_a_voice_is_made_of_thirty_seconds(tts: TTS) -> None:
    voice = Voice.from_audio(np.tile(SPEECH, 300), tts, rate_hz=RATE_HZ)
    assert "lasts 600.0 s; its first 30 s are used" in voice.notes[0].message
    assert voice.speaker is not None and np.isfinite(voice.speaker).all()


def test_the_codec_encodes_no_more_than_ten_minutes_at_a_time(tts: TTS) -> None:
    with pytest.raises(AudioError, match="at most 10 minutes"):
        tts.encode(np.zeros(MAX_SECONDS * RATE_HZ + 1, np.float32))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_video_is_an_error_with_what_to_do(tmp_path: Path, suffix: str) -> None:
    heads = {
        "mp4": struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp41"),
        "mkv": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82\x88matroska",
        "avi": b"RIFF" + struct.pack("<I", 1 << 20) + b"AVI LIST",
    }
    path = tmp_path / f"film.{suffix}"
    path.write_bytes(heads[suffix] + os.urandom(4_096))
    assert f"ffmpeg -i {path} -vn {path.with_suffix('.wav')}" in refusal(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "a folder or a pipe" in refusal(tmp_path / "pipe.wav")


@pytest.mark.parametrize("value", [32_768.0, 1e38, -1e30])
def test_samples_in_other_units_are_refused(tts: TTS, tmp_path: Path, value: float) -> None:
    broken = SPEECH.copy()
    broken[100] = value
    soundfile.write(tmp_path / "loud.wav", broken, RATE_HZ, subtype="FLOAT")
    assert "full scale, which is 1" in refusal(tmp_path / "loud.wav")
    with pytest.raises(AudioError, match="full scale, which is 1"):
        Voice.from_audio(broken, tts, rate_hz=RATE_HZ)


def test_a_constant_is_silence(tts: TTS) -> None:
    with pytest.raises(AudioError, match="silent"):
        Voice.from_audio(np.full(RATE_HZ, 0.5, np.float32), tts, rate_hz=RATE_HZ)


@pytest.mark.parametrize(
    ("clip", "message"),
    [(np.clip(20 * SPEECH, -1, 1), "it is clipped"), (SPEECH + np.float32(0.3), "an offset of +0.30")],
    ids=["clipped", "offset"],
)
def test_a_clipped_or_shifted_clip_is_taken_and_noted(tts: TTS, clip: np.ndarray, message: str) -> None:
    voice = Voice.from_audio(clip, tts, rate_hz=RATE_HZ)
    assert voice.speaker is not None and [message in note.message for note in voice.notes] == [True]


def test_a_sound_clip_is_taken_without_a_word(tts: TTS) -> None:
    assert Voice.from_audio(SPEECH, tts, rate_hz=RATE_HZ).notes == ()
