"""A book's finished chapters on disk: their names, tags and subtitles, and the playlist or the one .m4b."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..digests import digest
from ..model.schema import SAMPLE_RATE_HZ
from ..subtitles import Cue, write_subtitles
from .contents import Book, Chapter
from .m4b import write_m4b
from .naming import chapter_name
from .settings import Settings, chapter_format, is_m4b
from .tagging import Tags, write_tags
from .workplace import Finished, Workplace, synced

__all__ = ["Shelf", "Work"]

_MADE_WAY = re.compile(r"\.[0-9a-f]{32}\.\w+")


@dataclass(frozen=True)
class Work:
    """A chapter and what is known about its sound."""

    number: int
    """In the book, from 1 on."""
    chapter: Chapter
    key: str
    is_wanted: bool
    is_finished: bool


class Shelf:
    """Where the files of one book are. Not thread-safe.

    keys: of all chapters of the book, in order. out: a folder, or a file whose name ends in .m4b; the chapters of an
    .m4b are files in the workplace until it is whole.
    """

    def __init__(self, place: Workplace, book: Book, settings: Settings, out: Path, keys: Sequence[str]) -> None:
        self._place, self._book, self._settings, self._out, self._keys = place, book, settings, out, keys
        self._record = place.record()
        self.is_file = is_m4b(out)
        self.format = chapter_format(out, settings)

    @property
    def folder(self) -> Path:
        """Of the chapters' files."""
        return self._place.chapters if self.is_file else self._out

    def finished(self, key: str) -> Finished | None:
        """What was made of a chapter, wherever its sound is now."""
        return self._record.chapters.get(key)

    def has_sound(self, finished: Finished) -> bool:
        path = self.folder / finished.file
        return path.is_file() and path.stat().st_size == finished.n_bytes

    @property
    def former(self) -> list[str]:
        """Keys of chapters that were made and that the book does not have now."""
        return [*(self._record.chapters.keys() - {*self._keys})]

    # -- chapters ------------------------------------------------------------------------------------------------------

    def unfinished(self, work: Work) -> Path:
        """Where a chapter's sound is written until it is whole."""
        return self._place.folder / f"{work.key}.{self.format}"

    def put(self, work: Work, finished: Finished) -> Finished:
        """Give what is in `unfinished` its tags, its name and its subtitles, and record it."""
        unfinished, tags, path = self.unfinished(work), self._tags(work), self.folder / self._name(work)
        if not self.is_file:
            write_tags(unfinished, tags)
        synced(unfinished)
        n_bytes = unfinished.stat().st_size
        self._make_way(path, work)
        unfinished.replace(path)
        finished = replace(finished, file=path.name, n_bytes=n_bytes, tags=tags.digest)
        self._write_subtitles(path, finished)
        self._remember(work, finished)
        return finished

    def update(self, work: Work, finished: Finished) -> Finished:
        """Bring the name, tags and subtitles of a finished chapter up to date: another chapter before it may have
        changed them."""
        path = self.folder / finished.file
        if (finished.file, finished.tags) != (self._name(work), self._tags(work).digest):
            path.replace(self.unfinished(work))
            if self._settings.subtitles:
                self._subtitles_of(path).unlink(missing_ok=True)
            return self.put(work, finished)
        self._write_subtitles(path, finished)
        return finished

    def remove_orphans(self) -> None:
        """Chapters that made way for others, and had not got their new names when a process was killed."""
        chapters = self._record.chapters
        expected = {chapters[key].file for key in self._keys if key in chapters}
        for path in self._out.glob(".*") if not self.is_file else ():
            if _MADE_WAY.fullmatch(path.name) and path.name not in expected:
                path.unlink()

    def remove_former(self) -> None:
        """Files of chapters that the book does not have now, unless somebody else changed them."""
        former = self.former
        for key in former:
            finished = self._record.chapters.pop(key)
            if self.has_sound(finished):
                path = self.folder / finished.file
                path.unlink()
                for suffix in (".srt", ".vtt") if finished.cues else ():
                    path.with_suffix(suffix).unlink(missing_ok=True)
        if former:
            self._place.save(self._record)

    def _make_way(self, path: Path, work: Work) -> None:
        """Move a chapter that has the name of another one now, and gets its own when its turn comes."""
        later = set(self._keys[work.number :])
        for key, each in self._record.chapters.items():
            if each.file == path.name and key in later and path.is_file():
                other = self.folder / f".{key}{path.suffix}"
                path.replace(other)
                self._record.chapters[key] = replace(each, file=other.name)
                self._place.save(self._record)

    def _remember(self, work: Work, finished: Finished) -> None:
        before = self._record.chapters.get(work.key)
        if before is not None and before.file != finished.file:  # made again, and it had another name
            (self.folder / before.file).unlink(missing_ok=True)
        for key in [key for key, each in self._record.chapters.items() if each.file == finished.file]:
            del self._record.chapters[key]
        self._record.chapters[work.key] = finished
        self._place.save(self._record)

    def _name(self, work: Work) -> str:
        if self.is_file:
            return f"{work.key}.{self.format}"
        return chapter_name(work.number, len(self._keys), work.chapter.title, f".{self.format}")

    def _tags(self, work: Work) -> Tags:
        book = self._book
        return Tags(work.chapter.title, book.title, book.author, work.number, len(self._keys), book.cover)

    # -- what belongs to the whole book --------------------------------------------------------------------------------

    def write_playlist(self, made: Sequence[tuple[Work, Finished]]) -> None:
        lines = ["#EXTM3U"]
        for work, finished in made:
            seconds = finished.n_samples / SAMPLE_RATE_HZ
            lines += [f"#EXTINF:{seconds:.0f},{' '.join(work.chapter.title.split())}", finished.file]
        unfinished = self._place.folder / "playlist"
        unfinished.write_text("\n".join(lines) + "\n", "utf-8")
        unfinished.replace(self._out / chapter_name(0, 1, self._book.title, ".m3u8").removeprefix("00 "))

    def has_m4b(self, wanted: Sequence[Work]) -> bool:
        """Whether there is an .m4b of just these chapters, with its subtitles."""
        if not self._out.is_file() or (self._settings.subtitles and not self._subtitles_of(self._out).is_file()):
            return False
        return self._record.m4b == self._m4b_digest(wanted)

    def write_m4b(self, made: Sequence[tuple[Work, Finished]], advance: Callable[[float], None]) -> None:
        parts = [(work.chapter.title, self.folder / each.file, each.n_samples) for work, each in made]
        unfinished = self._place.folder / "book.m4b"
        write_m4b(unfinished, parts, self._tags(made[0][0]), advance)
        synced(unfinished)
        unfinished.replace(self._out)
        if self._settings.subtitles:
            cues, start = [], 0.0
            for _, finished in made:
                cues += [Cue(start + begin, start + end, text) for begin, end, text in finished.cues]
                start += finished.n_samples / SAMPLE_RATE_HZ
            self._put_subtitles(self._subtitles_of(self._out), cues)
        self._record.m4b = self._m4b_digest([work for work, _ in made])
        self._place.save(self._record)

    def _m4b_digest(self, wanted: Sequence[Work]) -> str:
        marks = [(work.key, work.chapter.title) for work in wanted]
        return digest(marks, self._tags(wanted[0]).digest, self._out.stat().st_size)

    # -- subtitles -----------------------------------------------------------------------------------------------------

    def _write_subtitles(self, path: Path, finished: Finished) -> None:
        """Those of a chapter in a folder; an .m4b has one file of them."""
        if self._settings.subtitles and not self.is_file:
            self._put_subtitles(self._subtitles_of(path), [Cue(*cue) for cue in finished.cues])

    def _put_subtitles(self, path: Path, cues: Sequence[Cue]) -> None:
        unfinished = self._subtitles_of(self._place.folder / "subtitles")
        write_subtitles(unfinished, cues)
        unfinished.replace(path)

    def _subtitles_of(self, path: Path) -> Path:
        return path.with_suffix(f".{self._settings.subtitles}")
