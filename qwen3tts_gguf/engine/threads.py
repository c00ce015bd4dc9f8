"""Who computes on how many threads: the nets in turn on all of them, or the codec beside the others.

Talker and code predictor mostly read weights, the codec mostly calculates. Beside each other both use a machine better
than in turn, though each has fewer threads, and whoever is left alone takes all of them (benchmarks/LOG.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Shares", "default_threads", "shares"]


@dataclass(frozen=True)
class Shares:
    """Numbers of threads."""

    all: int
    language: int
    """Of talker and code predictor while the codec works too; when it has nothing to do they have all."""
    codec: int
    """While the others work too."""

    @property
    def side_by_side(self) -> bool:
        """Whether they work at the same time."""
        return self.language + self.codec <= self.all


def shares(n_threads: int) -> Shares:
    if n_threads == 1:
        return Shares(1, 1, 1)
    return Shares(n_threads, n_threads - n_threads // 2, n_threads // 2)


def default_threads() -> int:
    """The processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
