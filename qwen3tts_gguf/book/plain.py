"""Books of plain text and Markdown: chapters by headings.

.md   headings (# and underlined); fenced code, which nobody wants to hear, is left out; title, author and language
      from the front matter
.txt  lines of their own such as "Chapter 1", "PART TWO", "Kapitel 3. Der Brief", "第三章"; lines broken at a width
      are joined
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import Note, TextError
from ..speech.text import clean_text, strip_markdown
from .contents import Block, Book, Section
from .encoding import is_known_encoding, unmarked

__all__ = ["read_markdown", "read_text_file"]

_MOST_BYTES = 64 << 20
_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


def _decoded(path: Path, encoding: str | None) -> str:
    """The cleaned text of a file. Raises TextError."""
    if encoding is not None and not is_known_encoding(encoding):
        raise TextError(f"unknown encoding {encoding!r}", hint="examples: utf-8, windows-1252, shift_jis")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > _MOST_BYTES:
        raise TextError(f"{path}: too large for a book ({_MOST_BYTES >> 20} MB are read at most)")
    text = unmarked(content) if encoding is None else None
    if text is None:
        try:
            text = content.decode(encoding or "utf-8")
        except UnicodeDecodeError:
            what = f"it is not {encoding} text" if encoding else "it is not UTF-8 text"
            raise TextError(f"{path}: {what}", hint="name the encoding with `encoding`, as windows-1252") from None
    if "\0" in text[:1000]:
        raise TextError(f"{path}: this is not a text file")
    return clean_text(re.sub(r"\r\n?", "\n", text))


# -- plain text --------------------------------------------------------------------------------------------------------

_NUMBER = r"(?:\d{1,4}|[IVXLC]{1,8}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_PART = re.compile(r"(?:part|book|volume|teil|buch|partie|livre|parte|libro|часть)\s+(?:the\s+)?\w+\b.{0,60}", re.I)
_CHAPTER = re.compile(
    rf"(?:chapter|kapitel|chapitre|cap[ií]tulo|capitolo|hoofdstuk|rozdział|глава)\s+{_NUMBER}\b.{{0,70}}"
    r"|(?:prologue?|epilogue?|foreword|preface|introduction|afterword|prolog|epilog|vorwort|nachwort|préface|prólogo"
    r"|epílogo|пролог|эпилог)[.:]?"
    r"|第[0-9〇一二三四五六七八九十百千]{1,6}[章回話话节節].{0,40}"
    r"|제\s?\d{1,4}\s?장.{0,40}",
    re.IGNORECASE,
)


def read_text_file(path: Path, encoding: str | None = None) -> Book:
    """encoding: of the file; None: UTF-8, or as its byte order mark says. Raises TextError."""
    sections = [Section("", 0)]
    has_chapters = False
    for paragraph in _BLANK_LINES.split(_decoded(path, encoding)):
        text = " ".join(paragraph.split())
        level = _level_of(text)
        if level:
            has_chapters |= level == 2
            sections.append(Section(text, level))
        sections[-1].blocks.append(Block(text, is_heading=bool(level)))
    if not has_chapters:  # "Part" may begin any short paragraph: alone it is the highest level
        for section in sections:
            section.level = min(section.level, 1)
    return Book(path.stem, sections if sections[0].blocks else sections[1:])


def _level_of(paragraph: str) -> int:
    """Of a heading; 0 for any other paragraph."""
    if len(paragraph) > 90 or paragraph.endswith((",", ";")):
        return 0
    if _CHAPTER.fullmatch(paragraph):
        return 2
    return 1 if _PART.fullmatch(paragraph) and not paragraph.endswith((".", "!", "?")) else 0


# -- Markdown ----------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})")
_ATX = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r"[ ]{0,3}(=+|-+)[ \t]*")
_FIELD = re.compile(r"(title|author|language|lang):[ \t]*(.+)", re.IGNORECASE)


def read_markdown(path: Path, encoding: str | None = None) -> Book:
    """encoding: of the file; None: UTF-8, or as its byte order mark says. Raises TextError."""
    lines = _decoded(path, encoding).split("\n")
    fields, lines = _front_matter(lines)
    sections = [Section("", 0)]
    lines, n_code = _without_code(lines)
    held: list[str] = []
    for line in lines:
        heading, level = _heading(line, held)
        if level:
            _add(sections[-1], held)
            held = []
            sections.append(Section(heading, level, [Block(heading, is_heading=True)]))
        else:
            held.append(line)
    _add(sections[-1], held)
    notes = (Note(f"{n_code} blocks of program code are left out"),) if n_code else ()
    sections = sections if sections[0].blocks else sections[1:]
    title = fields.get("title", path.stem)
    tops = [section for section in sections if section.level == 1]
    if len(tops) == 1 and sections[0] is tops[0]:  # a single highest heading is the book's title
        title = fields.get("title", tops[0].title)
        for section in sections[1:]:
            section.level = max(1, section.level - 1)
    language = fields.get("language", fields.get("lang", ""))
    return Book(title, sections, author=fields.get("author", ""), language=language, notes=notes)


def _front_matter(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """What is known by name at the start of the file, and the lines after it."""
    if not lines or lines[0].rstrip() != "---":
        return {}, lines
    end = next((i for i, line in enumerate(lines[1:200], 1) if line.rstrip() in ("---", "...")), 0)
    found = (_FIELD.fullmatch(line.strip()) for line in lines[1:end])
    fields = {match[1].lower(): match[2].strip().strip("\"'") for match in found if match}
    return fields, lines[end + 1 :] if end else lines


def _without_code(lines: list[str]) -> tuple[list[str], int]:
    """The lines outside fences, and how many fenced blocks there were."""
    kept: list[str] = []
    fence, n_code = "", 0
    for line in lines:
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and line.strip() == found[1]:
                fence = ""
        elif found:
            fence = found[1]
            n_code += 1
        else:
            kept.append(line)
    return kept, n_code


def _heading(line: str, held: list[str]) -> tuple[str, int]:
    """Its text and level, 0 if the line ends no heading. Of an underlined one, `held` loses the text."""
    if found := _ATX.fullmatch(line):
        return strip_markdown(found[2]), len(found[1])
    found = _UNDERLINE.fullmatch(line)
    is_alone = bool(held and held[-1].strip()) and (len(held) == 1 or not held[-2].strip())
    if found and is_alone and not held[-1].lstrip().startswith(("-", "*", "+", ">", "|", "#")):
        return strip_markdown(held.pop()), 1 if found[1][0] == "=" else 2
    return "", 0


def _add(section: Section, lines: list[str]) -> None:
    text = strip_markdown("\n".join(lines))
    section.blocks += [Block(paragraph.strip()) for paragraph in _BLANK_LINES.split(text) if paragraph.strip()]
