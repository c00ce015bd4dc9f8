"""Rows of values to rows of blocks and back, by ggml's own code for every block type."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from . import api
from .types import GgmlType

__all__ = ["as_float16", "dequantize_rows", "quantize_rows"]


def quantize_rows(values: NDArray[np.float32], type: GgmlType) -> NDArray[np.uint8]:
    """float32 [n, k] -> blocks uint8 [n, type.row_bytes(k)]; k is a multiple of type.block_size."""
    n, k = values.shape
    assert k % type.block_size == 0, (k, type)
    values = np.ascontiguousarray(values, np.float32)
    blocks = np.empty((n, type.row_bytes(k)), np.uint8)
    written = api.quantize_chunk(type, values.ctypes.data, blocks.ctypes.data, 0, n, k, None)
    assert written == blocks.nbytes, (written, blocks.nbytes)
    return blocks


def dequantize_rows(blocks: NDArray[np.uint8], type: GgmlType) -> NDArray[np.float32]:
    """blocks uint8 [n, row_bytes] -> float32 [n, k]."""
    n, n_bytes = blocks.shape
    k = n_bytes // type.block_bytes * type.block_size
    blocks = np.ascontiguousarray(blocks)
    if type == GgmlType.F32:  # has no to_float of its own
        return np.array(blocks.view(np.float32))
    values = np.empty((n, k), np.float32)
    traits = ctypes.cast(api.get_type_traits(type), ctypes.POINTER(api.TypeTraits)).contents
    traits.to_float(blocks.ctypes.data, values.ctypes.data, n * k)
    return values


def as_float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """The same as values.astype(np.float16), which takes ten times as long."""
    values = np.ascontiguousarray(values, np.float32)
    halves = np.empty(values.shape, np.float16)
    api.cpu_fp32_to_fp16(values.ctypes.data, halves.ctypes.data, values.size)
    return halves
