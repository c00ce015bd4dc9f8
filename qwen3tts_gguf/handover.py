"""Items on their way from the thread that makes them to the one that reads them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Handover"]

Item = TypeVar("Item")

_WAIT_SECONDS = 1.0  # a wait with a timeout lets Ctrl-C through on Windows too


class Handover(Generic[Item]):
    """A queue of at most `most` items between one maker and one reader, which either may end at any time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._is_over = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> bool:
        """Add an item once there is room; False when the reader wants no more."""
        with self._changed:
            while len(self._items) >= self._most and not self._is_over:
                self._changed.wait(_WAIT_SECONDS)
            if self._is_over:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Nothing comes after the items that are there; their reader then gets the error, if there is one."""
        with self._changed:
            self._is_over, self._error = True, self._error or error
            self._changed.notify_all()

    def close(self) -> None:
        """The reader wants no more, from any thread: its iteration ends."""
        with self._changed:
            self._is_over = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._is_over:
                    self._changed.wait(_WAIT_SECONDS)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error
