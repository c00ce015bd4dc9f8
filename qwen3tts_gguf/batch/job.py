"""What is asked for: a table, its columns, how to speak, what to write. Fixed for the life of an output folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ..errors import AudioError, OptionError, TextError, VoiceError
from ..speech.options import SpeechOptions

__all__ = ["OF_A_ROW", "Container", "Job", "OnError", "Row", "difference", "row_seed"]

Container = Literal["files", "parquet", "webdataset"]
OnError = Literal["keep", "drop", "stop"]
AUDIO_FORMATS = ("flac", "wav", "mp3", "opus")
OF_A_ROW = (TextError, OptionError, VoiceError, AudioError)
"""What is wrong with a row, not with the machine: the job continues."""
_MOST_SHARD_ROWS = 100_000  # the rows of a shard are in memory, and so is its list of names


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    index: int
    """From 0, in the whole table."""
    id: str
    text: str
    voice: str | None = None
    language: str | None = None
    instruct: str | None = None


@dataclass(frozen=True)
class Job:
    """All that decides what OUT will hold, beside the table and the model. Raises OptionError.

    Nothing of how fast it is made: lanes, threads, processes and machines may change from run to run.
    """

    table: str
    text: str
    """A column, as are the next four."""
    id: str | None = None
    """None: the row's number, from 1."""
    voice_column: str | None = None
    language_column: str | None = None
    instruct_column: str | None = None
    voice: str | None = None
    """A name or a clip, for rows that name none; None: the model's default voice."""
    instruct: str | None = None
    """For rows that have none."""
    seed: int = 0
    options: SpeechOptions = field(default_factory=SpeechOptions)
    """How to speak; its `seed` is not used, its `language` is for rows that have none."""
    format: str = "flac"
    container: Container = "files"
    shard_rows: int = 1000
    on_error: OnError = "keep"

    def __post_init__(self) -> None:
        if self.format not in AUDIO_FORMATS:
            raise OptionError(f"`format` must be one of {', '.join(AUDIO_FORMATS)}, not {self.format!r}")
        if self.container not in get_args(Container):
            raise OptionError(f"`container` must be one of {', '.join(get_args(Container))}, not {self.container!r}")
        if self.on_error not in get_args(OnError):
            raise OptionError(f"`on_error` must be one of {', '.join(get_args(OnError))}, not {self.on_error!r}")
        if not 1 <= self.shard_rows <= _MOST_SHARD_ROWS:
            raise OptionError(f"`shard_rows` must be 1 to {_MOST_SHARD_ROWS}, not {self.shard_rows}")
        if self.seed < 0:
            raise OptionError(f"`seed` must not be negative, not {self.seed}")

    @property
    def columns(self) -> dict[str, str]:
        """Field of `Row` -> column of the table, of those that are read."""
        named = {
            "id": self.id,
            "text": self.text,
            "voice": self.voice_column,
            "language": self.language_column,
            "instruct": self.instruct_column,
        }
        return {name: column for name, column in named.items() if column is not None}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        known = {one.name for one in fields(cls)}
        if values.keys() != known:
            raise OptionError("the output folder was made by another version", hint="choose another folder")
        return cls(**{**values, "options": SpeechOptions(**values["options"])})


def difference(old: Job, new: Job) -> list[str]:
    """Names of what differs. The table is compared by its content elsewhere, so its path may change."""

    def flat(job: Job) -> dict[str, Any]:
        values = job.to_json()
        # A job that stops at a failed row has recorded none, so it may go on as one that keeps them.
        values["on_error"] = "drop" if job.on_error == "drop" else "keep"
        return {**values.pop("options"), **values, "table": None}

    before, after = flat(old), flat(new)
    return [name for name in before if before[name] != after[name]]


def row_seed(seed: int, id: str, round: int = 0) -> int:
    """The seed of a row, 32 bits, from the job's seed and the row's id. round: how often failed rows were retried."""
    digest = hashlib.blake2b(json.dumps([seed, id, round]).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")
