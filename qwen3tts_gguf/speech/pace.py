"""Whether a text that is still arriving comes as fast as the talker takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

__all__ = ["keeps_up"]

_TOKENS_PER_SECOND = 12.5
"""One per frame of 80 ms."""
_JUDGED_TOKENS = 8


def keeps_up(
    pieces: Iterable[str], count: Callable[[str], int], clock: Callable[[], float] = time.monotonic
) -> tuple[bool, Iterator[str]]:
    """Take pieces until there are eight tokens, or the text ends -> whether those after the first piece came at 12.5
    per second or faster, and all pieces, those taken included.

    count: how many tokens a text has. Waits for the pieces.
    """
    source, taken = iter(pieces), [""]
    started: float | None = None
    for piece in source:
        now = clock()
        taken.append(piece)
        started = now if started is None else started
        n_tokens = count("".join(taken))
        if n_tokens >= _JUDGED_TOKENS:
            n_later = n_tokens - count(taken[1])
            return n_later >= _TOKENS_PER_SECOND * (now - started), chain(taken, source)
    return True, iter(taken)
