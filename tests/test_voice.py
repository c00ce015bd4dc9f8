"""Listening to a clip: what is kept of it, what is refused, and how speech goes on from it."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import test_model_files
import tiny
from conftest import beginning

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, AudioError, OptionError, SpeechOptions, Voice, VoiceStore
from qwen3tts_gguf.audio import read_audio
from qwen3tts_gguf.voice.clip import MAX_REFERENCE_SECONDS, REFERENCE_PAD_SECONDS
from qwen3tts_gguf.voice.encoder import codec_fingerprint, speaker_fingerprint

Pair = Callable[..., ConvertedPair]
RATE_HZ, FRAME = 24_000, 1920
CLIP = tiny.reference_clip()
WORDS = "The light came on again."
SHORT = SpeechOptions(seed=1, max_frames=3)
FORMATS = [
    *(("wav", subtype, rate, channels) for subtype, rate, channels in [
        ("PCM_16", 8_000, 1), ("PCM_24", 16_000, 2), ("FLOAT", 22_050, 1), ("PCM_16", 44_100, 2), ("PCM_24", 48_000, 1)
    ]),
    ("flac", "PCM_24", 44_100, 1), ("ogg", "VORBIS", 48_000, 2), ("mp3", "MPEG_LAYER_III", 48_000, 1),
]  # fmt: skip


def encoded(tts: TTS, clip: np.ndarray = CLIP, **options: object) -> Voice:
    return Voice.from_audio(clip, tts, rate_hz=RATE_HZ, **options)  # type: ignore[arg-type]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture(scope="module")
def tts(pair: Pair) -> TTS:
    """The tiny Base model on one thread, which waits for no other."""
    return TTS(pair().talker, n_threads=1)


@pytest.fixture(scope="module")
def mute(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> TTS:
    """A pair as llama.cpp's converter leaves it: without codec encoder."""
    folder = tmp_path_factory.mktemp("mute")
    keys, tensors = test_model_files.read(pair().mmproj)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("a.codec_enc.")}
    mmproj = test_model_files.write(folder / "mmproj-mute.gguf", keys, kept)
    return TTS(pair().talker, mmproj=mmproj, n_threads=1)


# -- what is kept of a clip --------------------------------------------------------------------------------------------


def test_a_clip_alone_gives_a_speaker_vector(tts: TTS) -> None:
    voice = encoded(tts)
    assert voice.speaker is not None and voice.speaker.shape == (128,) and voice.speaker.dtype == np.float32
    assert (voice.codes, voice.transcript, voice.codec) == (None, None, "")
    assert voice.is_clone and voice.speaker_encoder and len(voice.clip_sha256) == 64 and voice.clip_rate_hz


def test_a_transcript_adds_codes(tts: TTS) -> None:
    voice = encoded(tts, transcript=f"  {WORDS}\n")
    assert voice.codes is not None and voice.codes.dtype == np.int32
    assert voice.codes.shape == (math.ceil((len(CLIP) + REFERENCE_PAD_SECONDS * RATE_HZ) / FRAME), 16)
    assert voice.transcript == WORDS and voice.codec == tts.codec_fingerprint
    assert np.array_equal(voice.speaker, encoded(tts).speaker)
    alone = voice.without_codes()
    assert (alone.codes, alone.transcript, alone.codec) == (None, None, "") and alone.speaker is voice.speaker


@pytest.mark.parametrize("transcript", ["", " \n"])
def test_a_transcript_of_nothing_is_none(tts: TTS, transcript: str) -> None:
    assert encoded(tts, transcript=transcript).codes is None


