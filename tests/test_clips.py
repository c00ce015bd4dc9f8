"""Clips that break cloning elsewhere: headers, channels, silence, transcripts, levels, and files that are no sound."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, AudioError, Voice
from qwen3tts_gguf.audio import read_audio, read_clip
from qwen3tts_gguf.voice.clip import fit_notes, windowed, without_silent_edges

RATE_HZ = 24_000
CLIP = tiny.reference_clip()
PCM = (CLIP * 32767).astype("<i2")
SPEECH = PCM.astype(np.float32) / 32768
WORDS = "The light came on again."


@pytest.fixture(scope="module")
def tts(pair: Callable[..., ConvertedPair]) -> TTS:
    return TTS(pair().talker, n_threads=1)


def wav(riff: int, data: int, *, before: bytes = b"", after: bytes = b"", sound: bytes = PCM.tobytes()) -> bytes:
    """A WAV whose header claims these sizes."""
    format = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + format + before
    return head + struct.pack("<4sI", b"data", data) + sound + after


LIST = struct.pack("<4sI", b"LIST", 26) + b"INFOISFT\x0e\0\0\0Lavf58.29.100\0"
ODD = struct.pack("<4sI", b"junk", 3) + b"abc\0"  # a chunk of odd size is padded


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        wav(36, 0),
        wav(0, 0),
        wav(36, 0, before=LIST),
        wav(36, 0, before=ODD + LIST),
        wav(0xFFFF_FFFF, 0xFFFF_FFFF),
        wav(0xFFFF_FFFF, 0xFFFF_FFFF, before=LIST),
        wav(0x7FFF_FFFF, 0x7FFF_FF00),
        wav(36, 2 * len(PCM), before=ODD),
    ],
)
def test_a_wav_whose_header_was_never_finished_is_read_to_its_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    clip = read_clip(path)
    assert np.array_equal(clip.samples, SPEECH) and clip.rate_hz == RATE_HZ
    assert clip.sha256 == hashlib.sha256(content).hexdigest() and clip.notes == ()


@pytest.mark.parametrize("after", [b"", LIST, ODD, LIST + ODD], ids=len)
def test_a_wav_that_is_empty_indeed_holds_no_sound(tmp_path: Path, after: bytes) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav(36, 0, sound=b"", after=after))
    with pytest.raises(AudioError, match=r"clip\.wav: has no sound in it"):
        read_audio(path)


def id3(size: int) -> bytes:
    """An ID3v2.3 tag, as with cover art."""
    sizes = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    return b"ID3\3\0\0" + sizes + bytes(size)


@pytest.mark.parametrize(
    "junk", [b"", bytes(5_000), b"\xff\xfb" * 700, b"\xff" * 2_000], ids=["", "zeros", "sync", "ones"]
)
@pytest.mark.parametrize("tag", [id3(20), id3(400_000), id3(40) + id3(60)], ids=["small", "cover", "two"])
def test_an_mp3_behind_its_tag_is_read(tmp_path: Path, tag: bytes, junk: bytes) -> None:
    plain = io.BytesIO()
    soundfile.write(plain, CLIP, RATE_HZ, format="MP3")
    (tmp_path / "plain.mp3").write_bytes(plain.getvalue())
    (tmp_path / "tagged.mp3").write_bytes(tag + junk + plain.getvalue())
    expected, found = (read_audio(tmp_path / name) for name in ("plain.mp3", "tagged.mp3"))
    assert len(found) == len(expected) and np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("memo.m4a", struct.pack(">I4s4s", 28, b"ftyp", b"M4A ") + bytes(range(200)), "it is MPEG-4 (m4a, mp4, mov)"),
        ("call.3gp", struct.pack(">I4s4s", 28, b"ftyp", b"3gp4") + bytes(range(200)), "it is MPEG-4"),
        ("browser.webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01" + bytes(range(200)), "it is WebM or Matroska"),
        ("call.amr", b"#!AMR\n" + bytes(range(200)), "it is AMR"),
        ("old.wma", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(range(200)), "it is Windows Media"),
        ("raw.aac", b"\xff\xf1\x50\x80" + bytes(range(200)), "it is AAC"),
        ("film.avi", b"RIFF" + struct.pack("<I", 1 << 20) + b"AVI LIST" + bytes(range(200)), "it is AVI video"),
        ("noise.bin", bytes(range(1, 256)), "its format is not known"),
    ],
)
def test_formats_are_named_with_the_command_that_makes_a_wav(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: not an audio file that can be read, because {message}")
    assert caught.value.hint == f"make a WAV of it: ffmpeg -i {path} -vn {path.with_suffix('.wav')}"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "it is empty", "save or copy it again"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page or XML", "download the sound itself"),
        (b"\xef\xbb\xbf\n <?xml version='1.0'?>", "it is a web page or XML", "download the sound itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer", "git lfs pull"),
        (b"what I said", "it is text", "give a recording"),
        (b"%PDF-1.7\n%\xe2\xe3", "it is a PDF", "give a recording"),
    ],
)
def test_what_is_no_sound_is_called_what_it_is(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    path = tmp_path / "page.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert message in caught.value.message and hint in caught.value.hint and "ffmpeg" not in caught.value.hint


def test_the_command_can_be_pasted_whatever_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, command in {
        "a b's.wav": """ffmpeg -i 'a b'"'"'s.wav' -vn 'a b'"'"'s-pcm.wav'""",
        "-dash.m4a": "ffmpeg -i ./-dash.m4a -vn ./-dash.wav",
    }.items():
        Path(name).write_bytes(struct.pack(">I4s4s", 28, b"ftyp", b"M4A ") + bytes(99))
        with pytest.raises(AudioError) as caught:
            read_audio(Path(name))
        assert caught.value.hint == f"make a WAV of it: {command}"


# -- channels ----------------------------------------------------------------------------------------------------------


def stereo(path: Path, *channels: NDArray[np.float32]) -> Path:
    soundfile.write(path, np.stack(channels, axis=1), RATE_HZ, subtype="FLOAT")
    return path


def test_channels_that_cancel_give_the_louder_one(tmp_path: Path) -> None:
    clip = read_clip(stereo(tmp_path / "clip.wav", 0.9 * CLIP, -CLIP))
    assert np.array_equal(clip.samples, -CLIP)
    assert [note.message for note in clip.notes] == [
        "the channels cancel each other, one is inverted: channel 2 alone is used"
    ]


@pytest.mark.parametrize("dead", [np.zeros_like(CLIP), np.full_like(CLIP, 0.2), 1e-3 * CLIP[::-1]])
def test_a_dead_channel_is_left_out(tmp_path: Path, dead: NDArray[np.float32]) -> None:
    clip = read_clip(stereo(tmp_path / "clip.wav", dead, CLIP))
    assert np.array_equal(clip.samples, CLIP)
    assert [note.message for note in clip.notes] == ["only channel 2 of 2 has sound: the others are left out"]


def test_of_many_channels_the_live_ones_are_averaged(tmp_path: Path) -> None:
    silent, other = np.zeros_like(CLIP), np.roll(CLIP, 700)
    clip = read_clip(stereo(tmp_path / "clip.wav", CLIP, other, silent, silent, silent))
    assert np.allclose(clip.samples, (CLIP + other) / 2, atol=1e-7)
    assert "only channel 1 and 2 of 5" in clip.notes[0].message


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_an_ordinary_stereo_clip_stays_the_mean(tmp_path: Path, share: float) -> None:
    other = (share * np.roll(CLIP, 333)).astype(np.float32)
    clip = read_clip(stereo(tmp_path / "clip.wav", CLIP, other))
    assert np.array_equal(clip.samples, np.stack([CLIP, other], axis=1).mean(axis=1)) and clip.notes == ()


def test_silence_in_all_channels_is_silence(tmp_path: Path) -> None:
    clip = read_clip(stereo(tmp_path / "clip.wav", np.zeros_like(CLIP), np.zeros_like(CLIP)))
    assert not clip.samples.any() and clip.notes == ()


# -- silence -----------------------------------------------------------------------------------------------------------

HISS = np.random.default_rng(0).normal(0, 3e-5, 31 * RATE_HZ).astype(np.float32)


@pytest.mark.parametrize(
    "silence", [np.zeros_like(HISS), HISS, HISS + np.float32(0.01)], ids=["zeros", "hiss", "offset"]
)
@pytest.mark.parametrize("transcript", [None, WORDS])
def test_silence_before_the_speech_does_not_become_the_voice(
    tts: TTS, silence: NDArray[np.float32], transcript: str | None
) -> None:
    voice = Voice.from_audio(np.concatenate([silence, CLIP]), tts, rate_hz=RATE_HZ, transcript=transcript)
    speech = Voice.from_audio(CLIP, tts, rate_hz=RATE_HZ, transcript=transcript)
    assert not any("lasts" in note.message for note in voice.notes)
    cosine = voice.speaker @ speech.speaker / np.linalg.norm(voice.speaker) / np.linalg.norm(speech.speaker)
    assert cosine > 0.9
    if transcript:
        assert len(speech.codes) <= len(voice.codes) <= len(speech.codes) + 3


def test_silence_at_both_edges_is_cut_and_a_little_stays() -> None:
    edge = np.zeros(2 * RATE_HZ, np.float32)
    cut = without_silent_edges(np.concatenate([edge, CLIP, edge]), RATE_HZ)
    kept = RATE_HZ // 5
    assert len(CLIP) <= len(cut) <= len(CLIP) + 2 * kept + RATE_HZ // 50
    start = int(np.flatnonzero(cut)[0])
    assert np.array_equal(np.trim_zeros(cut), np.trim_zeros(CLIP)) and start >= kept - RATE_HZ // 50


@pytest.mark.parametrize("seconds", [0.0, 0.5, 0.9])
def test_less_silence_stays_as_the_official_encoders_see_it(seconds: float) -> None:
    edge = np.zeros(round(seconds * RATE_HZ), np.float32)
    clip = np.concatenate([edge, CLIP, edge])
    assert without_silent_edges(clip, RATE_HZ) is clip or np.array_equal(without_silent_edges(clip, RATE_HZ), clip)


# -- transcripts -------------------------------------------------------------------------------------------------------


def cut(transcript: str, share: float = 0.5) -> str:
    frames = np.zeros(round(30 / share))
    found = windowed(frames, 1.0, transcript)[1]
    assert found is not None
    return found


def test_a_transcript_is_cut_at_a_boundary_near_the_share() -> None:
    assert cut("one two three four five six seven eight") == "one two three four"
    assert cut("今天天气很好我们去公园。明天早上八点在车站见面吧好不好呀") == "今天天气很好我们去公园。"
    assert cut("first line here\nsecond line, and more") == "first line here"
    assert (
        cut("好的 " + "今天天气很好我们一起去公园散步" * 10) == "好的 " + ("今天天气很好我们一起去公园散步" * 10)[:73]
    )
    assert cut("Donaudampfschifffahrtsgesellschaftskapitän" * 2) == "Donaudampfschifffahrtsgesellschaftskapitän"


def test_an_accent_stays_with_its_letter() -> None:
    text = "e\u0301" * 40
    assert cut(text, 41 / 80) in ("e\u0301" * 20, "e\u0301" * 21)


NANO_CLIPS = sorted((Path(__file__).parents[1] / "models" / "nano" / "voices").glob("*.flac"))


@pytest.mark.parametrize("path", NANO_CLIPS, ids=lambda path: path.stem)
def test_half_a_transcript_is_noted_and_a_whole_one_is_not(path: Path) -> None:
    seconds, words = soundfile.info(path).duration, path.with_suffix(".txt").read_text().split()
    assert fit_notes(seconds, " ".join(words)) == ()
    for half in (words[: len(words) // 2], words[len(words) // 2 + 1 :]):
        assert fit_notes(seconds, " ".join(half)), half
    assert fit_notes(seconds, " ".join(words * 3))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("The quick brown fox jumps over the lazy dog near the river bank.", (3.0, 6.5)),  # 200 to 95 words a minute
        ("今天天气很好我们一起去公园散步吧", (2.7, 5.5)),  # six to three syllables a second
        ("きょうはいいてんきですねこうえんにいきましょう", (2.0, 4.2)),
        ("오늘날씨가정말좋아서공원에산책을갔습니다", (2.7, 5.4)),
        ("Сегодня прекрасная погода и мы идём в парк.", (1.8, 4.0)),
        ("2024 11 25", (1.7, 3.8)),
    ],
)
def test_usual_speech_fits_in_every_script_and_half_of_it_does_not(text: str, seconds: tuple[float, float]) -> None:
    for length in seconds:
        assert fit_notes(length, text) == ()
    assert fit_notes(seconds[1], text[: len(text) // 2]) and fit_notes(seconds[0] / 3, text)


# -- quality -----------------------------------------------------------------------------------------------------------


def one_note(tts: TTS, path: Path) -> str:
    (note,) = Voice.from_audio(path, tts).notes
    assert note.hint
    return note.message


def test_quiet_short_and_narrow_clips_get_one_note_each(tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, CLIP * 0.003, RATE_HZ, subtype="FLOAT")
    assert "is quiet: it peaks at -" in one_note(tts, path)
    soundfile.write(path, CLIP[: RATE_HZ // 2], RATE_HZ)
    assert "has only 0.5 s, which is short" in one_note(tts, path)
    soundfile.write(path, CLIP[::3], 8_000, subtype="ULAW")
    assert "8000 samples per second, and so no sound above 4 kHz" in one_note(tts, path)


def test_the_notes_of_a_file_are_the_voices(tts: TTS, tmp_path: Path) -> None:
    assert "cancel" in one_note(tts, stereo(tmp_path / "clip.wav", CLIP, -CLIP))
