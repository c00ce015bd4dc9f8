"""A text of any length as passages, each short enough to be spoken well.

    text ──blank lines──> paragraphs ──sentencex, joined──> sentences ──packed──> passages

A passage is whole sentences of one paragraph, up to `MOST_LETTERS`. The first one is short, so that its sound comes
early. A sentence that is longer is cut at a comma, else between words. Text that is still arriving goes through a
`Splitter`, which returns each passage once nothing that follows can change it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import sentencex

from ..errors import OptionError
from ..model.vocabulary import LANGUAGE_CODES
from .text import clean_text, with_plain_spaces

__all__ = ["MOST_LETTERS", "Boundary", "PassageText", "Split", "Splitter", "n_letters", "split_text"]

Split = Literal["auto", "none", "sentence", "paragraph", "line"]
"""What becomes a passage: what suits the text ("auto"), all of it ("none"), or each sentence, paragraph or line."""
Boundary = Literal["clause", "sentence", "paragraph"]
"""What ends with a passage. "clause": the passage stops inside a sentence, which was too long."""

MOST_LETTERS = 300
"""Of a passage, as `n_letters` counts them: 25 s of speech."""
_FIRST_LETTERS = 40
"""The first passage takes sentences until it has so many: 3 s, enough to carry a voice on from."""
_WIDE_LETTERS = 3
"""A Chinese character takes as long as three Latin letters (voice/clip.py), and so does a digit."""


@dataclass(frozen=True)
class PassageText:
    """The words of a passage."""

    text: str
    boundary: Boundary
    """What ends with it."""


def n_letters(text: str) -> int:
    """Length of a text in Latin letters that take as long to speak."""
    n_wide = sum(letter.isdigit() or unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + (_WIDE_LETTERS - 1) * n_wide


def split_text(
    text: str, split: Split = "auto", *, language: str | None = None, most: int = MOST_LETTERS
) -> list[PassageText]:
    """A whole text as passages; at least one, and exactly one, the text itself, if it fits into a passage.

    language: as in `SpeechOptions`; None: by its script. most: letters of a passage. Raises TextError for invalid
    Unicode, OptionError.
    """
    text = clean_text(text)
    splitter = Splitter(split, language=language, most=most)
    if split == "none" or (split == "auto" and not _is_long(text, most)):
        return [PassageText(text, "paragraph")]
    return [*splitter.feed(text), *splitter.end()] or [PassageText(text, "paragraph")]


class Splitter:
    """Splits a text that arrives in pieces. Not thread-safe.

    Pieces may be cut anywhere. Passages are those of `split_text`, with two differences: a text that fits into one
    passage is split too if it has several sentences, as its end is not known in time; and an open quotation may be
    split at another place.
    """

    def __init__(self, split: Split = "auto", *, language: str | None = None, most: int = MOST_LETTERS) -> None:
        if split not in get_args(Split):
            raise OptionError(f"`split` must be one of {', '.join(get_args(Split))}, not {split!r}")
        self._split, self._most = split, most
        self._language = _iso_code(language)
        self._rest = ""  # arrived, and not known to be complete
        self._held: list[str] = []  # sentences of a passage that may take more
        self._is_first = True

    def feed(self, text: str) -> list[PassageText]:
        """More text; the passages that are complete by now. Raises TextError for invalid Unicode."""
        self._rest += with_plain_spaces(text)
        return [*self._packed(self._complete(is_end=False))]

    def end(self) -> list[PassageText]:
        """No more text; the passages that are left."""
        return [*self._packed(self._complete(is_end=True)), *self._emit("paragraph")]

    # -- sentences -----------------------------------------------------------------------------------------------------

    def _complete(self, *, is_end: bool) -> Iterator[tuple[str, Boundary]]:
        """The sentences (or lines, or paragraphs) of the rest that no later text can change."""
        text, self._rest, start = self._rest, "", 0
        for gap in _PARAGRAPH_END.finditer(text) if self._split != "none" else ():
            yield from self._closed(text[start : gap.start()])
            start = gap.end()
        if is_end:
            yield from self._closed(text[start:])
            return
        text, last_word = _without_last_word(text[start:])
        if units := self._units(text):
            n_ready = _n_ready(units, self._most)
            self._rest = "".join(units[n_ready:]) + last_word
            for unit in units[:n_ready]:
                yield unit, "sentence"
            while self._split in ("auto", "sentence") and len(self._rest) > 2 * self._most:
                head, self._rest = _cut(self._rest, self._most)
                yield head, "clause"
        else:
            self._rest = last_word

    def _closed(self, paragraph: str) -> Iterator[tuple[str, Boundary]]:
        """All units of a paragraph that is complete."""
        units = self._units(paragraph)
        for i, unit in enumerate(units):
            yield unit, "paragraph" if i == len(units) - 1 else "sentence"

    def _units(self, paragraph: str) -> list[str]:
        if not paragraph:
            return []
        if self._split in ("none", "paragraph"):
            return [paragraph]
        if self._split == "line":
            return paragraph.splitlines(keepends=True)
        return _sentences(paragraph, self._language or _by_script(paragraph), self._most)

    # -- packing -------------------------------------------------------------------------------------------------------

    def _packed(self, units: Iterable[tuple[str, Boundary]]) -> Iterator[PassageText]:
        for unit, boundary in units:
            if not _is_spoken(unit):  # a rule, dots: they belong to the words before
                if self._held:
                    self._held.append(unit)
            elif self._split in ("none", "paragraph", "line"):
                self._held.append(unit)
                yield from self._emit(boundary)
            else:
                yield from self._add(unit, boundary)
            if boundary == "paragraph":
                yield from self._emit(boundary)

    def _add(self, sentence: str, boundary: Boundary) -> Iterator[PassageText]:
        if self._held and _is_long("".join([*self._held, sentence]), self._most):
            yield from self._emit("sentence")
        while _is_long(sentence, self._most):
            head, sentence = _cut(sentence, self._most)
            self._held.append(head)
            yield from self._emit("clause")
        self._held.append(sentence)
        is_enough = self._is_first and n_letters("".join(self._held)) >= _FIRST_LETTERS
        if boundary == "clause" or self._split == "sentence" or is_enough:
            yield from self._emit(boundary)

    def _emit(self, boundary: Boundary) -> Iterator[PassageText]:
        text, self._held = "".join(self._held).strip(), []
        if text:
            self._is_first = False
            yield PassageText(text, boundary)


# -- sentences ---------------------------------------------------------------------------------------------------------

_PARAGRAPH_END = re.compile(r"(?:\r\n|\r(?!\n)|\n)[ \t]*(?:\r\n|[\r\n])\s*")
_ISO_CODES = {name: code for code, name in reversed(LANGUAGE_CODES.items())}
_SCRIPTS = {"HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh", "CYRILLIC": "ru"}
_SCRIPT_SAMPLE = 200

# What sentencex takes for the end of a sentence, and is none: titles before a name, and single letters ("J. Smith").
_TITLES = "dr|mr|mrs|ms|mx|prof|st|ste|me|mm|mme|mlle|mgr|sr|sra|srta|dra|don|hr|fr|frl|sig|dott|jr|gen|col|sgt|capt"
_TITLE = re.compile(rf"(?:^|[\s(\"'«“„‘])(?:{_TITLES}|[^\W\d_])\.\s*$", re.IGNORECASE)
_TITLE_LETTERS = 12  # as many of the end as the pattern needs
_WINDOW = 10_000
_WORD_LETTERS = 20
_BRACKETS = {"「": 1, "『": 1, "（": 1, "《": 1, "【": 1, "」": -1, "』": -1, "）": -1, "》": -1, "】": -1}
_QUOTATION_GOES_ON = re.compile(r"[」』]\s*$")
_HIRAGANA = re.compile(r"[\u3041-\u309f]")


def _sentences(paragraph: str, language: str, most: int) -> list[str]:
    """A paragraph's sentences, with the spaces after them: joined, they are the paragraph."""
    joined: list[str] = []
    n_open = 0
    for sentence in _segments(paragraph, language):
        is_open = joined and not _is_long(joined[-1], most) and (n_open > 0 or _belong_together(joined[-1], sentence))
        if is_open:
            joined[-1] += sentence
        else:
            joined.append(sentence)
            n_open = 0
        n_open += sum(_BRACKETS.get(letter, 0) for letter in sentence)
    return joined


