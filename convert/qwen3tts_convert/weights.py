"""The tensors of a checkpoint: safetensors files as a read-only mapping of names to float32 arrays.

A safetensors file is the length of a header (8 bytes, little endian), the header (JSON: dtype, shape and byte range of
each tensor), the data. Values are read by range, not mapped: a file of gigabytes never counts as memory of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3tts_gguf.errors import CheckpointError, Note
from qwen3tts_gguf.model.schema import Shape

__all__ = ["FloatArray", "Weights"]

FloatArray = NDArray[np.float32]

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_DERIVED = ".rotary_emb.inv_freq"  # follows from the configuration; transformers used to save it
_MAX_HEADER_BYTES = 1 << 24  # a hundred times that of the largest checkpoint; as Python objects it grows twentyfold


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies."""

    path: Path
    dtype: str
    shape: Shape
    offset: int


class Weights(Mapping[str, FloatArray]):
    """The weights of one folder: `model.safetensors`, else the shards that `model.safetensors.index.json` lists.

    notes: which were taken where both are there.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the headers only. Raises CheckpointError if a file is missing or damaged."""
        self.folder = folder
        self.files: list[Path] = []
        self._entries: dict[str, _Entry] = {}
        single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
        self.notes: tuple[Note, ...] = ()
        if single.is_file():
            self._add_file(single)
            if index.is_file():
                message = f"{single} is converted, as transformers would take it, and not the shards of {index.name}"
                self.notes = (Note(message, f"to convert the shards, move {single.name} away"),)
        elif index.is_file():
            self._add_shards(index)
        else:
            raise _missing(folder, f"neither {single.name} nor {index.name} is there")

    def __getitem__(self, name: str) -> FloatArray:
        return self.read(name).reshape(self.shape(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> Shape:
        """Shape of a tensor. Raises CheckpointError if there is none of that name."""
        return self._entry(name).shape

    def where(self, name: str) -> str:
        """The tensor's name and file, for messages."""
        return f"{self._entry(name).path}: tensor {name}"

    def require(self, name: str, shape: Shape) -> None:
        """Raises CheckpointError unless the tensor is there with this shape."""
        if self.shape(name) != shape:
            raise CheckpointError(
                f"{self.where(name)} has shape {list(self.shape(name))}, but the configuration requires {list(shape)}"
            )

    def require_no_others(self, known: Iterable[str]) -> None:
        """Raises CheckpointError if there is a tensor besides the known ones: it would be lost without a word."""
        unknown = sorted(name for name in set(self) - set(known) if not name.endswith(_DERIVED))
        if unknown:
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise CheckpointError(f"{self.where(unknown[0])}{more} is not part of a Qwen3-TTS 12Hz model")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> FloatArray:
        """Values [start, stop) of the flattened tensor, float32 [stop - start]. Raises CheckpointError if they cannot
        be read or are not all finite."""
        entry = self._entry(name)
        if entry.dtype not in _DTYPES:
            raise CheckpointError(
                f"{self.where(name)} has type {entry.dtype}; only {', '.join(_DTYPES)} can be converted"
            )
        count = (prod(entry.shape) if stop is None else stop) - start
        dtype = np.dtype(_DTYPES[entry.dtype])
        try:
            values = np.fromfile(entry.path, dtype, count, offset=entry.offset + start * dtype.itemsize)
        except OSError as error:
            raise CheckpointError(f"{self.where(name)} cannot be read: {error.strerror or error}") from error
        if values.size != count:
            raise CheckpointError(f"{self.where(name)} is truncated")
        if entry.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        peak = max(values.max(), -values.min()) if count else 0  # NaN if there is one
        if not peak < np.inf:
            raise CheckpointError(f"{self.where(name)} contains NaN or infinity")
        return values.astype(np.float32, copy=False)

    def _entry(self, name: str) -> _Entry:
        if name not in self._entries:
            raise CheckpointError(f"{self.folder}: tensor {name} is missing")
        return self._entries[name]

    def _add_shards(self, index: Path) -> None:
        try:
            weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"]
            shards = sorted(set(weight_map.values()))
            if not all(Path(shard).name == shard for shard in shards):  # nothing outside the folder is opened
                raise ValueError("it names files outside the folder")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{index}: not an index of safetensors files ({error!r})") from error
        self.files.append(index)
        for shard in shards:
            self._add_file(self.folder / shard)
        for name, shard in weight_map.items():
            if name not in self._entries:
                raise CheckpointError(f"{self.folder / shard}: tensor {name} is missing, {index.name} lists it")

    def _add_file(self, path: Path) -> None:
        header, data_start, data_size = _read_header(path)
        for name, fields in header.items():
            try:
                shape, (start, stop) = tuple(fields["shape"]), fields["data_offsets"]
                dtype = str(fields["dtype"])
                if not all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, start, stop)):
                    raise ValueError("sizes are whole numbers")
                itemsize = np.dtype(_DTYPES[dtype]).itemsize if dtype in _DTYPES else None
                sound = 0 <= start <= stop and (itemsize is None or stop - start == prod(shape) * itemsize)
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path}: the header is damaged at tensor {name}") from error
            if not sound:
                raise CheckpointError(f"{path}: the header contradicts itself about tensor {name}")
            if stop > data_size:
                raise CheckpointError(f"{path}: tensor {name} is truncated", hint="download the file again")
            if name in self._entries:
                raise CheckpointError(f"{path}: tensor {name} is also in {self._entries[name].path.name}")
            self._entries[name] = _Entry(path, dtype, shape, data_start + start)
        self.files.append(path)


_TO_SAFETENSORS = "load it with the official package and save it with save_pretrained(..., safe_serialization=True)"


def _missing(folder: Path, message: str) -> CheckpointError:
    """With what is there instead."""
    for pattern in ("pytorch_model*.bin", "*.pt", "*.pth"):
        if found := sorted(folder.glob(pattern)):
            message = f"{folder}: {found[0].name} is a pickle, only safetensors are converted"
            return CheckpointError(message, hint=_TO_SAFETENSORS)
    return CheckpointError(f"{folder}: {message}", hint="download or copy the whole checkpoint")


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Header without its metadata, offset of the data and its size in bytes."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ValueError("not a file")
        with path.open("rb") as file:
            n_bytes = int.from_bytes(file.read(8), "little")
            text = file.read(n_bytes) if n_bytes <= min(size, _MAX_HEADER_BYTES) else b""
        header = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file", hint="download it again; git clone needs git-lfs"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: not a safetensors file")
    header.pop("__metadata__", None)
    return header, 8 + n_bytes, size - 8 - n_bytes
