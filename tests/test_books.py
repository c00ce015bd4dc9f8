"""Books as chapters: what of .txt, .md and .epub is read, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import epubs
import pytest

from qwen3tts_gguf import TextError
from qwen3tts_gguf.book.chapters import read_book
from qwen3tts_gguf.book.naming import chapter_name
from qwen3tts_gguf.book.page import parse_page


def texts(path: Path, levels: int | None = None) -> list[tuple[str, str]]:
    return [(chapter.title, chapter.text) for chapter in read_book(path).chapters(levels)]


def test_a_nested_epub_is_read_without_notes_and_pictures(tmp_path: Path) -> None:
    path = epubs.write_epub(tmp_path / "a.epub", epubs.PAGES, nav=epubs.NAV)
    assert texts(path, 2) == [
        ("Part One. Morning", "Part One\n\nMorning\n\nMy name is Anna.\n\nWait ten days."),
        ("Evening", "Evening\n\nThank you very much, David."),
        ("Part Two. Night", "Part Two\n\nNight\n\nThe cat is caf\u00e9 black.\n\nThe box is red."),
    ]
    assert [title for title, _ in texts(path, 1)] == ["Part One", "Part Two"]
    book = read_book(path)
    assert (book.title, book.author, book.language, book.cover) == ("The Black Cat", "Anna", "en", epubs.PNG)


def test_an_old_contents_list_is_read_too(tmp_path: Path) -> None:
    ncx = (
        "<navPoint><navLabel><text>Day</text></navLabel><content src='one.xhtml'/></navPoint>"
        "<navPoint><navLabel><text>Night</text></navLabel><content src='two.xhtml#c'/></navPoint>"
    )
    path = epubs.write_epub(tmp_path / "a.epub", epubs.PAGES, ncx=ncx)
    assert [title for title, _ in texts(path, 1)] == ["Day", "Night"]


def test_without_contents_pages_are_chapters(tmp_path: Path) -> None:
    path = epubs.write_epub(tmp_path / "a.epub", epubs.PAGES)
    assert [title for title, _ in texts(path)] == ["Part One", "Part Two", "Page 3"]
    assert any("no table of contents" in str(note) for note in read_book(path).notes)


def test_protected_damaged_and_hostile_epubs_are_refused(tmp_path: Path) -> None:
    drm = (
        '<encryption><EncryptedData><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>'
        "</EncryptedData></encryption>"
    )
    fonts = drm.replace("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "http://www.idpf.org/2008/embedding")
    path = epubs.write_epub(tmp_path / "a.epub", epubs.PAGES, extra={"META-INF/encryption.xml": drm})
    with pytest.raises(TextError, match="DRM"):
        read_book(path)
    assert read_book(epubs.write_epub(path, epubs.PAGES, extra={"META-INF/encryption.xml": fonts})).sections
    path.write_bytes(b"PK no")
    with pytest.raises(TextError, match="not a zip archive"):
        read_book(path)
    epubs.write_epub(path, epubs.PAGES, extra={"META-INF/encryption.xml": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'})
    with pytest.raises(TextError, match="declares entities"):
        read_book(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("META-INF/container.xml", bytes(33 << 20))
    with pytest.raises(TextError, match="too large"):
        read_book(path)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<table><tr><td>Ten</td><td></td><td>boxes</td></tr><tr><td>Red</td></tr></table>", ["Ten, boxes", "Red"]),
        ("<p><img alt='T'/>en days.</p>", ["Ten days."]),
        ("<pre>a line\nits end</pre><pre><code>x = 1</code></pre><p>End.</p>", ["a line\nits end", "End."]),
        ("<p hidden>No.</p><p style='display:none'>No.</p><p>* * *</p><p>Yes.</p>", ["Yes."]),
        ("<h1></h1><p>One<br/>two<span epub:type='pagebreak' id='p'/></p>", ["One\ntwo"]),
        ("<p>unclosed<p>tags <b>are <i>fine</p>", ["unclosed", "tags are fine"]),
        ("<p><ruby>\u6f22<rt>kan</rt></ruby>\u5b57</p>", ["\u6f22\u5b57"]),
    ],
)
def test_of_a_page_is_read_what_a_listener_wants(page: str, expected: list[str]) -> None:
    assert [block.text for block in parse_page(f"<body>{page}</body>").blocks] == expected


def test_markdown_has_chapters_by_headings_and_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "---\nauthor: Ben\n---\n# Story\n\n## One\n\n*Ten* days.\n\n```\n# code\n```\n\nTwo\n---\n\nEnd.\n", "utf-8"
    )
    assert texts(path) == [("Story. One", "Story\n\nOne\n\nTen days."), ("Two", "Two\n\nEnd.")]
    assert read_book(path).author == "Ben" and "program code" in str(read_book(path).notes[0])


def test_text_has_chapters_by_their_words_and_joined_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("PART ONE\n\nChapter 1. The Cat\n\nWait ten\ndays.\n\nCHAPTER II\n\nEnd.\n", "utf-8")
    assert texts(path, 2) == [
        ("PART ONE. Chapter 1. The Cat", "PART ONE\n\nChapter 1. The Cat\n\nWait ten days."),
        ("CHAPTER II", "CHAPTER II\n\nEnd."),
    ]
    path.write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(TextError, match="not UTF-8"):
        read_book(path)
    assert read_book(path, encoding="windows-1252").chapters()[0].text == "caf\u00e9"
    path.write_text("* * *", "utf-8")
    with pytest.raises(TextError, match="no text to read"):
        read_book(path).chapters()


def test_a_name_is_never_a_path() -> None:
    assert chapter_name(3, 20, "../../etc/passwd\n", ".mp3") == "03 etc passwd.mp3"
    assert len(chapter_name(1, 1, "\u6f22" * 500, ".mp3").encode()) < 140
    assert chapter_name(1, 1, "", ".mp3") == "01.mp3"