def _segments(paragraph: str, language: str) -> Iterator[str]:
    """sentencex's sentences, of some pages at a time: its time grows with the square of the quotation marks."""
    start = 0
    while start < len(paragraph):
        window = paragraph[start : start + _WINDOW]
        found = sentencex.segment(language, window) or [window]
        if start + _WINDOW < len(paragraph) and len(found) > 1:
            found.pop()  # it may go on
        start += sum(map(len, found))
        yield from found


def _belong_together(before: str, after: str) -> bool:
    """Whether two of sentencex's sentences are one."""
    if not _is_spoken(before) or not _is_spoken(after):
        return True
    if _TITLE.search(before[-_TITLE_LETTERS:]):
        return True
    return bool(_QUOTATION_GOES_ON.search(before[-_TITLE_LETTERS:]) and _HIRAGANA.match(after))  # 「はい。」と言った


def _is_long(text: str, most: int) -> bool:
    """Whether it is longer than a passage."""
    return n_letters(text[: most + 1]) > most


def _without_last_word(text: str) -> tuple[str, str]:
    """A text that goes on -> the same up to its last word, and that word, which may be an opening quotation mark."""
    end = len(text) - 1
    while end > max(0, len(text) - _WORD_LETTERS) and not text[end - 1].isspace():
        end -= 1
    return text[:end], text[end:]


