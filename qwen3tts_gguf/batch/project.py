"""An output folder: which job it is of, which shards are done, what failed.

OUT/job.json              the job, the plan and the model: made once, compared ever after
OUT/work/00042/           rows that were made, until their shard is whole
OUT/shards/locks/00042    held by the process that works on the shard; never deleted, or two processes could hold it
OUT/shards/00042.json     a shard that is done: counts, failed rows, durations
OUT/voices/               clips, encoded, and saved voices
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

from ..errors import OptionError, TableError
from .job import Job, difference
from .outputs import Output, make_output
from .plan import Plan, file_sha256, make_plan
from .storage import WORK, Folder, locked, open_folder

__all__ = ["Project", "Summary"]

_JOB = "job.json"
_OURS = (WORK, "shards", "voices", _JOB)
_FORMAT = 1
_WHOLE = "shards/locks/whole"


@dataclass(frozen=True)
class Summary:
    """A shard that is done."""

    rows: int
    round: int
    """How often its failed rows were retried."""
    failed: list[dict[str, Any]] = field(default_factory=list)
    """id, text and error of each row that failed."""
    seconds: float = 0.0
    """Of speech."""
    durations: dict[str, int] = field(default_factory=dict)
    """Seconds, rounded down to a half -> rows."""
    started: float = 0.0
    """Unix time, as is the next."""
    finished: float = 0.0


@dataclass(frozen=True)
class Project:
    """What is known before any row is spoken. Everything about the progress is read from the folder each time."""

    folder: Folder
    job: Job
    plan: Plan
    model: str
    """The model's fingerprint."""

    @classmethod
    def open(cls, place: str) -> Project:
        """A folder that `start` has made. Raises OptionError."""
        folder = open_folder(place)
        content = folder.read(_JOB)
        if content is None:
            raise OptionError(f"{place}: there is no batch", hint="name the folder that was given to `output`")
        try:
            values = json.loads(content)
            if values["format"] != _FORMAT:
                raise OptionError(f"{place}: made by another version", hint="choose another folder")
            return cls(folder, Job.from_json(values["job"]), Plan(**values["plan"]), values["model"])
        except (ValueError, KeyError, TypeError):
            raise OptionError(f"{place}/{_JOB}: damaged", hint="`restart` starts from the beginning") from None

    @classmethod
    def start(cls, place: str, job: Job, model: str, report: Callable[[int], None] = lambda n_rows: None) -> Project:
        """A new folder, or one to go on with. report: rows of the table read so far.

        Raises TableError; OptionError for a folder of another table, model or job, or with other files in it.
        """
        folder = open_folder(place)
        if folder.exists(_JOB):
            old = cls.open(place)
            changed = [f"`{name}`" for name in difference(old.job, job)]
            changed += ["the model"] if old.model != model else []
            changed += ["the table"] if old.plan.sha256 != file_sha256(job.table) else []
            if changed:
                hint = "choose another folder, or `restart` to delete what is there"
                raise OptionError(f"{place} was begun with other settings: {', '.join(changed)}", hint=hint)
            return cls(folder, job, old.plan, model)
        if others := [name for name in folder.names("") if name not in _OURS]:  # another process may just begin
            raise OptionError(f"{place} holds other files ({others[0]})", hint="choose a new or empty folder")
        project = cls(folder, job, make_plan(job, report), model)
        _ = project.output  # raises before anything is written
        values = {"format": _FORMAT, "model": model, "job": job.to_json(), "plan": project.plan.to_json()}
        folder.write(_JOB, json.dumps(values, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))
        return project

    @staticmethod
    def delete(place: str) -> None:
        """Everything that a batch has written there, and nothing else. Raises OptionError."""
        folder = open_folder(place)
        if folder.exists(_JOB):
            for name in (*Project.open(place).output.places, *_OURS):
                folder.delete(name)

    @cached_property
    def output(self) -> Output:
        """Raises OptionError where the package it needs is not installed."""
        return make_output(self.job.container, self.folder, self.job.format, self.n_shards)

    @property
    def n_shards(self) -> int:
        return len(self.plan.starts)

    # -- progress ------------------------------------------------------------------------------------------------------

    def summary(self, shard: int) -> Summary | None:
        """None for a shard that is not done."""
        content = self.folder.read(f"shards/{shard:05d}.json")
        return None if content is None else Summary(**json.loads(content))

    def summaries(self) -> Iterator[tuple[int, Summary]]:
        """Of all shards that are done."""
        for shard in sorted(self.done()):
            if (summary := self.summary(shard)) is not None:
                yield shard, summary

    def done(self) -> set[int]:
        """The shards that are done, by a single listing."""
        names = self.folder.names("shards")
        return {int(name.removesuffix(".json")) for name in names if name.endswith(".json")}

    def is_done(self, shard: int) -> bool:
        return self.folder.exists(f"shards/{shard:05d}.json")

    def set_done(self, shard: int, summary: Summary) -> None:
        self.folder.write(f"shards/{shard:05d}.json", json.dumps(asdict(summary), ensure_ascii=True).encode())

    def set_undone(self, shard: int) -> None:
        self.folder.delete(f"shards/{shard:05d}.json")

    def n_made(self, shards: Iterable[int]) -> int:
        """Rows of these shards that were made, of shards that are not done too."""
        done = self.done()
        return sum(
            self.plan.shard_size(shard, self.job) if shard in done else len(self.folder.names(f"{WORK}/{shard:05d}"))
            for shard in shards
        )

    def n_failed(self, shards: Iterable[int]) -> int:
        """Failed rows of those shards that are done."""
        asked = {*shards}
        return sum(len(summary.failed) for shard, summary in self.summaries() if shard in asked)

    def finish(self) -> None:
        """What is left to do when every shard is done; nothing before."""
        if len(self.done()) < self.n_shards:
            return
        lock = self.folder.lock(_WHOLE)
        if lock is not None:  # otherwise another process is just doing this, or retries failed rows
            with lock:
                if len(self.done()) == self.n_shards:
                    self.output.finish()
                    self.folder.delete(WORK)

    def unfinished(self) -> AbstractContextManager[None]:
        """Waits for another process that finishes, and keeps all from doing so meanwhile."""
        return locked(self.folder, _WHOLE)

    def lock_shard(self, shard: int) -> BinaryIO | None:
        """Held by the process that works on the shard, until it is closed; None while another process does."""
        return self.folder.lock(f"shards/locks/{shard:05d}")

    def require_same_table(self) -> None:
        """Raises TableError: for a process that reads the plan made by another one."""
        if file_sha256(self.job.table) != self.plan.sha256:
            raise TableError(f"{self.job.table}: not the table that the batch was begun with")
