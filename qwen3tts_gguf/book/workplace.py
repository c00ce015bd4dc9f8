"""The hidden folder of a book: its lock, the list of finished chapters, and the passages spoken so far.

    .NAME.qwen3tts/   lock   finished.json   passages/KEY/*.safetensors   chapters/KEY.flac (of an .m4b only)

Every file appears whole and is on disk before it is relied on, so that a stop at any moment, or a power failure, loses
no more than the passages that were being spoken. Codes take 0.4 kB per second of speech, so they are kept: when a
chapter changes, the passages that stay the same are decoded again and not spoken again, and a voice that was tried
before costs nothing the second time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_arrays
from safetensors.numpy import save as write_arrays

from ..errors import AudioError, UsageError
from ..speech.script import Line
from ..speech.spoken import Take
from ..whole_file import whole_file

__all__ = ["Finished", "Passages", "Record", "Workplace", "synced"]


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
    unended: list[int]
    """Numbers of the passages that did not end, from 1 on."""
    retries: int
    """How many there were at most."""


@dataclass
class Record:
    """What was made of a book: finished.json."""

    chapters: dict[str, Finished] = field(default_factory=dict)
    """By key."""
    m4b: str = ""
    """Digest of what the .m4b was made of and of its size."""


class Workplace:
    """folder: it is made when work on the book starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chapters = folder / "chapters"
        self._passages = folder / "passages"
        self._list = folder / "finished.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While a book is made. Raises UsageError if another process makes it, AudioError if nothing can be written."""
        try:
            for folder in (self._passages, self.chapters):
                folder.mkdir(parents=True, exist_ok=True)
            lock_file = self.folder / "lock"
            lock = lock_file.open("ab")
        except OSError as error:
            raise AudioError(f"{self.folder}: cannot be written ({error.strerror})") from None
        with lock:
            try:
                _lock(lock.fileno())
            except OSError:
                raise UsageError(f"{self.folder.parent}: another process is making this book") from None
            for stopped in self.folder.rglob(".*.part"):  # what a killed process was writing
                stopped.unlink(missing_ok=True)
            for left in self.folder.iterdir():  # what it had written, and not moved to its place
                if left.is_file() and left.name not in (lock_file.name, self._list.name):
                    left.unlink()
            yield

    def record(self) -> Record:
        """An empty one if it is missing or damaged."""
        try:
            found = json.loads(self._list.read_text("utf-8"))
            chapters = {key: Finished(**values) for key, values in found["chapters"].items()}
            return Record(chapters, found["m4b"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Record()

    def save(self, record: Record) -> None:
        with whole_file(self._list) as unfinished:
            unfinished.write_text(json.dumps(asdict(record), ensure_ascii=False, indent=1), "utf-8")
            synced(unfinished)

    def passages_of(self, key: str) -> Passages:
        """key: stands for a model, a voice and options."""
        folder = self._passages / key
        folder.mkdir(exist_ok=True)
        return Passages(folder)

    def remove_chapters(self) -> None:
        """Those of a finished .m4b are large, and can be decoded again."""
        shutil.rmtree(self.chapters, ignore_errors=True)


class Passages:
    """`PassageStore` in a folder that holds those of one model, voice and set of options."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, line: Line) -> Take | None:
        """None if it is not there, or damaged by a power failure."""
        try:
            arrays = read_arrays(self._path(line).read_bytes())
            return Take(arrays["codes"], int(arrays["seed"][0]))
        except (OSError, KeyError, SafetensorError):
            return None

    def save(self, line: Line, take: Take) -> None:
        with whole_file(self._path(line)) as unfinished:
            unfinished.write_bytes(
                write_arrays({"codes": np.ascontiguousarray(take.codes), "seed": np.array([take.seed])})
            )
            synced(unfinished)

    def _path(self, line: Line) -> Path:
        words = json.dumps([line.text, line.seed])
        return self._folder / f"{hashlib.sha256(words.encode()).hexdigest()[:32]}.safetensors"


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
