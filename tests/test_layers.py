"""Products of a few rows, and of stacked matrices."""

from __future__ import annotations

import numpy as np
from conftest import relative_error
from numpy.typing import NDArray

from qwen3tts_gguf.ggml.device import Backend, Tensor, Weights
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.rows import dequantize_rows, quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.nets.layers import stacked_linear


def weight(weights: Weights, values: NDArray[np.float32], type: GgmlType) -> Tensor:
    if type in (GgmlType.F32, GgmlType.F16):
        return weights.array(values.astype(np.float32 if type == GgmlType.F32 else np.float16))
    return weights.mapped(quantize_rows(values, type).reshape(-1), values.shape, type)


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
