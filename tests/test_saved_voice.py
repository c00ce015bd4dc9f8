"""Voices saved by earlier versions load and speak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from qwen3tts_gguf import TTS, Note, SpeechOptions, Voice, VoiceStore
from qwen3tts_gguf.model import nano

SAVED = Path(__file__).parent / "saved"
"""f2.voice.safetensors: models/nano/voices/f2.flac with its transcript, by nano, saved before 0.1.0."""


def test_a_voice_saved_before_is_the_one_of_its_clip() -> None:
    tts, saved = TTS(nano.folder(), n_threads=1), Voice.load(SAVED / "f2.voice.safetensors")
    clip = nano.folder() / "voices" / "f2.flac"
    made = Voice.from_audio(clip, tts, transcript=clip.with_suffix(".txt").read_text())
    assert saved.codes is not None and made.codes is not None and saved.speaker is not None
    assert (saved.codes == made.codes).mean() > 0.95  # another machine may choose another of two near codes
    assert np.allclose(saved.speaker, made.speaker, rtol=1e-2, atol=1e-2 * np.abs(saved.speaker).max())
    same = ("transcript", "codec", "speaker_encoder", "clip_sha256", "clip_rate_hz")
    assert [getattr(saved, name) for name in same] == [getattr(made, name) for name in same]
    assert (saved.language, saved.notes) == ("en", ())
    with tts.utter("Seven.", saved, SpeechOptions(seed=1, max_frames=3)) as utterance:
        assert len(list(utterance)) == 3 and utterance.notes == ()


def test_notes_are_not_saved_and_a_store_may_be_a_string(tmp_path: Path) -> None:
    store = VoiceStore(str(tmp_path))
    store.save("noted", replace(Voice.preset("vivian"), notes=(Note("the reference is quiet"),)))
    assert store.load("noted").notes == () and store.names() == ["noted"] and store == VoiceStore(tmp_path)
