"""A book's chapters as sound: planned, spoken passage by passage, written one after the other, and resumed.

    Book ──> chapters ──plan──> key of each: model, voice, options, text
                                 │ finished before: kept, with its name and tags brought up to date
                                 └─read(store=Passages)─> sink ─> Shelf: tags ─> its name ─> finished.json ─> the next

The result is the same however often the work was stopped: a passage depends on the key, its text and its seed alone,
and the codec decodes stored codes to the same samples as in the speech itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..audio_sink import open_sink
from ..audio_speed import SpeedChanger
from ..digests import digest, model_digest, options_text, voice_digest
from ..errors import AudioError, NoEndOfSpeech, Note, OptionError
from ..model.schema import N_CODEBOOKS, SAMPLE_RATE_HZ
from ..reading import passage_letters, read
from ..speech.options import SpeechOptions
from ..speech.passages import Split, split_text
from ..tts import TTS
from ..voice.compatibility import BASE
from ..voice.voice import Voice
from .contents import Book, Chapter
from .settings import Settings, chapter_format, is_m4b, require_output
from .shelf import Shelf, Work
from .workplace import Finished, Workplace

__all__ = ["Production", "steady_voice"]

_VERSION = 1
"""Counted up when the same key would give other sound."""
_END_SECONDS = 1.0


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
        self._tts, self._book, self._chapters, self._voice = tts, book, chapters, voice
        self._options, self._settings, self._out, self._numbers = options, settings, out, numbers
        self._split: Split = "sentence" if settings.subtitles else settings.split
        hidden = out.with_name(f".{out.stem}.qwen3tts") if is_m4b(out) else out / ".qwen3tts"
        self._place = Workplace(hidden)
        self._speech_key = digest(
            _VERSION, model_digest(*tts.files), voice_digest(tts.resolve(voice)), options_text(options)
        )
        self._noted: set[Note] = set()
        self._plan()

    @property
    def wanted(self) -> list[Work]:
        """The chapters to make."""
        return [work for work in self.work if work.is_wanted]

    @property
    def notes(self) -> tuple[Note, ...]:
        """What changed since an earlier run."""
        n_former = len(self._shelf.former)
        if not n_former or all(work.is_finished for work in self.wanted):
            return ()
        return (Note(f"chapters made earlier with another text, voice, model or options ({n_former}) are replaced"),)

    def _plan(self) -> None:
        """Compare the book with what was made of it."""
        settings = self._settings
        how = (self._split, settings.pauses, settings.speed, chapter_format(self._out, settings), settings.subtitles)
        n_before: Counter[str] = Counter()  # chapters with the same text
        keys = []
        for chapter in self._chapters:
            keys.append(digest(self._speech_key, how, chapter.text, n_before[chapter.text]))
            n_before[chapter.text] += 1
        self._shelf = Shelf(self._place, self._book, settings, self._out, keys)
        self.work: list[Work] = []
        """All chapters, in order, wanted or not."""
        for number, (chapter, key) in enumerate(zip(self._chapters, keys, strict=True), 1):
            is_wanted = self._numbers is None or number in self._numbers
            before = self._shelf.finished(key)
            is_finished = before is not None and self._shelf.has_sound(before)
            if is_wanted and before is not None and self._may_end_now(before):
                is_finished = False
            self.work.append(Work(number, chapter, key, is_wanted, is_finished))
        self._is_whole = self._shelf.is_file and self._has_whole_m4b()
        if self._is_whole:
            self.work = [replace(work, is_finished=work.is_wanted) for work in self.work]

    def _may_end_now(self, before: Finished) -> bool:
        """Whether more attempts at passages that did not end are allowed now."""
        return bool(before.unended) and self._options.retries > before.retries

    def _has_whole_m4b(self) -> bool:
        """Whether there is nothing to do."""
        before = [self._shelf.finished(work.key) for work in self.wanted]
        if any(each is None or self._may_end_now(each) for each in before):
            return False
        return self._shelf.has_m4b(self.wanted)

    def make(
        self,
        advance: Callable[[int], None] = lambda n_letters: None,
        advance_m4b: Callable[[float], None] = lambda done: None,
    ) -> Iterator[tuple[Work, Path, Sequence[Note]]]:
        """Make the wanted chapters that are not finished. Yields each wanted chapter when it is finished, with its file
        and notes. At the end the .m3u8 of all finished chapters is written, or the .m4b of the wanted ones; when all
        chapters are there, files of chapters that the book no longer has are removed.

        advance: called with the number of letters of each passage. advance_m4b: called with how much of the .m4b is
        encoded, 0 to 1.

        A passage that does not end is written as it is, with a note. Raises UsageError if another process makes the
        book, AudioError, and NoEndOfSpeech, without samples, after everything if a passage did not end, now or when a
        wanted chapter was made earlier.
        """
        with self._place.locked():
            try:
                self._plan()
                self._shelf.remove_orphans()
                made: list[tuple[Work, Finished]] = []
                for work in self.work:
                    if not (work.is_wanted or work.is_finished):
                        continue
                    notes: list[Note] = []
                    before = self._shelf.finished(work.key) if work.is_finished else None
                    finished = self._kept(work, before, notes) if before else self._spoken(work, advance, notes)
                    made.append((work, finished))
                    if work.is_wanted:
                        yield work, self._out if self._is_whole else self._shelf.folder / finished.file, notes
                self._complete(made, advance_m4b)
            except OSError as error:
                raise AudioError(f"{self._out}: cannot be written ({error.strerror})") from None
            self._require_ends(made)

    def _spoken(self, work: Work, advance: Callable[[int], None], notes: list[Note]) -> Finished:
        passages = self._place.passages_of(self._speech_key)
        reading = read(
            self._tts, work.chapter.text, self._voice, self._options, split=self._split, pause=self._settings.pauses,
            keep_unended=True, store=passages, name=f"chapter {work.number}",
        )  # fmt: skip
        changer, n_samples = SpeedChanger(self._settings.speed), 0
        cues: list[tuple[float, float, str]] = []
        unended: list[int] = []
        with reading, open_sink(self._shelf.unfinished(work)) as sink:
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
        return self._shelf.put(work, Finished("", 0, n_samples, cues, "", unended, self._options.retries))

    def _kept(self, work: Work, finished: Finished, notes: list[Note]) -> Finished:
        where = f"chapter {work.number}, passage"
        notes += [Note(f"{where} {number} did not end and is incomplete or has noise") for number in finished.unended]
        return finished if self._is_whole else self._shelf.update(work, finished)

    def _complete(self, made: Sequence[tuple[Work, Finished]], advance_m4b: Callable[[float], None]) -> None:
        """What comes after the last chapter."""
        if not self._shelf.is_file:
            self._shelf.write_playlist(made)
        elif not self._is_whole:
            self._shelf.write_m4b([each for each in made if each[0].is_wanted], advance_m4b)
        if len(made) == len(self.work):
            self._shelf.remove_former()
        if self._shelf.is_file:
            self._place.remove_chapters()

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
