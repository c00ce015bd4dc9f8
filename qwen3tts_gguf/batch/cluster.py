"""The same work on a Ray cluster: shards are handed to actors, each with a loaded model.

    Ray Data:  shard numbers ──> actor: work() on one shard ──> how many rows were made

A shard whose actor was lost is given to another one, which goes on with the rows that are in OUT. Only numbers travel:
every machine reads the table and the voices and writes OUT itself, so these must be where all can reach them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError
from ..tts import TTS
from .project import Project
from .speaker import Speaker
from .voices import VoiceBook
from .work import work

__all__ = ["Worker", "work_on_ray"]


@dataclass(frozen=True)
class Worker:
    """How each actor loads its model; paths are those of its machine."""

    model: str
    n_threads: int
    mmproj: str | None = None
    n_lanes: int | None = None
    """None: as many as pay off on its machine."""
    voices: str | None = None
    """The folder of saved voices."""
    amx: str = "auto"

    def load(self) -> TTS:
        return TTS(
            self.model, mmproj=self.mmproj, n_threads=self.n_threads, n_lanes=self.n_lanes or "auto", amx=self.amx
        )


class _Actor:
    def __init__(self, place: str, worker: Worker) -> None:
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        self._project, self._tts = Project.open(place), worker.load()
        self._project.require_same_table()
        saved = Path(worker.voices) if worker.voices else None
        self._voices = VoiceBook(self._tts, self._project.folder, self._project.job.table, saved)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        speaker = Speaker(self._tts, self._project.job, self._voices)
        work(self._project, speaker, map(int, batch["shard"]), report=rows.append)
        failed = sum(row["error"] is not None for row in rows)
        seconds = sum(row["seconds"] for row in rows)
        return {"rows": np.array([len(rows)]), "failed": np.array([failed]), "seconds": np.array([seconds])}


def work_on_ray(
    project: Project,
    shards: list[int],
    worker: Worker,
    address: str,
    *,
    n_workers: int | None = None,
    report: Callable[[int, int, float], None] = lambda rows, failed, seconds: None,
) -> None:
    """Make the shards that are not done with the workers of a cluster.

    address: of a cluster, "auto" for the one this machine belongs to, "local" to start one here. n_workers: None: as
    many as the cluster has room for. report: rows, failed rows and seconds of speech, when a shard is done. Raises
    OptionError without Ray or a cluster; what a worker raises comes as Ray's error.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise OptionError("this needs Ray", hint="pip install 'qwen3tts-gguf[ray]'") from None
    shards = [shard for shard in shards if not project.is_done(shard)]
    if not ray.is_initialized():
        try:
            ray.init(None if address == "local" else address, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise OptionError(
                f"no Ray cluster at {address}: {error}", hint='"local" starts one on this machine'
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    pool = ray.data.ActorPoolStrategy(size=n_workers) if n_workers else _as_many_as_fit(ray, worker, len(shards))
    made = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=max(1, len(shards)))
    made = made.map_batches(
        _Actor,
        batch_size=1,
        compute=pool,
        num_cpus=worker.n_threads,
        fn_constructor_args=(project.folder.place, worker),
    )
    for row in made.iter_rows():
        report(int(row["rows"]), int(row["failed"]), float(row["seconds"]))
    project.finish()


def _as_many_as_fit(ray: Any, worker: Worker, n_shards: int) -> Any:
    n_most = max(1, int(ray.cluster_resources().get("CPU", 1)) // worker.n_threads)
    return ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(n_most, n_shards)))
