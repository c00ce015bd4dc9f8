"""What of a text can be spoken: checked against Unicode before the tokenizer sees it.

    letters, digits, symbols, emoji    spoken; symbols and emoji alone with a note, for the model may say anything
    only punctuation or invisible      refused: nothing would be pronounced, and the model would not know when to stop
    spaces of any kind                 a space
    line and paragraph separators      line ends, as \\n and \\r are; other control characters are spaces
    marks that are only for layout     left out: soft hyphens, zero-width spaces, byte order marks, text direction
    joiners, variation selectors       stay: scripts and emoji need them
    unpaired surrogates                refused: not Unicode, as when bytes of another encoding were given
    special tokens (<|im_end|>)        text like any other: tokenizer.py knows none
    Markdown, SSML, URLs, code         text like any other; `strip_markdown` takes the marks out

Length is judged in tokens, by prompt.py.
"""

from __future__ import annotations

import re
import unicodedata

from ..errors import Note, TextError

__all__ = ["clean_text", "is_pronounceable", "prepare_text", "strip_markdown", "with_plain_spaces"]

_LINE_ENDS = {0x85: "\n", 0x2028: "\n", 0x2029: "\n\n"}
# Soft hyphen; zero-width space; word joiner and invisible operators; byte order mark; left to right and back.
_LAYOUT_ONLY = (0xAD, 0x200B, *range(0x2060, 0x2065), 0xFEFF, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F))
_LAYOUT_ONLY += tuple(range(0x2066, 0x206A))
_TABLE: dict[int, str | None] = {
    **{i: " " for i in range(0x3001) if unicodedata.category(chr(i)) in ("Zs", "Cc") and chr(i) not in "\n\r\t"},
    **dict.fromkeys(_LAYOUT_ONLY),
    **_LINE_ENDS,
}
_SSML = re.compile(r"<(speak|break|prosody|say-as|phoneme|emphasis|voice)\b[^<]*>", re.IGNORECASE)


def clean_text(text: str) -> str:
    """The text with plain spaces and line ends, and without marks that are not pronounced; for texts, transcripts and
    instructions alike. Raises TextError."""
    return with_plain_spaces(text).strip()


def with_plain_spaces(text: str) -> str:
    """The same for a part of a text: what stands at its ends stays. Raises TextError."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise TextError("the text is not valid Unicode: it has unpaired surrogates")
    return text.translate(_TABLE)


def prepare_text(text: str) -> tuple[str, tuple[Note, ...]]:
    """The cleaned text, and what may not sound as expected. Raises TextError where there is nothing to pronounce."""
    text = clean_text(text)
    if not text:
        raise TextError("there is no text to speak")
    notes = []
    kinds = {unicodedata.category(letter)[0] for letter in text}
    if not kinds & {"L", "N"}:
        if "S" not in kinds:
            raise TextError("there is nothing to pronounce in the text: it has no letter, digit or symbol")
        notes.append(Note("the text has no letter or digit: the model decides how to pronounce symbols and emoji"))
    if _SSML.search(text):
        notes.append(Note("the text contains SSML, which is spoken like any other text", "remove the tags"))
    return text, tuple(notes)


def is_pronounceable(text: str) -> bool:
    """Whether there is a letter, digit or symbol in it."""
    return any(unicodedata.category(letter)[0] in "LNS" for letter in text)


# -- Markdown ----------------------------------------------------------------------------------------------------------

# Spans are bounded: without that, a megabyte of brackets takes hours.
_MARKDOWN = [
    (re.compile(pattern, re.MULTILINE), replacement)
    for pattern, replacement in (
        (r"<!--[\s\S]{0,999}?-->", ""),
        (r"^[ \t]*(```|~~~).*$", ""),  # the fence; the code stays
        (r"^[ \t]*([-*_][ \t]*){3,}$", ""),  # a rule
        (r"^[ \t]*(\|[ \t]*)?:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)+(\|[ \t]*)?$", ""),  # below a table's head
        (r"^[ \t]*\|[ \t]*|\|[ \t]*$", ""),  # a row's ends
        (r"(?<=\S)[ \t]+\|[ \t]+", ", "),  # between its cells
        (r"^[ \t]*(>[ \t]?)+", ""),  # a quotation
        (r"^[ \t]{0,3}#{1,6}[ \t]+", ""),  # a heading
        (r"^([ \t]*)[-*+][ \t]+(\[[ xX]\][ \t]+)?", r"\1"),  # a list's item, or a task's
        (r"!?\[([^\]\n]{0,500})\]\([^()\s]{0,999}(\([^()\s]{0,99}\)[^()\s]{0,999})?( +\"[^\"\n]{0,500}\")?\)", r"\1"),
        (r"!?\[([^\]\n]{1,500})\]\[[^\]\n]{0,500}\]", r"\1"),
        (r"^[ \t]*\[[^\]\n]+\]:[ \t]+\S+.*$", ""),  # where a link leads
        (r"<(https?://[^>\s]+)>", r"\1"),
        (r"`{1,3}([^`\n]{1,999})`{1,3}", r"\1"),
        (r"(\*{1,3}|~~)(?=\S)([^\n]{0,999}?\S)\1", r"\2"),  # emphasis
        (r"(?<!\w)(_{1,3})(?=\S)([^\n]{0,999}?\S)\1(?!\w)", r"\2"),  # but not snake_case
        (r"\\([\\`*_{}\[\]()#+.!|>~-])", r"\1"),
        (r"\n{3,}", "\n\n"),
    )
]


def strip_markdown(text: str) -> str:
    """The words of a Markdown text without its marks; of links and pictures the words, not the address."""
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text.strip()
