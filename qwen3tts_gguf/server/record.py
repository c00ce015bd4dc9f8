"""What is noted of one request: for its log line, its headers and the counters. Never the text."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Record", "client_of", "log", "put_record", "record_of"]

log = logging.getLogger("qwen3tts_gguf.server")
_KEY = "qwen3tts.record"
Scope = MutableMapping[str, Any]


@dataclass
class Record:
    """One request, from its first byte to its last."""

    id: str
    key: str = ""
    """The API key it came with, if it was a right one."""
    started: float = field(default_factory=time.perf_counter)
    facts: dict[str, str | int | float] = field(default_factory=dict)
    """What the log line shows beside path and status, in this order."""

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def line(self, what: str, status: int) -> str:
        facts = "".join(
            f" {name}={value:.3f}" if isinstance(value, float) else f" {name}={value}"
            for name, value in self.facts.items()
        )
        return f"{self.id} {what} {status} {self.seconds:.3f}s{facts}"


def put_record(scope: Scope, record: Record) -> None:
    scope[_KEY] = record


def record_of(scope: Scope) -> Record:
    """Of a request or a WebSocket; `guard` has put it there."""
    record = scope[_KEY]
    assert isinstance(record, Record)
    return record


def client_of(scope: Scope) -> str:
    """Who is asking, for fairness: the API key, or the address."""
    client = scope.get("client")
    return record_of(scope).key or (client[0] if client else "")
