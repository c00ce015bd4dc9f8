"""The hidden folder of a book that is being made: its lock, what is finished, and the passages of the chapter at work.

    .NAME.qwen3tts/   lock   finished.json   passages/KEY.flac   chapters/KEY.flac (of an .m4b only)

Every file appears whole and is on disk before it is relied on, so that a stop at any moment, or a power failure, loses
no more than the passages that were being spoken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio import read_audio
from ..audio_sink import open_sink
from ..errors import AudioError, UsageError
from ..speech.script import Line
from ..whole_file import whole_file

__all__ = ["Finished", "Passages", "Workplace", "synced"]

_FULL_SCALE = 32768 / 32767  # samples are written by the one and read by the other


@dataclass(frozen=True)
class Finished:
    """A chapter that was made."""

    file: str
    """Its name."""
    n_bytes: int
    n_samples: int
    cues: list[tuple[float, float, str]]
    """Of subtitles: start and stop in seconds, and words."""
    tags: str
    """Digest of the tags it has."""


class Workplace:
    """folder: it is made when the book is begun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passages, self.chapters = folder / "passages", folder / "chapters"
        self._list = folder / "finished.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While a book is made. Raises UsageError if another process makes it, AudioError if nothing can be written."""
        try:
            for folder in (self.passages, self.chapters):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("ab")
        except OSError as error:
            raise AudioError(f"{self.folder}: cannot be written ({error.strerror})") from None
        with lock:
            try:
                _lock(lock.fileno())
            except OSError:
                raise UsageError(f"{self.folder.parent}: another process is making this book") from None
            yield

    def finished(self) -> dict[str, Finished]:
        """Chapters by key; none if the list is missing or damaged."""
        try:
            found = json.loads(self._list.read_text("utf-8"))
            return {key: Finished(**values) for key, values in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def save_finished(self, finished: dict[str, Finished]) -> None:
        text = json.dumps({key: asdict(each) for key, each in finished.items()}, ensure_ascii=False, indent=1)
        with whole_file(self._list) as unfinished:
            unfinished.write_text(text, "utf-8")
            synced(unfinished)

    def clear_passages(self) -> None:
        for file in self.passages.glob("*"):
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Passages:
    """`PassageStore` in a folder, for one model, voice and set of options, which `key` stands for."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key

    def load(self, line: Line) -> NDArray[np.float32] | None:
        """None if it is not there, or damaged by a power failure."""
        try:
            samples: NDArray[np.float32] = read_audio(self._path(line)) * np.float32(_FULL_SCALE)
            return samples
        except AudioError:
            return None

    def save(self, line: Line, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        path = self._path(line)
        with open_sink(path) as sink:
            sink.write(samples)
        synced(path)
        saved = self.load(line)
        return samples if saved is None else saved

    def _path(self, line: Line) -> Path:
        words = json.dumps([self._key, line.text, line.seed, line.is_all])
        return self._folder / f"{hashlib.sha256(words.encode()).hexdigest()[:32]}.flac"


def synced(path: Path) -> None:
    """Wait until a file is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
