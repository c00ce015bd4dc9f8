"""Where the values of a GGUF tensor come from: one function per kind of source, read lazily in blocks of rows.

Every function checks the checkpoint's tensors against the shape the GGUF tensor must have, and reads nothing yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from qwen3tts_gguf.model.schema import Shape

from .weights import FloatArray, Weights

__all__ = ["Source", "codebooks", "copied", "pointwise", "row_blocks", "stacked"]

BLOCK_VALUES = 1 << 21
"""Values in one block: 8 MiB of float32, enough to keep a quantizer or a matrix product busy."""


@dataclass(frozen=True)
class Source:
    """The values of one GGUF tensor."""

    shape: Shape
    origins: tuple[str, ...]
    """The checkpoint's tensors it is made of."""
    blocks: Callable[[], Iterator[FloatArray]]
    """Reads the rows in order: arrays [n, shape[-1]] whose n add up to prod(shape[:-1])."""


def copied(
    weights: Weights, name: str, shape: Shape, apply: Callable[[FloatArray], FloatArray] | None = None
) -> Source:
    """A tensor as it is, or with `apply` on each value."""
    weights.require(name, shape)

    def blocks() -> Iterator[FloatArray]:
        for block in row_blocks(weights, name, shape[-1]):
            yield block if apply is None else apply(block)

    return Source(shape, (name,), blocks)


def pointwise(weights: Weights, name: str, shape: Shape) -> Source:
    """A convolution of kernel 1, [out, in, 1], as the matrix [out, in]."""
    weights.require(name, (*shape, 1))
    return Source(shape, (name,), lambda: row_blocks(weights, name, shape[-1]))


def stacked(weights: Weights, names: Sequence[str], shape: Shape) -> Source:
    """Equal tensors along a new first axis: `names` in order, each of shape[1:]."""
    assert len(names) == shape[0]
    for name in names:
        weights.require(name, shape[1:])

    def blocks() -> Iterator[FloatArray]:
        for name in names:
            yield from row_blocks(weights, name, shape[-1])

    return Source(shape, tuple(names), blocks)


def codebooks(weights: Weights, sums_and_usages: Sequence[tuple[str, str]], shape: Shape) -> Source:
    """Codebooks [size, dim], stacked if shape has a third axis. The checkpoint holds what training accumulated:
    the sum of the vectors that fell on each code, [size, dim], and how many they were, [size]."""
    *_, size, dim = shape
    assert len(sums_and_usages) == prod(shape[:-2])
    for sums, usage in sums_and_usages:
        weights.require(sums, (size, dim))
        weights.require(usage, (size,))

    def blocks() -> Iterator[FloatArray]:
        for sums, usage in sums_and_usages:
            n_used = np.maximum(weights[usage], np.float32(1e-5))
            yield np.divide(weights[sums], n_used[:, None], dtype=np.float32)

    return Source(shape, tuple(name for pair in sums_and_usages for name in pair), blocks)


def row_blocks(weights: Weights, name: str, row_length: int) -> Iterator[FloatArray]:
    """A tensor as arrays [n, row_length] of about BLOCK_VALUES values."""
    size = prod(weights.shape(name))
    step = max(1, BLOCK_VALUES // row_length) * row_length
    for start in range(0, size, step):
        yield weights.read(name, start, min(start + step, size)).reshape(-1, row_length)
