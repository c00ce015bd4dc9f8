"""The text of an utterance that is still being written, in one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Literal

__all__ = ["ArrivingText", "Pacing"]

Pacing = Literal["auto", "token", "sentence", "none"]
"""What is spoken of a text that is not complete: see conversation.py."""

_JUDGED_LETTERS = 40
"""The beginning of a text, ten tokens, from which "auto" judges its pace. A shorter first sentence shows too little:
such a text is spoken sentence by sentence."""
_LETTERS_PER_SECOND = 50.0
"""The talker takes one token per frame, 12.5 a second, and a token has about four letters."""
_SENTENCE_ENDS = tuple(".!?。！？")


class ArrivingText:
    """Fed by one task, read by another."""

    def __init__(self) -> None:
        self.text = ""
        self.is_complete = False
        self.began = time.monotonic()
        self.changed = asyncio.Event()
        self._pacing: Pacing | None = None

    def feed(self, piece: str) -> None:
        self.text += piece
        if self._pacing is None:
            self._judge()
        self.changed.set()

    def complete(self) -> None:
        self.is_complete = True
        self.changed.set()

    async def wait_until(self, is_met: Callable[[], bool]) -> None:
        while not (self.is_complete or is_met()):
            await self._change()

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    async def pieces(self) -> AsyncIterator[str]:
        n_read = 0
        while True:
            while not (self.is_complete or len(self.text) > n_read):
                await self._change()
            piece = self.text[n_read:]
            n_read += len(piece)
            if piece:
                yield piece
            elif self.is_complete:
                return

    async def pacing(self) -> Pacing:
        """What "auto" means for this text; known after its beginning."""
        await self.wait_until(lambda: self._pacing is not None)
        return self._pacing or "sentence"

    def _judge(self) -> None:
        """Decide as soon as enough has arrived, so that the decision does not depend on when somebody asks for it."""
        n_letters = len(self.text.rstrip())
        if n_letters >= _JUDGED_LETTERS:
            seconds = time.monotonic() - self.began
            self._pacing = "token" if n_letters >= _LETTERS_PER_SECOND * seconds else "sentence"
        elif self.text.rstrip().endswith(_SENTENCE_ENDS):
            self._pacing = "sentence"
