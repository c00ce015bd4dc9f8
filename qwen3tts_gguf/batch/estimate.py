"""How far a batch is, and what one will cost: as plain data."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..audio_sink import encoded
from ..model.schema import SAMPLE_RATE_HZ
from .job import Job, row_seed
from .plan import Plan, rows_of
from .project import Project
from .speaker import Speaker

__all__ = ["Status", "estimate", "status"]

_SAMPLES_PER_LANE = 4
_MOST_SHARDS = 16  # that a sample reads


@dataclass(frozen=True)
class Status:
    """How far a batch is."""

    rows: int
    done: int
    """Rows that were made, failed ones too."""
    failed: int
    shards: int
    shards_done: int
    seconds: float
    """Of speech, in the shards that are done."""
    speed: float | None
    """Seconds of speech per second, over the time in which any process worked on a shard that is done."""
    seconds_left: float | None
    """At that speed."""
    durations: dict[float, int]
    """Seconds, rounded down to a half -> rows."""
    failed_rows: list[dict[str, Any]]
    """id, text, error: the first hundred."""


def status(project: Project) -> Status:
    """Of an output folder, also while processes work on it."""
    seconds, rows, failed, shards = 0.0, 0, 0, 0
    durations: Counter[float] = Counter()
    failed_rows: list[dict[str, Any]] = []
    spans = []
    for _, summary in project.summaries():
        shards, rows, failed = shards + 1, rows + summary.rows, failed + len(summary.failed)
        seconds += summary.seconds
        failed_rows += summary.failed[: 100 - len(failed_rows)]
        durations.update({float(start): n for start, n in summary.durations.items()})
        spans.append((summary.started, summary.finished))
    worked = _covered(spans)
    speed = seconds / worked if worked and seconds else None
    total = project.plan.n_rows
    done = project.n_made(range(project.n_shards))
    left = (total - done) * (seconds / (rows - failed)) / speed if speed else None
    return Status(
        rows=total, done=done, failed=failed, shards=project.n_shards, shards_done=shards, seconds=seconds,
        speed=speed, seconds_left=left, durations=dict(sorted(durations.items())), failed_rows=failed_rows,
    )  # fmt: skip


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds in at least one of the spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def estimate(job: Job, plan: Plan, speaker: Speaker) -> dict[str, Any]:
    """Speak some rows, chosen at random but always the same, and reckon by letters. Nothing is written.

    rows, sample_rows, sample_failed, speech_seconds, work_seconds (of this process), bytes, speed. Raises Error.
    """
    draw = random.Random(plan.sha256)
    n = min(plan.n_rows, _SAMPLES_PER_LANE * speaker.n_lanes)
    shards = [draw.randrange(len(plan.starts)) for _ in range(min(n, _MOST_SHARDS))]
    rows = [row for shard in set(shards) for row in rows_of(job, plan, shard)]
    rows = draw.sample(rows, min(n, len(rows)))
    started = time.perf_counter()
    with ThreadPoolExecutor(speaker.n_lanes) as threads:
        spoken = list(threads.map(lambda row: speaker.speak(row, row_seed(job.seed, row.id)), rows))
    worked = time.perf_counter() - started
    made = [(row, result.samples) for row, result in zip(rows, spoken, strict=True) if result.samples is not None]
    speech = sum(len(samples) for _, samples in made) / SAMPLE_RATE_HZ
    n_bytes = sum(len(encoded(samples, job.format)) for _, samples in made)
    times = plan.n_letters / max(1, sum(len(row.text) for row in rows))
    return {
        "rows": plan.n_rows,
        "sample_rows": len(rows),
        "sample_failed": len(rows) - len(made),
        "speech_seconds": speech * times,
        "work_seconds": worked * times,
        "bytes": round(n_bytes * times),
        "speed": speech / worked,
    }
