"""The output folder: local or shared, or anything fsspec knows, such as an object store. Files appear only whole."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..errors import OptionError, TableError
from ..whole_file import unfinished_path

__all__ = ["WORK", "Folder", "absolute", "is_url", "locked", "open_binary", "open_folder"]

WORK = "work"
"""A folder for what is not finished; it goes when all is done, with what a killed process left."""
_WAIT_SECONDS = 0.05
_NEEDS_FSSPEC = "pip install 'qwen3tts-gguf[batch]', and fsspec's package for this kind of store"


class Folder(Protocol):
    """Files by names with "/" between. Reading what is not there gives None or nothing; other trouble is an OSError."""

    place: str

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None:
        with self.whole(name) as path:
            path.write_bytes(content)

    def whole(self, name: str) -> Any:
        """A context manager: the local path to write to, whose file becomes `name` when the block ends well."""

    def local(self, name: str) -> Any:
        """A context manager: a local path to read the file from."""

    def exists(self, name: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """Of the files in a folder, sorted."""

    def delete(self, name: str) -> None:
        """A file, or a folder with all that is in it."""

    def lock(self, name: str) -> BinaryIO | None:
        """Held until it is closed or the process ends; None where another process holds it. Where there are no locks,
        anybody gets one."""


def is_url(path: str) -> bool:
    return "://" in path


def absolute(path: str) -> str:
    """As other processes can use it, whatever their current folder."""
    return path if is_url(path) else os.path.abspath(path)


@contextmanager
def locked(folder: Folder, name: str) -> Iterator[None]:
    """Waits for the process that holds the lock, and holds it for the block."""
    while (lock := folder.lock(name)) is None:
        time.sleep(_WAIT_SECONDS)
    with lock:
        yield


def open_folder(place: str) -> Folder:
    """A path, or a URL that fsspec knows. Raises OptionError."""
    if is_url(place):
        return _Store(place)
    if Path(place).exists() and not Path(place).is_dir():
        raise OptionError(f"{place} is a file, not a folder", hint="choose a new or empty folder")
    return _Local(place)


def open_binary(path: str) -> BinaryIO:
    """A file to read. Raises TableError."""
    try:
        if is_url(path):
            opened: BinaryIO = _fsspec(path).open(path, "rb").open()
            return opened
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _fsspec(place: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise OptionError(f"{place}: this needs fsspec", hint=_NEEDS_FSSPEC) from None
    return fsspec


class _Local(Folder):
    def __init__(self, place: str) -> None:
        self.place, self._root = place, Path(place)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    @contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        path, unfinished = self._root / name, unfinished_path(self._root / WORK / "unfinished" / "file")
        for parent in (path.parent, unfinished.parent):
            parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self._root / name

    def exists(self, name: str) -> bool:
        return (self._root / name).exists()

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(path.name for path in (self._root / folder).iterdir())
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        path = self._root / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def lock(self, name: str) -> BinaryIO | None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        try:
            import fcntl
        except ImportError:  # Windows
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file


class _Store(Folder):
    """An object becomes visible when all of it was put."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")
        try:
            self._files, self._root = _fsspec(place).core.url_to_fs(self.place)
        except (ImportError, ValueError) as error:
            raise OptionError(f"{place}: {error}", hint=_NEEDS_FSSPEC) from None
        self._files.use_listings_cache = False

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(self._path(name))
            return content
        except FileNotFoundError:
            return None

    @contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="qwen3tts-") as folder:
            path = Path(folder) / "whole"
            yield path
            self._files.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(path), self._path(name))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="qwen3tts-") as folder:
            path = Path(folder) / "copy"
            path.write_bytes(self.read(name) or b"")
            yield path

    def exists(self, name: str) -> bool:
        self._files.invalidate_cache()
        return bool(self._files.exists(self._path(name)))

    def names(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            return sorted(path.rpartition("/")[2] for path in self._files.ls(self._path(folder), detail=False))
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        if self._files.exists(self._path(name)):
            self._files.rm(self._path(name), recursive=True)

    def lock(self, name: str) -> BinaryIO | None:
        return tempfile.TemporaryFile()
