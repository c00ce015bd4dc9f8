"""Which voice may speak with which model, which errors the others get, and which language is spoken."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import beginning

from qwen3tts_convert import ConvertedPair, convert
from qwen3tts_gguf import TTS, OptionError, SpeechOptions, Voice
from qwen3tts_gguf.voice.compatibility import Compatibility, ResolvedVoice

Pair = Callable[..., ConvertedPair]
WORDS = "The light came on again."
MODELS = {
    "base": ("tiny", "base"),
    "base 1.7B": ("tiny-1.7b", "base"),
    "custom 0.6B": ("tiny", "custom_voice"),
    "custom 1.7B": ("tiny-1.7b", "custom_voice"),
    "design": ("tiny-1.7b", "voice_design"),
}


@pytest.fixture(scope="module")
def model(pair: Pair) -> Callable[[str], TTS]:
    loaded: dict[str, TTS] = {}

    def load(name: str) -> TTS:
        if name not in loaded:
            size, model_type = MODELS[name]
            loaded[name] = TTS(pair(size=size, model_type=model_type).talker, n_threads=1)
        return loaded[name]

    return load


@pytest.fixture(scope="module")
def voices(model: Callable[[str], TTS]) -> dict[str, Voice]:
    """Every kind of voice there is, those of clips with the name of the model that encoded them."""
    clips = {
        f"{kind}{size}": Voice.from_audio(
            tiny.reference_clip(), model(f"base{size}"), rate_hz=24_000, transcript=WORDS if kind == "clone" else None
        )
        for kind in ("clone", "vector")
        for size in ("", " 1.7B")
    }
    codes = replace(clips["clone"], speaker=None, speaker_encoder="")
    return {
        **clips,
        "codes": codes,
        "none": Voice(),
        "preset": Voice.preset("Vivian"),
        "preset and instruct": Voice.preset("vivian", instruct="Slowly."),
        "description": Voice.design("An old man."),
        "vector and instruct": replace(clips["vector"], instruct="Slowly."),
        "vector and preset": replace(clips["vector"], preset_name="vivian"),
    }


def resolved(tts: TTS, voice: Voice | None, language: str | None = None) -> ResolvedVoice:
    compatibility: Compatibility = tts._compatibility
    return compatibility.resolve(voice, language)


# -- model kind x voice kind -------------------------------------------------------------------------------------------

CLONES = r"\(base\) {}: it clones the voice of a clip"
PRESETS = r"\(custom_voice\) {}: it has presets \(`Voice.preset`\): serena, vivian"
DESCRIBES = r"\(voice_design\) {}: it speaks as a description says"
NO_PRESETS, NO_CLONES, NO_INSTRUCT = "has no preset speakers", "cannot clone a voice", "cannot follow instructions"
USED: dict[str, set[str]] = {  # what of the voice is in the prompt
    "base / none": set(),
    "base / clone": {"speaker", "codes", "transcript"},
    "base / vector": {"speaker"},
    "base / codes": {"codes", "transcript"},
    "base 1.7B / codes": {"codes", "transcript"},
    "base 1.7B / clone 1.7B": {"speaker", "codes", "transcript"},
    "base 1.7B / vector 1.7B": {"speaker"},
    "custom 0.6B / preset": {"preset"},
    "custom 1.7B / preset": {"preset"},
    "custom 1.7B / preset and instruct": {"preset", "instruct"},
    "design / description": {"instruct"},
}
IN_PART = {
    "base / clone 1.7B": {"codes", "transcript"},
    "base 1.7B / clone": {"codes", "transcript"},
}
REFUSED = {
    "base / preset": CLONES.format(NO_PRESETS),
    "base / description": CLONES.format(NO_INSTRUCT),
    "base / preset and instruct": CLONES.format(NO_INSTRUCT),
    "base / vector and instruct": CLONES.format(NO_INSTRUCT),
    "base / vector and preset": CLONES.format(NO_PRESETS),
    "base / vector 1.7B": "made with another model.*192 values, this model takes 128.*make the voice again",
    "base 1.7B / preset": CLONES.format(NO_PRESETS),
    "base 1.7B / description": CLONES.format(NO_INSTRUCT),
    "base 1.7B / vector": "128 values, this model takes 192",
    **{f"custom {size} / none": PRESETS.format("needs a speaker") for size in ("0.6B", "1.7B")},
    **{
        f"custom {size} / {voice}": PRESETS.format(NO_CLONES)
        for size in ("0.6B", "1.7B")
        for voice in ("clone", "vector", "codes", "clone 1.7B", "vector and preset")
    },
    "custom 0.6B / preset and instruct": PRESETS.format(NO_INSTRUCT),
    "custom 0.6B / description": PRESETS.format(NO_INSTRUCT),
    "custom 1.7B / description": PRESETS.format("needs a speaker"),
    "design / none": DESCRIBES.format("needs a description of the voice"),
    "design / preset": DESCRIBES.format(NO_PRESETS),
    "design / preset and instruct": DESCRIBES.format(NO_PRESETS),
    **{
        f"design / {voice}": DESCRIBES.format(NO_CLONES)
        for voice in ("clone", "vector", "codes", "vector and instruct")
    },
}


def used(part: ResolvedVoice) -> set[str]:
    names = ("speaker", "preset", "instruct", "codes", "transcript")
    return {name for name in names if getattr(part, name) is not None}


@pytest.mark.parametrize("case", USED)
def test_a_voice_that_fits_is_used_whole(model: Callable[[str], TTS], voices: dict[str, Voice], case: str) -> None:
    tts, voice = model(case.split(" / ")[0]), voices[case.split(" / ")[1]]
    found = resolved(tts, voice)
    assert used(found) == USED[case] and not found.notes
    assert len(beginning(tts, "Hello.", voice, SpeechOptions(max_frames=1))) == 1920


@pytest.mark.parametrize("case", IN_PART)
def test_a_voice_that_fits_in_part_is_used_in_part_and_noted(
    model: Callable[[str], TTS], voices: dict[str, Voice], case: str
) -> None:
    tts, voice = model(case.split(" / ")[0]), voices[case.split(" / ")[1]]
    found = resolved(tts, voice)
    assert used(found) == IN_PART[case]
    (note,) = found.notes
    assert "speaker vector was made with another model and is not used; its codes are used" in note.message
    with tts.utter("Hello.", voice, SpeechOptions(max_frames=2, seed=1)) as utterance:
        assert note in utterance.notes
        utterance.finish()
    speech = utterance.samples
    codes_only = replace(voice, speaker=None)
    assert np.array_equal(speech, beginning(tts, "Hello.", codes_only, SpeechOptions(max_frames=2, seed=1)))


@pytest.mark.parametrize("case", REFUSED)
def test_a_voice_that_does_not_fit_is_refused_with_what_does(
    model: Callable[[str], TTS], voices: dict[str, Voice], case: str
) -> None:
    tts, voice = model(case.split(" / ")[0]), voices[case.split(" / ")[1]]
    with pytest.raises(OptionError, match=REFUSED[case].replace(" | ", r" \| ")) as caught:
        tts.utter("Hello.", voice)
    assert "\n" not in str(caught.value)


def test_codes_of_another_codec_are_left_out_and_noted(model: Callable[[str], TTS], voices: dict[str, Voice]) -> None:
    found = resolved(model("base"), replace(voices["clone"], codec="another"))
    assert used(found) == {"speaker"}
    assert "codes were made with another codec and are not used; its speaker vector is used" in found.notes[0].message


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("codes", {"codec": "another"}, "its codes were made with another codec"),
        ("vector", {"speaker_encoder": "another"}, "its speaker vector was made with another speaker encoder"),
        ("clone", {"codec": "another", "speaker_encoder": "another"}, "with another speaker encoder"),
    ],
)
def test_a_voice_of_which_nothing_fits_is_refused_with_the_reason(
    model: Callable[[str], TTS], voices: dict[str, Voice], kind: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(OptionError, match=f"made with another model.*{reason}.*: make the voice again"):
        resolved(model("base"), replace(voices[kind], **changes))


def test_voices_of_unknown_origin_are_taken_by_their_shape(
    model: Callable[[str], TTS], voices: dict[str, Voice]
) -> None:
    unknown = replace(voices["clone"], codec="", speaker_encoder="")
    assert used(resolved(model("base"), unknown)) == {"speaker", "codes", "transcript"}


def test_a_base_model_may_choose_its_own_voice(model: Callable[[str], TTS]) -> None:
    assert used(resolved(model("base"), None)) == set()


@pytest.mark.parametrize("description", ["", " \n"])
def test_an_empty_description_describes_nothing(model: Callable[[str], TTS], description: str) -> None:
    with pytest.raises(OptionError, match="needs a description"):
        resolved(model("design"), Voice.design(description))


def test_an_empty_instruction_is_none(model: Callable[[str], TTS]) -> None:
    """As in the official `generate_custom_voice`."""
    tts, options = model("custom 1.7B"), SpeechOptions(seed=1, max_frames=2)
    assert resolved(tts, Voice.preset("vivian", instruct="")).instruct is None
    voices = [Voice.preset("vivian", instruct=each) for each in (None, "", "Slowly.")]
    speeches = [beginning(tts, "Hello.", voice, options) for voice in voices]
    assert np.array_equal(speeches[0], speeches[1]) and not np.array_equal(speeches[0], speeches[2])


# -- presets and languages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vivian", "Vivian", "VIVIAN", " vivian "])
def test_a_speaker_is_known_in_any_case(model: Callable[[str], TTS], name: str) -> None:
    tts = model("custom 0.6B")
    expected = tts.vocabulary.speakers["vivian"].id
    assert resolved(tts, Voice.preset(name)).preset == resolved(tts, Voice(preset_name=name)).preset == expected


def test_an_unknown_speaker_is_refused_with_those_there_are(model: Callable[[str], TTS]) -> None:
    tts = model("custom 0.6B")
    with pytest.raises(OptionError, match=r"unknown speaker 'nobody'; this model knows serena, vivian, .*dylan"):
        resolved(tts, Voice.preset("Nobody"))
    assert len(tts.vocabulary.speakers) == 9


@pytest.mark.parametrize(
    ("speaker", "language", "spoken"),
    [
        ("dylan", None, "beijing_dialect"),
        ("dylan", "auto", "beijing_dialect"),
        ("dylan", "chinese", "beijing_dialect"),
        ("dylan", "zh", "beijing_dialect"),
        ("Dylan", "Chinese", "beijing_dialect"),
        ("dylan", "english", "english"),
        ("dylan", "ja", "japanese"),
        ("eric", "chinese", "sichuan_dialect"),
        ("eric", "Auto", "sichuan_dialect"),
        ("eric", "english", "english"),
        ("vivian", None, None),
        ("vivian", "auto", None),
        ("vivian", "chinese", "chinese"),
        ("vivian", "english", "english"),
    ],
)
def test_dialect_speakers_override_chinese_and_auto_only(
    model: Callable[[str], TTS], speaker: str, language: str | None, spoken: str | None
) -> None:
    tts = model("custom 0.6B")
    expected = tts.vocabulary.languages[spoken] if spoken else None
    assert resolved(tts, Voice.preset(speaker), language).language == expected


def test_a_dialect_cannot_be_asked_for_by_itself(model: Callable[[str], TTS]) -> None:
    with pytest.raises(OptionError, match="unknown language 'beijing_dialect'"):
        resolved(model("custom 0.6B"), Voice.preset("vivian"), "beijing_dialect")


@pytest.mark.parametrize(
    ("own", "asked", "spoken"),
    [
        (None, None, None),
        ("english", None, "english"),
        ("fr", None, "french"),
        ("english", "german", "german"),
        ("english", "auto", None),
        ("auto", "ZH", "chinese"),
        (None, "En", "english"),
    ],
)
@pytest.mark.parametrize(("name", "kind"), [("base", "vector"), ("custom 0.6B", "preset"), ("design", "description")])
def test_the_language_asked_for_wins_over_the_voices_own(
    model: Callable[[str], TTS],
    voices: dict[str, Voice],
    name: str,
    kind: str,
    own: str | None,
    asked: str | None,
    spoken: str | None,
) -> None:
    tts = model(name)
    expected = tts.vocabulary.languages[spoken] if spoken else None
    assert resolved(tts, replace(voices[kind], language=own), asked).language == expected


def test_the_language_reaches_the_speech(model: Callable[[str], TTS], voices: dict[str, Voice]) -> None:
    tts, french = model("base"), replace(voices["vector"], language="french")
    speeches = [
        beginning(tts, "Hello.", voice, SpeechOptions(language=language, seed=1, max_frames=2))
        for voice, language in [(french, None), (voices["vector"], "fr"), (french, "german"), (voices["vector"], "de")]
    ]
    assert np.array_equal(speeches[0], speeches[1]) and np.array_equal(speeches[2], speeches[3])
    assert not np.array_equal(speeches[0], speeches[2])


def test_a_voices_unknown_language_is_refused(model: Callable[[str], TTS], voices: dict[str, Voice]) -> None:
    with pytest.raises(OptionError, match="unknown language 'klingon'; this model knows auto, chinese, english"):
        resolved(model("base"), replace(voices["vector"], language="klingon"))


# -- fine-tuned checkpoints --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fine_tuned(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TTS]:
    """fine_tuned(name, spk_is_dialect) -> a CustomVoice model with the one new speaker of Qwen's fine-tuning script."""

    def make(name: str, dialects: Any) -> TTS:
        folder = tmp_path_factory.mktemp("tuned") / "tuned"
        shutil.copytree(checkpoint("tiny", "custom_voice"), folder)
        config = json.loads((folder / "config.json").read_text())
        config["talker_config"] |= {"spk_id": {name: 3000}, "spk_is_dialect": dialects}
        (folder / "config.json").write_text(json.dumps(config))
        return TTS(convert(folder, folder.parent, type="f32", codec_type="f32").talker, n_threads=1)

    return make


