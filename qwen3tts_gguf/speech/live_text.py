"""Text that is still being written, and its tokens as soon as nothing that follows can change them.

The tokenizer normalizes a text (NFC), cuts it by a split pattern, and joins bytes within each piece. More text can only
change the end of what is there, so that is held back:

    the last piece            a word may go on, "'" become "'ll", "!" become "!?"
    spaces and line ends      they may go on, or be the end of the text, which has none
    marks                     they may combine with the letter before them, and with those that follow

What is not held back has the tokens that it has in the whole text. Scripts without spaces would hold back a sentence:
there a run of letters is cut after 8, as is any run after 64. The places of these cuts do not depend on how the text
arrives either, but its tokens may be others than those of the whole text.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable
from typing import Protocol

from ..errors import TextError, UsageError
from ..model.tokenizer import Tokenizer
from .text import with_plain_spaces

__all__ = ["LiveText", "LiveTokens"]

_LONGEST_RUN = 64
"""Characters of a piece: nothing that is pronounced is as long."""
_LONGEST_RUN_WITHOUT_SPACES = 8
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Thai and Lao, Burmese, Khmer, Chinese and Japanese."""
_MOST_MARKS = 30
"""In a row, after which nothing combines any more: the bound of Unicode's stream-safe text (UAX 15)."""


class LiveText:
    """Text that is still being written: give it to `TTS.utter`, and feed it from any thread while the speech is read.

        text = LiveText()
        utterance = tts.utter(text, voice)
        ...                                  # read the utterance in another thread
        for piece in answer:
            text.feed(piece)
        text.finish()

    The speech waits where its text has not arrived yet, and ends after `finish`. `TTS.stream` and `TTS.astream` do all
    this for an iterable of strings.
    """

    def __init__(self) -> None:
        self._changed = threading.Lock()
        self._pieces: list[str] = []
        self._is_finished = False
        self._error: BaseException | None = None
        self._receiver: _Receiver | None = None

    def feed(self, piece: str) -> bool:
        """Add a piece, cut anywhere -> whether more is wanted: not once the speech has ended or was cancelled.

        Raises TextError for what is no string, UsageError after `finish`.
        """
        if not isinstance(piece, str):
            raise TextError(f"pieces of text must be strings, not {type(piece).__name__}")
        with self._changed:
            if self._is_finished:
                raise UsageError("the text is already finished", hint="make a new `LiveText` for another speech")
            self._pieces.append(piece)
            if self._receiver is None:
                return True
            self._receiver.receive(piece)
            return self._receiver.wants_more

    def finish(self) -> None:
        """The text is complete. Finishing twice is fine."""
        with self._changed:
            if not self._is_finished:
                self._is_finished = True
                if self._receiver is not None:
                    self._receiver.receive_end("".join(self._pieces), self._error)

    def fail(self, error: BaseException) -> None:
        """Nothing more will come: the speech's reader gets this error after the frames that were made."""
        with self._changed:
            self._error = self._error or error
        self.finish()

    @property
    def so_far(self) -> str:
        """What was fed."""
        with self._changed:
            return "".join(self._pieces)

    def connect(self, receiver: _Receiver) -> None:
        """Pass on what was fed and what will be. Raises UsageError the second time."""
        with self._changed:
            if self._receiver is not None:
                raise UsageError("this text is already being spoken", hint="make a new `LiveText` for another speech")
            self._receiver = receiver
            for piece in self._pieces:
                receiver.receive(piece)
            if self._is_finished:
                receiver.receive_end("".join(self._pieces), self._error)


class _Receiver(Protocol):
    """Called by one thread at a time."""

    def receive(self, piece: str) -> None: ...

    def receive_end(self, text: str, error: BaseException | None) -> None: ...

    @property
    def wants_more(self) -> bool: ...


class LiveTokens:
    """The ids of a text that arrives in pieces."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._held = ""
        self._is_first = True

    def feed(self, text: str) -> list[int]:
        """The ids that are certain now. Raises TextError for text that is not valid Unicode."""
        self._held += with_plain_spaces(text)
        if self._is_first:
            self._held = self._held.lstrip()
        if not text or self._held.isspace() or not self._held:
            return []
        self._is_first = False
        return self._ids(is_last=False)

    def finish(self) -> list[int]:
        """The ids that were held back."""
        self._held = self._held.rstrip()
        return self._ids(is_last=True)

    def _ids(self, *, is_last: bool) -> list[int]:
        pieces = self._tokenizer.pieces(self._held)
        self._held = "".join(pieces)
        certain = len(self._held) if is_last else _certain(self._held)
        ids: list[int] = []
        start = 0
        for piece in pieces:
            is_whole = start + len(piece) <= certain
            n = self._cut(piece, is_whole, ids.extend)
            start += n
            if n < len(piece):
                break
        self._held = self._held[start:]
        return ids

    def _cut(self, piece: str, is_whole: bool, add: Callable[[list[int]], object]) -> int:
        """Add the ids of a piece, cut where it is too long; of one that may go on, only those before its last cut
        -> how many of its letters that are."""
        if not is_whole and piece.isspace():
            return 0
        start = 0
        while len(piece) - start > (most := _longest(piece, start)):
            run = piece[start : start + most]
            token_starts = self._tokenizer.token_starts(run)
            n = token_starts[-1] or most  # the last token may be another one with what follows
            add(self._tokenizer.encode(run[:n]))
            start += n
        if is_whole:
            add(self._tokenizer.encode(piece[start:]))
            return len(piece)
        return start


def _longest(piece: str, start: int) -> int:
    """How many letters of a piece may be held back, from `start` on."""
    has_spaces = _WITHOUT_SPACES.search(piece, start, start + _LONGEST_RUN_WITHOUT_SPACES) is None
    return _LONGEST_RUN if has_spaces else _LONGEST_RUN_WITHOUT_SPACES


def _certain(text: str) -> int:
    """How many letters of a text nothing that follows can change, nor the pieces that end there."""
    end = len(text.rstrip())
    if end < len(text):
        return end
    first = max(0, end - 1 - _MOST_MARKS)
    starters = (i for i in range(end - 1, first, -1) if not _may_combine(text[i]))
    return next(starters, first)


def _may_combine(letter: str) -> bool:
    """Whether a character may become one with those before it: marks, and the vowels and finals of Korean syllables."""
    return unicodedata.category(letter)[0] == "M" or "\u1160" <= letter <= "\u11ff"
