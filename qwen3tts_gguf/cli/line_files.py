"""`speak --lines FILE -o FOLDER`: a sound file for each line of a text file, several at once, resumed after a stop.

    lines.txt ──> Job, Job, ...   number, text, seed, file
                   │ listed in FOLDER/lines.csv with the same key: kept
                   └─read()─> 0001.wav ─> a row of lines.csv

A file appears when it is complete, and its row follows, so a stop at any moment costs no more than the lines at work.
"""

from __future__ import annotations

import csv
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from ..errors import AudioError, NoEndOfSpeech, OptionError, TextError
from ..model.schema import SAMPLE_RATE_HZ
from .console import printable, progress, stderr

if TYPE_CHECKING:
    from ..reading import Reading
    from ..speech.options import SpeechOptions
    from ..tts import TTS
    from ..voice.voice import Voice
    from .long_text import LongTextOptions
    from .sound_output import SoundTarget

__all__ = ["Job", "LineFiles", "Row", "jobs_of", "speak_lines"]

_LIST = "lines.csv"
_COLUMNS = ("file", "seed", "key", "seconds", "ended", "text")


def speak_lines(
    tts: TTS, content: str, voice: Voice | None, options: SpeechOptions, target: SoundTarget, text: LongTextOptions,
    *, keep_partial: bool, quiet: bool,
) -> None:  # fmt: skip
    """Speak each line of `content` into the folder `target.file`. After all lines raises NoEndOfSpeech or
    TextError, as the last line did that failed."""
    from ..digests import digest, model_digest, options_text, voice_digest

    assert isinstance(target.file, Path) and target.format is not None
    how = digest(
        model_digest(*tts.files), voice_digest(tts.resolve(voice)), options_text(options),
        text.split_by, text.pauses, target.speed,
    )  # fmt: skip
    folder = target.file
    lines = LineFiles(folder, jobs_of(content, f".{target.format}", options.seed or 0, how))
    if lines.n_kept and not quiet:
        stderr.print(f"{lines.n_kept} lines are there already", soft_wrap=True)
    failure: TextError | NoEndOfSpeech | None = None
    n_spoken = n_failed = 0
    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=len(lines.left))
        for row in lines.speak(tts, voice, options, target, text, keep_partial=keep_partial):
            bar.advance(task)
            n_spoken += row.seconds is not None
            if row.failure is not None:
                failure, n_failed = row.failure, n_failed + 1
                stderr.print(printable(f"warning: {row.job.file}: {row.failure}"), soft_wrap=True, markup=False)
    if not quiet:
        stderr.print(printable(f"{n_spoken} lines -> {folder}"), soft_wrap=True, markup=False)
    if failure is not None:
        message = f"{n_failed} of {len(lines.left)} lines failed, as the warnings show"
        if isinstance(failure, NoEndOfSpeech):
            raise NoEndOfSpeech(message, failure.samples, failure.codes, failure.seed)
        raise TextError(message)


class Job(NamedTuple):
    """A line to speak."""

    file: str
    seed: int
    key: str
    """Stands for all that its sound depends on."""
    text: str


class Row(NamedTuple):
    """A line that was spoken, or failed."""

    job: Job
    seconds: float | None
    """Length of its file, None if it has none."""
    failure: TextError | NoEndOfSpeech | None


def jobs_of(content: str, suffix: str, seed: int, how: str) -> list[Job]:
    """The lines that have text. how: stands for model, voice and options. Raises TextError."""
    from ..speech.script import passage_seed

    lines = content.splitlines()
    n_digits = max(4, len(str(len(lines))))
    n_before: Counter[str] = Counter()
    jobs = []
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            own_seed = passage_seed(seed, text, n_before[text])
            n_before[text] += 1
            key = hashlib.sha256(f"{how} {own_seed} {text}".encode()).hexdigest()[:16]
            jobs.append(Job(f"{number:0{n_digits}}{suffix}", own_seed, key, text))
    if not jobs:
        raise TextError("there is no line with text")
    return jobs


class LineFiles:
    """A folder of spoken lines. One process at a time uses it, and one thread calls this."""

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        self._folder, self._list = folder, folder / _LIST
        done = self._done()
        self.left = [job for job in jobs if done.get(job.file) != job.key or not (folder / job.file).is_file()]
        self.n_kept = len(jobs) - len(self.left)
        self._lock = threading.Lock()  # of the fields below
        self._is_stopped = False
        self._open: set[Reading] = set()

    def _done(self) -> dict[str, str]:
        """Files and keys of an earlier run. The last row of a file counts; a damaged row does not."""
        try:
            with self._list.open(encoding="utf-8", newline="") as file:
                return {row["file"]: row["key"] for row in csv.DictReader(file) if row.get("key") and row.get("text")}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise OptionError(f"{self._list}: this is no list of spoken lines ({error})") from None

    def speak(
        self, tts: TTS, voice: Voice | None, options: SpeechOptions, target: SoundTarget, text: LongTextOptions,
        *, keep_partial: bool,
    ) -> Iterator[Row]:  # fmt: skip
        """Speak what is left in lanes; yield each line once it is done, in any order. A line that does not end has a
        file only with `keep_partial`. Raises AudioError if nothing can be written."""

        def spoken(job: Job) -> Row:
            reading = text.reading(tts, job.text, voice, replace(options, seed=job.seed), keep_unended=keep_partial)
            return self._spoken(job, reading, replace(target, file=self._folder / job.file))

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._list.open("a", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)
                if not file.tell():
                    rows.writerow(_COLUMNS)
                elif not self._list.read_bytes().endswith(b"\n"):  # stopped while a row was written
                    file.write("\n")
                with self._threads(tts.engine.n_lanes) as threads:
                    for future in as_completed([threads.submit(spoken, job) for job in self.left]):
                        row = future.result()
                        job = row.job
                        if row.seconds is not None:
                            ended = "no" if row.failure else "yes"
                            rows.writerow((job.file, job.seed, job.key, f"{row.seconds:.2f}", ended, job.text))
                            file.flush()
                        yield row
        except OSError as error:
            raise AudioError(f"{self._folder}: cannot be written ({error.strerror})") from None

    @contextmanager
    def _threads(self, n: int) -> Iterator[ThreadPoolExecutor]:
        """At the end no line is at work any more: what is not done by then is given up."""
        with ThreadPoolExecutor(n, "qwen3tts-lines") as threads:
            try:
                yield threads
            finally:
                with self._lock:
                    self._is_stopped = True
                    readings = [*self._open]
                for reading in readings:
                    reading.cancel()
                threads.shutdown(cancel_futures=True)

    def _spoken(self, job: Job, reading: Reading, target: SoundTarget) -> Row:
        """In one of the threads."""
        n_samples, failure = 0, None
        with self._lock:
            if self._is_stopped:
                raise _Stopped
            self._open.add(reading)
        try:
            with target.opened() as sink:
                for passage in reading:
                    sink.write(passage.sound)
                    n_samples += len(passage.sound)
                    if not passage.ended:
                        message = "the speech did not end, and what was spoken was written"
                        failure = NoEndOfSpeech(message, passage.samples, passage.codes, passage.seed)
                if self._is_stopped:
                    raise _Stopped
        except (TextError, NoEndOfSpeech) as error:
            return Row(job, None, error)
        finally:
            with self._lock:
                self._open.discard(reading)
        return Row(job, n_samples / SAMPLE_RATE_HZ / target.speed, failure)


class _Stopped(Exception):
    """The command ends before this line was done."""
