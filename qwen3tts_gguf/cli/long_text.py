"""What `speak` does with a text of several passages: where it comes from, how it is split, progress, subtitles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from ..errors import NoEndOfSpeech, Note, OptionError
from ..model.schema import SAMPLE_RATE_HZ
from .console import print_notes, progress, read_text, stderr
from .sound_output import SoundTarget
from .text_argument import read_stdin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..reading import Reading

__all__ = ["LongTextOptions", "Spoken", "read_aloud"]

Made = TypeVar("Made")

_PANEL = "Text"



class SplitText(str, Enum):
    """`read(split=...)`"""

    AUTO = "auto"
    NONE = "none"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    LINE = "line"


@dataclass(frozen=True)
class LongTextOptions:
    """Texts of any length."""

    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", rich_help_panel=_PANEL, help="Speak a file of UTF-8 text; - is stdin."),
    ] = None
    split: Annotated[
        SplitText,
        typer.Option(
            rich_help_panel=_PANEL,
            help="What is spoken in one go. auto: a text of up to 300 letters, else whole sentences up to that length. "
            "Default: auto; with --subtitles sentence.",
        ),
    ] = SplitText.AUTO
    pause: Annotated[
        str,
        typer.Option(
            rich_help_panel=_PANEL,
            help="Seconds of silence between passages: after a sentence and after a paragraph, or one number for both.",
        ),
    ] = "0.3,0.6"
    subtitles: Annotated[
        Path | None,
        typer.Option(rich_help_panel="Output", help="Also save subtitles: .srt or .vtt, one cue per sentence."),
    ] = None

    def text(self, argument: str | None) -> str:
        """What to speak: the argument, a file, or stdin. Raises TextError, OptionError."""
        if self.file is not None and argument is not None:
            raise OptionError("--file is the text: leave out the other one")
        if self.file is None and argument is None:
            raise OptionError("there is no text to speak", hint="give it as an argument, by --file, or - for stdin")
        if argument == "-" or str(self.file) == "-":
            return read_stdin()
        return read_text(self.file) if self.file is not None else argument or ""

    @property
    def split_by(self) -> str:
        """`split`, unless subtitles need sentences. Raises OptionError."""
        if self.subtitles is None:
            return self.split.value
        if self.split not in (SplitText.AUTO, SplitText.SENTENCE):
            raise OptionError("--subtitles has a cue per sentence: leave out --split")
        return SplitText.SENTENCE.value

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


@dataclass
class Spoken:
    """What was made of a reading."""

    seconds: float = 0.0
    n_passages: int = 0
    codes: list[NDArray[np.int32]] = field(default_factory=list)
    """Of each passage; none of a stream."""
    first_text: str = ""
    failed: NoEndOfSpeech | None = None
    """Set when a passage did not end and what was spoken of it was kept."""

    def report(self, output: str, *, seed: int, work_seconds: float, wall_seconds: float) -> None:
        factor = f", RTF {work_seconds / self.seconds:.2f}" if self.seconds else ""
        stderr.print(
            f"{self.seconds:.2f} s of speech, {self.n_passages} passages, in {work_seconds:.2f} s{factor} "
            f"({wall_seconds:.2f} s with loading), seed {seed} -> {output}",
            soft_wrap=True,
            markup=False,
        )


def read_aloud(
    reading: Reading,
    target: SoundTarget,
    n_letters: int,
    known: Sequence[Note],
    *,
    subtitles: Path | None,
    keep_partial: bool,
    quiet: bool,
) -> Spoken:
    """Write a reading as it is made. known: notes that were printed already. Raises NoEndOfSpeech."""
    spoken, texts = Spoken(), _Texts(known)
    with _bar(n_letters, quiet) as advance:
        if target.is_whole:
            passages = _begun(reading)
            with target.opened(keep_partial=keep_partial) as sink:
                for passage in passages:
                    sink.write(passage.sound)
                    texts.add(passage.index, passage.text, passage.start, len(passage.samples), passage.notes)
                    spoken.codes.append(passage.codes)
                    if not passage.ended:
                        spoken.failed = NoEndOfSpeech(
                            f"passage {passage.index + 1} did not end", passage.samples, passage.codes, passage.seed
                        )
                    advance(len(passage.text))
        else:
            sounds = _begun(reading.stream())
            with target.opened(keep_partial=keep_partial) as sink:
                for sound in sounds:
                    sink.write(sound.samples)
                    if not sound.is_pause:
                        is_new = texts.add(sound.index, sound.text, sound.start, len(sound.samples), sound.notes)
                        advance(len(sound.text) if is_new else 0)
    spoken.seconds, spoken.n_passages = texts.stop / SAMPLE_RATE_HZ / target.speed, len(texts.cues)
    spoken.first_text = texts.cues[0][2] if texts.cues else ""
    if subtitles is not None:
        texts.save(subtitles, target.speed)
    return spoken


def _begun(sounds: Iterable[Made]) -> Iterator[Made]:
    """The same, the first one made: what is refused is refused before anything is written."""
    iterator = iter(sounds)
    return chain([next(iterator)], iterator)


class _Texts:
    """When each passage is spoken, in samples."""

    def __init__(self, known: Sequence[Note]) -> None:
        self.cues: list[tuple[int, int, str]] = []
        self._known = known

    @property
    def stop(self) -> int:
        return self.cues[-1][1] if self.cues else 0

    def add(self, index: int, text: str, start: int, n_samples: int, notes: Sequence[Note]) -> bool:
        """More samples of a passage; whether they are its first. Prints its notes."""
        print_notes(note for note in notes if note not in self._known)
        is_new = index == len(self.cues)
        if is_new:
            self.cues.append((start, start, text))
        start, stop, text = self.cues[-1]
        self.cues[-1] = start, stop + n_samples, text
        return is_new

    def save(self, path: Path, speed: float) -> None:
        from ..subtitles import Cue, write_subtitles

        per_second = SAMPLE_RATE_HZ * speed
        write_subtitles(path, [Cue(start / per_second, stop / per_second, text) for start, stop, text in self.cues])


@contextmanager
def _bar(n_letters: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar of letters spoken, with the time left -> what moves it on."""
    columns = (TextColumn("{task.completed:.0f} of {task.total:.0f} letters"), BarColumn(), TimeRemainingColumn())
    with progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=n_letters)
        yield lambda n: bar.advance(task, n)
