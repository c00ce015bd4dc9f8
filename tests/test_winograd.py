"""Convolving at points: exact in float64, and near enough in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_gguf.nets.winograd import TILE, mixes


def convolved_at_points(x: NDArray[Any], kernel: NDArray[Any], dtype: Any) -> NDArray[Any]:
    mix = mixes(len(kernel))
    weight = (mix.kernel @ kernel).astype(dtype)
    tiles = [x[i : i + TILE + len(kernel) - 1] for i in range(0, len(x) - len(kernel) + 1, TILE)]
    return np.concatenate([mix.after.astype(dtype) @ ((mix.before.astype(dtype) @ tile) * weight) for tile in tiles])


@pytest.mark.parametrize("k", [1, 2, 3, 7, 10])
def test_it_is_the_convolution(k: int) -> None:
    rng = np.random.default_rng(k)
    x, kernel = rng.standard_normal(5 * TILE + k - 1), rng.standard_normal(k)
    expected = np.correlate(x, kernel, "valid")
    assert np.allclose(convolved_at_points(x, kernel, np.float64), expected, atol=1e-9)


def test_float32_keeps_far_more_than_float16_weights_would() -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal(3000 * TILE + 6), rng.standard_normal(7)
    exact = np.correlate(x, kernel, "valid")

    def snr_db(found: NDArray[Any]) -> float:
        return float(10 * np.log10(np.square(exact).mean() / np.square(found - exact).mean()))

    at_points = snr_db(convolved_at_points(x.astype(np.float32), kernel, np.float32))
    halved = snr_db(np.correlate(x.astype(np.float16).astype(np.float64), kernel.astype(np.float16), "valid"))
    assert at_points > 95 > 80 > halved


def test_points_come_in_pairs_that_weigh_alike() -> None:
    mix = mixes(7)
    assert mix.before.shape == (12, 12) and mix.kernel.shape == (12, 7) and mix.after.shape == (6, 12)
    largest = np.abs(mix.before).max(axis=1)
    assert largest.max() / largest.min() <= 2
