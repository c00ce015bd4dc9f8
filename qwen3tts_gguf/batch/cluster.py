"""The same work on a Ray cluster: shards are handed to actors, each with a loaded model.

    this process     clips ──> OUT/voices;  numbers of shards ──Ray Data──┐
    each actor       two shards at a time, as they become free <─────────┘ ──> OUT

Only numbers travel: every machine reads the table and OUT/voices and writes OUT itself. Ray starts a lost actor again,
elsewhere if its machine is lost, and gives it the shard that it had, which goes on with the rows that are in OUT.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..digests import model_fingerprint
from ..errors import BackendError, Error, OptionError
from ..tts import TTS
from .project import Project
from .speaker import Speaker
from .storage import absolute
from .voices import VoiceBook, voice_names
from .work import work

__all__ = ["Worker", "work_on_ray"]

_SHARDS_AT_ONCE = 2  # of an actor: while one ends and has fewer rows than lanes, the other one fills them
_MOST_THREADS = 4  # of an actor, if nothing was asked for: on larger machines several actors make more speech
_REPORT_SECONDS = 0.5
_ANSWER_SECONDS = 10.0

Report = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Worker:
    """How each actor loads its model; paths are those of its machine."""

    model: str
    mmproj: str | None = None
    n_threads: int | None = None
    """None: as many as the smallest machine has processors, and at most four."""
    n_lanes: int | None = None
    """None: as many as pay off on its machine."""
    device: str = "cpu"
    """As for `TTS`; an actor has a GPU of Ray's for itself unless it is "cpu"."""
    amx: str = "auto"

    def load(self) -> TTS:
        return TTS(
            self.model, mmproj=self.mmproj, n_threads=self.n_threads, n_lanes=self.n_lanes or "auto", amx=self.amx,
            device=self.device,
        )  # fmt: skip


def work_on_ray(
    project: Project, shards: list[int], worker: Worker, address: str, *, saved_voices: Path | None = None,
    n_workers: int | None = None, report: Report = lambda rows, failed, seconds: None,
) -> None:  # fmt: skip
    """Make the shards that are not done with actors of a cluster. `Project.finish` is left to do.

    address: of a cluster that this machine belongs to, or "auto" for the one that was started here. saved_voices: a
    folder. n_workers: None: as many as the cluster has room for; more wait until there is room. report: called now and
    then, from any thread, with how many rows were made, how many of them failed, and their seconds of speech. Raises
    OptionError without Ray, without such a cluster, or without room; BackendError if Ray fails; and Error with what a
    worker reported.
    """
    done = project.done()
    shards = [shard for shard in shards if shard not in done]
    if not shards:
        return
    with _connected(address) as ray:
        worker = _fitted(ray, worker, n_workers)
        failed = _voices_put_into(project, shards, worker, saved_voices)
        n_gpus = int(worker.device != "cpu")
        room = _room(ray, worker.n_threads or 1, n_gpus)
        n_most = min(n_workers or room, len(shards))
        actors = ray.data.ActorPoolStrategy(
            min_size=1, initial_size=max(1, min(room, n_most)), max_size=n_most,
            max_tasks_in_flight_per_actor=_SHARDS_AT_ONCE, max_concurrent_calls_per_actor=_SHARDS_AT_ONCE,
            enable_true_multi_threading=True,
        )  # fmt: skip
        place, table = absolute(project.folder.place), absolute(project.job.table)
        with _tally(ray, report) as tally:
            numbers = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
            made = numbers.map_batches(
                _Actor, batch_size=1, compute=actors, num_cpus=worker.n_threads, num_gpus=n_gpus,
                fn_constructor_args=(place, table, project.model, worker, failed, tally),
            )  # fmt: skip
            try:
                for row in made.iter_rows():
                    if row["message"]:
                        raise Error(row["message"], hint=row["hint"])
            except ray.exceptions.RayError as error:
                raise BackendError(f"Ray: {str(error).strip().splitlines()[-1]}", hint="Ray's logs have more") from None


