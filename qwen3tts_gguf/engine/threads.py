"""How many threads there are, and what runs on them: the nets one after the other on all, or the codec in parallel.

Talker and code predictor mostly read weights, the codec mostly calculates. In parallel they use a machine better
than in turn, although each has fewer threads; the one that is left alone takes all of them (benchmarks/LOG.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..cgroups import control_groups

__all__ = ["SPIN_COUNT", "Shares", "default_threads", "shares"]

SPIN_COUNT = "10000"
"""For the environment variable GOMP_SPINCOUNT, which libgomp reads when it is loaded, with llama_cpp.

ggml's threads spin while they wait for each other. libgomp's default of 300,000 turns costs nothing on idle processors,
but under any other load the spinning thread holds the very processor the other one waits for; with too few turns
threads sleep and wake all the time, which costs most on a virtual machine (benchmarks/LOG.md).
"""


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
    """The processors this process may use: those it may run on, and no more than its control groups grant it time on.

    `docker run --cpus 2.5` grants time, not processors: more threads than that only wait for their turn.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([here, *granted_processors(control_groups("cpu"))]))


def granted_processors(groups: Iterable[Path]) -> list[int]:
    """How many processors' time each of some control groups may use, rounded down, where it has a limit."""
    granted = []
    for group in groups:
        try:
            quota, period = (group / "cpu.max").read_text().split()  # version 2: "200000 100000", "max 100000"
        except (OSError, ValueError):
            try:  # version 1; -1 is no limit
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
            except OSError:
                continue
        if quota.isdecimal() and period.isdecimal() and int(period):
            granted.append(int(quota) // int(period))
    return granted
