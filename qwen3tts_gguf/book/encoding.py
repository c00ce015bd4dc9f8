"""Bytes of a page as text: by byte order mark, by what the page declares, else UTF-8, else Windows-1252."""

from __future__ import annotations

import codecs
import re

__all__ = ["decoded_page", "is_known_encoding", "unmarked"]

_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,200}\bencoding\s*=\s*["']([\w.:-]{1,40})"""
    rb"""|<meta[^>]{0,200}\bcharset\s*=\s*["']?([\w.:-]{1,40})""",
    re.IGNORECASE,
)
_HEAD = 2048
# Python has codecs that are no encodings of pages, and slow ones.
_KNOWN = re.compile(
    r"utf|ascii|latin|iso-?8859|iso8859|cp\d|koi8|mac|shift|sjis|euc|gb|big5|iso2022|johab|hz|tis|ptcp|viscii"
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_known_encoding(name: str) -> bool:
    """Whether it is an encoding of text that Python has."""
    try:
        return bool(_KNOWN.match(codecs.lookup(name).name)) and name.lower() != "utf-7"
    except LookupError:
        return False


def unmarked(content: bytes) -> str | None:
    """The text of bytes that start with a byte order mark, None if there is none or they contradict it."""
    for mark, name in _MARKS:
        if content.startswith(mark):
            try:
                return content.decode(name).removeprefix("\ufeff")
            except UnicodeDecodeError:
                return None
    return None


def decoded_page(content: bytes) -> tuple[str, bool]:
    """The text of an HTML or XML page, and whether its encoding had to be guessed. Never fails."""
    if (text := unmarked(content)) is not None:
        return text, False
    if content[:4] in (b"<\0?\0", b"\0<\0?"):
        return content.decode("utf-16-le" if content[0] else "utf-16-be", "replace"), False
    found = _DECLARED.search(content[:_HEAD])
    declared = (found[1] or found[2]).decode("ascii") if found else ""
    if declared.lower() in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"):
        declared = "windows-1252"  # as every browser takes them
    if declared.lower().startswith("utf-16"):
        declared = ""  # the declaration could be read, so it is not
    for name in (declared, "utf-8"):
        if name and is_known_encoding(name):
            try:
                return content.decode(name), False
            except UnicodeDecodeError:
                continue
    return content.decode("windows-1252", "replace"), True
