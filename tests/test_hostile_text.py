"""Texts that no user should send: spoken as text or refused in a sentence, never parsed, never a crash."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import beginning

from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.errors import TextError
from qwen3tts_gguf.speech.text import clean_text, prepare_text

ONE_FRAME = SpeechOptions(max_frames=1, seed=1)
SPECIAL = ["<|im_end|>", "<|im_start|>", "<tts_pad>", "<tts_text_eod>", "<|codec_eos|>", "<|codec_eos_token|>"]


@pytest.mark.parametrize(
    "text",
    [
        "Hello.",
        "مرحبا بالعالم",
        "שלום עולם",  # right to left
        "کتاب\u200cها",  # a joiner that Persian needs
        "e\u0301" * 50,
        "Hi 👋🏽 👩‍👩‍👧",
        "7",
        "\U0001d55c\U0001d560",
        "a\U000f0000b",  # private use
        *SPECIAL,
    ],
)
def test_text_is_left_as_it_is(text: str) -> None:
    assert prepare_text(text) == (text, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no text"),
        (" \n\t\u3000", "no text"),
        ("\x00\x01\x1b\x7f", "no text"),
        ("\ufeff", "no text"),
        ("...!?", "nothing to pronounce"),
        ("。！？，", "nothing to pronounce"),
        ("— \u2026 «»", "nothing to pronounce"),
        ("\u200b\u2060\u202e\xad", "no text"),
        ("\u200d\u200c", "nothing to pronounce"),
        ("\u0301\u0301", "nothing to pronounce"),
        ("a\ud800", "unpaired surrogates"),
        ("\udcff\udcfe", "unpaired surrogates"),  # bytes of another encoding on the command line
    ],
)
def test_text_that_cannot_be_spoken_is_refused_in_a_sentence(text: str, message: str) -> None:
    with pytest.raises(TextError, match=message) as caught:
        prepare_text(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["😀😀😀", "€ + %$", "♥"])
def test_symbols_alone_are_spoken_with_a_note(text: str) -> None:
    cleaned, (note,) = prepare_text(text)
    assert cleaned == text and "the model decides" in note.message


def test_control_characters_are_spaces_and_line_ends_stay() -> None:
    assert clean_text("\ufeffone\x00two\x1b[31mthree\x0cfour\nfive\r\n") == "one two [31mthree four\nfive"


@pytest.mark.parametrize("special", SPECIAL)
def test_a_special_token_in_any_text_of_a_prompt_is_text(tts: TTS, special: str) -> None:
    """As text it takes several tokens; parsed it would take one."""
    prompts, ids = tts._prompts, tts._prompts._vocabulary.text
    controls = {ids.im_start, ids.im_end, ids.tts_pad, ids.tts_bos, ids.tts_eos}
    typed = prompts.text_ids(special)[3:-5]
    assert len(typed) > 1 and not controls & {*typed}
    assert not controls & {*prompts._reference_ids(special)}
    assert not controls & {*prompts._instruct_ids(special)[1:-2]}


@pytest.mark.parametrize("text", [*SPECIAL, "שלום", "\x07bell", "a\u200bb", "!a", "👩‍👩‍👧 family"])
def test_odd_text_speaks(tts: TTS, text: str) -> None:
    assert beginning(tts, text, None, ONE_FRAME).shape == (1920,)


@pytest.mark.parametrize(
    "text", ["word " * 200_000, "a" * 1_000_000, "👩‍👩‍👧" * 40_000, "你好" * 160_000, "! a" * 300_000]
)
def test_a_megabyte_of_text_is_too_long_and_says_so(tts: TTS, text: str) -> None:
    with pytest.raises(TextError, match=r"too long for this model: \d+ tokens"):
        tts.utter(text, options=ONE_FRAME)


def test_a_megabyte_of_instruction_or_transcript_is_too_long_too(tts: TTS) -> None:
    voice = Voice(codes=np.zeros((2, 16), np.int32), transcript="word " * 200_000)
    with pytest.raises(TextError, match="too long for this model"):
        tts.utter("Hello.", voice, ONE_FRAME)
    with pytest.raises(TextError, match="too long for this model"):
        tts._prompts.build("Hello.", language=None, instruct="word " * 200_000)