@pytest.mark.parametrize("name", ["my_voice", "My_Voice"])
def test_a_fine_tuned_model_speaks_as_its_new_speaker(fine_tuned: Callable[..., TTS], name: str) -> None:
    tts = fine_tuned(name, {name: False})
    assert (tts.kind, list(tts.vocabulary.speakers)) == ("custom_voice", [name])
    assert resolved(tts, Voice.preset("MY_VOICE"), "zh").preset == 3000
    options = SpeechOptions(language="english", max_frames=2)
    with tts.utter("Hello.", Voice.preset(name), options) as utterance:
        assert len(list(utterance)) == 2
    prompt = tts.request("Hello.", Voice.preset(name), options).prompt.embeddings
    row = tts.engine.talker.embed_codec([3000])[0] + tts._prompts._tts_pad
    assert np.abs(prompt - row).max(axis=1).min() < 1e-6
    with pytest.raises(OptionError, match=re.escape(f"unknown speaker 'vivian'; this model knows {name}")):
        resolved(tts, Voice.preset("vivian"))
    assert resolved(tts, None).preset == 3000  # the only one there is


def test_a_fine_tuned_speaker_may_have_a_dialect(fine_tuned: Callable[..., TTS]) -> None:
    tts = fine_tuned("my_voice", {"my_voice": "sichuan_dialect"})
    dialect = tts.vocabulary.languages["sichuan_dialect"]
    assert (
        resolved(tts, Voice.preset("my_voice")).language
        == resolved(tts, Voice.preset("my_voice"), "zh").language
        == dialect
    )