def test_the_silence_after_the_clip_is_in_its_codes_only(tts: TTS) -> None:
    padded, bare = encoded(tts, transcript=WORDS), encoded(tts, transcript=WORDS, pad_seconds=0)
    assert np.array_equal(padded.speaker, bare.speaker) and padded.clip_sha256 == bare.clip_sha256
    assert padded.codes is not None and bare.codes is not None
    assert np.array_equal(bare.codes, tts.encode(CLIP))
    assert np.array_equal(padded.codes, tts.encode(np.pad(CLIP, (0, RATE_HZ // 2))))
    n_whole = len(CLIP) // FRAME  # frames the silence does not reach
    assert len(padded.codes) > len(bare.codes) and np.array_equal(padded.codes[:n_whole], bare.codes[:n_whole])


def test_presets_and_descriptions_are_voices_too() -> None:
    preset, design = Voice.preset(" Vivian ", instruct="Slowly."), Voice.design("An old man.")
    assert (preset.preset_name, preset.instruct, preset.is_clone) == ("vivian", "Slowly.", False)
    assert (design.preset_name, design.instruct, design.is_clone) == (None, "An old man.", False)


def test_fingerprints_tell_codec_and_encoder_not_type_or_size(pair: Pair) -> None:
    small, small_q8, large = (
        TTS(each.talker) for each in (pair(), pair("q8_0", "f16"), pair(size="tiny-1.7b", codec_type="f16"))
    )
    models = [tts.voice_encoder._model for tts in (small, small_q8, large)]
    assert len({codec_fingerprint(model) for model in models}) == 1
    prints = [speaker_fingerprint(model) for model in models]
    assert prints[0] == prints[1] != prints[2]
    presets = TTS(pair(model_type="custom_voice").talker).voice_encoder._model
    assert speaker_fingerprint(presets) == "" and codec_fingerprint(presets) == codec_fingerprint(models[0])


@pytest.mark.parametrize(("suffix", "subtype", "rate_hz", "n_channels"), FORMATS, ids=str)
def test_the_speaker_is_the_same_in_every_format(
    tts: TTS, tmp_path: Path, suffix: str, subtype: str, rate_hz: int, n_channels: int
) -> None:
    """Up to what the rate keeps: 8 kHz has nothing above 4 kHz, so the reference has not, either."""
    import soxr

    clip = soxr.resample(soxr.resample(CLIP, RATE_HZ, 8_000), 8_000, RATE_HZ).astype(np.float32)
    sound = np.repeat(soxr.resample(clip, RATE_HZ, rate_hz)[:, None], n_channels, axis=1)
    soundfile.write(tmp_path / f"clip.{suffix}", sound, rate_hz, subtype=subtype)
    voice = Voice.from_audio(tmp_path / f"clip.{suffix}", tts)
    expected = encoded(tts, clip)
    assert voice.speaker is not None and expected.speaker is not None
    assert cosine(voice.speaker, expected.speaker) > (0.98 if rate_hz == 8_000 or suffix == "mp3" else 0.999)


# -- what will not sound well ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transcript", ["No.", "word " * 40], ids=["short", "long"])
def test_a_transcript_that_does_not_fit_is_noted(tts: TTS, transcript: str) -> None:
    voice = encoded(tts, transcript=transcript)
    (note,) = voice.notes
    assert re.match(r"a transcript of \d+ letters does not fit a clip of 2\.0 s", note.message)
    assert "Voice.without_codes" in note.hint
    assert voice.codes is not None and voice.transcript == transcript.strip()


@pytest.mark.parametrize("transcript", [WORDS, "今天天气很好。"])
def test_a_transcript_that_fits_is_not_noted(tts: TTS, transcript: str) -> None:
    assert encoded(tts, transcript=transcript).notes == ()


@pytest.mark.parametrize("transcript", [None, "word " * 90])
def test_a_clip_too_long_is_windowed_and_noted(tts: TTS, transcript: str | None) -> None:
    long = tiny.reference_clip(31 * RATE_HZ)
    voice = encoded(tts, long, transcript=transcript, pad_seconds=0)
    (note,) = voice.notes
    assert "lasts 31.0 s; its first 30 s are used" in note.message
    window = long[: round(MAX_REFERENCE_SECONDS * RATE_HZ)]
    assert np.array_equal(voice.speaker, encoded(tts, window).speaker)
    if transcript is None:
        assert voice.codes is None
    else:
        assert voice.codes is not None and len(voice.codes) == 375
        assert voice.transcript == "word " * 86 + "word"


def test_a_transcript_without_spaces_is_windowed_too(tts: TTS) -> None:
    voice = encoded(tts, tiny.reference_clip(40 * RATE_HZ), transcript="今天天气很好。" * 40)
    assert "as much of the transcript" in voice.notes[0].message
    assert voice.transcript is not None and len(voice.transcript) == 210


def test_a_speech_just_made_is_a_reference(tts: TTS) -> None:
    codes = np.zeros((400, 16), np.int32)
    short = Voice.from_speech(codes[:100], " Hello. ", tts.codec_fingerprint)
    assert short.codes is not None and len(short.codes) == 100 and short.transcript == "Hello."
    long = Voice.from_speech(codes, "word " * 90, tts.codec_fingerprint)
    assert "lasts 32.0 s; its first 30 s" in long.notes[0].message and not short.notes
    assert long.codes is not None and len(long.codes) == 375 and long.codec == tts.codec_fingerprint
    with pytest.raises(AudioError, match="no frames"):
        Voice.from_speech(codes[:0], "Hello.", tts.codec_fingerprint)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros(0, np.float32), "silent"),
        (np.zeros(RATE_HZ, np.float32), "silent"),
        (np.where(np.arange(RATE_HZ) == 9, np.nan, CLIP[:RATE_HZ]), "NaN or infinite"),
        (np.where(np.arange(RATE_HZ) == 9, np.inf, CLIP[:RATE_HZ]), "NaN or infinite"),
        (CLIP[:1], r"silent|at least 0\.05 s"),
        (CLIP[4_000:4_800], r"at least 0\.05 s"),
        (np.stack([CLIP, CLIP]), "one channel"),
    ],
    ids=["empty", "silent", "nan", "infinite", "one sample", "too short", "stereo"],
)
def test_a_clip_without_a_voice_is_refused(tts: TTS, clip: np.ndarray, message: str) -> None:
    for transcript in (None, WORDS):
        with pytest.raises(AudioError, match=message):
            encoded(tts, clip, transcript=transcript)


def test_samples_without_a_rate_are_refused(tts: TTS) -> None:
    with pytest.raises(OptionError, match="rate_hz"):
        Voice.from_audio(CLIP, tts)


@pytest.mark.parametrize("pad_seconds", [-0.1, float("nan"), 1e9])
def test_a_pad_that_cannot_be_is_refused(tts: TTS, pad_seconds: float) -> None:
    with pytest.raises(OptionError, match="pad_seconds"):
        encoded(tts, transcript=WORDS, pad_seconds=pad_seconds)


def test_without_a_codec_encoder_a_transcript_is_refused_with_what_to_do(mute: TTS) -> None:
    with pytest.raises(OptionError, match=r"has no codec encoder.*convert the checkpoint .*speaker vector only"):
        encoded(mute, transcript=WORDS)
    with pytest.raises(OptionError, match=r"mmproj-mute\.gguf has no codec encoder"):
        mute.encode(CLIP)
    assert len(beginning(mute, "Hello.", encoded(mute), SHORT)) == 3 * FRAME


def test_a_model_that_cannot_clone_says_what_to_do(pair: Pair) -> None:
    presets = TTS(pair(model_type="custom_voice").talker)
    for transcript in (None, WORDS):
        with pytest.raises(OptionError, match=r"use a Base model, or speak with a preset .*or with a description"):
            encoded(presets, transcript=transcript)
    assert not presets.voice_encoder.is_loaded


# -- loading and going on ----------------------------------------------------------------------------------------------


def test_the_encoders_are_loaded_when_first_used(pair: Pair, tts: TTS, tmp_path: Path) -> None:
    store = VoiceStore(tmp_path)
    store.save("kept", encoded(tts, transcript=WORDS))
    fresh = TTS(pair().talker, n_threads=1)
    beginning(fresh, "Hello.", store.load("kept"), SHORT)
    assert not fresh.voice_encoder.is_loaded
    encoded(fresh)
    assert fresh.voice_encoder.is_loaded and fresh.voice_encoder._codec_encoder is None
    encoded(fresh, transcript=WORDS)
    assert fresh.voice_encoder._codec_encoder is not None


def test_a_saved_voice_speaks_as_the_fresh_one_does(tts: TTS, tmp_path: Path) -> None:
    store, voice = VoiceStore(tmp_path), encoded(tts, transcript=WORDS)
    store.save("kept", voice)
    assert np.array_equal(beginning(tts, "Hello.", voice, SHORT), beginning(tts, "Hello.", store.load("kept"), SHORT))


@pytest.mark.parametrize("seconds", [0.3, 1.9, 6.5])  # below and above what the decoder's window and state hold
def test_speech_continues_the_reference(tts: TTS, seconds: float) -> None:
    clip = tiny.reference_clip(round(seconds * RATE_HZ))
    voice = encoded(tts, clip, transcript="word " * max(1, round(seconds)))
    assert voice.codes is not None
    for _ in range(2):  # the second time the decoder's state is reused
        with tts.utter("Hello.", voice, SHORT) as utterance:
            samples = np.concatenate(list(utterance))
        whole = tts.decode(np.concatenate([voice.codes, utterance.codes]))
        assert np.abs(samples - whole[len(voice.codes) * FRAME :]).max() <= 1e-4
        assert np.abs(samples - tts.decode(utterance.codes)).max() > 1e-3


def test_codes_alone_clone_in_context(tts: TTS) -> None:
    voice = encoded(tts, transcript=WORDS)
    codes_only = dataclasses.replace(voice, speaker=None)
    speeches = [beginning(tts, "Hello.", each, SHORT) for each in (voice, codes_only, voice.without_codes())]
    assert not np.array_equal(speeches[0], speeches[1]) and not np.array_equal(speeches[0], speeches[2])


# -- real speech -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng makes the speech")
def test_real_speech_keeps_its_length_through_the_codec(tts: TTS, tmp_path: Path) -> None:
    text = "Nobody had spoken in that room since the summer."
    subprocess.run(["espeak-ng", "-v", "en", "-w", tmp_path / "speech.wav", text], check=True, stdout=sys.stderr)
    speech = read_audio(tmp_path / "speech.wav")
    codes = tts.encode(speech)
    decoded = tts.decode(codes)
    assert len(codes) == math.ceil(len(speech) / FRAME) and len(decoded) == len(codes) * FRAME
    assert np.isfinite(decoded).all() and np.abs(decoded).max() <= 1
    assert codes.min() >= 0 and len(np.unique(codes[:, 0])) > 3
    voice = Voice.from_audio(tmp_path / "speech.wav", tts, transcript=text)
    assert len(beginning(tts, "Hello.", voice, SHORT)) == 3 * FRAME
