"""A GGUF file, opened: its keys, and its tensors as arrays mapped from the disk.

The format (v2 and v3, little-endian) is read here and not by the `gguf` package, for two reasons. Its `GGUFReader`
took 7 s on the 155,008 tokens and 151,387 merges of the 0.6B talker; this takes 0.1 s. And a damaged or hostile file
must end in one sentence, so every count, length and offset is compared with the file's size before it is used.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFileError
from ..ggml.types import GgmlType

__all__ = ["GgufFile", "TensorInfo"]

Value = bool | int | float | str

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4
_MAX_KEY_BYTES = 65_535
_MAX_NAME_BYTES = 64
_MAX_ENTRIES = 1 << 16  # tensors, keys: the largest file has 800 of the one and 60 of the other
_MAX_STRINGS = 1 << 21  # in an array: a vocabulary has 155,000

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_SCALAR_STRUCTS = {code: struct.Struct(format) for code, format in _SCALARS.items()}
_DTYPES = {GgmlType.F32: "<f4", GgmlType.F16: "<f2"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. `shape` is in NumPy order; `offset` counts from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int

    @property
    def n_bytes(self) -> int:
        return prod(self.shape[:-1]) * self.type.row_bytes(self.shape[-1])


@dataclass(frozen=True)
class _ArraySpan:
    """An array value, located but not decoded: the vocabulary is decoded only where it is needed."""

    type: int
    count: int
    offset: int


class GgufFile:
    """A mapped GGUF file. Raises ModelFileError from the constructor when the file is not whole and sound."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ModelFileError(f"{path}: cannot be opened (not a file)")
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise ModelFileError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:  # mmap refuses an empty file with ValueError
            raise ModelFileError(f"{path}: cannot be opened ({error})") from None
        self._size = len(self._map)
        self._position = 0
        self._values: dict[str, Value | _ArraySpan] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            self._read_header()
        except struct.error:
            raise self._damaged("ends in the middle of its header") from None

    # -- reading the header --------------------------------------------------------------------------------------------

    def _read_header(self) -> None:
        if self._take(4) != _MAGIC:
            raise ModelFileError(f"{self.path}: not a GGUF file")
        version = self._unpack(_U32)
        if version not in _VERSIONS:
            raise ModelFileError(f"{self.path}: GGUF version {version} is not supported (2 and 3 are)")
        n_tensors, n_values = self._unpack(_U64), self._unpack(_U64)
        if max(n_tensors, n_values) > min(self._size // 12, _MAX_ENTRIES):  # an entry takes more than 12 bytes
            raise self._damaged(f"claims {n_tensors} tensors and {n_values} keys")
        for _ in range(n_values):
            key = self._name(_MAX_KEY_BYTES)
            if key in self._values:
                raise self._damaged(f"has the key {key!r} twice")
            self._values[key] = self._value(self._unpack(_U32))
        infos = [self._tensor_info() for _ in range(n_tensors)]
        self._place_tensors(infos)

    def _value(self, type: int) -> Value | _ArraySpan:
        if type == _STRING:
            return self._string(self._size)
        if type in _SCALAR_STRUCTS:
            return self._unpack(_SCALAR_STRUCTS[type])  # type: ignore[no-any-return]
        if type != _ARRAY:
            raise self._damaged(f"has a value of unknown type {type}")
        element, count = self._unpack(_U32), self._unpack(_U64)
        span = _ArraySpan(element, count, self._position)
        if element == _STRING:
            if count > min(self._size // 8, _MAX_STRINGS):
                raise self._damaged(f"claims an array of {count} strings")
            self._position = self._after_strings(count)
        elif element in _SCALAR_STRUCTS:
            self._skip(count * _SCALAR_STRUCTS[element].size)
        else:
            raise self._damaged(f"has an array of unknown type {element}")
        return span

    def _after_strings(self, count: int) -> int:
        position, size, length_at = self._position, self._size, _U64.unpack_from
        for _ in range(count):  # of hundreds of thousands: 0.1 us each, by `_skip` and `_unpack` 0.2
            position += 8 + length_at(self._map, position)[0]
            if position > size:
                raise self._damaged("ends in the middle of its header")
        return position

    def _tensor_info(self) -> TensorInfo:
        name = self._name(_MAX_NAME_BYTES)
        n_dims = self._unpack(_U32)
        if not 1 <= n_dims <= _MAX_DIMS:
            raise self._damaged(f"gives {name} {n_dims} dimensions")
        shape = tuple(reversed([self._unpack(_U64) for _ in range(n_dims)]))
        type_id, offset = self._unpack(_U32), self._unpack(_U64)
        try:
            type = GgmlType(type_id)
        except ValueError:
            raise self._damaged(f"stores {name} in unknown type {type_id}") from None
        # A block is at most 4 bytes per value and at least 1/4: larger sizes cannot be honest, nor can they overflow.
        if min(shape) < 1 or prod(shape) > 8 * self._size or shape[-1] % type.block_size:
            raise self._damaged(f"gives {name} the impossible shape {list(shape)} for {type.name}")
        return TensorInfo(name, shape, type, offset)

    def _place_tensors(self, infos: list[TensorInfo]) -> None:
        alignment = self.integer("general.alignment", _DEFAULT_ALIGNMENT)
        if alignment < 1 or alignment > 1 << 20 or alignment & (alignment - 1):
            raise self._damaged(f"has the alignment {alignment}")
        start = -(-self._position // alignment) * alignment
        end_of_previous = start
        for info in sorted(infos, key=lambda info: info.offset):
            placed = TensorInfo(info.name, info.shape, info.type, start + info.offset)
            if info.name in self.tensors:
                raise self._damaged(f"has the tensor {info.name} twice")
            if info.offset % alignment or placed.offset < end_of_previous:
                raise self._damaged(f"places {info.name} over another tensor or off its alignment")
            if placed.offset + placed.n_bytes > self._size:
                raise self._damaged(f"ends before its tensor {info.name} does: an incomplete download or copy")
            end_of_previous = placed.offset + placed.n_bytes
            self.tensors[info.name] = placed

    def _take(self, n_bytes: int) -> bytes:
        self._skip(n_bytes)
        return self._map[self._position - n_bytes : self._position]

    def _skip(self, n_bytes: int) -> None:
        self._position += n_bytes
        if self._position > self._size:
            raise self._damaged("ends in the middle of its header")

    def _unpack(self, format: struct.Struct) -> Any:
        (value,) = format.unpack_from(self._map, self._position)
        self._position += format.size
        return value

    def _string(self, max_bytes: int) -> str:
        n_bytes = self._unpack(_U64)
        if n_bytes > max_bytes:
            raise self._damaged(f"has a name of {n_bytes} bytes")
        try:
            return self._take(n_bytes).decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("has a name that is not UTF-8") from None

    def _name(self, max_bytes: int) -> str:
        """Of a key or tensor. Messages quote it, so it must not reach for the terminal."""
        name = self._string(max_bytes)
        if not name.isprintable():
            raise self._damaged(f"has the name {name[:80]!r}")
        return name

    def _damaged(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: damaged GGUF file: it {what}")

    # -- keys ----------------------------------------------------------------------------------------------------------

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def scalars(self) -> Iterator[tuple[str, Value]]:
        """All keys but the arrays, in file order."""
        return ((key, value) for key, value in self._values.items() if not isinstance(value, _ArraySpan))

    def array_lengths(self) -> Mapping[str, int]:
        """The array keys with their lengths."""
        return {key: value.count for key, value in self._values.items() if isinstance(value, _ArraySpan)}

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._typed(key, str, "text", default))

    def integer(self, key: str, default: int | None = None) -> int:
        return int(self._typed(key, int, "a whole number", default))

    def number(self, key: str, default: float | None = None) -> float:
        return float(self._typed(key, (int, float), "a number", default))

    def flag(self, key: str, default: bool | None = None) -> bool:
        return bool(self._typed(key, bool, "true or false", default))

    def _typed(self, key: str, kind: Any, spoken: str, default: Any) -> Any:
        value = self._values.get(key, default)
        if value is None:
            raise ModelFileError(f"{self.path}: the key {key} is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ModelFileError(f"{self.path}: the key {key} should be {spoken}")
        return value

    def strings(self, key: str) -> list[str]:
        """An array of strings; empty when the key is absent."""
        span = self._span(key, (_STRING,))
        if span is None:
            return []
        texts, position, data = [], span.offset, self._map
        for _ in range(span.count):
            start = position + 8
            position = start + _U64.unpack_from(data, position)[0]
            texts.append(data[start:position])
        try:
            return [text.decode("utf-8") for text in texts]
        except UnicodeDecodeError:
            raise self._damaged(f"has text in {key} that is not UTF-8") from None

    def integers(self, key: str) -> list[int]:
        """An array of whole numbers; empty when the key is absent."""
        span = self._span(key, (0, 1, 2, 3, 4, 5, 10, 11))
        if span is None:
            return []
        return np.frombuffer(self._map, _SCALARS[span.type], span.count, span.offset).tolist()  # type: ignore[no-any-return]

    def _span(self, key: str, types: tuple[int, ...]) -> _ArraySpan | None:
        span = self._values.get(key)
        if span is None:
            return None
        if not isinstance(span, _ArraySpan) or span.type not in types:
            raise ModelFileError(f"{self.path}: the key {key} is not an array of the expected kind")
        return span

    # -- tensors -------------------------------------------------------------------------------------------------------

    def info(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError:
            raise ModelFileError(f"{self.path}: the tensor {name} is missing") from None

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """The tensor's bytes as they lie in the file, uint8 [n_bytes], read-only and mapped."""
        info = self.info(name)
        return np.frombuffer(self._map, np.uint8, info.n_bytes, info.offset)

    def release(self, name: str) -> None:
        """Hand a tensor's memory back to the system, after its values were copied; they can still be read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            start, end = self._pages(name)
            if start < end:
                self._map.madvise(mmap.MADV_DONTNEED, start, end - start)

    def release_everywhere(self, names: Iterable[str]) -> None:
        """The same for every mapping of this file in the process, llama.cpp's too. Linux lists those; elsewhere
        nothing is done."""
        try:
            mappings = Path("/proc/self/maps").read_text().splitlines()
            real_path = str(self.path.resolve(strict=True))
            madvise = ctypes.CDLL(None).madvise
        except (OSError, AttributeError):
            return
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        pages = [self._pages(name) for name in names]
        for mapping in mappings:  # "address-address permissions offset device inode path"
            span, _, offset, _, _, *path = mapping.split(maxsplit=5)
            if path != [real_path]:
                continue
            address, until = (int(number, 16) for number in span.split("-"))
            first, last = int(offset, 16), int(offset, 16) + until - address
            for start, end in pages:
                start, end = max(start, first), min(end, last)
                if start < end:
                    madvise(address + start - first, end - start, mmap.MADV_DONTNEED)

    def _pages(self, name: str) -> tuple[int, int]:
        """From where to where in the file the pages are that hold nothing but this tensor."""
        info = self.info(name)
        start = -(-info.offset // mmap.PAGESIZE) * mmap.PAGESIZE
        return start, (info.offset + info.n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE

    def array(self, name: str) -> NDArray[Any]:
        """A tensor stored as F32 or F16, mapped, in its shape."""
        info = self.info(name)
        if info.type not in _DTYPES:
            raise ModelFileError(f"{self.path}: {name} is stored as {info.type.name}; it should be F32 or F16")
        return self.blocks(name).view(_DTYPES[info.type]).reshape(info.shape)
