"""What `speak` writes and reports: attempts of one text until one ends, into a file or a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import SpinnerColumn, TextColumn

from ..errors import Note
from .console import print_notes, progress, stderr
from .long_text import Spoken
from .sound_output import SoundTarget

if TYPE_CHECKING:
    from ..tts import Utterance

__all__ = ["report", "speak_to"]

_RESCUE_FROM_FILE = "--keep-partial writes what was spoken"
_RESCUE_FROM_STREAM = "what was written to stdout stays there; -o FILE tries again with another seed"


def speak_to(
    target: SoundTarget, attempts: Iterator[Utterance], known: Sequence[Note], keep_partial: bool, quiet: bool
) -> Utterance:
    """Write an attempt and return it: a stream gets every frame as it is made, a file only the last attempt.

    known: notes that were printed already. Raises NoEndOfSpeech, unless `keep_partial`.
    """
    is_file = target.is_whole
    attempts = chain([next(attempts)], attempts)  # what is refused is refused before anything is written
    columns = (SpinnerColumn(), TextColumn("{task.fields[seconds]:.1f} s of speech"))
    with target.opened() as sink, progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=None, seconds=0.0)
        for n_failed, utterance in enumerate(attempts):
            if not n_failed:
                print_notes(note for note in utterance.notes if note not in known)
            else:
                stderr.print(f"warning: the speech did not end; retrying with seed {utterance.seed}", soft_wrap=True)
            frames = []
            for samples in utterance.pieces() if is_file else utterance:
                if is_file:
                    frames.append(samples)
                else:
                    sink.write(samples)
                bar.update(task, seconds=utterance.seconds)
        if not keep_partial:
            if not utterance.ended and not quiet:
                stderr.print(f"hint: {_RESCUE_FROM_FILE if is_file else _RESCUE_FROM_STREAM}", soft_wrap=True)
            utterance.require_end()
        for samples in frames:
            sink.write(samples)
    return utterance


def report(spoken: Utterance | Spoken, output: Path | str, *, work_seconds: float | None, wall_seconds: float) -> None:
    """work_seconds: None for a text that arrived meanwhile, as its time says nothing about speed."""
    length = spoken.seconds
    factor = f", RTF {work_seconds / length:.2f}" if length and work_seconds is not None else ""
    passages = f", {spoken.n_passages} passages," if isinstance(spoken, Spoken) else ""
    seconds = wall_seconds if work_seconds is None else work_seconds
    stderr.print(
        f"{length:.2f} s of speech{passages} in {seconds:.2f} s{factor} ({wall_seconds:.2f} s with loading), "
        f"seed {spoken.seed} -> {output}",
        soft_wrap=True,
        markup=False,
    )
