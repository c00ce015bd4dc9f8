"""What every kind of book becomes: sections, one per heading or entry of the contents, and the chapters made of them.

    .txt .md .epub ──> Section, Section, ... ──chapters_of──> Chapter, Chapter, ...   a sound file each

Sections of small headings are joined to the chapter they belong to. How small is small is either given, as the number
of levels, or chosen: the most levels with which the typical chapter still has a few minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from ..errors import Note, TextError
from ..speech.passages import n_letters

__all__ = ["LETTERS_PER_SECOND", "Block", "Book", "Chapter", "Section", "chapters_of", "is_readable"]

LETTERS_PER_SECOND = 12
"""Of speech at normal speed, as `n_letters` counts (speech/passages.py)."""
_SHORT_CHAPTER = 2_000
"""Letters, three minutes: if the typical chapter were shorter, it would rather be a section of one."""


@dataclass(frozen=True)
class Block:
    """A paragraph, heading or item of a list."""

    text: str
    is_heading: bool = False


@dataclass
class Section:
    """What follows one heading, up to the next one of any level."""

    title: str
    level: int
    """1 is the highest. 0: what comes before the first heading."""
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Chapter:
    """A part of a book that becomes one sound file, or one mark in an .m4b."""

    title: str
    text: str
    """Paragraphs with blank lines between them."""

    @property
    def n_letters(self) -> int:
        return n_letters(self.text)

    @property
    def seconds(self) -> float:
        """Estimated length at normal speed."""
        return self.n_letters / LETTERS_PER_SECOND


@dataclass(frozen=True)
class Book:
    """A book as it was read from its file."""

    title: str
    sections: Sequence[Section]
    author: str = ""
    language: str = ""
    """As the book gives it, usually an ISO code; empty where it does not."""
    cover: bytes = b""
    """A JPEG or PNG image, if there is one."""
    notes: tuple[Note, ...] = ()
    """What of the file could not be read, or is left out."""

    def chapters(self, n_levels: int | None = None) -> list[Chapter]:
        """n_levels: how many levels of headings begin a chapter; None: as suits the book. Raises TextError for a book
        without anything to read."""
        return chapters_of(self.sections, self.title, n_levels)


def chapters_of(sections: Sequence[Section], book_title: str, n_levels: int | None = None) -> list[Chapter]:
    """The chapters of a book, in order, at least one. A page with headings alone ("Part One") begins the chapter that
    follows it. Raises TextError if there is nothing to read."""
    if n_levels is not None:
        chapters = _joined(sections, book_title, n_levels)
    else:
        depth = max((section.level for section in sections), default=1)
        choices = [_joined(sections, book_title, n) for n in range(max(depth, 1), 0, -1)]
        chapters = next((each for each in choices if _is_typical_long(each)), choices[-1])
    if not chapters:
        raise TextError(f"{book_title}: there is no text to read in this book")
    return chapters


def _is_typical_long(chapters: list[Chapter]) -> bool:
    return bool(chapters) and median(chapter.n_letters for chapter in chapters) >= _SHORT_CHAPTER


def _joined(sections: Sequence[Section], book_title: str, n_levels: int) -> list[Chapter]:
    groups: list[Section] = []
    for section in sections:
        begins = section.level <= n_levels and not (groups and _has_headings_alone(groups[-1]))
        if not groups or begins:
            groups.append(Section(section.title, section.level, [*section.blocks]))
            continue
        last = groups[-1]
        if section.level <= n_levels and section.title and section.title != last.title:
            last.title = f"{last.title}. {section.title}" if last.title and last.level else section.title
            last.level = last.level or section.level
        last.blocks += section.blocks
    chapters = []
    for group in groups:
        text = "\n\n".join(block.text for block in group.blocks if is_readable(block.text))
        if text:
            chapters.append(Chapter(" ".join(group.title.split()) or book_title, text))
    return chapters


def _has_headings_alone(section: Section) -> bool:
    return all(block.is_heading or not is_readable(block.text) for block in section.blocks)


def is_readable(text: str) -> bool:
    """Whether there is a letter or digit in it: rows of stars and ornaments are not read."""
    return any(letter.isalnum() for letter in text)
