"""The model that comes with the package: where it is found, and that it speaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluate import clips, evaluate, held_out

from qwen3tts_gguf import TTS, SpeechOptions
from qwen3tts_gguf.errors import ModelFileError
from qwen3tts_gguf.model import nano
from qwen3tts_gguf.model.files import find_mmproj, find_talker


@pytest.fixture(scope="module")
def speaker() -> TTS:
    return TTS(nano.NAME)


@pytest.mark.parametrize(("mode", "most_errors"), [("x-vector", 0.25), ("in-context", 0.35)])
def test_held_out_sentences_are_understood_and_end_in_the_right_voice(
    speaker: TTS, mode: str, most_errors: float
) -> None:
    figures = evaluate(speaker, nano.NAME, mode, held_out(12))
    assert figures.word_error_rate <= most_errors
    assert figures.ended == 1
    assert 0.8 < figures.length < 1.2
    assert figures.right_voice >= 0.75


def test_it_speaks_without_a_voice(speaker: TTS) -> None:
    with speaker.utter("Seven three nine.", options=SpeechOptions(seed=1)) as utterance:
        samples = np.concatenate([*utterance])
    assert utterance.ended
    assert np.abs(samples).max() > 0.1


def test_streamed_speech_is_the_speech_decoded_whole(speaker: TTS) -> None:
    with speaker.utter("My name is Anna.", clips(speaker)["f2"].without_codes(), SpeechOptions(seed=3)) as utterance:
        streamed = np.concatenate([*utterance])
    np.testing.assert_array_equal(streamed, speaker.decode(utterance.codes))


def test_its_name_is_a_path_to_its_pair() -> None:
    talker = find_talker(Path(nano.NAME))
    assert talker.parent == nano.folder()
    assert find_mmproj(talker).name == f"mmproj-{talker.name}"


def test_the_pair_is_small() -> None:
    assert sum(file.stat().st_size for file in nano.folder().glob("*.gguf")) <= 8_000_000


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "mine.gguf").touch()
    assert find_talker(Path("nano")) == Path("nano/mine.gguf")


def test_an_installation_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano, "_PLACES", (tmp_path,))
    with pytest.raises(ModelFileError, match="does not contain the model 'nano'"):
        find_talker(Path("nano"))
