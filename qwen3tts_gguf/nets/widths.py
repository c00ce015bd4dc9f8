"""How many rows one product may take so that each row's result is bit-identical to that of the row alone.

ggml rounds a row differently when it multiplies several at once: for some types and layouts, from some number of rows
on. Speech must not depend on what else is spoken at the same time, so rows of different speeches share a product only
up to this number.

Measured on an Intel Xeon (AVX-512, AMX), ggml 0.25.3, with 1, 2 and 3 threads and up to 16 rows. What decides there:
F32, F16 and BF16 take another kernel from 2 rows on (llamafile/sgemm.cpp), plain K-quants from 8 on (tiled/tiled.cpp),
repacked matrices from 4 on (repack.cpp: four rows at once, which rounds Q4_K in another order but not Q4_0).
tests/test_widths.py checks each claim on the machine it runs on.
"""

from __future__ import annotations

from ..ggml.device import ON_DEVICE
from ..ggml.types import GgmlType

__all__ = ["ANY", "KNOWN", "safe_rows", "shares_weights", "takes_planes"]

ANY = 1 << 30

KNOWN: dict[tuple[str, GgmlType], int] = {
    ("", GgmlType.Q8_0): ANY,
    ("", GgmlType.Q4_0): ANY,
    ("", GgmlType.Q5_0): ANY,
    ("", GgmlType.Q5_1): ANY,
    ("", GgmlType.Q4_K): 7,
    ("", GgmlType.Q5_K): 7,
    ("", GgmlType.Q6_K): 7,
    ("CPU_REPACK", GgmlType.Q4_0): ANY,
    ("CPU_REPACK", GgmlType.Q4_K): 3,
    ("AMX", GgmlType.Q8_0): ANY,
    ("AMX", GgmlType.Q4_0): ANY,
    ("AMX", GgmlType.Q4_K): ANY,
    ("AMX", GgmlType.Q5_K): ANY,
    ("AMX", GgmlType.Q6_K): ANY,
    ("AMX", GgmlType.F16): ANY,
}
"""By placement (`Tensor.placement`) and type; what is not listed rounds differently from 2 rows on, or is unknown."""


def safe_rows(type: GgmlType, placement: str) -> int:
    """For a matrix of this type in this placement; 1 where nothing is known. Of other devices than the CPU nothing is
    known or promised, and all rows share a product."""
    return ANY if placement == ON_DEVICE else KNOWN.get((placement, type), 1)


def takes_planes(placement: str) -> bool:
    """Whether a matrix in this placement can be multiplied with several planes [planes, T, in] in one product.

    ggml's AMX product adds a plane's offset in bytes to a pointer to floats (amx/mmq.cpp, `dst_offset`): it writes past
    its result.
    """
    return placement in ("", "CPU_REPACK", ON_DEVICE)


def shares_weights(type: GgmlType, placement: str) -> bool:
    """Whether rows of different speakers read a matrix of this type from memory once, however many they are: ordinary
    memory is read in small pieces, each for all rows, even when these are multiplied one by one."""
    return placement == "" or safe_rows(type, placement) == ANY
