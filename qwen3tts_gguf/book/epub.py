"""An .epub: pages in the order of the spine, cut into sections where the table of contents leads to.

    META-INF/container.xml ──> package.opf ──> metadata, manifest, spine ──pages──> blocks, anchors
                                                  └──> contents: nav page (EPUB 3) or .ncx (EPUB 2) ──> sections

A chapter may go over several pages, and a page may have several chapters (anchors). Pages that the spine calls not
linear, such as notes, are left out. Without a contents list every page is a section, or, in a book of one page, every
heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ..errors import Note, TextError
from .archive import Archive, resolved
from .contents import Block, Book, Section
from .encoding import decoded_page
from .page import Link, Page, parse_page

__all__ = ["read_epub"]

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_FONTS_ONLY = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Algorithms that scramble fonts: the text is readable."""
_PAGES = ("application/xhtml+xml", "text/html", "application/xml", "text/xml", "")
_MOST_LEVELS = 20
_HEADING_LEVEL = 1


def read_epub(path: Path) -> Book:
    """Raises TextError for a file that is no EPUB, is damaged, or has DRM."""
    with Archive(path) as archive:
        return _Epub(archive).book()


class _Epub:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._notes: list[Note] = []
        self._require_no_drm()
        self._package_name = self._find_package()
        self._package = self._xml(self._package_name)
        self._items: dict[str, tuple[str, str, str]] = {  # id -> name in the archive, media type, properties
            item.get("id", ""): (
                resolved(self._package_name, item.get("href", ""))[0],
                item.get("media-type", ""),
                item.get("properties", ""),
            )
            for item in _all(self._package, "item")
        }

    def book(self) -> Book:
        pages = self._pages()
        links = self._contents()
        sections = _by_contents(pages, links) if links else _by_pages(pages)
        if not links:
            self._notes.append(Note("the book has no table of contents: chapters are its pages, or its headings"))
        if n_code := sum(page.n_code for page in pages.values()):
            self._notes.append(Note(f"{n_code} blocks of program code are left out"))
        return Book(
            title=self._metadata("title") or self._archive.path.stem,
            author=", ".join(filter(None, (_words(each) for each in _all(self._package, "creator")))),
            language=self._metadata("language"),
            sections=sections,
            cover=self._cover(),
            notes=tuple(self._notes),
        )

    # -- the package ---------------------------------------------------------------------------------------------------

    def _require_no_drm(self) -> None:
        if _ENCRYPTION not in self._archive:
            return
        methods = {each.get("Algorithm", "") for each in _all(self._xml(_ENCRYPTION), "EncryptionMethod")}
        if not methods <= {*_FONTS_ONLY}:
            raise TextError(
                f"{self._archive.path}: the book is protected (DRM), so its text cannot be read",
                hint="use a copy without protection, which many shops sell or give on request",
            )

    def _find_package(self) -> str:
        if _CONTAINER not in self._archive:
            raise TextError(f"{self._archive.path}: not an EPUB file: {_CONTAINER} is missing in it")
        for file in _all(self._xml(_CONTAINER), "rootfile"):
            if name := resolved("", file.get("full-path", ""))[0]:
                return name
        raise TextError(f"{self._archive.path}: {_CONTAINER} in it names no package")

    def _xml(self, name: str) -> ElementTree.Element:
        text, _ = decoded_page(self._archive.read(name))
        if "<!ENTITY" in text:  # what makes gigabytes of a few lines
            raise TextError(f"{self._archive.path}: {name!r} in it declares entities, which no book needs")
        try:
            return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
        except (ElementTree.ParseError, ValueError, RecursionError) as error:
            raise TextError(f"{self._archive.path}: {name!r} in it is damaged ({error})") from None

    def _metadata(self, name: str) -> str:
        return next(filter(None, (_words(each) for each in _all(self._package, name))), "")

    def _cover(self) -> bytes:
        by_property = (name for name, _, properties in self._items.values() if "cover-image" in properties.split())
        by_meta = (
            self._items[meta.get("content", "")][0]
            for meta in _all(self._package, "meta")
            if meta.get("name") == "cover" and meta.get("content") in self._items
        )
        for name in (*by_property, *by_meta):
            if name in self._archive:
                image = self._archive.read(name)
                if image.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
                    return image
        return b""

    # -- pages ---------------------------------------------------------------------------------------------------------

    def _pages(self) -> dict[str, Page]:
        """The pages of the spine by name, in order. Raises TextError if there are none."""
        pages: dict[str, Page] = {}
        n_guessed = 0
        for reference in _all(self._package, "itemref"):
            name, type, properties = self._items.get(reference.get("idref", ""), ("", "", ""))
            is_contents = "nav" in properties.split()
            if not name or type not in _PAGES or reference.get("linear") == "no" or is_contents or name in pages:
                continue
            if name not in self._archive:
                self._notes.append(Note(f"the page {name!r} is missing in the book"))
                continue
            text, is_guessed = decoded_page(self._archive.read(name))
            n_guessed += is_guessed
            pages[name] = parse_page(text)
        if n_guessed:
            self._notes.append(Note(f"the encoding of {n_guessed} pages is unknown: Windows-1252 is assumed"))
        if not pages:
            raise TextError(f"{self._archive.path}: the book has no pages")
        return pages

    # -- the table of contents -----------------------------------------------------------------------------------------

    def _contents(self) -> list[Link]:
        """Its entries with hrefs as names in the archive, from the nav page or else the .ncx."""
        for name, _, properties in self._items.values():
            if "nav" in properties.split() and name in self._archive:
                page = parse_page(decoded_page(self._archive.read(name))[0])
                if page.contents:
                    return [_absolute(link, name) for link in page.contents]
        spine = next(iter(_all(self._package, "spine")), None)
        named = self._items.get("" if spine is None else spine.get("toc", ""))
        by_type = [item for item in self._items.values() if item[1] == "application/x-dtbncx+xml"]
        for name, _, _ in [named, *by_type] if named else by_type:
            if name in self._archive:
                try:
                    return [_absolute(link, name) for link in _ncx_links(self._xml(name))]
                except TextError as error:
                    self._notes.append(Note(error.message))
        return []


