"""The block types of ggml that our files use: id, values per block, bytes per block (ggml.h, enum ggml_type)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["GgmlType"]


class GgmlType(IntEnum):
    """A ggml tensor type; the member's value is its id in GGUF files."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    I32 = 26
    BF16 = 30

    @property
    def block_size(self) -> int:
        """Values in one block; a row's length must be a multiple of it."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        return _BLOCKS[self][1]

    def row_bytes(self, n_values: int) -> int:
        """Bytes of a row of `n_values` (a multiple of `block_size`)."""
        return n_values // self.block_size * self.block_bytes


_BLOCKS: dict[GgmlType, tuple[int, int]] = {
    GgmlType.F32: (1, 4),
    GgmlType.F16: (1, 2),
    GgmlType.Q4_0: (32, 18),
    GgmlType.Q4_1: (32, 20),
    GgmlType.Q5_0: (32, 22),
    GgmlType.Q5_1: (32, 24),
    GgmlType.Q8_0: (32, 34),
    GgmlType.Q2_K: (256, 84),
    GgmlType.Q3_K: (256, 110),
    GgmlType.Q4_K: (256, 144),
    GgmlType.Q5_K: (256, 176),
    GgmlType.Q6_K: (256, 210),
    GgmlType.I32: (1, 4),
    GgmlType.BF16: (1, 2),
}
