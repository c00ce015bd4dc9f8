"""A book from its file: .txt, .md or .epub."""

from __future__ import annotations

from pathlib import Path

from ..errors import TextError
from .contents import Book
from .epub import read_epub
from .plain import read_markdown, read_text_file

__all__ = ["read_book"]

_SUFFIXES = (".txt", ".md", ".markdown", ".epub")


def read_book(path: Path, *, encoding: str | None = None) -> Book:
    """encoding: of a .txt or .md file; None: UTF-8, or as its byte order mark says. Raises TextError."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        hint = f"books are {', '.join(_SUFFIXES)}"
        if suffix in (".mobi", ".azw", ".azw3", ".kf8", ".pdf", ".docx", ".odt", ".fb2", ".html", ".htm"):
            hint += "; Calibre or Pandoc convert others"
        raise TextError(f"{path}: cannot be read as a book", hint=hint)
    if not path.is_file():
        raise TextError(f"{path}: no such file" if not path.exists() else f"{path}: this is not a file")
    if suffix == ".epub":
        if encoding is not None:
            raise TextError("the pages of an EPUB name their encoding themselves", hint="leave out `encoding`")
        return read_epub(path)
    return read_text_file(path, encoding) if suffix == ".txt" else read_markdown(path, encoding)
