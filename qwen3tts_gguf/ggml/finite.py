"""Whether stored weights are finite numbers, decided by the exponents of their floats: values, or the scales of
blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .types import GgmlType

__all__ = ["is_finite"]

_F32, _F16, _BF16 = ("<u4", 0x7F80_0000), ("<u2", 0x7C00), ("<u2", 0x7F80)
"""A float as a whole number, and its exponent, which is all ones in NaN and infinity."""

# The floats of a block, by their offsets in it (ggml-common.h, block_q4_0 and so on).
_FLOATS = {
    GgmlType.F32: (_F32, (0,)),
    GgmlType.F16: (_F16, (0,)),
    GgmlType.BF16: (_BF16, (0,)),
    GgmlType.Q4_0: (_F16, (0,)),
    GgmlType.Q4_1: (_F16, (0, 2)),
    GgmlType.Q5_0: (_F16, (0,)),
    GgmlType.Q5_1: (_F16, (0, 2)),
    GgmlType.Q8_0: (_F16, (0,)),
    GgmlType.Q2_K: (_F16, (80, 82)),
    GgmlType.Q3_K: (_F16, (108,)),
    GgmlType.Q4_K: (_F16, (0, 2)),
    GgmlType.Q5_K: (_F16, (0, 2)),
    GgmlType.Q6_K: (_F16, (208,)),
}
_BLOCKS_AT_ONCE = 1 << 19  # stays in the cache


def is_finite(blocks: NDArray[np.uint8], type: GgmlType) -> bool:
    """blocks uint8 [n * block_bytes] of a type -> whether none of their values is NaN or infinite"""
    if type == GgmlType.I32:
        return True
    (dtype, exponent), offsets = _FLOATS[type]
    n = blocks.nbytes // type.block_bytes
    for offset in offsets:
        floats: NDArray[np.unsignedinteger] = np.ndarray((n,), dtype, blocks.data, offset, (type.block_bytes,))
        for start in range(0, n, _BLOCKS_AT_ONCE):
            if (floats[start : start + _BLOCKS_AT_ONCE] & exponent).max() == exponent:
                return False
    return True
