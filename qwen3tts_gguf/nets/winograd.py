"""A convolution along time with fewer multiplications, after Toom, Cook and Winograd.

    x  [TILE + k - 1]  rows of the input            d  = mix_before  x      [POINTS]
    w  [k]             the kernel                   u  = mix_kernel w      [POINTS]
    y  [TILE]          y[i] = sum_j w[j] x[i + j]   y  = mix_after (d u)  [TILE]

Two polynomials are multiplied by their values at as many points as their product has coefficients: that is `d u`, a
product per point instead of one for each of TILE * k pairs. Where x, w and y are rows and matrices of many channels, `d
u` is what takes the time; by comparison the mixing of whole rows is cheap. A dilated convolution is a plain one on
every dilation-th row.

The points are small fractions that come in pairs, 0 and infinity; with them float32 keeps 100 dB for k = 7, where
rounding weights and inputs to float16 keeps 70. (Blahut, Fast Algorithms for Signal Processing, ch. 5.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "Mixes", "mixes"]

TILE = 6
"""Outputs made at once. The codec's frames of 160, 640 and 1920 rows split into sixes of every dilation with 1.3 % to
spare at most; eights would leave up to a third."""

_PAIRS = (Fraction(1), Fraction(2), Fraction(1, 2), Fraction(3, 2), Fraction(2, 3), Fraction(3), Fraction(1, 3))


@dataclass(frozen=True)
class Mixes:
    """float64, to be used in float32. POINTS is TILE + k - 1."""

    before: NDArray[np.float64]  # [POINTS, TILE + k - 1]
    kernel: NDArray[np.float64]  # [POINTS, k]
    after: NDArray[np.float64]  # [TILE, POINTS]


@cache
def mixes(k: int) -> Mixes:
    """For kernels of k values, up to ten."""
    n_points = TILE + k - 1
    finite = [Fraction(0), *(sign * point for point in _PAIRS for sign in (1, -1))][: n_points - 1]
    assert len(finite) == n_points - 1, k
    # The product of polynomials a and w is inverse(values(POINTS)) (values(TILE) a * values(k) w); with w given it is
    # linear in a, and its transpose is the filter.
    kernel, after = _values(finite, k), _values(finite, TILE).T
    before = np.array(_inverse(_values(finite, n_points)).T, np.float64)
    # What a row is divided by here its kernel is multiplied by, so that all points weigh alike.
    scale = 2.0 ** np.round(np.log2(np.abs(before).max(axis=1, keepdims=True)))
    return Mixes(before / scale, kernel.astype(np.float64) * scale, after.astype(np.float64))


def _values(finite: list[Fraction], n: int) -> NDArray[np.object_]:
    """What turns n coefficients into values at the points, the last of them infinity -> [POINTS, n], exact"""
    rows = [[point**power for power in range(n)] for point in finite]
    return np.array([*rows, [Fraction(0)] * (n - 1) + [Fraction(1)]], object)


def _inverse(matrix: NDArray[np.object_]) -> NDArray[np.object_]:
    """Gauss and Jordan, exact."""
    n = len(matrix)
    work = np.concatenate([matrix, np.array([[Fraction(int(i == j)) for j in range(n)] for i in range(n)])], axis=1)
    for i in range(n):
        pivot = next(row for row in range(i, n) if work[row, i] != 0)
        work[[i, pivot]] = work[[pivot, i]]
        work[i] = work[i] / work[i, i]
        for row in range(n):
            if row != i:
                work[row] = work[row] - work[row, i] * work[i]
    return work[:, n:]
