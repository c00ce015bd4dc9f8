"""Counters for Prometheus: how many, how fast, how full. No text and no names in them."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 60)
_FACTORS = (0.1, 0.2, 0.35, 0.5, 0.75, 0.9, 1, 1.25, 1.5, 2, 4, 8)


class Metrics:
    """One server's counters, in a registry of their own. wire: "openai", "websocket" and so on."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("qwen3tts_requests", "Speeches asked for", ["wire", "outcome"], registry=self._registry)
        """outcome: ok, refused (429 and 503), invalid (other 4xx), failed, cancelled."""
        self.first_audio = Histogram(
            "qwen3tts_first_audio_seconds", "From the request to its first sound", ["wire"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.queue_time = Histogram(
            "qwen3tts_queue_seconds", "From the request to its lane", buckets=_SECONDS, registry=self._registry
        )
        self.factor = Histogram(
            "qwen3tts_realtime_factor", "Seconds on a lane per second of speech", buckets=_FACTORS,
            registry=self._registry,
        )  # fmt: skip
        self.audio = Counter("qwen3tts_audio_seconds", "Speech made", registry=self._registry)
        self.runaways = Counter("qwen3tts_runaways", "Speeches that the model did not end", registry=self._registry)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, help, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
