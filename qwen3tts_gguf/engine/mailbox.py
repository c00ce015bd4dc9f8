"""Frames on their way from the engine to one reader.

The engine puts pieces in and never waits; the reader takes them out and waits for the next one. The engine looks at
`is_full` and pauses a speech whose reader is far behind.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_AHEAD", "Ending", "Mailbox", "Piece"]

MOST_AHEAD = 25
"""Frames that may wait for a reader, 2 s of speech."""
_WAIT_SECONDS = 1.0  # a wait with a timeout lets Ctrl-C through on Windows too


@dataclass(frozen=True)
class Piece:
    """Some frames of a speech."""

    codes: NDArray[np.int32]  # [n, 16]
    samples: NDArray[np.float32]  # [n * 1920], in [-1, 1]


@dataclass(frozen=True)
class Ending:
    """How a speech ended: by itself, stopped for a reason, cancelled by its reader, or by an error."""

    ended: bool = False
    runaway: str | None = None
    cancelled: bool = False
    error: BaseException | None = None


class Mailbox:
    """A queue of pieces and the ending after them. Safe for one engine and one reader, and for `end` by anybody.

    on_room: called when a full mailbox has room again.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._changed = threading.Condition()
        self._pieces: deque[Piece] = deque()
        self._n_frames = 0
        self._ending: Ending | None = None
        self._listener: Callable[[], object] | None = None

    @property
    def is_full(self) -> bool:
        """Whether the engine should pause this speech."""
        return self._n_frames >= MOST_AHEAD

    @property
    def ending(self) -> Ending | None:
        """Set once nothing more goes in."""
        return self._ending

    def put(self, piece: Piece) -> None:
        """Add a piece; after the ending it is dropped."""
        with self._changed:
            if self._ending is None:
                self._pieces.append(piece)
                self._n_frames += len(piece.codes)
            self._changed.notify_all()
        self._notify_listener()

    def end(self, ending: Ending) -> None:
        """The last word; only the first one counts. A cancelled speech drops what was not taken yet."""
        with self._changed:
            if self._ending is not None:
                return
            self._ending = ending
            if ending.cancelled:
                self._pieces.clear()
                self._n_frames = 0
            self._changed.notify_all()
        self._notify_listener()

    def take(self) -> Piece | Ending:
        """The next piece, or the ending after the last one; waits for it."""
        while (found := self.poll()) is None:
            with self._changed:
                if not self._pieces and self._ending is None:
                    self._changed.wait(_WAIT_SECONDS)
        return found

    def poll(self) -> Piece | Ending | None:
        """The same without waiting: None when there is nothing yet."""
        with self._changed:
            if not self._pieces:
                return self._ending
            was_full = self.is_full
            piece = self._pieces.popleft()
            self._n_frames -= len(piece.codes)
            has_room_again = was_full and not self.is_full
        if has_room_again:
            self._on_room()
        return piece

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called, from the engine's threads, whenever `poll` has something new."""
        self._listener = listener

    def _notify_listener(self) -> None:
        if self._listener is not None:
            self._listener()
