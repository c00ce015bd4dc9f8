"""Small .epub files, made in the test that needs them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


def write_epub(
    path: Path,
    pages: Mapping[str, str | bytes],
    *,
    nav: str = "",
    ncx: str = "",
    extra: Mapping[str, str] | None = None,
) -> Path:
    """pages: of the spine, in order, by name; one that starts with "notes" is not linear. nav, ncx: contents."""
    items = [f'<item id="p{i}" href="{name}" media-type="application/xhtml+xml"/>' for i, name in enumerate(pages)]
    refs = [
        f'<itemref idref="p{i}"{" linear=" + chr(34) + "no" + chr(34) if name.startswith("notes") else ""}/>'
        for i, name in enumerate(pages)
    ]
    files: dict[str, str | bytes] = {f"OPS/{name}": content for name, content in pages.items()}
    if nav:
        items.append('<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>')
        files["OPS/nav.xhtml"] = f'<html xmlns:epub="e"><body><nav epub:type="toc">{nav}</nav></body></html>'
    if ncx:
        items.append('<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>')
        files["OPS/toc.ncx"] = f"<ncx><navMap>{ncx}</navMap></ncx>"
    items.append('<item id="c" href="cover.png" properties="cover-image" media-type="image/png"/>')
    files["OPS/cover.png"] = PNG
    files["OPS/book.opf"] = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>The Black Cat</dc:title><dc:creator>Anna</dc:creator><dc:language>en</dc:language></metadata>"
        f'<manifest>{"".join(items)}</manifest><spine toc="ncx">{"".join(refs)}</spine></package>'
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"META-INF/container.xml": CONTAINER, **files, **(extra or {})}.items():
            archive.writestr(name, content)
    return path


NAV = """<ol>
<li><a href="one.xhtml">Part One</a><ol>
<li><a href="one.xhtml#a">Morning</a></li><li><a href="one.xhtml#b">Evening</a></li></ol></li>
<li><a href="two.xhtml">Part Two</a><ol><li><a href="two.xhtml#c">Night</a></li></ol></li></ol>"""
PAGES: dict[str, str | bytes] = {
    "one.xhtml": """<html xmlns:epub="e"><head><title>x</title></head><body><h1>Part One</h1>
<h2 id="a">Morning</h2><p>My name is Anna.<a epub:type="noteref" href="notes.xhtml#n1">1</a></p>
<p>Wait ten<sup><a href="#n2">2</a></sup> days.</p><img src="cover.png" alt="A black cat on a chair"/>
<h2 id="b">Evening</h2><p>Thank you very much, David.</p>
<aside epub:type="footnote"><p>A note.</p></aside></body></html>""",
    "two.xhtml": '<?xml version="1.0" encoding="iso-8859-1"?><html><body><h1>Part Two</h1><h2 id="c">Night</h2>'
    "<p>The cat is caf\u00e9 black.</p></body></html>",
    "three.xhtml": "<html><body><p>The box is red.</p></body></html>".encode("utf-16"),
    "notes.xhtml": "<html><body><p id='n1'>Never read.</p></body></html>",
}
PAGES["two.xhtml"] = str(PAGES["two.xhtml"]).encode("latin-1")
