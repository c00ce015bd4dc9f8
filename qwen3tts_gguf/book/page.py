"""A page of an .epub as blocks of text a listener wants to hear, and where its anchors are.

read        paragraphs, headings, lists, quotations, captions, sidebars; table rows with commas between the cells
left out    notes and their marks, page numbers, program code, pictures, the contents list, indexes, what is hidden
of a picture only the alt text of one letter is read: an initial
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from .contents import Block, is_readable

__all__ = ["Link", "Page", "parse_page"]

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = {
    *_HEADINGS, "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "li", "main", "ol", "p", "pre",
    "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
_LEFT_OUT = {
    "audio", "button", "canvas", "embed", "iframe", "map", "object", "rp", "rt", "script", "select", "style", "svg",
    "template", "textarea", "video",
}  # fmt: skip
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_PURPOSES_LEFT_OUT = {  # epub:type, and the same as an ARIA role without "doc-"
    "copyright-page", "endnote", "endnotes", "footnote", "footnotes", "index", "landmarks", "loi", "lot", "noteref",
    "page-list", "pagebreak", "rearnote", "rearnotes", "toc",
}  # fmt: skip
_NOTE_MARK = re.compile(r"[\s\[(]*(\d{1,3}|[*†‡§¶]{1,3}|[ivx]{1,5})[\s\])]*")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\r\n\f]+")


@dataclass(frozen=True)
class Link:
    """An entry of a contents list."""

    title: str
    href: str
    level: int


@dataclass
class Page:
    """What is in a page."""

    blocks: list[Block] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)
    """Of each id the block it is in, or before."""
    title: str = ""
    contents: list[Link] = field(default_factory=list)
    """Of a navigation page: its contents list."""
    n_code: int = 0
    """How many blocks of program code were left out."""


def parse_page(text: str) -> Page:
    """Of any HTML or XHTML, however damaged."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    return parser.finished()


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._text: list[str] = []  # of the block that is open
        self._heading: str | None = None
        self._skipped = ""  # the tag of an element that is left out, while inside
        self._n_skipped = 0  # elements with that tag that are open
        self._title: list[str] | None = None
        self._link: tuple[str, list[str], int] | None = None  # href, text, where the block's text was when it began
        self._is_after_cell = False  # in a row of a table, with text in a cell before
        self._cell_start = 0
        self._pre: list[str] | None = None  # a text as it was set, until it is known not to be code
        self._is_code = False
        self._contents = 0  # depth of lists in a navigation's contents, from 1 on; 0 outside
        self._in_contents = False

    def finished(self) -> Page:
        self._close_block()
        if not self.page.title:
            self.page.title = next((block.text for block in self.page.blocks if block.is_heading), "")
        return self.page

    # -- tags ----------------------------------------------------------------------------------------------------------

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if self._skipped:
            self._n_skipped += tag == self._skipped
            return
        for name in (given.get("id"), given.get("name") if tag == "a" else None):
            if name:
                if tag in _BLOCKS:
                    self._close_block()
                self.page.anchors.setdefault(name, len(self.page.blocks))
        purposes = {each.removeprefix("doc-") for key in ("epub:type", "role") for each in given.get(key, "").split()}
        if tag == "nav" and "toc" in purposes:
            self._in_contents = True
            return
        is_left_out = tag in _LEFT_OUT or (tag == "nav" and not self._in_contents) or purposes & _PURPOSES_LEFT_OUT
        is_hidden = "hidden" in given or given.get("aria-hidden") == "true" or _HIDDEN.search(given.get("style", ""))
        if is_left_out or is_hidden:
            self._skip(tag)
            return
        if tag == "title":
            self._title = []
        elif tag == "br":
            self._text.append("\n")
        elif tag == "img" and len(given.get("alt", "").strip()) == 1:
            self._text.append(given["alt"].strip())
        elif tag == "math" and given.get("alttext"):
            self._text.append(given["alttext"])
            self._skip(tag)
        elif tag == "a" and "href" in given:
            self._link = given["href"], [], len(self._text)
        elif tag in ("td", "th"):
            if self._is_after_cell:
                self._text.append(", ")
                self._is_after_cell = False
            self._cell_start = len(self._text)
        elif tag == "code" and self._pre is not None:
            self._is_code = True
        elif tag in _BLOCKS:
            self._open_block(tag)

    def _skip(self, tag: str) -> None:
        if tag not in _VOID:
            if tag in _BLOCKS:
                self._close_block()
            self._skipped, self._n_skipped = tag, 1

    def _open_block(self, tag: str) -> None:
        self._close_block()
        self._is_after_cell = False
        if tag in _HEADINGS:
            self._heading = tag
        elif tag == "pre":
            self._pre, self._is_code = [], False
        elif tag in ("ol", "ul") and self._in_contents:
            self._contents += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._n_skipped -= tag == self._skipped
            if not self._n_skipped:
                self._skipped = ""
            return
        if tag == "title" and self._title is not None:
            self.page.title, self._title = _plain("".join(self._title)), None
        elif tag == "a" and self._link is not None:
            self._end_link()
        elif tag in ("td", "th"):
            self._is_after_cell |= is_readable("".join(self._text[self._cell_start :]))
        elif tag == "nav":
            self._in_contents, self._contents = False, 0
        elif tag in _BLOCKS:
            if tag in ("ol", "ul") and self._contents:
                self._contents -= 1
            self._close_block()
            self._heading = None if tag in _HEADINGS else self._heading
            self._pre = None if tag == "pre" else self._pre

    def _end_link(self) -> None:
        assert self._link is not None
        href, text, start = self._link
        self._link = None
        words = "".join(text)
        if self._in_contents and self._contents:
            self.page.contents.append(Link(_plain(words), href, self._contents))
        elif "#" in href and _NOTE_MARK.fullmatch(words):
            del self._text[start:]

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self._title.append(data)
        elif not self._skipped:
            self._text.append(data)
            if self._pre is None:
                self._text[-1] = _SPACES.sub(" ", data)
            if self._link is not None:
                self._link[1].append(data)

    def _close_block(self) -> None:
        text = _plain("".join(self._text))
        is_code, self._text = self._pre is not None and self._is_code, []
        if self._in_contents:
            text = ""
        if is_code:
            self.page.n_code += bool(text)
        elif is_readable(text):
            self.page.blocks.append(Block(text, is_heading=self._heading is not None))
        self._heading = None if text else self._heading
        if text or is_code:
            self._pre = None


def _plain(text: str) -> str:
    """Lines without spaces at their ends."""
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
