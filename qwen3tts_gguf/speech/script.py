"""What a reading will speak: its passages one after the other, with their seeds and the pauses between them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import OptionError
from ..model.schema import SAMPLE_RATE_HZ
from .passages import MOST_LETTERS, Boundary, PassageText, Split, Splitter, split_text

__all__ = ["PAUSES", "Line", "passage_seed", "pauses_in_samples", "script"]

PAUSES = (0.3, 0.6)
"""Seconds of silence after a passage that ends with a sentence, and after one that ends with a paragraph."""
_MOST_PAUSE = 60.0


@dataclass(frozen=True)
class Line:
    """A passage to speak."""

    index: int
    text: str
    boundary: Boundary
    """What of the text ends with it."""
    seed: int
    is_all: bool
    """Whether it is the whole text, which is neither trimmed nor padded."""


def script(
    text: str | Iterable[str],
    split: Split,
    language: str | None,
    seed: int,
    *,
    shares_seed: bool,
    most: int = MOST_LETTERS,
) -> Iterator[Line]:
    """The passages of a whole text, which is split at once, or of one that still arrives, as it does.

    A text that fits into one passage has the seed itself. Otherwise each passage has one of its own, or all have the
    same if `shares_seed`. most: letters of a passage. Raises TextError, OptionError.
    """
    passages = (
        _whole(text, split, language, most)
        if isinstance(text, str)
        else _arriving(text, Splitter(split, language=language, most=most))
    )
    return _lines(passages, seed, shares_seed)


def _lines(passages: Iterable[tuple[PassageText, bool]], seed: int, shares_seed: bool) -> Iterator[Line]:
    n_before: Counter[str] = Counter()
    for index, (passage, is_all) in enumerate(passages):
        own_seed = seed if is_all or shares_seed else passage_seed(seed, passage.text, n_before[passage.text])
        n_before[passage.text] += 1
        yield Line(index, passage.text, passage.boundary, own_seed, is_all)


def _whole(text: str, split: Split, language: str | None, most: int) -> list[tuple[PassageText, bool]]:
    """Each passage with whether it is all of the text."""
    passages = split_text(text, split, language=language, most=most)
    return [(passage, len(passages) == 1) for passage in passages]


def _arriving(pieces: Iterable[str], splitter: Splitter) -> Iterator[tuple[PassageText, bool]]:
    is_first = True
    for piece in pieces:
        for passage in splitter.feed(piece):
            is_first = False
            yield passage, False
    last = splitter.end()
    for passage in last:
        yield passage, is_first and len(last) == 1


def passage_seed(seed: int, text: str, n_before: int) -> int:
    """The seed of a passage that came `n_before` times before in a reading with `seed`."""
    digest = hashlib.blake2b(f"{seed} {n_before} {text}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def pauses_in_samples(pause: float | tuple[float, float]) -> dict[Boundary, int]:
    """Silence after each kind of passage, of seconds after a sentence and after a paragraph. Raises OptionError."""
    sentence, paragraph = pause if isinstance(pause, tuple) else (pause, pause)
    for seconds in (sentence, paragraph):
        if not 0 <= seconds <= _MOST_PAUSE:
            raise OptionError(f"`pause` must be 0 to {_MOST_PAUSE:.0f} s, not {seconds}")
    seconds_after: dict[Boundary, float] = {"clause": sentence / 2, "sentence": sentence, "paragraph": paragraph}
    return {boundary: round(seconds * SAMPLE_RATE_HZ) for boundary, seconds in seconds_after.items()}
