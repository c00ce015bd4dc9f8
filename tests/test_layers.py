"""Products of a few rows, and of stacked matrices."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import relative_error
from numpy.typing import NDArray

from qwen3tts_gguf.ggml.device import Backend, Tensor, Weights
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.rows import dequantize_rows, quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.nets.layers import row_by_row, stacked_linear


def weight(weights: Weights, values: NDArray[np.float32], type: GgmlType) -> Tensor:
    if type in (GgmlType.F32, GgmlType.F16):
        return weights.array(values.astype(np.float32 if type == GgmlType.F32 else np.float16))
    return weights.mapped(quantize_rows(values, type).reshape(-1), values.shape, type)


@pytest.mark.parametrize("type", [GgmlType.F32, GgmlType.F16, GgmlType.Q8_0, GgmlType.Q4_K])
@pytest.mark.parametrize("n_rows", [1, 2, 4])
def test_rows_together_are_rounded_as_if_alone(type: GgmlType, n_rows: int) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((48, 256)).astype(np.float32)
    rows = rng.standard_normal((n_rows, 256)).astype(np.float32)
    backend = Backend(2)
    weights = Weights(backend)
    w = weight(weights, matrix, type)

    def product(some: NDArray[np.float32]) -> NDArray[np.float32]:
        g = Graph(backend)
        x = g.input(*some.shape)
        y = g.output(row_by_row(g, w, x))
        g.allocate()
        g.host_array(x)[...] = some
        g.compute()
        return np.array(g.host_array(y))

    together, alone = product(rows), np.concatenate([product(row[None]) for row in rows])
    if type == GgmlType.Q4_K:  # has no such way; near it is all the same
        assert relative_error(together, alone) < 1e-5
    else:
        assert np.array_equal(together, alone)


def test_stacked_matrices_of_two_types_give_all_rows() -> None:
    rng = np.random.default_rng(1)
    upper, lower = (rng.standard_normal((n, 64)).astype(np.float32) for n in (16, 8))
    backend = Backend(1)
    weights = Weights(backend)
    stacked = [weight(weights, upper, GgmlType.F32), weight(weights, lower, GgmlType.Q8_0)]
    g = Graph(backend)
    x = g.input(3, 64)
    y = g.output(stacked_linear(g, stacked, x, g.linear))
    g.allocate()
    g.host_array(x)[...] = rows = rng.standard_normal((3, 64)).astype(np.float32)
    g.compute()
    rounded = dequantize_rows(quantize_rows(lower, GgmlType.Q8_0), GgmlType.Q8_0)
    assert relative_error(g.host_array(y), rows @ np.concatenate([upper, rounded]).T) < 2e-2