class _Actor:
    """In a process of Ray's. What goes wrong is given back as a value: Ray would bury it in its own errors."""

    def __init__(
        self, place: str, table: str, model: str, worker: Worker, failed: dict[str, Error], tally: Any
    ) -> None:
        self._tally = tally
        self._error: Error | None = None
        try:
            project = Project.open(place)
            self._project = project = replace(project, job=replace(project.job, table=table))
            project.require_same_table()
            if model_fingerprint(Path(worker.model), Path(worker.mmproj) if worker.mmproj else None) != model:
                raise OptionError(f"{worker.model}: on a worker this is another model")
            tts = worker.load()
            voices = VoiceBook(tts, project.folder, table, None, failed)
            self._speaker = Speaker(tts, project.job, voices)
        except Error as error:
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        error = self._error
        try:
            if error is None:
                work(self._project, self._speaker, map(int, batch["shard"]), report=self._report)
        except Error as found:
            error = found
        return {"message": [error.message if error else ""], "hint": [error.hint if error else ""]}

    def _report(self, row: dict[str, Any]) -> None:
        self._tally.add.remote(1, int(row["error"] is not None), row["seconds"])


class _Tally:
    """An actor on this machine that counts what the others have made."""

    def __init__(self) -> None:
        self._sums = [0, 0, 0.0]

    def add(self, *counts: float) -> None:
        self._sums = [total + count for total, count in zip(self._sums, counts, strict=True)]

    def take(self) -> list[float]:
        """Since the last call."""
        sums, self._sums = self._sums, [0, 0, 0.0]
        return sums


@contextmanager
def _tally(ray: Any, report: Report) -> Iterator[Any]:
    """The handle of a tally that is reported until the block ends."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    tally = ray.remote(num_cpus=0, scheduling_strategy=here)(_Tally).remote()
    is_over = threading.Event()

    def watch() -> None:
        while True:
            is_last = is_over.wait(_REPORT_SECONDS)
            try:
                rows, failed, seconds = ray.get(tally.take.remote(), timeout=10)
            except ray.exceptions.RayError:  # the cluster has gone, which the other thread finds out
                return
            report(rows, failed, seconds)
            if is_last:
                return

    thread = threading.Thread(target=watch, name="qwen3tts-tally", daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected unless it was already. Raises OptionError."""
    try:
        import ray
        import ray.data
    except ImportError:
        raise OptionError("this needs Ray", hint="pip install 'qwen3tts-gguf[ray]'") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    if ray.is_initialized():
        yield ray
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        _require_answer(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = "Ray's command `ray start` starts and joins one; docs/batch.md has the recipe, with its token"
        raise OptionError(f"no Ray cluster at {address} ({reason})", hint=hint) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray has put its own there
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Ray itself would try for two minutes. Raises OSError."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()


def _fitted(ray: Any, worker: Worker, n_workers: int | None) -> Worker:
    """With its number of threads, and with "auto" decided. Raises OptionError."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processors = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    n_threads = worker.n_threads or min([_MOST_THREADS, *processors])
    device = worker.device if worker.device != "auto" or has_gpus else "cpu"
    if n_workers is None and not _room(ray, n_threads, int(device != "cpu")):
        what = f"{n_threads} processors" + (" and a GPU" if device != "cpu" else "")
        raise OptionError(f"no machine of the Ray cluster has {what}", hint="choose fewer with `n_threads`")
    return replace(worker, n_threads=n_threads, device=device)


def _room(ray: Any, n_threads: int, n_gpus: int) -> int:
    """How many actors all machines hold together."""
    n_actors = 0
    for node in (node["Resources"] for node in ray.nodes() if node["Alive"]):
        n_here = int(node.get("CPU", 0)) // n_threads
        n_actors += min(n_here, int(node.get("GPU", 0))) if n_gpus else n_here
    return n_actors


def _voices_put_into(project: Project, shards: list[int], worker: Worker, saved: Path | None) -> dict[str, Error]:
    """Clips and saved voices, which only this machine is sure to have; why not, of those that cannot be used."""
    names = [*voice_names(project.job, project.plan, shards)]
    if not names:
        return {}
    with replace(worker, n_lanes=1, n_threads=None, device="cpu").load() as tts:
        return VoiceBook(tts, project.folder, project.job.table, saved).prepare(names)
