"""Stub until the table of machines is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..nets.talker import TalkerBuffers
from .threads import Shares, default_threads, shares


@dataclass(frozen=True)
class Plan:
    threads: Shares
    talker: TalkerBuffers = TalkerBuffers.REPACK
    predictor: tuple[str, ...] = ("CPU_REPACK",)
    codec_placements: tuple[str, ...] = ()
    codec: Any = None
    frames_at_once: int = 4
    lanes_worth_it: int = 4

    @classmethod
    def for_this_machine(cls, n_threads: int | None, *, amx: str = "auto", overrides: str = "") -> Plan:
        return cls(shares(n_threads or default_threads()))
