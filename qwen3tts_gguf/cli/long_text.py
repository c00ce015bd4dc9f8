"""What `speak` does with a text of several passages: where it comes from, how it is split, progress, subtitles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from ..errors import NoEndOfSpeech, Note, OptionError
from ..model.schema import SAMPLE_RATE_HZ
from .console import print_notes, printable, progress, read_text, stderr
from .panels import OUTPUT, TEXT, value
from .sound_output import SoundTarget
from .text_argument import UsageError, read_stdin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..reading import Reading
    from ..speech.options import SpeechOptions
    from ..speech.passages import Split
    from ..speech.spoken import Passage
    from ..tts import TTS
    from ..voice.voice import Voice

__all__ = ["LongTextOptions", "PauseOption", "SplitOption", "SplitText", "Spoken"]

Made = TypeVar("Made")


class SplitText(str, Enum):
    """`read(split=...)`"""

    AUTO = "auto"
    NONE = "none"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    LINE = "line"


SplitOption = Annotated[
    SplitText,
    value(
        "UNIT",
        TEXT,
        "What is spoken in one go: sentence, paragraph, line, none (all of it), or auto: up to 300 letters. "
        "Default: auto; with --subtitles sentence.",
        "--split",
        show_default=False,
    ),
]
PauseOption = Annotated[
    str,
    value(
        "SECONDS",
        TEXT,
        "Pause between passages of a long text, or two: after a sentence, after a paragraph. Default: 0.3,0.6.",
        "--pause",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class LongTextOptions:
    """Texts of any length."""

    file: Annotated[
        Path | None,
        value("FILE", TEXT, "Speak a file of UTF-8 text; - is stdin.", "--file", "-f"),
    ] = None
    lines: Annotated[
        Path | None,
        value("FILE", TEXT, "Speak each line of a file into its own file in the folder -o; - is stdin.", "--lines"),
    ] = None
    split: SplitOption = SplitText.AUTO
    pause: PauseOption = "0.3,0.6"
    subtitles: Annotated[
        Path | None,
        value("FILE", OUTPUT, "Also save subtitles, one cue per sentence: .srt or .vtt.", "--subtitles"),
    ] = None

    def text(self, argument: str | None) -> str:
        """What to speak: the argument, a file, or stdin. Raises TextError, OptionError."""
        file = self.lines or self.file
        if self.lines and self.file:
            raise OptionError("--lines and --file both give the text: leave out one")
        if file is not None and argument is not None:
            raise OptionError("--lines or --file gives the text: leave out the argument TEXT")
        if file is None and argument is None:
            raise UsageError("Missing text: give it as an argument, by --file, or - for standard input.")
        if argument == "-" or str(file) == "-":
            return read_stdin()
        if file is not None:
            return read_text(file)
        if argument and os.path.isfile(argument):
            words = printable(argument)
            stderr.print(f"hint: {words} is spoken as a text; to speak what is in the file: -f {words}", soft_wrap=True)
        return argument or ""

    @property
    def split_by(self) -> Split:
        """`split`, unless subtitles need sentences. Raises OptionError."""
        if self.subtitles is None:
            return self.split.value
        if self.split not in (SplitText.AUTO, SplitText.SENTENCE):
            raise OptionError("--subtitles has a cue per sentence: leave out --split")
        return "sentence"

    @property
    def pauses(self) -> tuple[float, float]:
        """Raises OptionError."""
        try:
            seconds = [float(part) for part in self.pause.split(",")]
        except ValueError:
            seconds = []
        if len(seconds) not in (1, 2):
            raise OptionError(f"--pause takes seconds, as 0.5 or 0.3,0.6, not {self.pause!r}")
        return seconds[0], seconds[-1]

    def require_valid(self) -> None:
        """Before a model is loaded. Raises OptionError."""
        from ..speech.script import pauses_in_samples

        pauses_in_samples(self.pauses)
        if self.subtitles is not None:
            from ..subtitles import require_subtitles

            require_subtitles(self.subtitles)
        _ = self.split_by

    def is_long(self, tts: TTS, text: str, language: str | None) -> bool:
        """Whether a model reads a text in passages. Raises TextError."""
        from ..reading import passage_letters
        from ..speech.passages import split_text

        passages = split_text(text, self.split_by, language=language, most=passage_letters(tts))
        return len(passages) > 1 or self.subtitles is not None

    def reading(
        self, tts: TTS, text: str | Iterable[str], voice: Voice | None, options: SpeechOptions, *, keep_unended: bool
    ) -> Reading:
        """Of a text that is still arriving each sentence is a passage. Raises TextError, OptionError."""
        from ..reading import read

        split = self.split_by if isinstance(text, str) else "sentence"
        return read(tts, text, voice, options, split=split, pause=self.pauses, keep_unended=keep_unended)

    def read_aloud(
        self,
        tts: TTS,
        text: str | Iterable[str],
        voice: Voice | None,
        options: SpeechOptions,
        target: SoundTarget,
        *,
        keep_partial: bool,
        quiet: bool,
    ) -> Spoken:
        """Speak a text in passages: a file takes each once it is whole, a stream every frame as it is made, as does a
        text that is still arriving.

        Raises NoEndOfSpeech when a passage does not end, unless `keep_partial`.
        """
        is_there = isinstance(text, str)
        reading = self.reading(tts, text, voice, options, keep_unended=keep_partial)
        known = voice.notes if voice else ()
        spoken = Spoken(reading.seed, known, target.speed)
        with _bar(len(text) if isinstance(text, str) else None, quiet) as advance:
            if target.is_whole and is_there:
                _write_passages(reading, target, spoken, advance, keep_partial)
            else:
                _write_sounds(reading, target, spoken, advance, keep_partial)
        if self.subtitles is not None:
            spoken.save_subtitles(self.subtitles)
        return spoken


class Spoken:
    """What was made of a reading so far. known: notes that were printed already."""

    def __init__(self, seed: int, known: Sequence[Note], speed: float) -> None:
        self.seed = seed
        self._known, self._per_second = known, SAMPLE_RATE_HZ * speed
        self._cues: list[tuple[int, int, str]] = []  # samples at which a passage starts and stops, and its text
        self._codes: list[NDArray[np.int32]] = []
        self._failed: NoEndOfSpeech | None = None

    @property
    def seconds(self) -> float:
        """Length of the sound, at its speed."""
        return self._cues[-1][1] / self._per_second if self._cues else 0.0

    @property
    def n_passages(self) -> int:
        return len(self._cues)

    @property
    def codes(self) -> NDArray[np.int32]:
        """Of all passages [frames, 16]; of a stream there are none."""
        import numpy as np

        return np.concatenate(self._codes)

    @property
    def first(self) -> tuple[NDArray[np.int32], str]:
        """The first passage, codes and text."""
        return self._codes[0], self._cues[0][2]

    def require_end(self) -> None:
        """Raises NoEndOfSpeech, of the last passage that did not end and was kept."""
        if self._failed is not None:
            raise self._failed

    def add(self, passage: Passage) -> None:
        self.add_sound(passage.index, passage.text, passage.start, len(passage.samples), passage.notes)
        self._codes.append(passage.codes)
        if not passage.ended:
            message = f"passage {passage.index + 1} did not end, and what was spoken of it was written"
            self._failed = NoEndOfSpeech(message, passage.samples, passage.codes, passage.seed)

    def add_sound(self, index: int, text: str, start: int, n_samples: int, notes: Sequence[Note]) -> bool:
        """More samples of a passage; whether they are its first. Prints its notes."""
        print_notes(note for note in notes if note not in self._known)
        is_new = index == len(self._cues)
        if is_new:
            self._cues.append((start, start, text))
        start, stop, text = self._cues[-1]
        self._cues[-1] = start, stop + n_samples, text
        return is_new

    def save_subtitles(self, path: Path) -> None:
        from ..subtitles import Cue, write_subtitles

        write_subtitles(
            path, [Cue(start / self._per_second, stop / self._per_second, text) for start, stop, text in self._cues]
        )


def _write_passages(
    reading: Reading, target: SoundTarget, spoken: Spoken, advance: Callable[[int], None], keep_partial: bool
) -> None:
    passages = _started(reading)
    with target.opened(keep_partial=keep_partial) as sink:
        for passage in passages:
            sink.write(passage.sound)
            spoken.add(passage)
            advance(len(passage.text))


def _write_sounds(
    reading: Reading, target: SoundTarget, spoken: Spoken, advance: Callable[[int], None], keep_partial: bool
) -> None:
    sounds = _started(reading.stream())
    with target.opened(keep_partial=keep_partial) as sink:
        for sound in sounds:
            sink.write(sound.samples)
            if not sound.is_pause:
                is_new = spoken.add_sound(sound.index, sound.text, sound.start, len(sound.samples), sound.notes)
                advance(len(sound.text) if is_new else 0)


def _started(sounds: Iterable[Made]) -> Iterator[Made]:
    """The same, the first one made: what is refused is refused before anything is written."""
    iterator = iter(sounds)
    return chain([next(iterator)], iterator)


@contextmanager
def _bar(n_letters: int | None, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar of letters spoken, with the time left where their number is known -> what moves it on."""
    columns = (TextColumn("{task.completed:.0f} letters"), BarColumn(), TimeRemainingColumn())
    with progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=n_letters)
        yield lambda n: bar.advance(task, n)
