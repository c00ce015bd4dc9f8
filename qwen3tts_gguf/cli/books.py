"""`qwen3tts read`"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn
from rich.table import Table

from ..errors import Error, OptionError
from .console import (
    DEFAULT_MODELS,
    DeviceOption,
    LanguageOption,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    amx_setting,
    print_notes,
    printable,
    progress,
    stderr,
    stdout,
)
from .expanded import expanded
from .long_text import LongTextOptions, PauseOption, SplitOption, SplitText
from .panels import MACHINE, OUTPUT, SAMPLING, TEXT, flag, value
from .sampling_options import SamplingOptions
from .speaking import chosen_model, with_words
from .voice_options import InstructOption, SpeakerOption, VoiceOptions

if TYPE_CHECKING:
    from ..book.contents import Book, Chapter
    from ..book.production import Production
    from ..tts import TTS

__all__ = ["read"]


class ChapterFormat(str, Enum):
    """`book.settings.FORMATS`"""

    MP3 = "mp3"
    OPUS = "opus"
    FLAC = "flac"
    WAV = "wav"


class SubtitleFormat(str, Enum):
    """`Settings.subtitles`"""

    SRT = "srt"
    VTT = "vtt"


@expanded
def read(
    context: typer.Context,
    book: Annotated[Path, typer.Argument(metavar="BOOK", help="A .txt, .md or .epub file.")],
    output: Annotated[
        Path | None,
        value("FOLDER|FILE", OUTPUT, "Folder for a file per chapter, or one .m4b with chapters.", "--output", "-o"),
    ] = None,
    show_list: Annotated[
        bool, flag(OUTPUT, "Only show the chapters and how long they will be; no model is needed.", "--list")
    ] = False,
    format: Annotated[
        ChapterFormat, value("FORMAT", OUTPUT, "Format of the chapters' files: mp3, opus, flac or wav.", "--format")
    ] = ChapterFormat.MP3,
    subtitles: Annotated[
        SubtitleFormat | None,
        value(
            "FORMAT", OUTPUT, "Also save subtitles next to the sound, one cue per sentence: srt or vtt.", "--subtitles"
        ),
    ] = None,
    speed: Annotated[
        float, value("X", OUTPUT, "Speed, 0.25 to 4; the pitch stays. Default: 1.", "--speed", show_default=False)
    ] = 1.0,
    chapters: Annotated[
        str | None, value("NUMBERS", TEXT, "Read only some chapters of --list, as 3 or 2-5,8.", "--chapters")
    ] = None,
    levels: Annotated[
        int | None,
        value(
            "N",
            TEXT,
            "Levels of headings, or of the table of contents, that begin a chapter. Default: as many as "
            "leave the typical chapter three minutes.",
            "--levels",
            min=1,
            max=20,
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        value("NAME", TEXT, "Encoding of a .txt or .md file, as windows-1252. Default: utf-8.", "--encoding"),
    ] = None,
    split: SplitOption = SplitText.AUTO,
    pause: PauseOption = "0.3,0.6",
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voice_options: VoiceOptions = VoiceOptions(),
    speaker: SpeakerOption = None,
    instruct: InstructOption = None,
    language: LanguageOption = None,
    seed: Annotated[
        int, value("N", SAMPLING, "Seed of the book; the same one makes the same book.", "--seed", min=0)
    ] = 0,
    retries: Annotated[
        int, value("N", TEXT, "New attempts after a passage that does not end.", "--retries", min=0)
    ] = 2,
    sampling: SamplingOptions = SamplingOptions(),
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    force: Annotated[bool, flag(MACHINE, "Load the model even if it seems too large for memory.", "--force")] = False,
    quiet: QuietOption = False,
) -> None:
    """Read a book aloud: an audio file per chapter, or one .m4b.

    Look at the chapters first, try the voice on one of them, then have all of them read:

      qwen3tts read book.epub --list
      qwen3tts read book.epub --chapters 2 -o try --voice yuki
      qwen3tts read book.epub -o audiobook --voice yuki
      qwen3tts read book.epub -o audiobook.m4b --voice yuki

    You can stop at any time, and the computer may crash: the same command continues where it stopped. If the text, the
    voice or an option changes, the chapters that it changes are made again; what is unchanged stays. When all chapters
    are there, files of chapters that the book no longer has are removed.

    A folder also gets a playlist (.m3u8). Files have tags: title, book, author, number and cover.

    Notes, page numbers, program code and pictures are not read. A passage that does not end after all --retries is
    written as it is, with a warning, and the exit code is 3 after the whole book. The same command warns again; with
    more --retries it makes the chapters concerned again.
    """
    from ..book.chapters import read_book

    found = read_book(book, encoding=encoding)
    print_notes(found.notes)
    every = found.chapters(levels)
    numbers = _chosen(chapters, len(every))
    if show_list:
        _print_list(found, every, speed)
        return
    if output is None:
        raise OptionError("no output given", hint="-o FOLDER or -o FILE.m4b; --list shows the chapters")
    if voice_options.voice is not None and speaker is not None:
        raise OptionError("--speaker and --voice both choose the voice: give one of them")
    if subtitles is not None and split not in (SplitText.AUTO, SplitText.SENTENCE):
        raise OptionError("--subtitles has a cue per sentence: leave out --split")

    from ..book.production import Production, steady_voice
    from ..book.settings import Settings, require_output
    from ..tts import TTS, SpeechOptions

    settings = Settings(
        format=format.value, split=split.value, pauses=LongTextOptions(pause=pause).pauses, speed=speed,
        subtitles=subtitles.value if subtitles else "",
    )  # fmt: skip
    require_output(output, settings)
    there = chosen_model(model, context, quiet)
    with TTS(
        there,
        mmproj=mmproj,
        n_threads=threads,
        n_lanes="auto",
        amx=amx_setting(),
        device=device,
        check_memory=not force,
    ) as tts:
        print_notes(tts.notes)
        options = SpeechOptions(
            language=language or _known_language(tts, found.language), seed=seed, retries=retries, **vars(sampling)
        )
        if speaker is None:
            voice_options = voice_options.or_preferred(tts)
        voice = with_words(voice_options.chosen(tts, quiet), speaker, instruct)
        voice = steady_voice(tts, every, voice, options)
        production = Production(tts, found, every, voice, options, settings, output, numbers)
        print_notes(production.notes)
        _make(production, output, quiet)


def _chosen(numbers: str | None, n_chapters: int) -> set[int] | None:
    """The numbers asked for, None for all. Raises OptionError."""
    if numbers is None:
        return None
    wanted: set[int] = set()
    for part in numbers.split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or "-" not in part)):
            raise OptionError(f"--chapters takes numbers, as 3 or 2-5,8, not {numbers!r}")
        start, stop = int(first), int(last or first)
        if not 1 <= start <= stop <= n_chapters:
            raise OptionError(f"--chapters: there is no chapter {part.strip()}, the book has {n_chapters}")
        wanted.update(range(start, stop + 1))
    return wanted


def _known_language(tts: TTS, language: str) -> str | None:
    """The language that the book names, if the model knows it."""
    try:
        return language if language and tts.vocabulary.language_id(language) is not None else None
    except Error:
        return None


def _print_list(book: Book, chapters: list[Chapter], speed: float) -> None:
    by = f" by {book.author}" if book.author else ""
    stdout.print(printable(f"{book.title}{by}"), markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("chapter", overflow="fold")
    table.add_column("letters", justify="right")
    table.add_column("about", justify="right")
    for number, chapter in enumerate(chapters, 1):
        seconds = _clock(chapter.seconds / speed)
        table.add_row(str(number), printable(chapter.title).replace("[", "\\["), f"{chapter.n_letters:,}", seconds)
    total = sum(chapter.seconds for chapter in chapters) / speed
    table.add_row("", "total", f"{sum(chapter.n_letters for chapter in chapters):,}", _clock(total))
    stdout.print(table)


def _make(production: Production, output: Path, quiet: bool) -> None:
    n, n_in_book = len(production.wanted), len(production.work)
    kept = sum(work.is_finished for work in production.wanted)
    if kept and not quiet:
        stderr.print(f"chapters that are finished already: {kept} of {n}", soft_wrap=True)
    left = sum(len(work.chapter.text) for work in production.wanted if not work.is_finished)
    with _bar(left, quiet) as (advance, advance_m4b):
        for work, file, notes in production.make(advance, advance_m4b):
            print_notes(notes)
            if not quiet and not work.is_finished:
                where = file if file.parent == output else output
                line = f"{work.number}/{n_in_book} {work.chapter.title} -> {where}"
                stderr.print(printable(line), soft_wrap=True, markup=False)
    if not quiet:
        stderr.print(printable(f"{n} {'chapter' if n == 1 else 'chapters'} -> {output}"), soft_wrap=True, markup=False)


@contextmanager
def _bar(n_letters: int, quiet: bool) -> Iterator[tuple[Callable[[int], None], Callable[[float], None]]]:
    """A bar over the whole book, with the time left at the speed since the start, then one for the encoding of an
    .m4b."""
    started, done = time.monotonic(), 0
    columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TextColumn("{task.fields[left]}"))
    with progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=n_letters, left="")
        encoding = bar.add_task("", total=1.0, left="of the .m4b", visible=False)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            left = max(0, n_letters - done) * (time.monotonic() - started) / max(1, done)
            bar.update(task, advance=n, left=f"{_clock(left)} left")

        def advance_m4b(fraction: float) -> None:
            bar.update(encoding, completed=fraction, visible=True)

        yield advance, advance_m4b


def _clock(seconds: float) -> str:
    """As 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
