"""What OUT holds: single files, parquet that opens as a Hugging Face audio data set, or WebDataset's tar files.

    files       audio/00042/ID.flac, and manifest.jsonl when all is done
    parquet     data/train-00042-of-00100.parquet
    webdataset  shard-00042.tar: KEY.flac and KEY.json

One part per shard. A part is written whole, from rows in the table's order, and can be read back.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from ..errors import OptionError
from ..model.schema import SAMPLE_RATE_HZ
from .job import Container, Row
from .storage import Folder

__all__ = ["COLUMNS", "Made", "Output", "make_output", "names_of"]

COLUMNS = (
    "id", "text", "voice", "language", "seed", "audio", "sample_rate", "seconds", "ended", "attempts", "error", "model",
)  # fmt: skip
_ROW_GROUP = 100
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}  # of Windows

Made = tuple[dict[str, Any], bytes | None]
"""A row as it is written: its columns without the audio, and the encoded audio; None for a row that failed."""


def names_of(rows: Sequence[Row]) -> list[str]:
    """A file name for each row of a shard, without suffix: the id if that is a safe name anywhere, else a hash of it.

    A dot is not safe, as WebDataset ends its keys there. Names that differ only in case are not either.
    """
    n_alike = Counter(row.id.lower() for row in rows)
    return [
        row.id
        if _SAFE.fullmatch(row.id) and row.id.lower() not in _DEVICES and n_alike[row.id.lower()] == 1
        else hashlib.sha256(row.id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        for row in rows
    ]


class Output(Protocol):
    """One way to write the parts of OUT."""

    @property
    def places(self) -> tuple[str, ...]:
        """What of OUT is ours, for deleting."""

    def keep(self, shard: int, name: str, made: Made) -> Made:
        """Called once for each row as soon as it is made; what is returned waits for the part."""

    def write(self, shard: int, names: Sequence[str], made: Iterable[Made]) -> None:
        """The part of a shard; replaces an older one."""

    def read(self, shard: int) -> Iterator[Made]:
        """What `write` was given, of rows that are there."""

    def finish(self) -> None:
        """Called when all parts are there."""


def make_output(container: Container, folder: Folder, format: str, n_shards: int) -> Output:
    """Raises OptionError where the package it needs is not installed."""
    if container == "files":
        return _Files(folder, format, n_shards)
    if container == "parquet":
        return _Parquet(folder, format, n_shards)
    return _WebDataset(folder, format, n_shards)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class _Files:
    places = ("audio", "manifest.jsonl", "manifest")

    def __init__(self, folder: Folder, format: str, n_shards: int) -> None:
        self._folder, self._format, self._n_shards = folder, format, n_shards

    def _part(self, shard: int) -> str:
        return f"manifest/{shard:05d}.jsonl"

    def keep(self, shard: int, name: str, made: Made) -> Made:
        record, audio = made
        if audio is None:
            return made
        path = f"audio/{shard:05d}/{name}.{self._format}"
        self._folder.write(path, audio)
        return {**record, "audio": path}, b""

    def write(self, shard: int, names: Sequence[str], made: Iterable[Made]) -> None:
        lines = (_line({column: record.get(column) for column in COLUMNS}) for record, _ in made)
        self._folder.write(self._part(shard), b"".join(lines))

    def read(self, shard: int) -> Iterator[Made]:
        for line in (self._folder.read(self._part(shard)) or b"").splitlines():
            record = json.loads(line)
            yield record, b"" if record["audio"] else None

    def finish(self) -> None:
        with self._folder.whole("manifest.jsonl") as path, path.open("wb") as file:
            for shard in range(self._n_shards):
                file.write(self._folder.read(self._part(shard)) or b"")


class _Parquet:
    places = ("data",)

    def __init__(self, folder: Folder, format: str, n_shards: int) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise OptionError("writing parquet needs pyarrow", hint="pip install 'qwen3tts-gguf[batch]'") from None
        self._pyarrow, self._parquet = pyarrow, pyarrow.parquet
        self._folder, self._format, self._n_shards = folder, format, n_shards

    def _part(self, shard: int) -> str:
        return f"data/train-{shard:05d}-of-{self._n_shards:05d}.parquet"  # as the hub names parts

    def _schema(self) -> Any:
        arrow = self._pyarrow
        kinds = dict.fromkeys(COLUMNS, arrow.string())
        kinds |= {"seed": arrow.int64(), "sample_rate": arrow.int32(), "attempts": arrow.int32()}
        kinds |= {"seconds": arrow.float64(), "ended": arrow.bool_()}
        kinds["audio"] = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
        features: dict[str, Any] = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in kinds.items()}
        features["audio"] = {"sampling_rate": SAMPLE_RATE_HZ, "_type": "Audio"}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        return arrow.schema(list(kinds.items()), metadata=metadata)

    def keep(self, shard: int, name: str, made: Made) -> Made:
        return made

    def write(self, shard: int, names: Sequence[str], made: Iterable[Made]) -> None:
        schema = self._schema()
        with (
            self._folder.whole(self._part(shard)) as path,
            self._parquet.ParquetWriter(path, schema, write_page_index=True) as writer,
        ):
            named = zip(names, made, strict=True)
            while rows := [self._row(name, each) for name, each in islice(named, _ROW_GROUP)]:
                writer.write_batch(self._pyarrow.RecordBatch.from_pylist(rows, schema=schema))

    def _row(self, name: str, made: Made) -> dict[str, Any]:
        record, audio = made
        sound = None if audio is None else {"bytes": audio, "path": f"{name}.{self._format}"}
        return {column: record.get(column) for column in COLUMNS} | {"audio": sound}

    def read(self, shard: int) -> Iterator[Made]:
        content = self._folder.read(self._part(shard))
        if content is None:
            return
        for batch in self._parquet.ParquetFile(io.BytesIO(content)).iter_batches(_ROW_GROUP):
            for record in batch.to_pylist():
                audio = record.pop("audio")
                yield record, None if audio is None else audio["bytes"]

    def finish(self) -> None:
        pass


class _WebDataset:
    def __init__(self, folder: Folder, format: str, n_shards: int) -> None:
        self._folder, self._format, self._n_shards = folder, format, n_shards
        self.places = tuple(map(self._part, range(n_shards)))

    def _part(self, shard: int) -> str:
        return f"shard-{shard:05d}.tar"

    def keep(self, shard: int, name: str, made: Made) -> Made:
        return made

    def write(self, shard: int, names: Sequence[str], made: Iterable[Made]) -> None:
        with self._folder.whole(self._part(shard)) as path, tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, (record, audio) in zip(names, made, strict=True):
                file = None if audio is None else f"{name}.{self._format}"
                columns = {column: record.get(column) for column in COLUMNS} | {"audio": file}
                members = {f"{name}.json": _line(columns)} | ({} if file is None else {file: audio or b""})
                for member, content in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))

    def read(self, shard: int) -> Iterator[Made]:
        content = self._folder.read(self._part(shard))
        if content is None:
            return
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for info in tar.getmembers():
                if info.name.endswith(".json"):
                    record = json.loads(_member(tar, info))
                    audio = record["audio"]
                    yield record, None if audio is None else _member(tar, tar.getmember(audio))

    def finish(self) -> None:
        pass


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None  # members are files
    return file.read()
