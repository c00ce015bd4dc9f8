"""How many rows one product may take so that each row's result is equal, to the bit, to that of the row alone.

ggml rounds a row differently when it multiplies several at once: for some types and layouts, from some number of rows
on. Speech must not depend on who else speaks, so rows of different speakers share a product only up to this number.
Measured on an Intel Xeon (AVX-512, AMX), ggml 0.25.3; tests/test_widths.py checks it on the machine it runs on.
"""

from __future__ import annotations

from ..ggml.types import GgmlType

__all__ = ["ANY", "safe_rows"]

ANY = 1 << 30

_SAFE: dict[tuple[str, GgmlType], int] = {
    ("", GgmlType.Q8_0): ANY,
    ("", GgmlType.Q4_0): ANY,
    ("", GgmlType.Q4_K): 4,
    ("", GgmlType.Q6_K): 4,
    ("CPU_REPACK", GgmlType.Q4_0): ANY,
    ("CPU_REPACK", GgmlType.Q4_K): 2,
}


def safe_rows(type: GgmlType, placement: str) -> int:
    """For a matrix of this type in this placement (`Tensor.placement`); 1 where nothing is known."""
    return ANY if placement == "AMX" else _SAFE.get((placement, type), 1)