def _absolute(link: Link, base: str) -> Link:
    name, anchor = resolved(base, link.href)
    return Link(link.title, f"{name}#{anchor}", link.level)


def _ncx_links(root: ElementTree.Element) -> Iterator[Link]:
    map = next(iter(_all(root, "navMap")), root)
    stack = [(point, 1) for point in reversed(_children(map, "navPoint"))]
    while stack:
        point, level = stack.pop()
        label, content = _children(point, "navLabel"), _children(point, "content")
        if label and content:
            yield Link(_words(label[0]), content[0].get("src", ""), level)
        if level < _MOST_LEVELS:
            stack += [(child, level + 1) for child in reversed(_children(point, "navPoint"))]


# -- sections ----------------------------------------------------------------------------------------------------------


def _by_contents(pages: dict[str, Page], links: list[Link]) -> list[Section]:
    """Sections that begin where the contents lead to; what comes before the first one has level 0."""
    blocks: list[Block] = []
    starts: dict[str, int] = {}
    for name, page in pages.items():
        starts[name] = len(blocks)
        blocks += page.blocks
    places: list[tuple[int, Link]] = []
    for link in links:
        name, _, anchor = link.href.partition("#")
        if name in pages:
            places.append((starts[name] + pages[name].anchors.get(anchor, 0), link))
    places.sort(key=lambda place: place[0])  # stable: a part stays before its first chapter
    sections = [Section("", 0, blocks[: places[0][0]] if places else blocks)]
    for i, (start, link) in enumerate(places):
        stop = places[i + 1][0] if i + 1 < len(places) else len(blocks)
        sections.append(Section(link.title, link.level, blocks[start:stop]))
    return sections if sections[0].blocks else sections[1:]


def _by_pages(pages: dict[str, Page]) -> list[Section]:
    """A section per page; of a single page, per heading."""
    if len(pages) > 1:
        titled = (
            (_first_heading(page) or page.title or f"Page {i + 1}", page) for i, page in enumerate(pages.values())
        )
        return [Section(title, _HEADING_LEVEL, page.blocks) for title, page in titled]
    sections = [Section("", 0)]
    for block in next(iter(pages.values())).blocks:
        if block.is_heading:
            sections.append(Section(block.text, _HEADING_LEVEL))
        sections[-1].blocks.append(block)
    return sections if sections[0].blocks else sections[1:]


def _first_heading(page: Page) -> str:
    return next((" ".join(block.text.split()) for block in page.blocks[:3] if block.is_heading), "")


# -- XML in any namespace ----------------------------------------------------------------------------------------------


def _all(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if _local(element) == name]


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in element if _local(child) == name]


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())
