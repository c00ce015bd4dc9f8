"""Broken files by the thousand, each made from a sound one by a seed, so that any of them can be made again."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf

INTERESTING = (0, 1, 2, 3, 4, 5, 7, 8, 16, 26, 31, 32, 64, 127, 128, 255, 256, 2047, 2048, 3072, 65_535, 65_536)
EXTREME = tuple((1 << bits) + add for bits in (15, 16, 24, 31, 32, 40, 62, 63) for add in (-1, 0, 1))
FLOATS = (0.0, -1.0, 1e-30, 1e30, -1e-6, 0.5, 2.0, float("nan"), float("inf"), float("-inf"))
POISON = (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x7e", b"\x00\x7c", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00")
"""NaN and infinity as float32 and float16, then all ones and all zeros, in little-endian."""


@dataclass(frozen=True)
class Header:
    """A GGUF file's header, and where in it the numbers are that say how much there is of what, and where."""

    data: bytes
    file_size: int
    numbers: list[tuple[int, int]]
    """Offset and size in bytes of every count, length, dimension, type, offset and single value."""


def read_header(path: Path) -> Header:
    reader = gguf.GGUFReader(path)
    base = reader.data.__array_interface__["data"][0]
    numbers = []
    fields = [*reader.fields.values(), *(tensor.field for tensor in reader.tensors)]
    for field in fields:
        parts = field.parts if len(field.parts) < 16 else field.parts[:8]  # of a long array the head
        for part in parts:
            if part.dtype.itemsize > 1 or len(part) == 1:
                start = part.__array_interface__["data"][0] - base
                numbers += [(start + i * part.dtype.itemsize, part.dtype.itemsize) for i in range(len(part))]
    return Header(path.read_bytes()[: reader.data_offset], path.stat().st_size, numbers)


def broken_header(header: Header, rng: random.Random) -> tuple[bytes, int]:
    """The header after one to three injuries, and the size the file then has."""
    data, size = bytearray(header.data), header.file_size
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.45:
            _smash_number(data, header, rng)
        elif kind < 0.7:
            _overwrite(data, rng)
        elif kind < 0.8:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind < 0.86:
            at = rng.randrange(len(data))
            data[at : at + rng.randint(1, 16)] = b""
        elif kind < 0.92:
            at = rng.randrange(len(data))
            data[at:at] = rng.randbytes(rng.randint(1, 16))
        elif kind < 0.97:
            source, target, n = rng.randrange(len(data)), rng.randrange(len(data)), rng.randint(1, 200)
            data[target : target + n] = data[source : source + n]
        else:
            size = rng.randrange(header.file_size)
    return bytes(data), size


def _smash_number(data: bytearray, header: Header, rng: random.Random) -> None:
    at, size = rng.choice(header.numbers)
    if size == 4 and rng.random() < 0.2:
        data[at : at + 4] = struct.pack("<f", rng.choice(FLOATS))
        return
    value = rng.choice(INTERESTING if rng.random() < 0.7 else EXTREME)
    if rng.random() < 0.3:
        value = int.from_bytes(data[at : at + size], "little") + rng.choice((-1, 1, 32, -32))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _overwrite(data: bytearray, rng: random.Random) -> None:
    at, n = rng.randrange(len(data)), rng.randint(1, 8)
    byte = rng.choice((0, 1, 0x7F, 0x80, 0xFF)) if rng.random() < 0.6 else rng.randrange(256)
    data[at : at + n] = bytes([byte]) * len(data[at : at + n])


def poisoned(weights: bytes, rng: random.Random) -> bytes:
    """The bytes of tensors with one to eight stretches of them overwritten, most with bytes that are not a number."""
    data = bytearray(weights)
    for _ in range(rng.randint(1, 8)):
        at, n = rng.randrange(len(data)), rng.choice((4, 64, 4_096, 1 << 16))
        n = len(data[at : at + n])
        value = rng.choice(POISON) if rng.random() < 0.8 else rng.randbytes(64)
        data[at : at + n] = (value * (n // len(value) + 1))[:n]
    return bytes(data)


def broken_bytes(sound: bytes, n_header: int, rng: random.Random) -> bytes:
    """A small file, a voice say, with one to three injuries, most of them in its header."""
    content = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(n_header if rng.random() < 0.8 else max(1, len(content)))
        kind = rng.randrange(5)
        if kind == 0:
            content[at : at + rng.randint(1, 8)] = b""
        elif kind == 1:
            content[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 2:
            content[at : at + 1] = bytes([rng.choice(b'0123456789"{}[]:,-\\FIBU\x00\xff')])
        elif kind == 3 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        else:
            content[at : at + 8] = rng.choice(INTERESTING + EXTREME).to_bytes(9, "little")[:8]
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.03 else content)


def seeds(seed: int, n_cases: int) -> Iterator[tuple[int, random.Random]]:
    """(case, its generator): a case is made again by `seed` and its number alone."""
    for case in range(n_cases):
        yield case, random.Random(f"{seed}:{case}")
