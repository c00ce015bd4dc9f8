"""A book's chapters as sound: planned, spoken passage by passage, written one after the other, and resumed.

    Book ──> chapters ──plan──> key of each: model, voice, options, text
                                 │ finished before: kept, with its name and tags brought up to date
                                 └─read(store=Passages)─> sink ─> tags ─> its name ─> finished.json ─> the next

The result is the same however often the work was stopped: a passage depends on the key, its text and its seed alone,
and the codec decodes stored codes to the same samples as in the speech itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..audio_sink import open_sink
from ..audio_speed import SpeedChanger
from ..errors import AudioError, NoEndOfSpeech, Note, OptionError
from ..model.schema import SAMPLE_RATE_HZ
from ..reading import passage_letters, read
from ..speech.options import SpeechOptions
from ..speech.passages import Split, split_text
from ..subtitles import Cue, write_subtitles
from ..tts import TTS
from ..voice.compatibility import BASE
from ..voice.voice import Voice
from ..whole_file import whole_file
from .contents import Book, Chapter
from .m4b import write_m4b
from .naming import chapter_name, digest, model_digest, options_text, voice_digest
from .settings import Settings, is_m4b, require_output
from .tagging import Tags, write_tags
from .workplace import Finished, Workplace, synced

__all__ = ["Production", "Work", "steady_voice"]

_FORMAT_OF_PARTS = "flac"
_VERSION = 1
"""Counted up when the same key would give other sound."""
_END_SECONDS = 1.0


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
        self._finished = self._place.finished()
        self._failure: NoEndOfSpeech | None = None
        self.notes: tuple[Note, ...] = ()
        """What changed since an earlier run."""
        self.work: list[Work] = []
        """All chapters, in order, wanted or not."""
        n_before: Counter[str] = Counter()
        for number, chapter in enumerate(chapters, 1):
            is_wanted = numbers is None or number in numbers
            self.work.append(self._planned(number, chapter, n_before[chapter.text], is_wanted))
            n_before[chapter.text] += 1
        n_stale = len(self._finished.keys() - {work.key for work in self.work})
        if n_stale:
            self.notes = (
                Note(f"chapters made earlier with another text, voice, model or options ({n_stale}) are made again"),
            )

    @property
    def wanted(self) -> list[Work]:
        """The chapters to make."""
        return [work for work in self.work if work.is_wanted]

    def _planned(self, number: int, chapter: Chapter, n_before: int, is_wanted: bool) -> Work:
        """n_before: how many chapters with the same text come before."""
        settings = self._settings
        how = (self._split, settings.pauses, settings.speed, self._format, settings.subtitles)
        key = digest(self._speech_key, how, chapter.text, n_before)
        before = self._finished.get(key)
        path = None if before is None else self._folder / before.file
        is_there = before is not None and path is not None and path.is_file() and path.stat().st_size == before.n_bytes
        return Work(number, chapter, key, is_wanted, is_there)

    @property
    def _folder(self) -> Path:
        """Of the chapters' files."""
        return self._place.chapters if self._is_file else self._out

    # -- making --------------------------------------------------------------------------------------------------------

    def make(
        self, advance: Callable[[int], None] = lambda n_letters: None
    ) -> Iterator[tuple[Work, Path, Sequence[Note]]]:
        """Make what is wanted and not finished; each wanted chapter once it is, with its file and notes. At the end the
        .m3u8 of all chapters that are there is written, or the .m4b of those wanted.

        advance: called with the number of letters of each passage.

        A passage that does not end is written as it is, with a note. Raises UsageError if another process makes the
        book, AudioError, and NoEndOfSpeech after the whole book if a passage that was made now did not end.
        """
        with self._place.locked():
            try:
                self._finished = self._place.finished()
                made: list[tuple[Work, Finished]] = []
                for work in self.work:
                    if not (work.is_wanted or work.is_finished):
                        continue
                    notes: list[Note] = []
                    finished = self._kept(work) if work.is_finished else self._spoken(work, advance, notes)
                    made.append((work, finished))
                    if work.is_wanted:
                        yield work, self._folder / finished.file, notes
                self._conclude(made)
            except OSError as error:
                raise AudioError(f"{self._out}: cannot be written ({error.strerror})") from None
            self._place.remove_passages_but(self._speech_key)
            if self._is_file:
                self._place.remove_chapters()
            if self._failure is not None:
                raise self._failure

    def _spoken(self, work: Work, advance: Callable[[int], None], notes: list[Note]) -> Finished:
        passages = self._place.passages_of(self._speech_key)
        reading = read(
            self._tts, work.chapter.text, self._voice, self._options, split=self._split, pause=self._settings.pauses,
            keep_unended=True, store=passages,
        )  # fmt: skip
        unfinished = self._place.folder / f"{work.key}.{self._format}"
        changer, n_samples = SpeedChanger(self._settings.speed), 0
        cues: list[tuple[float, float, str]] = []
        with reading, open_sink(unfinished) as sink:
            for passage in reading:
                samples = changer.feed(passage.sound)
                sink.write(samples)
                n_samples += len(samples)
                start, stop = passage.start_seconds, passage.start_seconds + passage.seconds
                if self._settings.subtitles:
                    cues.append((start / self._settings.speed, stop / self._settings.speed, passage.text))
                notes += passage.notes
                if not passage.ended:
                    which = f"chapter {work.number}, passage {passage.index + 1}"
                    message = f"{which} did not end, and what was spoken of it was written"
                    self._failure = NoEndOfSpeech(message, passage.samples, passage.codes, passage.seed)
                advance(len(passage.text))
            rest = np.concatenate([changer.end(), np.zeros(round(_END_SECONDS * SAMPLE_RATE_HZ), np.float32)])
            sink.write(rest)
            n_samples += len(rest)
        tags, path = self._tags(work), self._folder / self._name(work)
        if not self._is_file:
            write_tags(unfinished, tags)
        synced(unfinished)
        n_bytes = unfinished.stat().st_size
        self._make_way(path, work)
        unfinished.replace(path)
        finished = Finished(path.name, n_bytes, n_samples, cues, tags.digest)
        self._remember(work, finished)
        return finished

    def _kept(self, work: Work) -> Finished:
        """A finished chapter under its name and with its tags, which another chapter before it may have changed."""
        finished, tags = self._finished[work.key], self._tags(work)
        name = self._name(work)
        if (finished.file, finished.tags) == (name, tags.digest):
            return finished
        path = self._folder / name
        self._make_way(path, work)
        (self._folder / finished.file).replace(path)
        if not self._is_file:
            write_tags(path, tags)
        finished = replace(finished, file=name, tags=tags.digest, n_bytes=path.stat().st_size)
        self._remember(work, finished)
        return finished

    def _make_way(self, path: Path, work: Work) -> None:
        """Move a chapter that has the name of another one now, and gets its own when its turn comes."""
        later = {each.key for each in self.work[work.number :]}
        for key, each in self._finished.items():
            if each.file == path.name and key in later and path.is_file():
                other = self._folder / f".{key}{path.suffix}"
                path.replace(other)
                self._finished[key] = replace(each, file=other.name)
                self._place.save_finished(self._finished)

    def _remember(self, work: Work, finished: Finished) -> None:
        for key in [key for key, each in self._finished.items() if each.file == finished.file]:
            del self._finished[key]
        self._finished[work.key] = finished
        self._place.save_finished(self._finished)

    def _conclude(self, made: list[tuple[Work, Finished]]) -> None:
        if self._is_file:
            self._write_m4b(made)
            return
        lines = ["#EXTM3U"]
        for work, finished in made:
            seconds = finished.n_samples / SAMPLE_RATE_HZ
            lines += [f"#EXTINF:{seconds:.0f},{' '.join(work.chapter.title.split())}", finished.file]
            if self._settings.subtitles:
                path = (self._out / finished.file).with_suffix(f".{self._settings.subtitles}")
                write_subtitles(path, [Cue(*cue) for cue in finished.cues])
        name = chapter_name(0, 1, self._book.title, ".m3u8").removeprefix("00 ")
        with whole_file(self._out / name) as playlist:
            playlist.write_text("\n".join(lines) + "\n", "utf-8")

    def _write_m4b(self, made: list[tuple[Work, Finished]]) -> None:
        made = [(work, finished) for work, finished in made if work.is_wanted]
        parts = [(work.chapter.title, self._folder / each.file, each.n_samples) for work, each in made]
        unfinished = self._place.folder / "book.m4b"
        write_m4b(unfinished, parts, self._tags(made[0][0]))
        synced(unfinished)
        unfinished.replace(self._out)
        if self._settings.subtitles:
            cues, start = [], 0.0
            for _, finished in made:
                cues += [Cue(start + begin, start + end, text) for begin, end, text in finished.cues]
                start += finished.n_samples / SAMPLE_RATE_HZ
            write_subtitles(self._out.with_suffix(f".{self._settings.subtitles}"), cues)

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
