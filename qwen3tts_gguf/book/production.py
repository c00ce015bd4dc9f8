"""A book's chapters as sound: planned, spoken passage by passage, written one after the other, and resumed.

    Book ──> chapters ──plan──> key of each: model, voice, options, text
                                 │ finished before: kept, with its name and tags brought up to date
                                 └─read(store=Passages)─> sink ─> tags ─> its name ─> finished.json ─> the next

The result is the same however often the work was stopped: a passage depends on the key, its text and its seed alone,
and the codec decodes stored codes to the same samples as in the speech itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio_sink import open_sink
from ..audio_speed import SpeedChanger
from ..errors import AudioError, NoEndOfSpeech, Note, OptionError
from ..model.schema import N_CODEBOOKS, SAMPLE_RATE_HZ
from ..reading import passage_letters, read
from ..speech.options import SpeechOptions
from ..speech.passages import Split, split_text
from ..subtitles import Cue, write_subtitles
from ..tts import TTS
from ..voice.compatibility import BASE
from ..voice.voice import Voice
from .contents import Book, Chapter
from .m4b import write_m4b
from .naming import chapter_name, digest, model_digest, options_text, voice_digest
from .settings import Settings, is_m4b, require_output
from .tagging import Tags, write_tags
from .workplace import Finished, Record, Workplace, synced

__all__ = ["Production", "Work", "steady_voice"]

_FORMAT_OF_PARTS = "flac"
_VERSION = 1
"""Counted up when the same key would give other sound."""
_END_SECONDS = 1.0
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


class Production:
    """One book on its way to a folder of files, or one .m4b. Not thread-safe.

    chapters: all of the book. out: a folder, or a file whose name ends in .m4b. numbers: of the chapters to make, from
    1 on; None: all. The voice must be a steady one (`steady_voice`). Raises OptionError for what cannot be done, before
    anything is.
    """

    def __init__(
        self, tts: TTS, book: Book, chapters: Sequence[Chapter], voice: Voice | None, options: SpeechOptions,
        settings: Settings, out: Path, numbers: Collection[int] | None = None,
    ) -> None:  # fmt: skip
        require_output(out, settings)
        if options.seed is None:
            raise OptionError("a book needs a seed, so that it can be resumed", hint="set `seed`")
        self._tts, self._book, self._voice, self._options = tts, book, voice, options
        self._settings, self._out, self._is_file = settings, out, is_m4b(out)
        self._split: Split = "sentence" if settings.subtitles else settings.split
        self._format = _FORMAT_OF_PARTS if self._is_file else settings.format
        hidden = f".{out.stem}.qwen3tts" if self._is_file else ".qwen3tts"
        self._place = Workplace(out.with_name(hidden) if self._is_file else out / hidden)
        self._speech_key = digest(
            _VERSION, model_digest(*tts.files), voice_digest(tts.resolve(voice)), options_text(options)
        )
        self._chapters, self._numbers = chapters, numbers
        self._noted: set[Note] = set()
        self._plan()
        self.notes: tuple[Note, ...] = ()
        """What changed since an earlier run."""
        n_stale = len(self._record.chapters.keys() - {work.key for work in self.work})
        if n_stale:
            self.notes = (
                Note(f"chapters made earlier with another text, voice, model or options ({n_stale}) are made again"),
            )

    @property
    def wanted(self) -> list[Work]:
        """The chapters to make."""
        return [work for work in self.work if work.is_wanted]

    def _plan(self) -> None:
        """Compare the book with what was made of it."""
        self._record: Record = self._place.record()
        self.work: list[Work] = []
        """All chapters, in order, wanted or not."""
        n_before: Counter[str] = Counter()
        for number, chapter in enumerate(self._chapters, 1):
            is_wanted = self._numbers is None or number in self._numbers
            self.work.append(self._planned(number, chapter, n_before[chapter.text], is_wanted))
            n_before[chapter.text] += 1
        self._is_whole = self._is_file and self._has_whole_m4b()
        if self._is_whole:
            self.work = [replace(work, is_finished=work.is_wanted) for work in self.work]

    def _planned(self, number: int, chapter: Chapter, n_before: int, is_wanted: bool) -> Work:
        """n_before: how many chapters with the same text come before."""
        settings = self._settings
        how = (self._split, settings.pauses, settings.speed, self._format, settings.subtitles)
        key = digest(self._speech_key, how, chapter.text, n_before)
        before = self._record.chapters.get(key)
        is_finished = False
        if before is not None:
            path = self._folder / before.file
            is_there = path.is_file() and path.stat().st_size == before.n_bytes
            is_finished = is_there and not (is_wanted and self._may_end_now(before))
        return Work(number, chapter, key, is_wanted, is_finished)

    def _may_end_now(self, before: Finished) -> bool:
        """Whether more attempts at passages that did not end are allowed now."""
        return bool(before.unended) and self._options.retries > before.retries

    def _has_whole_m4b(self) -> bool:
        """Whether there is nothing to do."""
        before = [self._record.chapters.get(work.key) for work in self.wanted]
        if any(each is None or self._may_end_now(each) for each in before) or not self._out.is_file():
            return False
        if self._settings.subtitles and not self._subtitles_of(self._out).is_file():
            return False
        return self._record.m4b == self._m4b_digest()

    def _m4b_digest(self) -> str:
        marks = [(work.key, work.chapter.title) for work in self.wanted]
        return digest(marks, self._tags(self.wanted[0]).digest, self._out.stat().st_size)

    @property
    def _folder(self) -> Path:
        """Of the chapters' files."""
        return self._place.chapters if self._is_file else self._out

    # -- making --------------------------------------------------------------------------------------------------------

    def make(
        self,
        advance: Callable[[int], None] = lambda n_letters: None,
        advance_m4b: Callable[[float], None] = lambda done: None,
    ) -> Iterator[tuple[Work, Path, Sequence[Note]]]:
        """Make the wanted chapters that are not finished. Yields each wanted chapter when it is finished, with its file
        and notes. At the end the .m3u8 of all finished chapters is written, or the .m4b of the wanted ones.

        advance: called with the number of letters of each passage. advance_m4b: called with how much of the .m4b is
        encoded, 0 to 1.

        A passage that does not end is written as it is, with a note. Raises UsageError if another process makes the
        book, AudioError, and NoEndOfSpeech, without samples, after everything if a passage did not end, now or when a
        wanted chapter was made earlier.
        """
        with self._place.locked():
            try:
                self._plan()
                self._remove_orphans()
                made: list[tuple[Work, Finished]] = []
                for work in self.work:
                    if not (work.is_wanted or work.is_finished):
                        continue
                    notes: list[Note] = []
                    finished = self._kept(work, notes) if work.is_finished else self._spoken(work, advance, notes)
                    made.append((work, finished))
                    if work.is_wanted:
                        yield work, self._out if self._is_whole else self._folder / finished.file, notes
                if not self._is_file:
                    self._write_playlist(made)
                elif not self._is_whole:
                    self._write_m4b([each for each in made if each[0].is_wanted], advance_m4b)
            except OSError as error:
                raise AudioError(f"{self._out}: cannot be written ({error.strerror})") from None
            self._place.remove_passages_but(self._speech_key)
            if self._is_file:
                self._place.remove_chapters()
            self._require_ends(made)

    def _spoken(self, work: Work, advance: Callable[[int], None], notes: list[Note]) -> Finished:
        passages = self._place.passages_of(self._speech_key)
        reading = read(
            self._tts, work.chapter.text, self._voice, self._options, split=self._split, pause=self._settings.pauses,
            keep_unended=True, store=passages, name=f"chapter {work.number}",
        )  # fmt: skip
        unfinished = self._place.folder / f"{work.key}.{self._format}"
        changer, n_samples = SpeedChanger(self._settings.speed), 0
        cues: list[tuple[float, float, str]] = []
        unended: list[int] = []
        with reading, open_sink(unfinished) as sink:
            for passage in reading:
                samples = changer.feed(passage.sound)
                sink.write(samples)
                n_samples += len(samples)
                start, stop = passage.start_seconds, passage.start_seconds + passage.seconds
                if self._settings.subtitles:
                    cues.append((start / self._settings.speed, stop / self._settings.speed, passage.text))
                notes += [note for note in passage.notes if note not in self._noted]
                self._noted.update(passage.notes)
                if not passage.ended:
                    unended.append(passage.index + 1)
                advance(len(passage.text))
            rest = np.concatenate([changer.end(), np.zeros(round(_END_SECONDS * SAMPLE_RATE_HZ), np.float32)])
            sink.write(rest)
            n_samples += len(rest)
        finished = Finished("", 0, n_samples, cues, "", unended, self._options.retries)
        return self._placed(work, unfinished, finished)

    def _kept(self, work: Work, notes: list[Note]) -> Finished:
        """A finished chapter under its name and with its tags, which another chapter before it may have changed."""
        finished = self._record.chapters[work.key]
        where = f"chapter {work.number}, passage"
        notes += [Note(f"{where} {number} did not end and is incomplete or has noise") for number in finished.unended]
        if self._is_whole:
            return finished
        path = self._folder / finished.file
        if (finished.file, finished.tags) != (self._name(work), self._tags(work).digest):
            unfinished = self._place.folder / f"{work.key}.{self._format}"
            path.replace(unfinished)
            if self._settings.subtitles:
                self._subtitles_of(path).unlink(missing_ok=True)
            return self._placed(work, unfinished, finished)
        self._write_subtitles(path, finished)
        return finished

    def _placed(self, work: Work, unfinished: Path, finished: Finished) -> Finished:
        """Give a sound file its tags, its name and its subtitles, and record it."""
        tags, path = self._tags(work), self._folder / self._name(work)
        if not self._is_file:
            write_tags(unfinished, tags)
        synced(unfinished)
        n_bytes = unfinished.stat().st_size
        self._make_way(path, work)
        unfinished.replace(path)
        finished = replace(finished, file=path.name, n_bytes=n_bytes, tags=tags.digest)
        self._write_subtitles(path, finished)
        self._remember(work, finished)
        return finished

    def _write_subtitles(self, path: Path, finished: Finished) -> None:
        """Those of a chapter in a folder; an .m4b has one file of them."""
        if self._settings.subtitles and not self._is_file:
            self._put_subtitles(self._subtitles_of(path), [Cue(*cue) for cue in finished.cues])

    def _put_subtitles(self, path: Path, cues: Sequence[Cue]) -> None:
        unfinished = self._subtitles_of(self._place.folder / "subtitles")
        write_subtitles(unfinished, cues)
        unfinished.replace(path)

    def _subtitles_of(self, path: Path) -> Path:
        return path.with_suffix(f".{self._settings.subtitles}")

    def _remove_orphans(self) -> None:
        """Chapters that made way for others, and had not got their new names when a process was killed."""
        chapters = self._record.chapters
        expected = {chapters[work.key].file for work in self.work if work.is_finished}
        for path in self._out.glob(".*") if not self._is_file else ():
            if _MADE_WAY.fullmatch(path.name) and path.name not in expected:
                path.unlink()

    def _make_way(self, path: Path, work: Work) -> None:
        """Move a chapter that has the name of another one now, and gets its own when its turn comes."""
        later = {each.key for each in self.work[work.number :]}
        for key, each in self._record.chapters.items():
            if each.file == path.name and key in later and path.is_file():
                other = self._folder / f".{key}{path.suffix}"
                path.replace(other)
                self._record.chapters[key] = replace(each, file=other.name)
                self._place.save(self._record)

    def _remember(self, work: Work, finished: Finished) -> None:
        before = self._record.chapters.get(work.key)
        if before is not None and before.file != finished.file:  # made again, and it had another name
            (self._folder / before.file).unlink(missing_ok=True)
        for key in [key for key, each in self._record.chapters.items() if each.file == finished.file]:
            del self._record.chapters[key]
        self._record.chapters[work.key] = finished
        self._place.save(self._record)

    def _require_ends(self, made: list[tuple[Work, Finished]]) -> None:
        """Raises NoEndOfSpeech."""
        unended = [(work.number, each) for work, finished in made if work.is_wanted for each in finished.unended]
        if not unended:
            return
        chapter, passage = unended[0]
        which = f"chapter {chapter}, passage {passage}"
        if len(unended) > 1:
            which = f"{len(unended)} passages, the first of them in chapter {chapter},"
        raise NoEndOfSpeech(
            f"{which} did not end, and what was spoken was written",
            np.zeros(0, np.float32), np.zeros((0, N_CODEBOOKS), np.int32), self._options.seed or 0,
            hint="with more retries these chapters are made again",
        )  # fmt: skip

    def _write_playlist(self, made: list[tuple[Work, Finished]]) -> None:
        lines = ["#EXTM3U"]
        for work, finished in made:
            seconds = finished.n_samples / SAMPLE_RATE_HZ
            lines += [f"#EXTINF:{seconds:.0f},{' '.join(work.chapter.title.split())}", finished.file]
        unfinished = self._place.folder / "playlist"
        unfinished.write_text("\n".join(lines) + "\n", "utf-8")
        unfinished.replace(self._out / chapter_name(0, 1, self._book.title, ".m3u8").removeprefix("00 "))

    def _write_m4b(self, made: list[tuple[Work, Finished]], advance: Callable[[float], None]) -> None:
        parts = [(work.chapter.title, self._folder / each.file, each.n_samples) for work, each in made]
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
        self._record.m4b = self._m4b_digest()
        self._place.save(self._record)

    def _name(self, work: Work) -> str:
        if self._is_file:
            return f"{work.key}.{self._format}"
        return chapter_name(work.number, len(self.work), work.chapter.title, f".{self._format}")

    def _tags(self, work: Work) -> Tags:
        book = self._book
        return Tags(work.chapter.title, book.title, book.author, work.number, len(self.work), book.cover)


def steady_voice(tts: TTS, chapters: Sequence[Chapter], voice: Voice | None, options: SpeechOptions) -> Voice | None:
    """The voice of the whole book. Where a Base model chooses one itself, it is that of the book's first passage, the
    same one for the same seed, whichever chapters are made. chapters: all of the book. Raises NoEndOfSpeech."""
    resolved = tts.resolve(voice)
    if tts.kind != BASE or resolved.is_clone:
        return voice
    passages = split_text(chapters[0].text, "auto", language=options.language, most=passage_letters(tts))
    text = passages[0].text
    for utterance in tts.attempts(text, voice, options):
        utterance.finish()
    utterance.require_end()
    return replace(Voice.from_speech(utterance.codes, text, tts.codec_fingerprint), language=resolved.language)
