"""Audio in, at any rate, width and container; audio out, to files and pipes."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import tiny
from numpy.typing import NDArray

from qwen3tts_gguf import TTS, Voice
from qwen3tts_gguf.audio import read_audio, resample
from qwen3tts_gguf.audio_sink import open_sink
from qwen3tts_gguf.errors import AudioError, OptionError
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.nets.mel import log_mel
from qwen3tts_gguf.nets.speaker_encoder import SpeakerEncoder

Samples = NDArray[np.float32]
RATES_HZ = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
FORMATS = {
    "wav 16": (".wav", "PCM_16"),
    "wav 24": (".wav", "PCM_24"),
    "wav float": (".wav", "FLOAT"),
    "flac 16": (".flac", "PCM_16"),
    "flac 24": (".flac", "PCM_24"),
    "ogg": (".ogg", "VORBIS"),
    "mp3": (".mp3", "MPEG_LAYER_III"),
}


@pytest.fixture(scope="module")
def full() -> Samples:
    """Two seconds of the test clip."""
    return tiny.reference_clip(48_000)


@pytest.fixture(scope="module")
def clip(full: Samples) -> Samples:
    """The same without anything above 3.5 kHz, which a rate of 8 kHz could not hold."""
    return at_rate(at_rate(full, 24_000, 7_000), 7_000, 24_000)


@pytest.fixture(scope="module")
def vector(files: ModelFiles) -> Callable[[Samples], Samples]:
    """The tiny speaker encoder: samples at 24 kHz -> speaker vector."""
    encoder = SpeakerEncoder(files.mmproj, Backend(1))
    return lambda samples: encoder.encode(log_mel(samples))


def at_rate(samples: Samples, rate_hz: int, new_rate_hz: int) -> Samples:
    return np.asarray(soxr.resample(samples, rate_hz, new_rate_hz, quality="VHQ"), np.float32)


def cosine(a: Samples, b: Samples) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_voice_is_the_same_at_any_rate_and_format(
    clip: Samples, vector: Callable[[Samples], Samples], tmp_path: Path, kind: str, rate_hz: int
) -> None:
    suffix, subtype = FORMATS[kind]
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, at_rate(clip, 24_000, rate_hz), rate_hz, subtype=subtype)
    samples = read_audio(path)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - len(clip)) <= 3
    assert cosine(vector(samples), vector(clip)) > 0.999


@pytest.mark.parametrize(("rate_hz", "bound"), [(48_000, 0.999), (16_000, 0.99), (8_000, 0.97)])
def test_a_voice_whose_treble_is_cut_stays_near(
    full: Samples, vector: Callable[[Samples], Samples], tmp_path: Path, rate_hz: int, bound: float
) -> None:
    """What a low rate cannot hold is lost to the encoder, ours and the official one alike."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, at_rate(full, 24_000, rate_hz), rate_hz)
    assert cosine(vector(read_audio(path)), vector(full)) > bound


def test_channels_are_averaged(clip: Samples, tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    quieter = 0.1 * np.roll(clip, 100)
    soundfile.write(path, np.stack([clip, quieter], axis=1), 24_000, subtype="FLOAT")
    assert np.allclose(read_audio(path), (clip + quieter) / 2, atol=1e-7)
    soundfile.write(path, np.stack([clip] * 5, axis=1), 24_000, subtype="FLOAT")
    assert np.allclose(read_audio(path), clip, atol=1e-6)


def test_audio_at_24_khz_comes_back_as_it_is(clip: Samples, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, clip, 24_000, subtype="FLOAT")
    assert np.array_equal(read_audio(path), clip)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 23_999])
@pytest.mark.parametrize("n", [1, 2, 441, 4_801])
def test_a_resampled_length_is_rounded_up(rate_hz: int, n: int) -> None:
    resampled = resample(np.ones(n, np.float32), rate_hz)
    assert resampled.shape == (-(-n * 24_000 // rate_hz),) and resampled.dtype == np.float32


def test_resampling_keeps_time_and_pitch() -> None:
    seconds = np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 440 * seconds).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    assert np.abs(resample(tone, 44_100) - expected)[200:-200].max() < 1e-3


@pytest.mark.parametrize("rate_hz", [0, -24_000, 999, 1_000_001])
def test_a_rate_that_cannot_be_is_refused(rate_hz: int) -> None:
    with pytest.raises(AudioError, match=f"sample rate of {rate_hz} Hz"):
        resample(np.ones(10, np.float32), rate_hz)


def wav_header(n_bytes: int = 0, rate_hz: int = 24_000) -> bytes:
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + n_bytes, b"WAVE") + format + struct.pack("<4sI", b"data", n_bytes)


