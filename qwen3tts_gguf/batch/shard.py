"""One shard at work: which of its rows are still to be made, each row as it is made, and the part when all are."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..audio_sink import encoded
from ..model.schema import SAMPLE_RATE_HZ
from .job import Row, row_seed
from .outputs import Made, names_of
from .plan import rows_of
from .project import Project, Summary
from .speaker import Speaker
from .storage import WORK

__all__ = ["Shard", "prepare_retry"]

_BINS_PER_SECOND = 2  # of the durations


class Shard:
    """A shard that this process works on, until it is closed. `make` may be called from several threads."""

    @classmethod
    def take(cls, project: Project, index: int) -> Shard | None:
        """None where another process works on it. Raises TableError."""
        lock = project.lock_shard(index)
        if lock is None:
            return None
        try:
            return cls(project, index, lock)
        except BaseException:
            lock.close()
            raise

    def __init__(self, project: Project, index: int, lock: BinaryIO) -> None:
        self.index, self.is_done = index, project.is_done(index)
        self._project, self._lock = project, lock
        self._started = time.time()
        rows = [] if self.is_done else rows_of(project.job, project.plan, index)
        self._names = names_of(rows)
        self._first = index * project.job.shard_rows
        self._round = _round(project, index)
        made = set(project.folder.names(_spool(index)))
        self.rows = [row for row in rows if self._place(row) not in made]
        """Still to be made."""
        self.n_left = len(self.rows)
        """Of those that are neither made nor refused; for the caller to count."""

    def _place(self, row: Row) -> str:
        return f"{row.index - self._first:06d}"

    def make(self, row: Row, speaker: Speaker, *, keeps_failed: bool) -> dict[str, Any]:
        """Speak a row and keep it, if it failed only if asked to. Gives its columns. Raises Error, Stopped."""
        job = self._project.job
        spoken = speaker.speak(row, row_seed(job.seed, row.id, self._round))
        samples = spoken.samples
        record = {
            "id": row.id,
            "text": row.text,
            "voice": spoken.voice,
            "language": row.language or job.options.language,
            "seed": spoken.seed,
            "sample_rate": SAMPLE_RATE_HZ,
            "seconds": 0.0 if samples is None else len(samples) / SAMPLE_RATE_HZ,
            "ended": spoken.ended,
            "attempts": spoken.attempts,
            "error": spoken.error,
            "model": self._project.model,
        }
        audio = None if samples is None else encoded(samples, job.format)
        if spoken.error is None or keeps_failed:
            name = self._names[row.index - self._first]
            made = self._project.output.keep(self.index, name, (record, audio))
            self._project.folder.write(f"{_spool(self.index)}/{self._place(row)}", _packed(made))
        return record

    def write(self) -> None:
        """The part and the summary, when every row was made."""
        project, drops = self._project, self._project.job.on_error == "drop"
        if project.is_done(self.index):  # in an object store, which has no locks, by another process
            return
        summary = Summary(rows=len(self._names), round=self._round, started=self._started)
        durations: Counter[str] = Counter()
        seconds = 0.0
        names = []
        for name, (record, _) in zip(self._names, self._made(), strict=True):
            if record["error"] is None:
                seconds += record["seconds"]
                durations[str(int(record["seconds"] * _BINS_PER_SECOND) / _BINS_PER_SECOND)] += 1
            else:
                summary.failed.append({key: record[key] for key in ("id", "text", "error")})
            if record["error"] is None or not drops:
                names.append(name)
        kept = (made for made in self._made() if made[0]["error"] is None or not drops)
        project.output.write(self.index, names, kept)
        finished = {"seconds": seconds, "durations": dict(durations), "finished": time.time()}
        project.set_done(self.index, Summary(**{**vars(summary), **finished}))
        project.folder.delete(_spool(self.index))

    def _made(self) -> Iterator[Made]:
        for position in range(len(self._names)):
            content = self._project.folder.read(f"{_spool(self.index)}/{position:06d}")
            assert content is not None  # every row was made, and the lock is ours
            yield _unpacked(content)

    def close(self) -> None:
        """Let other processes work on it."""
        self._lock.close()


def prepare_retry(project: Project, index: int) -> bool:
    """Make the failed rows of a shard that is done to be made again, with other seeds; whether there are any.

    Killed at any moment, the shard is either done as before, or has only its failed rows to make. A shard that another
    process works on is left to it. Raises TableError.
    """
    lock = project.lock_shard(index)
    if lock is None:
        return False
    with lock, project.unfinished():
        return _prepare_retry(project, index)


def _prepare_retry(project: Project, index: int) -> bool:
    summary = project.summary(index)
    if summary is None or not summary.failed:
        return False
    folder, failed = project.folder, {row["id"] for row in summary.failed}
    folder.delete(_spool(index))
    folder.write(_round_file(index), str(summary.round + 1).encode())
    made = ((record, audio) for record, audio in project.output.read(index) if record["id"] not in failed)
    rows = {row.id: position for position, row in enumerate(rows_of(project.job, project.plan, index))}
    for record, audio in made:
        folder.write(f"{_spool(index)}/{rows[record['id']]:06d}", _packed((record, audio)))
    project.set_undone(index)
    return True


def _spool(index: int) -> str:
    return f"{WORK}/{index:05d}"


def _round_file(index: int) -> str:
    return f"{WORK}/rounds/{index:05d}"


def _round(project: Project, index: int) -> int:
    return int(project.folder.read(_round_file(index)) or 0)


def _packed(made: Made) -> bytes:
    """A line of JSON, then the audio; "null" stands for a row without."""
    record, audio = made
    line = json.dumps({"record": record, "has_audio": audio is not None})
    return line.encode() + b"\n" + (audio or b"")


def _unpacked(content: bytes) -> Made:
    line, _, audio = content.partition(b"\n")
    values = json.loads(line)
    return values["record"], audio if values["has_audio"] else None
