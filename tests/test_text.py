"""Texts from the web, from editors and from chats: what is cleaned, what is noted, and what stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.model import nano
from qwen3tts_gguf.speech.text import clean_text, prepare_text, strip_markdown

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u2009", "\u3000", "\u2003", "\u1680", "\x0b", "\x1f"])
def test_spaces_of_any_kind_are_a_space(space: str) -> None:
    assert clean_text(f"{space}12{space}km{space}") == "12 km"


def test_separators_of_lines_and_paragraphs_are_line_ends() -> None:
    assert clean_text("one\u2028two\u2029three\x85four") == "one\ntwo\n\nthree\nfour"
    assert clean_text("one\r\ntwo\tthree\nfour") == "one\r\ntwo\tthree\nfour"


@pytest.mark.parametrize(
    "mark",
    ["\u00ad", "\u200b", "\u2060", "\u2063", "\ufeff", "\u200e", "\u200f", "\u061c", "\u202e", "\u2066", "\u2069"],
)
def test_marks_that_are_only_for_layout_are_left_out(mark: str) -> None:
    assert clean_text(f"{mark}syl{mark}lable{mark}") == "syllable"


@pytest.mark.parametrize(
    "text", ["کتاب\u200cها", "क्\u200dष", "👩\u200d👩\u200d👧", "❤\ufe0f", "🏴\U000e0067\U000e007f", "e\u0301"]
)
def test_joiners_that_scripts_and_emoji_need_stay(text: str) -> None:
    assert clean_text(text) == text


def test_transcripts_and_instructions_are_cleaned_as_texts_are(tts: TTS) -> None:
    import numpy as np
    import tiny

    clip = tiny.reference_clip()
    plain = Voice.from_audio(clip, tts, rate_hz=24_000, transcript="The light came on again.")
    marked = Voice.from_audio(clip, tts, rate_hz=24_000, transcript="\ufeffThe\u00a0light came\u00ad on again.\r\n")
    assert marked.transcript == plain.transcript and np.array_equal(marked.codes, plain.codes)
    spoken = Voice.from_speech(np.zeros((3, 16), np.int32), "\ufeffHel\u00adlo.", "")
    assert spoken.transcript == "Hello."
    clone = Voice(codes=plain.codes, transcript="\u200bThe light came on again.", codec=plain.codec)
    assert tts._compatibility.resolve(clone, None).transcript == "\u200bThe light came on again."  # saved voices stay


def test_ssml_is_noted() -> None:
    text = 'Wait <break time="1s"/> here.'
    cleaned, (note,) = prepare_text(text)
    assert cleaned == text and "SSML" in note.message
    assert prepare_text("if a < b and break > c")[1] == ()


# -- nano --------------------------------------------------------------------------------------------------------------


def test_words_that_nano_does_not_know_are_named() -> None:
    (note,) = nano.word_notes("Hi, world! Turn off the light. World?")
    assert note.message == "nano does not know: hi, world" and "numbers, times" in note.hint
    assert nano.word_notes("Hello Robert, how are you today? Twenty-five.") == ()
    (many,) = nano.word_notes(" ".join(f"word{i}" for i in range(30)))
    assert many.message.endswith("word9 and 20 more")


def test_nanos_utterances_carry_the_note() -> None:
    tts = TTS(nano.folder(), n_threads=1)
    with tts.utter("Seven zebras.", options=SpeechOptions(max_frames=1)) as utterance:
        assert [note.message for note in utterance.notes] == ["nano does not know: zebras"]


def test_nanos_words_are_those_of_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "models" / "nano" / "recipe")])
    from domain import WORDS

    assert (nano.folder() / "words.txt").read_text().split() == WORDS


# -- Markdown ----------------------------------------------------------------------------------------------------------

MARKDOWN = """\
# Getting *started*

Read the [manual](https://example.com/a_(b) "Title") and ![a picture](x.png).

> Quoted **twice** and ~~gone~~.

- first `code`
* [x] second, snake_case_name
1. third \\* star

| name | value |
|------|:-----:|
| one  | 2     |

```python
print(3 * 4 * 5)
```

---
[ref]: https://example.com
See [here][ref], <https://example.org>.<!-- hidden -->
"""
WORDS = """\
Getting started

Read the manual and a picture.

Quoted twice and gone.

first code
second, snake_case_name
1. third * star

name, value

one, 2

print(3 * 4 * 5)

See here, https://example.org."""


def test_markdown_loses_its_marks_and_keeps_its_words() -> None:
    lines = [line.strip() for line in strip_markdown(MARKDOWN).splitlines()]
    assert "\n".join(lines).replace("\n\n\n", "\n\n") == WORDS


@pytest.mark.parametrize(
    "text", ["2 * 3 * 4", "a_b_c", "C# and F#", "5 > 3", "-5 degrees", "a | b", "it's [sic] so", "x**"]
)
def test_text_that_is_no_markdown_stays(text: str) -> None:
    assert strip_markdown(text) == text.replace("a | b", "a, b")


@pytest.mark.parametrize("part", ["[", "*", "**a ", "`", "_a", "<!--", "| ", "#", "- ", "~~a", "![a](", "\\", ">", " "])
def test_no_text_makes_markdown_slow(part: str) -> None:
    """All patterns together take a second; one that backtracks would take hours."""
    assert len(strip_markdown(part * (200_000 // len(part)))) <= 200_000
