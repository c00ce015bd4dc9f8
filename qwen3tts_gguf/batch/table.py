"""Tables read row by row: csv, tsv, jsonl and parquet, from the start or from the start of any shard.

position    where a record starts: its byte in a text file, its number in a parquet file
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Protocol

from ..errors import TableError
from .storage import open_binary

__all__ = ["Record", "Table", "open_table"]

Record = dict[str, Any]
_PARQUET_BATCH = 1024  # rows in memory at once


class Table(Protocol):
    """A table that is read lazily."""

    def columns(self) -> list[str]:
        """Raises TableError."""

    def records(self, position: int, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:
        """Each record from a position on (0: the first), with its own position. Raises TableError."""


def open_table(path: str) -> Table:
    """By suffix; a path, or a URL that fsspec knows. Nothing is read yet. Raises TableError."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _Csv(path, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".ndjson"):
        return _JsonLines(path)
    if suffix == ".parquet":
        return _Parquet(path)
    raise TableError(f"{path}: not a table that can be read", hint="use .csv, .tsv, .jsonl or .parquet")


class _Lines:
    """Lines of a UTF-8 file, and where the next one starts."""

    def __init__(self, file: BinaryIO, path: str, position: int) -> None:
        self._file, self._path, self.position = file, path, position
        file.seek(position)

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            is_first, self.position = not self.position, self.position + len(line)
            try:
                yield line.decode("utf-8-sig" if is_first else "utf-8")
            except UnicodeDecodeError:
                where = f"before byte {self.position}"
                raise TableError(f"{self._path}: not UTF-8 text, {where}", hint="save it as UTF-8") from None


class _Csv:
    def __init__(self, path: str, delimiter: str) -> None:
        self._path, self._delimiter = path, delimiter

    def columns(self) -> list[str]:
        with open_binary(self._path) as file:
            return self._header(_Lines(file, self._path, 0))

    def _header(self, lines: _Lines) -> list[str]:
        header = next(self._rows(lines), (0, []))[1]
        if not header or len({*header}) != len(header):
            what = "two columns have the same name" if header else "there is no header line"
            raise TableError(f"{self._path}: {what}")
        return header

    def _rows(self, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(iter(lines), delimiter=self._delimiter, strict=True)
        while True:
            start = lines.position
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                where = f"the row that starts at byte {start}"
                hint = "put quotes around a field that starts with one, and write each quote in it twice"
                raise TableError(f"{self._path}: {where} cannot be read ({error})", hint=hint) from None
            if row:  # not an empty line
                yield start, row

    def records(self, position: int, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:
        with open_binary(self._path) as file:
            lines = _Lines(file, self._path, 0)
            header = self._header(lines)
            if position:
                lines = _Lines(file, self._path, position)
            for start, row in self._rows(lines):
                if len(row) != len(header):
                    what = f"{len(row)} fields where the header has {len(header)}"
                    hint = "put quotes around a field that holds the separator"
                    raise TableError(f"{self._path}: {what}: {self._delimiter.join(row)[:80]!r}", hint=hint)
                yield start, dict(zip(header, row, strict=True))


class _JsonLines:
    def __init__(self, path: str) -> None:
        self._path = path

    def columns(self) -> list[str]:
        return list(next(self.records(0, ()), (0, {}))[1])

    def records(self, position: int, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:
        with open_binary(self._path) as file:
            lines, start = _Lines(file, self._path, position), position
            for line in lines:
                if line.strip():
                    try:
                        record = json.loads(line)
                    except (ValueError, RecursionError):
                        record = None
                    if not isinstance(record, dict):
                        raise TableError(f"{self._path}: the line at byte {start} is not a JSON object")
                    yield start, record
                start = lines.position


class _Parquet:
    def __init__(self, path: str) -> None:
        self._path = path
        try:
            import pyarrow.parquet
        except ImportError:
            hint = "pip install 'qwen3tts-gguf[batch]'"
            raise TableError(f"{path}: reading parquet needs pyarrow", hint=hint) from None
        self._pyarrow, self._parquet = pyarrow, pyarrow.parquet

    def _opened(self, file: BinaryIO) -> Any:
        try:
            return self._parquet.ParquetFile(file)
        except self._pyarrow.ArrowException as error:
            raise TableError(f"{self._path}: not a parquet file ({str(error).splitlines()[0]})") from None

    def columns(self) -> list[str]:
        with open_binary(self._path) as file:
            return list(self._opened(file).schema_arrow.names)

    def records(self, position: int, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:
        with open_binary(self._path) as file:
            table = self._opened(file)
            first, groups = 0, range(table.num_row_groups)
            while groups and first + table.metadata.row_group(groups[0]).num_rows <= position:
                first += table.metadata.row_group(groups[0]).num_rows
                groups = groups[1:]
            batches = table.iter_batches(_PARQUET_BATCH, row_groups=list(groups), columns=list(columns))
            for batch in batches if groups else ():
                for record in batch.to_pylist():
                    if first >= position:
                        yield first, record
                    first += 1
