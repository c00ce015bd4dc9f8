"""The options of `qwen3tts batch`, by purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from ..errors import OptionError
from .panels import OUTPUT, TABLE, WORK, flag, value

__all__ = ["ClusterOptions", "DataSet", "RowOptions", "RunOptions", "shards_of"]


def _column(help: str, *names: str) -> Any:
    return value("COLUMN", TABLE, help, *names)


@dataclass(frozen=True)
class RowOptions:
    """Which columns are read."""

    text: Annotated[str, _column("Column with the text.", "--text")] = "text"
    id: Annotated[str | None, _column("Column with a unique id. Default: the row's number, from 1.", "--id")] = None
    voice_column: Annotated[
        str | None, _column("Column with the name of a voice, or the path of a clip, relative to the table.")
    ] = None
    language_column: Annotated[str | None, _column("Column with the language.")] = None
    instruct_column: Annotated[
        str | None, _column("Column with the instruction, or with the description of the voice.")
    ] = None
    voice: Annotated[str | None, value("VOICE", TABLE, "Voice of rows that name none, a name or a clip.")] = None
    instruct: Annotated[str | None, value("TEXT", TABLE, "Instruction of rows that have none.")] = None


class AudioFormat(str, Enum):
    """`Job.format`"""

    FLAC = "flac"
    WAV = "wav"
    MP3 = "mp3"
    OPUS = "opus"


class Container(str, Enum):
    """`Job.container`"""

    FILES = "files"
    PARQUET = "parquet"
    WEBDATASET = "webdataset"


class OnError(str, Enum):
    """`Job.on_error`"""

    KEEP = "keep"
    DROP = "drop"
    STOP = "stop"


@dataclass(frozen=True)
class DataSet:
    """What is written."""

    format: Annotated[AudioFormat, value("NAME", OUTPUT, "Format of the audio: flac, wav, mp3 or opus.")] = (
        AudioFormat.FLAC
    )
    container: Annotated[
        Container,
        value(
            "NAME", OUTPUT,
            "Data set: files with a manifest, parquet for Hugging Face datasets, or webdataset for tar files.", "--as",
        ),
    ] = Container.FILES  # fmt: skip
    shard_rows: Annotated[int, value("N", OUTPUT, "Rows per part of the data set.", min=1)] = 1000
    on_error: Annotated[
        OnError,
        value(
            "NAME", OUTPUT, "Of a failed row: keep it, with its error and no audio, drop it, or stop the work there.",
        ),
    ] = OnError.KEEP  # fmt: skip


@dataclass(frozen=True)
class RunOptions:
    """What is done now."""

    lanes: Annotated[str, value("N", WORK, "Rows spoken at once; auto: as many as pay off on this CPU.")] = "auto"
    shards: Annotated[
        str | None, value("K/N", WORK, "Make only every N-th shard, from the K-th on: for process K of N.")
    ] = None
    retry_failed: Annotated[bool, flag(WORK, "Make failed rows again, with other seeds.", "--retry-failed")] = False
    restart: Annotated[bool, flag(WORK, "Delete what the folder has of an earlier batch.", "--restart")] = False
    estimate: Annotated[
        bool, flag(WORK, "Speak a few rows, print what all will take, and write nothing.", "--estimate")
    ] = False
    status: Annotated[
        str | None, value("FOLDER", WORK, "Print how far the batch in that folder is; needs no table.")
    ] = None
    plot: Annotated[Path | None, value("FILE", WORK, "With --status: a picture of the durations, .png or .svg.")] = None


@dataclass(frozen=True)
class ClusterOptions:
    """Workers on many machines."""

    ray: Annotated[
        str | None,
        value("ADDRESS", WORK, "Share the work over a Ray cluster: its address, or auto for the one of this machine."),
    ] = None
    workers: Annotated[
        int | None,
        value("N", WORK, "With --ray: number of workers, each with a model. Default: as many as have room.", min=1),
    ] = None


def shards_of(text: str | None, n_shards: int) -> list[int]:
    """The shards that "3/10" stands for; all for None. Raises OptionError."""
    if text is None:
        return list(range(n_shards))
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise OptionError(f"--shards is K/N with K from 1 to N, such as 3/10, not {text!r}")
    return list(range(int(found[1]) - 1, n_shards, int(found[2])))