UNREADABLE = {
    "text.wav": (b"this is no sound at all\n" * 20, "not an audio file that can be read"),
    "empty.wav": (b"", "not an audio file that can be read"),
    "text.mp3": (b"hello", "not an audio file that can be read"),
    "no-suffix": (b"\x00\x01\x02\x03" * 50, "not an audio file that can be read"),
    "headerless.raw": (bytes(4800), "not an audio file that can be read"),
    "header-only.wav": (wav_header(), "has no sound in it"),
    "half-a-header.wav": (wav_header()[:30], "."),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_sound_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    data, message = UNREADABLE[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="not an audio file") as caught:
        read_audio(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(clip: Samples, tmp_path: Path, value: float) -> None:
    broken = clip.copy()
    broken[1000] = value
    path = tmp_path / "broken.wav"
    soundfile.write(path, broken, 24_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite"):
        read_audio(path)


def test_a_file_with_an_absurd_rate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    path.write_bytes(wav_header(4_800, rate_hz=10) + bytes(4_800))
    with pytest.raises(AudioError, match="sample rate of 10 Hz") as caught:
        read_audio(path)
    assert str(path) in str(caught.value)


# -- as a voice --------------------------------------------------------------------------------------------------------


def test_a_voice_from_samples_is_the_voice_of_their_file(tts: TTS, clip: Samples, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, clip, 24_000, subtype="FLOAT")
    from_file, from_samples = Voice.from_audio(path, tts), Voice.from_audio(clip, tts, rate_hz=24_000)
    assert from_file.speaker.shape == (128,)
    assert np.array_equal(from_file.speaker, from_samples.speaker)
    assert np.array_equal(Voice.from_audio(str(path), tts).speaker, from_file.speaker)


def test_samples_need_their_rate(tts: TTS, clip: Samples) -> None:
    with pytest.raises(OptionError, match="rate_hz"):
        Voice.from_audio(clip, tts)


@pytest.mark.parametrize("n", [0, 1, 100, 255, 256, 384, 385, 1_000])
def test_a_clip_too_short_for_a_voice_is_an_error(tts: TTS, n: int) -> None:
    with pytest.raises(AudioError, match="too short" if n > 1 else "silent"):
        Voice.from_audio(0.1 * np.cos(np.arange(n, dtype=np.float32)), tts, rate_hz=24_000)


@pytest.mark.parametrize(
    "samples", [np.full(24_000, np.nan, np.float32), np.full((24_000, 2), 0.1, np.float32)], ids=["nan", "two channels"]
)
def test_samples_that_are_no_mono_sound_are_refused(tts: TTS, samples: NDArray[Any]) -> None:
    with pytest.raises(AudioError, match=r"NaN or infinite|one channel"):
        Voice.from_audio(samples, tts, rate_hz=24_000)


# -- writing -----------------------------------------------------------------------------------------------------------

EDGES = np.array([0, 1, -1, 0.5, -0.5, 0.25, 1 / 32767, -1 / 32767, 0.4 / 32767, 0.6 / 32767, 0.99999], np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".WAV"])
def test_each_suffix_is_written_and_read_back(clip: Samples, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"speech{suffix}"
    with open_sink(path) as sink:
        for part in np.split(clip, 25):
            sink.write(part)
        assert not path.exists()  # it appears when it is whole
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    info = soundfile.info(path)
    assert (info.samplerate, info.channels) == (24_000, 1)
    found = read_audio(path)
    assert len(found) == len(clip)
    error = np.abs(found - clip)
    assert error.max() < (1e-4 if suffix.lower() in (".wav", ".flac") else 0.2) and error.mean() < 0.02


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_samples_are_rounded_to_16_bits_as_in_a_stream(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"edges{suffix}"
    with open_sink(path) as sink:
        sink.write(EDGES)
    found, _ = soundfile.read(path, dtype="int16")
    assert found.tolist() == np.rint(EDGES * 32767).tolist()


def test_a_stream_is_a_wav_of_unknown_length(clip: Samples) -> None:
    stream = io.BytesIO()
    with open_sink(stream) as sink:
        header = stream.getvalue()
        sink.write(clip[:1920])
        assert len(stream.getvalue()) == len(header) + 2 * 1920  # out at once
        sink.write(EDGES)
    data = stream.getvalue()
    riff, size, wave = struct.unpack_from("<4sI4s", data)
    assert (riff, wave, size) == (b"RIFF", b"WAVE", 0xFFFF_FFFF)
    chunk, n, format, channels, rate, byte_rate, frame, bits = struct.unpack_from("<4sIHHIIHH", data, 12)
    assert (chunk, n, format, channels, rate) == (b"fmt ", 16, 1, 1, 24_000)
    assert (byte_rate, frame, bits) == (48_000, 2, 16)
    assert struct.unpack_from("<4sI", data, 36) == (b"data", 0xFFFF_FFFF)
    values = np.frombuffer(data, "<i2", offset=44)
    assert np.array_equal(values[:1920], np.rint(clip[:1920].astype(np.float64) * 32767))
    assert values[1920:].tolist() == np.rint(EDGES * 32767).tolist()


def test_libsndfile_reads_a_stream_that_was_saved(clip: Samples, tmp_path: Path) -> None:
    path = tmp_path / "saved.wav"
    with path.open("wb") as file, open_sink(file) as sink:
        sink.write(clip)
    assert np.abs(read_audio(path)[: len(clip)] - clip).max() < 1e-4


@pytest.mark.parametrize("name", ["speech.aac", "speech", "speech.", "speech.wav.txt"])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match=r"\.wav, \.flac, \.ogg, \.opus, \.mp3, \.pcm"), open_sink(tmp_path / name):
        pytest.fail("opened")
    assert not list(tmp_path.iterdir())


def interrupted(path: Path, error: type[BaseException]) -> None:
    with open_sink(path) as sink:
        sink.write(np.zeros(1920, np.float32))
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_inside_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "speech.wav"
    with pytest.raises(error):
        interrupted(path, error)
    assert not list(tmp_path.iterdir())


def test_an_exception_inside_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"older")
    with pytest.raises(ValueError):
        interrupted(path, ValueError)
    assert path.read_bytes() == b"older" and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "speech.wav", tmp_path / "folder.wav"):
        (tmp_path / "folder.wav").mkdir(exist_ok=True)
        with pytest.raises(AudioError, match="cannot be written") as caught, open_sink(path) as sink:
            sink.write(np.zeros(10, np.float32))
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_empty_speech_is_still_a_file(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    with open_sink(path):
        pass
    assert soundfile.info(path).frames == 0
