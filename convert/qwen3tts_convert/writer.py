"""Writing GGUF files tensor by tensor, in blocks of rows, so that memory stays small and a failure leaves nothing.

The files of a pair get temporary names in their folder and take their own only when all are complete and on disk. The
digests of the tensors' groups are keys, which come before the tensors: placeholders keep their place until then.
Blocks are read in order by one thread, encoded by several, and written in order.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from qwen3tts_gguf.errors import CheckpointError, ModelFileError
from qwen3tts_gguf.ggml.rows import quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model.schema import Key
from qwen3tts_gguf.model.tensor_groups import GroupDigests, group_of
from qwen3tts_gguf.whole_file import unfinished_path

from .sources import Source
from .weights import FloatArray

__all__ = ["Draft", "Tensor", "write_files"]

N_THREADS = min(os.cpu_count() or 1, 8)


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file to be."""

    name: str
    type: GgmlType
    source: Source

    @property
    def n_bytes(self) -> int:
        *n_rows, row_length = self.source.shape
        return prod(n_rows) * self.type.row_bytes(row_length)


@dataclass(frozen=True)
class Draft:
    """A file to be: its path, its keys (already in the writer) and its tensors in order."""

    path: Path
    keys: gguf.GGUFWriter
    tensors: list[Tensor]

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensors, which are nearly the whole file."""
        return sum(tensor.n_bytes for tensor in self.tensors)


def write_files(drafts: Sequence[Draft], on_bytes: Callable[[Path, int], None]) -> None:
    """Write the files, all or none. `on_bytes` is called for every block with the file and the block's size.

    Raises ModelFileError if they cannot be written, CheckpointError if a tensor's values are unsound; whatever is
    raised, by a callback or by Ctrl-C too, no file is left behind.
    """
    parts = [unfinished_path(draft.path) for draft in drafts]
    writing = drafts[0].path
    try:
        _require_space(drafts)
        for draft, part in zip(drafts, parts, strict=True):
            writing = draft.path
            _write(draft, part, on_bytes)
        for draft, part in zip(drafts, parts, strict=True):
            writing = draft.path
            part.replace(draft.path)
    except BaseException as error:
        for part in parts:
            with suppress(OSError):
                part.unlink()
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise ModelFileError(f"{writing} cannot be written: {reason}") from error
        if isinstance(error, UnicodeEncodeError):
            raise CheckpointError(f"{writing}: the checkpoint contains text that is not valid Unicode") from error
        raise


def _require_space(drafts: Sequence[Draft]) -> None:
    folder, needed = drafts[0].path.parent, sum(draft.n_bytes for draft in drafts)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFileError(f"{folder} has {free / 1e6:,.0f} MB free, the two files need {needed / 1e6:,.0f} MB")


def _write(draft: Draft, part: Path, on_bytes: Callable[[Path, int], None]) -> None:
    writer = draft.keys
    for tensor in draft.tensors:
        raw_type = gguf.GGMLQuantizationType(tensor.type)
        writer.add_tensor_info(tensor.name, tensor.source.shape, np.dtype(np.float32), tensor.n_bytes, raw_type)
    places = {group: _placeholder(group) for group in dict.fromkeys(group_of(tensor.name) for tensor in draft.tensors)}
    writer.add_array(Key.GROUP_NAMES, list(places))
    writer.add_array(Key.GROUP_SHA256, list(places.values()))
    digests = GroupDigests()
    try:
        writer.write_header_to_file(part)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        file = writer.fout[0]
        start = 0
        for first_of, block in _encoded(draft.tensors):
            if first_of:  # a tensor starts at a multiple of the alignment
                writer.write_padding(file, file.tell())
                start = start or file.tell()
                digests.begin(first_of.name, first_of.type, first_of.source.shape)
            file.write(block.data)
            digests.update(block.data)
            on_bytes(draft.path, block.nbytes)
        writer.write_padding(file, file.tell())
        padded = sum(gguf.GGUFWriter.ggml_pad(tensor.n_bytes, writer.data_alignment) for tensor in draft.tensors)
        assert file.tell() == start + padded, "a source gave fewer or more rows than its shape has"
        file.flush()
    finally:
        with suppress(OSError):  # closing flushes once more: on a full disk it fails again
            writer.close()
    _fill_in(part, start, {places[group]: digest for group, digest in digests.hexdigests().items()})


def _placeholder(group: str) -> str:
    """As long as a digest, and nowhere else in a file."""
    return hashlib.sha256(f"the digest of {group}, not known yet".encode()).hexdigest()


def _fill_in(path: Path, n_header: int, digests: Mapping[str, str]) -> None:
    """Put the digests where their placeholders are, in the file's first `n_header` bytes, and all on the disk."""
    with path.open("r+b") as file:
        header = file.read(n_header)
        for placeholder, digest in digests.items():
            assert header.count(placeholder.encode()) == 1, placeholder
            header = header.replace(placeholder.encode(), digest.encode())
        file.seek(0)
        file.write(header)
        file.flush()
        os.fsync(file.fileno())


def _encoded(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor | None, NDArray[np.uint8]]]:
    """Every block of every tensor in order, the first with its tensor."""
    pending: deque[tuple[Tensor | None, Future[NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(N_THREADS, "encode") as pool:
        for tensor in tensors:
            for i, rows in enumerate(tensor.source.blocks()):
                pending.append((None if i else tensor, pool.submit(_encode, rows, tensor)))
                if len(pending) > 2 * N_THREADS:
                    first_of, block = pending.popleft()
                    yield first_of, block.result()
        for first_of, block in pending:
            yield first_of, block.result()


def _encode(rows: FloatArray, tensor: Tensor) -> NDArray[np.uint8]:
    """float32 [n, k] -> the bytes of those rows, [n, row_bytes]. Raises CheckpointError on what a type cannot hold."""
    peak = max(float(rows.max()), -float(rows.min()))  # NaN if there is one
    limit = 65520 if tensor.type == GgmlType.F16 else np.inf  # from here on F16 rounds to infinity
    if not peak < limit:
        made_of = tensor.source.origins[0]
        raise CheckpointError(
            f"{tensor.name} (from {made_of}) reaches {peak:g}, which is too large for {tensor.type.name}"
        )
    return quantize_rows(rows, tensor.type)
