"""An .epub as a zip file from anywhere: nothing is unpacked to disk, names are only looked up, and sizes are bounded by
what is really there, whatever the headers claim."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from ..errors import TextError

__all__ = ["Archive", "resolved"]

_MOST_FILES = 50_000
_MOST_BYTES_OF_FILE = 32 << 20
_MOST_BYTES = 512 << 20
"""Of everything that is read, unpacked."""
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


class Archive:
    """Raises TextError for what is not a zip file, is damaged, encrypted or too large. Close it after use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._n_left = _MOST_BYTES
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise TextError(f"{path}: no such file") from None
        except _DAMAGED:
            raise TextError(f"{path}: not an EPUB file, or a damaged one: it is not a zip archive") from None
        if len(self._zip.infolist()) > _MOST_FILES:
            self._zip.close()
            raise TextError(f"{path}: there are more than {_MOST_FILES} files in it")
        self._names = {info.filename: info for info in self._zip.infolist()}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        """The bytes of a file in it. Raises TextError."""
        info = self._names.get(name)
        if info is None:
            raise TextError(f"{self.path}: {name!r} is missing in it")
        if info.flag_bits & 1:
            raise TextError(f"{self.path}: {name!r} in it is encrypted with a password")
        most = min(_MOST_BYTES_OF_FILE, self._n_left)
        try:
            with self._zip.open(info) as file:
                content = file.read(most + 1)
        except _DAMAGED:
            raise TextError(f"{self.path}: {name!r} in it is damaged") from None
        if len(content) > most:
            raise TextError(f"{self.path}: {name!r} in it is too large for a book ({most >> 20} MB are read at most)")
        self._n_left -= len(content)
        return content

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()


def resolved(base: str, href: str) -> tuple[str, str]:
    """A link in the file `base` -> the name of the file it leads to, and the anchor in it."""
    target, _, anchor = href.strip().partition("#")
    if not target:
        return base, unquote(anchor)
    name = posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(target)))
    return name.lstrip("/"), unquote(anchor)
