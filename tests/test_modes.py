"""Every way to choose a voice, in both layouts, against the official package: prompt, and 30 greedy frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import GOLDEN, relative_error

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.speech.prompt import Layout

TEXTS: dict[str, str] = json.loads((GOLDEN / "versions.json").read_text())["texts"]
LAYOUTS: dict[str, Layout] = {"nonstreaming": "whole", "streaming": "stepwise"}
MODELS = {"xvector": "base", "clone": "base", "clone_short": "base", "design": "voice_design"}
CASES = [
    "clone",
    "clone_short",
    "xvector",
    *(f"preset.{speaker}.{language}" for speaker in ("vivian", "dylan") for language in ("auto", "chinese", "english")),
    "preset_instruct",
    "design",
    *(f"{case}.{language}" for case in ("clone", "xvector", "preset_instruct") for language in ("chinese", "auto")),
    *(f"design.{language}" for language in ("english", "chinese")),
]


@pytest.fixture(scope="module")
def model(pair: Callable[..., ConvertedPair]) -> Callable[[str], TTS]:
    loaded: dict[tuple[str, str], TTS] = {}

    def load(case: str) -> TTS:
        mode = case.partition(".")[0]
        model_type = MODELS.get(mode, "custom_voice")
        size = "tiny-1.7b" if mode == "preset_instruct" else "tiny"  # the 0.6B does not follow instructions
        if (size, model_type) not in loaded:
            loaded[size, model_type] = TTS(pair(size=size, model_type=model_type).talker)
        return loaded[size, model_type]

    return load


def asked(case: str, tts: TTS) -> tuple[str, Voice, str]:
    """Text, voice and language of a case, as golden/make_golden.py has them."""
    clip = {"audio": tiny.reference_clip(), "tts": tts, "rate_hz": 24_000, "pad_seconds": 0}
    mode, _, asked_for = case.partition(".")
    language = asked_for or "english"
    if mode == "clone":
        return TEXTS["english"], Voice.from_audio(**clip, transcript=TEXTS["reference"]), language
    if case == "clone_short":
        return "Hello!", Voice.from_audio(**clip, transcript="The light."), "english"
    if mode == "xvector":
        return TEXTS["english"], Voice.from_audio(**clip), language
    if mode == "design":
        return TEXTS["english"], Voice.design(TEXTS["instruct"]), asked_for or "auto"
    if mode == "preset_instruct":
        return TEXTS["english"], Voice.preset("Vivian", instruct=TEXTS["instruct"]), language
    _, speaker, language = case.split(".")
    return TEXTS["chinese"], Voice.preset(speaker), language


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_mode_equals_the_official_one(
    golden: Callable[[str], dict[str, Any]], model: Callable[[str], TTS], case: str, layout: str
) -> None:
    expected, tts = golden("modes"), model(case)
    key, column_step = f"{case}.{layout}", golden("modes")["steps"][1]
    text, voice, language = asked(case, tts)
    options = SpeechOptions(language=language, greedy=True, max_frames=30, layout=LAYOUTS[layout])
    with tts.utter(text, voice, options) as utterance:
        samples = np.concatenate(list(utterance))
    prompt = tts.request(text, voice, options).prompt
    assert relative_error(prompt.embeddings[:, ::column_step], expected[f"{key}.prompt"]) < 1e-4
    assert relative_error(prompt.trailing[:, ::column_step], expected[f"{key}.trailing"]) < 1e-4
    assert utterance.codes.tolist() == expected[f"{key}.codes"].tolist()
    if case in ("clone", "clone_short"):
        assert voice.codes is not None
        assert voice.codes.tolist() == expected[f"{case}.reference_codes"].tolist()
        sample_step = expected[f"{key}.waveform.steps"][0]
        assert relative_error(samples[::sample_step], expected[f"{key}.waveform"].reshape(-1)) < 1e-4
