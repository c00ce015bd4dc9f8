"""The work loop: rows of several shards are in flight, so that no lane waits at the end of a shard."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ..errors import Error
from .project import Project
from .shard import Shard
from .speaker import Speaker

__all__ = ["RowFailed", "work"]

_WAIT_SECONDS = 0.5
_SPARE_THREADS = 2  # encode audio and prepare prompts while every lane speaks

Report = Callable[[dict[str, Any]], None]


class RowFailed(Error):
    """A row failed in a job that stops there."""


def work(project: Project, speaker: Speaker, shards: Iterable[int], *, report: Report = lambda record: None) -> None:
    """Make the shards that are not done, beside other processes that may be at work on the same folder.

    report: called in this thread with the columns of each row. Raises Error; RowFailed if the job stops there. However
    it is left, by an error, a signal or SIGKILL, the rows that were made are kept, and a new call makes the others.
    When all shards are done, `Project.finish` is left to do.
    """
    n_threads = speaker.n_lanes + _SPARE_THREADS
    threads = ThreadPoolExecutor(n_threads, "qwen3tts-batch")
    keeps_failed = project.job.on_error != "stop"
    at_work: dict[Future[dict[str, Any]], Shard] = {}
    taken: set[Shard] = set()
    source = _rows(project, shards, taken)
    is_over = False
    try:
        while at_work or not is_over:
            while not is_over and len(at_work) < 2 * n_threads:
                found = next(source, None)
                if found is None:
                    is_over = True
                elif found is _NOTHING_NOW:
                    break
                else:
                    shard, row = found
                    at_work[threads.submit(shard.make, row, speaker, keeps_failed=keeps_failed)] = shard
            done, _ = wait(at_work, timeout=_WAIT_SECONDS, return_when=FIRST_COMPLETED)
            if not at_work and not is_over:
                time.sleep(_WAIT_SECONDS)
            for future in done:
                shard, record = at_work.pop(future), future.result()
                report(record)
                if record["error"] is not None and not keeps_failed:
                    raise RowFailed(
                        f"row {record['id']!r}: {record['error']}", hint="`on_error` says what then happens"
                    )
                shard.n_left -= 1
                if not shard.n_left:
                    _finish(shard, taken)
    except BaseException:
        speaker.stop()
        raise
    finally:
        threads.shutdown(cancel_futures=True)
        for shard in taken:
            shard.close()


_NOTHING_NOW = None, None


def _rows(project: Project, shards: Iterable[int], taken: set[Shard]) -> Iterator[tuple[Any, Any]]:
    """Each row to make with its shard; `_NOTHING_NOW` where other processes work on all that is left."""
    done = project.done()
    left = deque(index for index in shards if index not in done)
    n_elsewhere = 0
    while left:
        index = left.popleft()
        shard = Shard.take(project, index)
        if shard is None:
            left.append(index)
            n_elsewhere += 1
            if n_elsewhere >= len(left):
                n_elsewhere = 0
                yield _NOTHING_NOW
            continue
        n_elsewhere = 0
        taken.add(shard)
        if not shard.rows:  # all were made before, or another process has done it meanwhile
            _finish(shard, taken)
        for row in shard.rows:
            yield shard, row


def _finish(shard: Shard, taken: set[Shard]) -> None:
    if not shard.is_done:
        shard.write()
    taken.discard(shard)
    shard.close()