def _n_ready(units: list[str], most: int) -> int:
    """How many of the sentences of a text that goes on are sure: not the last, nor those from an open quotation on,
    unless that is longer than a passage."""
    quoting = next((i for i, unit in enumerate(units) if _is_quoting(unit)), len(units))
    n = min(quoting, len(units) - 1)
    return len(units) - 1 if _is_long("".join(units[n:]), most) else n


def _is_quoting(text: str) -> bool:
    return text.count('"') % 2 == 1 or ("„" not in text and text.count("“") > text.count("”"))


def _is_spoken(text: str) -> bool:
    return any(letter.isalnum() for letter in text)


def _iso_code(language: str | None) -> str | None:
    """sentencex's name of a language; None where it is to be found out."""
    name = re.split(r"[-_.@]", (language or "").strip().lower())[0]
    return _ISO_CODES.get(LANGUAGE_CODES.get(name, name))


def _by_script(text: str) -> str:
    """The language whose rules suit the script; "en" for Latin letters, whose languages differ by abbreviations."""
    names = (unicodedata.name(letter, "").partition(" ")[0] for letter in text[:_SCRIPT_SAMPLE] if letter.isalpha())
    scripts = {_SCRIPTS.get(name, "en") for name in names}
    return next((code for code in ("ja", "ko", "zh", "ru") if code in scripts), "en")


# -- sentences that are too long ---------------------------------------------------------------------------------------

_CLAUSE_END = re.compile(r"[,;:،–—…](?=\s)|[、，；：—]")
_SPACE = re.compile(r"\s+")
_LEAST_SHARE = 0.4  # of a passage, so that what is cut off is not a scrap


def _cut(text: str, most_letters: int) -> tuple[str, str]:
    """A text longer than a passage: its beginning, which fits into one, and the rest."""
    most, n = 0, 0
    while n <= most_letters:
        n += n_letters(text[most])
        most += 1
    most -= 1
    least = int(_LEAST_SHARE * most)
    for pattern in (_CLAUSE_END, _SPACE):
        if ends := [found.end() for found in pattern.finditer(text, least, most)]:
            return text[: ends[-1]], text[ends[-1] :]
    while most > 1 and (unicodedata.combining(text[most]) or text[most] in "\u200d\ufe0f"):  # stay with their letter
        most -= 1
    return text[:most], text[most:]
