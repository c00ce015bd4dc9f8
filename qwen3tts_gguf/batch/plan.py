"""Before the work: one pass over the table finds its shards and every mistake that can be found without speaking."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..errors import TableError
from .job import Job, Row
from .storage import open_binary
from .table import Record, open_table

__all__ = ["Plan", "file_sha256", "make_plan", "rows_of"]

_HASH_BYTES = 1 << 20
_REPORT_ROWS = 10_000


@dataclass(frozen=True)
class Plan:
    """The table as shards: shard i is `Job.shard_rows` rows from `starts[i]` on, the last one what is left."""

    sha256: str
    """Of the table's file."""
    n_rows: int
    n_letters: int
    """Of all texts."""
    starts: list[int]
    """Positions (table.py)."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def shard_size(self, index: int, job: Job) -> int:
        """Rows of a shard."""
        return min(job.shard_rows, self.n_rows - index * job.shard_rows)


def file_sha256(path: str) -> str:
    """Raises TableError."""
    digest = hashlib.sha256()
    with open_binary(path) as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def make_plan(job: Job, report: Callable[[int], None] = lambda n_rows: None) -> Plan:
    """Read the whole table once, row by row; 8 bytes of memory per row. report: rows read so far.

    Raises TableError: unreadable rows, missing columns, no rows, an empty or repeated id.
    """
    table = open_table(job.table)
    columns = table.columns()
    for field, column in job.columns.items():
        if column not in columns:
            option = field if field in ("id", "text") else f"{field}_column"
            hint = f"it has {', '.join(columns)}; choose one with `{option}`"
            raise TableError(f"{job.table}: there is no column {column!r}", hint=hint)
    starts, hashes, n_rows, n_letters = [], array("Q"), 0, 0
    for position, record in table.records(0, [*job.columns.values()]):
        row = _row(job, n_rows, record)
        if n_rows % job.shard_rows == 0:
            starts.append(position)
        if job.id is not None:
            hashes.append(_hash(row.id))
        n_letters += len(row.text)
        n_rows += 1
        if n_rows % _REPORT_ROWS == 0:
            report(n_rows)
    if not n_rows:
        raise TableError(f"{job.table}: there are no rows")
    _require_unique(job, hashes)
    return Plan(file_sha256(job.table), n_rows, n_letters, starts)


def rows_of(job: Job, plan: Plan, shard: int) -> list[Row]:
    """The rows of a shard. Raises TableError."""
    first, n = shard * job.shard_rows, plan.shard_size(shard, job)
    records = open_table(job.table).records(plan.starts[shard], [*job.columns.values()])
    rows = [_row(job, first + i, record) for i, (_, record) in enumerate(islice(records, n))]
    if len(rows) != n:
        raise TableError(f"{job.table}: it has changed since the work began")
    return rows


def _row(job: Job, index: int, record: Record) -> Row:
    values = {field: _text(record.get(column)) for field, column in job.columns.items()}
    id = str(index + 1) if job.id is None else (values.get("id") or "").strip()
    if not id:
        raise TableError(f"{job.table}: row {index + 1} has no id in the column {job.id!r}")
    others = {name: (values.get(name) or "").strip() or None for name in ("voice", "language", "instruct")}
    return Row(index, id, values.get("text") or "", **others)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _hash(id: str) -> int:
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _require_unique(job: Job, hashes: array[int]) -> None:
    """Ids of the same hash are read again and compared themselves. Raises TableError."""
    ordered = np.sort(np.frombuffer(hashes, np.uint64)) if hashes else np.zeros(0, np.uint64)
    suspects = {int(hash) for hash in ordered[1:][ordered[1:] == ordered[:-1]]}
    if not suspects:
        return
    seen: dict[str, int] = {}
    for row in _all_rows(job):
        if _hash(row.id) in suspects and seen.setdefault(row.id, row.index) != row.index:
            first = seen[row.id] + 1
            raise TableError(f"{job.table}: the id {row.id!r} is repeated, in rows {first} and {row.index + 1}")


def _all_rows(job: Job) -> Iterator[Row]:
    records = open_table(job.table).records(0, [*job.columns.values()])
    return (_row(job, index, record) for index, (_, record) in enumerate(records))
