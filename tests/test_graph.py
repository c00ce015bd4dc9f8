"""Every operation of ggml/graph.py against NumPy, and how graphs and weights keep their memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import relative_error
from numpy.typing import NDArray

from qwen3tts_gguf.ggml.device import Backend, Tensor, Weights, extra_buffer_types
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.rows import as_float16, dequantize_rows, quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType

Array = NDArray[Any]
BLOCK_TYPES = [type for type in GgmlType if type != GgmlType.I32]
TYPES = {np.dtype(np.float32): GgmlType.F32, np.dtype(np.float16): GgmlType.F16, np.dtype(np.int32): GgmlType.I32}
# What a product loses beyond the weights' own rounding: activations are rounded to BF16, F16, or blocks of 8 bits.
ACTIVATION_ERROR = {GgmlType.F32: 1e-5, GgmlType.F16: 1e-3, GgmlType.BF16: 5e-3}
BLOCK_ACTIVATION_ERROR = 2e-2


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def run(backend: Backend, build: Callable[..., Tensor], *inputs: Array) -> Array:
    """Build a graph whose inputs are these arrays, compute it, copy the result."""
    g = Graph(backend, max_nodes=256)
    leaves = [g.input(*values.shape, type=TYPES[values.dtype]) for values in inputs]
    y = g.output(build(g, *leaves))
    g.allocate()
    for leaf, values in zip(leaves, inputs, strict=True):
        g.host_array(leaf)[...] = values
    g.compute()
    result = g.host_array(y)
    assert result.shape == y.shape
    return np.array(result)


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def close(found: Array, expected: Array, tolerance: float = 1e-5) -> bool:
    return relative_error(found, expected) <= tolerance


# -- arithmetic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda g, x: g.square(x), np.square),
        (lambda g, x: g.sin(x), np.sin),
        (lambda g, x: g.sqrt(g.square(x)), np.abs),
        (lambda g, x: g.log(g.scale(g.square(x), 1.0, 1.0)), lambda x: np.log(x * x + 1)),
        (lambda g, x: g.step(x), lambda x: (x > 0).astype(np.float32)),
        (lambda g, x: g.scale(x, -2.5, 0.5), lambda x: -2.5 * x + 0.5),
        (lambda g, x: g.relu(x), lambda x: np.maximum(x, 0)),
        (lambda g, x: g.elu(x), lambda x: np.where(x > 0, x, np.expm1(x))),
        (lambda g, x: g.sigmoid(x), lambda x: 1 / (1 + np.exp(-x))),
        (lambda g, x: g.tanh(x), np.tanh),
        (lambda g, x: g.clamp(g.scale(x, 1.0), -0.5, 0.25), lambda x: np.clip(x, -0.5, 0.25)),
        (lambda g, x: g.sum(x), lambda x: x.sum(axis=-1, keepdims=True)),
        (lambda g, x: g.mean(x), lambda x: x.mean(axis=-1, keepdims=True)),
        (lambda g, x: g.cumsum(x), lambda x: np.cumsum(x, axis=-1)),
    ],
)
def test_elementwise_and_reductions(
    backend: Backend, rng: np.random.Generator, build: Callable[..., Tensor], expected: Callable[[Array], Array]
) -> None:
    x = normal(rng, 3, 5, 33)
    assert close(run(backend, build, x), expected(x))


def test_gelu_is_the_exact_one(backend: Backend, rng: np.random.Generator) -> None:
    from math import erf

    x = normal(rng, 4, 32)
    expected = np.array([value * 0.5 * (1 + erf(value / 2**0.5)) for value in x.reshape(-1)], np.float32).reshape(4, 32)
    assert close(run(backend, lambda g, x: g.gelu(x), x), expected)


def test_the_step_at_zero_is_zero(backend: Backend) -> None:
    x = np.array([[-1, -0.0, 0, 1e-30, 2]], np.float32)
    assert run(backend, lambda g, x: g.step(x), x).tolist() == [[0, 0, 0, 1, 1]]


@pytest.mark.parametrize("shape", [(3, 5, 8), (1, 5, 8), (5, 8), (8,), (1, 1), (3, 5, 1)])
def test_add_sub_and_mul_repeat_the_second_operand(
    backend: Backend, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    x, y = normal(rng, 3, 5, 8), normal(rng, *shape)
    assert close(run(backend, lambda g, x, y: g.add(x, y), x, y), x + y)
    assert close(run(backend, lambda g, x, y: g.sub(x, y), x, y), x - y)
    assert close(run(backend, lambda g, x, y: g.mul(x, y), x, y), x * y)


def test_norms_and_softmax(backend: Backend, rng: np.random.Generator) -> None:
    x, weight, bias = normal(rng, 4, 3, 64), normal(rng, 64), normal(rng, 64)
    expected = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-3) * weight
    assert close(run(backend, lambda g, x, w: g.rms_norm(x, w, 1e-3), x, weight), expected)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * weight + bias
    assert close(run(backend, lambda g, x, w, b: g.layer_norm(x, w, b, 1e-3), x, weight, bias), expected)
    expected = np.exp(x - x.max(-1, keepdims=True))
    expected /= expected.sum(-1, keepdims=True)
    assert close(run(backend, lambda g, x: g.softmax(x), x), expected)


def test_silu_gate(backend: Backend, rng: np.random.Generator) -> None:
    gate, up = normal(rng, 4, 32), normal(rng, 4, 32)
    both = np.concatenate([gate, up], axis=1)
    assert close(run(backend, lambda g, x: g.silu_gate(x), both), gate / (1 + np.exp(-gate)) * up)


# -- layout ------------------------------------------------------------------------------------------------------------


def test_reshape_rows_and_row(backend: Backend, rng: np.random.Generator) -> None:
    x = normal(rng, 6, 4, 8)
    assert np.array_equal(run(backend, lambda g, x: g.scale(g.reshape(x, 24, 8), 1.0), x), x.reshape(24, 8))
    assert np.array_equal(run(backend, lambda g, x: g.scale(g.rows(x, 2, 5), 1.0), x), x[2:5])
    assert np.array_equal(run(backend, lambda g, x: g.scale(g.row(x, 3), 1.0), x), x[3])


def test_a_view_may_overlap_itself(backend: Backend, rng: np.random.Generator) -> None:
    x = normal(rng, 10, 4)
    windows = np.lib.stride_tricks.sliding_window_view(x.reshape(-1), 12)[::4]  # three rows side by side
    found = run(backend, lambda g, x: g.contiguous(g.view(x, (8, 12), (4, 1))), x)
    assert np.array_equal(found, windows)
    found = run(backend, lambda g, x: g.contiguous(g.view(x, (2, 3, 4), (12, 4, 1), 8)), x)
    assert np.array_equal(found, x[2:8].reshape(2, 3, 4))


def test_linear_on_an_overlapping_view_is_a_convolution(backend: Backend, rng: np.random.Generator) -> None:
    x, kernel = normal(rng, 12, 8), normal(rng, 5, 8, 3)
    weight = np.ascontiguousarray(kernel.transpose(0, 2, 1)).reshape(5, 24)
    found = run(backend, lambda g, w, x: g.linear(w, g.view(x, (10, 24), (8, 1))), weight, x)
    expected = np.array([[(kernel[o].T * x[t : t + 3]).sum() for o in range(5)] for t in range(10)], np.float32)
    assert close(found, expected)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_transpose_of_three_axes(backend: Backend, rng: np.random.Generator, axes: tuple[int, ...]) -> None:
    x = normal(rng, 3, 4, 8)
    found = run(backend, lambda g, x: g.contiguous(g.transpose(x, *axes)), x)
    assert np.array_equal(found, x.transpose(axes))


def test_transpose_of_two_and_four_axes(backend: Backend, rng: np.random.Generator) -> None:
    x = normal(rng, 3, 8)
    assert np.array_equal(run(backend, lambda g, x: g.contiguous(g.transpose(x, 1, 0)), x), x.T)
    x = normal(rng, 2, 3, 4, 5)
    for axes in (3, 1, 0, 2), (1, 3, 2, 0):
        found = run(backend, lambda g, x, axes=axes: g.contiguous(g.transpose(x, *axes)), x)
        assert np.array_equal(found, x.transpose(axes))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concat_on_each_axis(backend: Backend, rng: np.random.Generator, axis: int) -> None:
    parts = [normal(rng, 2, 3, 4) for _ in range(3)]
    found = run(backend, lambda g, *parts: g.concat(parts, axis), *parts)
    assert np.array_equal(found, np.concatenate(parts, axis=axis))


def test_concat_of_unequal_parts(backend: Backend, rng: np.random.Generator) -> None:
    parts = [normal(rng, n, 8) for n in (1, 4, 2)]
    assert np.array_equal(run(backend, lambda g, *parts: g.concat(parts), *parts), np.concatenate(parts))


def test_a_graph_that_was_cut_computes_the_same_and_asks_before_each_part(
    backend: Backend, rng: np.random.Generator
) -> None:
    values = rng.standard_normal((4, 64), np.float32)
    g = Graph(backend)
    x = y = g.input(4, 64)
    for _ in range(3):
        y = g.expand(g.scale(g.add(y, x), 0.5))  # memory is used again from part to part
        g.cut()
    y = g.output(g.scale(y, -1.0))
    g.allocate()
    asked: list[int] = []
    for _ in range(2):
        g.host_array(x)[...] = values
        g.compute(lambda: asked.append(1))
        assert np.array_equal(g.host_array(y), -values)
    assert len(asked) == 2 * 4


@pytest.mark.parametrize(("left", "right"), [(0, 0), (3, 0), (0, 5), (7, 7)])
def test_reflect_pad(backend: Backend, rng: np.random.Generator, left: int, right: int) -> None:
    x = normal(rng, 3, 8)
    found = run(backend, lambda g, x: g.reflect_pad(x, left, right), x)
    assert np.array_equal(found, np.pad(x, ((0, 0), (left, right)), mode="reflect"))


def test_set_rows_writes_the_named_rows(backend: Backend, rng: np.random.Generator) -> None:
    target, source, indices = normal(rng, 6, 8), normal(rng, 2, 8), np.array([4, 1], np.int32)
    found = run(backend, lambda g, t, s, i: g.scale(g.set_rows(t, s, i), 1.0), target, source, indices)
    expected = target.copy()
    expected[indices] = source
    assert np.array_equal(found, expected)


def test_lookup_repeats_and_reorders_rows(backend: Backend, rng: np.random.Generator) -> None:
    table, ids = normal(rng, 9, 32), np.array([8, 0, 3, 3], np.int32)
    assert np.array_equal(run(backend, lambda g, t, i: g.lookup(t, i), table, ids), table[ids])
    numbers = np.arange(7, dtype=np.int32).reshape(7, 1) * 10
    found = run(backend, lambda g, t, i: g.lookup(t, i), numbers, np.array([6, 2], np.int32))
    assert found.tolist() == [[60], [20]] and found.dtype == np.int32


@pytest.mark.parametrize("type", BLOCK_TYPES, ids=lambda type: type.name)
def test_lookup_in_a_table_of_any_type(backend: Backend, rng: np.random.Generator, type: GgmlType) -> None:
    blocks = quantize_rows(normal(rng, 6, 256), type)
    weights = Weights(backend, 8)
    table = weights.mapped(blocks.reshape(-1), (6, 256), type)
    found = run(backend, lambda g, ids: g.lookup(table, ids), np.array([5, 0], np.int32))
    assert np.array_equal(found, dequantize_rows(blocks[[5, 0]], type))


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_argmax(backend: Backend, rng: np.random.Generator) -> None:
    x = normal(rng, 5, 300)
    assert np.array_equal(run(backend, lambda g, x: g.argmax(x), x), x.argmax(axis=1))


def test_halves_are_rounded_as_numpy_rounds_them() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_003, np.uint32)
    corners = np.array([0.0, -0.0, 65504, 65519.9, 65520, 6e-8, 2.9e-8], np.float32)
    values = np.concatenate([bits.view(np.float32), corners])
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        assert np.array_equal(as_float16(values).view(np.uint16), values.astype(np.float16).view(np.uint16))


@pytest.mark.parametrize("k", [1, 2, 50, 299, 300])
def test_top_k_is_the_set_of_the_largest(backend: Backend, rng: np.random.Generator, k: int) -> None:
    x = normal(rng, 3, 300)
    found = run(backend, lambda g, x: g.top_k(x, k), x)
    assert [set(row) for row in found.tolist()] == [set(row) for row in np.argsort(-x)[:, :k].tolist()]


def test_argsort_descending(backend: Backend, rng: np.random.Generator) -> None:
    x = normal(rng, 2, 300)
    assert np.array_equal(run(backend, lambda g, x: g.argsort_descending(x), x), np.argsort(-x))


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", BLOCK_TYPES, ids=lambda type: type.name)
@pytest.mark.parametrize("n_rows", [1, 7])
def test_linear_with_weights_of_every_type(
    backend: Backend, rng: np.random.Generator, type: GgmlType, n_rows: int
) -> None:
    blocks = quantize_rows(normal(rng, 24, 512), type)
    x, bias = normal(rng, n_rows, 512), normal(rng, 24)
    weights = Weights(backend, 8)
    weight = weights.mapped(blocks.reshape(-1), (24, 512), type)
    found = run(backend, lambda g, x, b: g.linear(weight, x, b), x, bias)
    expected = x @ dequantize_rows(blocks, type).T + bias
    assert close(found, expected, ACTIVATION_ERROR.get(type, BLOCK_ACTIVATION_ERROR))


def test_linear_of_more_than_two_dimensions(backend: Backend, rng: np.random.Generator) -> None:
    weight, x = normal(rng, 6, 32), normal(rng, 2, 3, 32)
    assert close(run(backend, lambda g, w, x: g.linear(w, x), weight, x), x @ weight.T)


@pytest.mark.parametrize("type", [GgmlType.Q4_0, GgmlType.Q4_K], ids=lambda type: type.name)
@pytest.mark.parametrize("n_rows", [1, 5, 16])
def test_repacked_weights_give_what_mapped_ones_give(
    backend: Backend, rng: np.random.Generator, type: GgmlType, n_rows: int
) -> None:
    blocks = quantize_rows(normal(rng, 32, 512), type).reshape(-1)
    x = normal(rng, n_rows, 512)
    weights = Weights(backend, 8)
    mapped, repacked = weights.mapped(blocks, (32, 512), type), weights.matrix(blocks, (32, 512), type)
    assert repacked.placement == ("CPU_REPACK" if "CPU_REPACK" in extra_buffer_types() else "")
    assert not repacked.placement or repacked.struct.extra  # ggml's mark of a repacked tensor
    found = run(backend, lambda g, x: g.linear(repacked, x), x)
    assert close(found, run(backend, lambda g, x: g.linear(mapped, x), x), 1e-5)


@pytest.mark.parametrize(
    ("shape", "type"),
    [((32, 512), GgmlType.Q8_0), ((32, 512), GgmlType.Q6_K), ((12, 512), GgmlType.Q4_0), ((2, 16, 64), GgmlType.Q4_0)],
)
def test_what_cannot_be_repacked_is_not_and_works_mapped(
    backend: Backend, rng: np.random.Generator, shape: tuple[int, ...], type: GgmlType
) -> None:
    blocks = quantize_rows(normal(rng, int(np.prod(shape[:-1])), shape[-1]), type)
    weights = Weights(backend, 8)
    assert not backend.placement(shape, type)
    weight = weights.mapped(blocks.reshape(-1), shape, type)
    x = normal(rng, *shape[:-2], 3, shape[-1])
    expected = x @ dequantize_rows(blocks, type).reshape(shape).swapaxes(-1, -2)
    assert close(run(backend, lambda g, x: g.linear(weight, x), x), expected, BLOCK_ACTIVATION_ERROR)


@pytest.mark.parametrize("outermost", [False, True])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_mix_sums_overlapping_rows(rng: np.random.Generator, outermost: bool, n_threads: int) -> None:
    rows, coefficients = normal(rng, 11, 20), normal(rng, 4, 3)
    windows = np.stack([rows[2 * t : 2 * t + 4] for t in range(4)])  # [T, K, E]
    expected = np.einsum("kn,tke->nte" if outermost else "kn,tke->tne", coefficients, windows)

    def build(g: Graph, x: Tensor, c: Tensor) -> Tensor:
        mixed = g.mix(g.view(x, windows.shape, (2 * 20, 20, 1)), c, outermost=outermost)
        return g.scale(mixed, 1.0)  # as an operation that wants it contiguous sees it

    assert close(run(Backend(n_threads), build, rows, coefficients), expected)


def test_rope_rotates_halves(backend: Backend, rng: np.random.Generator) -> None:
    x, positions, theta = normal(rng, 5, 3, 16), np.array([0, 1, 7, 100, 5000], np.int32), 10_000.0
    angles = positions[:, None] * theta ** (-np.arange(8) / 8)  # [T, head_dim / 2]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :8], x[..., 8:]
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(np.float32)
    found = run(backend, lambda g, x, p: g.rope(x, p, theta), x, positions)
    assert close(found, expected, 1e-3)  # ggml raises theta to each power by repeated products
    assert close(found[:3], expected[:3], 1e-5)


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("n_queries", [1, 6])
def test_attention(backend: Backend, rng: np.random.Generator, n_queries: int, masked: bool, n_kv_heads: int) -> None:
    q, k, v = normal(rng, 4, n_queries, 32), normal(rng, n_kv_heads, 9, 32), normal(rng, n_kv_heads, 9, 32)
    mask = np.where(np.arange(9) <= np.arange(n_queries)[:, None] + 2, 0, -np.inf).astype(np.float16)
    scale = 32**-0.5
    keys, values = (np.repeat(each, 4 // n_kv_heads, axis=0) for each in (k, v))
    scores = scale * q @ keys.swapaxes(1, 2) + (mask.astype(np.float32) if masked else 0)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (p / p.sum(-1, keepdims=True) @ values).transpose(1, 0, 2)

    def build(g: Graph, q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> Tensor:
        return g.attention(q, k, v, mask[0] if mask else None, scale)

    assert close(run(backend, build, q, k, v, *([mask] if masked else [])), expected)


# -- custom nodes, memory, several computations ------------------------------------------------------------------------


def test_a_custom_node_is_computed_by_python_from_ggmls_threads(backend: Backend, rng: np.random.Generator) -> None:
    g = Graph(backend, max_nodes=16)
    x = g.input(8, 4)
    doubled = g.scale(x, 2.0)
    calls: list[tuple[int, int, int]] = []

    def reversed_rows(output: NDArray[np.float32], task: int, n_tasks: int) -> None:
        calls.append((task, n_tasks, threading.get_ident()))
        output[task::n_tasks] = g.host_array(doubled)[::-1][task::n_tasks]

    y = g.output(g.scale(g.custom(reversed_rows, doubled, (8, 4), n_tasks=2), 0.5))
    g.output(doubled)
    g.allocate()
    g.host_array(x)[...] = normal(rng, 8, 4)
    for _ in range(2):  # the callback is kept
        g.compute()
        assert np.array_equal(g.host_array(y), g.host_array(x)[::-1])
    assert sorted({call[:2] for call in calls}) == [(0, 2), (1, 2)]
    assert len(calls) == 4 and len({call[2] for call in calls}) == 2


def test_a_custom_node_has_a_shape_of_its_own(backend: Backend, rng: np.random.Generator) -> None:
    x = normal(rng, 3, 4)

    def build(g: Graph, x: Tensor) -> Tensor:
        def padded(output: NDArray[np.float32], task: int, n_tasks: int) -> None:
            if task == 0:
                output[...] = np.pad(g.host_array(x), ((2, 1), (0, 0)))

        return g.custom(padded, x, (6, 4), n_tasks=1)

    assert np.array_equal(run(backend, build, x), np.pad(x, ((2, 1), (0, 0))))


def test_inputs_are_zero_at_first_and_keep_their_value(backend: Backend, rng: np.random.Generator) -> None:
    g = Graph(backend, max_nodes=64)
    x, y = g.input(4, 8), g.input(4, 8)
    total = x
    for _ in range(10):  # intermediate results are laid over each other, never over an input
        total = g.add(g.scale(total, 0.5), y)
    g.output(total)
    g.allocate()
    assert not g.host_array(x).any() and not g.host_array(y).any()
    values = normal(rng, 4, 8)
    g.host_array(x)[...] = values
    g.host_array(y)[...] = values
    g.compute()
    first = g.host_array(total).copy()
    g.compute()
    assert np.array_equal(g.host_array(total), first)
    assert np.array_equal(g.host_array(x), values) and np.array_equal(g.host_array(y), values)


def test_a_copy_into_an_input_is_there_at_the_next_computation(backend: Backend) -> None:
    g = Graph(backend, max_nodes=16)
    state, x = g.input(3, 4), g.input(1, 4)
    window = g.concat([state, x])
    g.expand(g.copy(g.rows(window, 1, 4), state))
    total = g.output(g.sum(window))
    g.allocate()
    history = np.zeros((3, 4), np.float32)
    for step in range(1, 6):
        g.host_array(x)[...] = step
        g.compute()
        whole = np.concatenate([history, np.full((1, 4), step, np.float32)])
        assert np.array_equal(g.host_array(total), whole.sum(axis=1, keepdims=True))
        history = whole[1:]
        assert np.array_equal(g.host_array(state), history)


def test_set_rows_into_an_input_persists(backend: Backend) -> None:
    g = Graph(backend, max_nodes=16)
    ring, x, row = g.input(4, 8), g.input(1, 8), g.input(1, type=GgmlType.I32)
    total = g.output(g.sum(g.set_rows(ring, x, row)))
    g.allocate()
    for step in range(6):
        g.host_array(x)[...] = step
        g.host_array(row)[0] = step % 4
        g.compute()
    assert g.host_array(ring)[:, 0].tolist() == [4, 5, 2, 3]
    assert g.host_array(total)[:, 0].tolist() == [32, 40, 16, 24]


@pytest.mark.parametrize("offset", [0, 1, 4, 31])
def test_weights_need_no_alignment(backend: Backend, rng: np.random.Generator, offset: int) -> None:
    values = normal(rng, 3, 32)
    room = np.zeros(values.nbytes + 64, np.uint8)
    room[offset : offset + values.nbytes] = values.view(np.uint8).reshape(-1)
    weights = Weights(backend, 4)
    weight = weights.mapped(room[offset : offset + values.nbytes], values.shape, GgmlType.F32)
    x = normal(rng, 2, 32)
    assert close(run(backend, lambda g, x: g.linear(weight, x), x), x @ values.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_an_array_is_kept_alive_as_a_weight(backend: Backend, dtype: Any) -> None:
    weights = Weights(backend, 4)
    table = weights.array(np.arange(12).reshape(4, 3).astype(dtype))
    found = run(backend, lambda g, ids: g.lookup(table, ids), np.array([3, 0], np.int32))
    assert found.tolist() == [[9, 10, 11], [0, 1, 2]]


# x is [4, 8]. What reaches ggml aborts the whole process, so another one tries these.
MISFITS = """
g.linear(x, g.input(3, 5))
g.linear(g.input(3, 5, 8), g.input(2, 4, 8))
g.reshape(x, 5, 5)
g.view(x, (4, 9), (8, 1))
g.rows(x, 2, 5)
g.transpose(x, 0, 0)
g.copy(x, g.input(4, 7))
g.set_rows(x, g.input(2, 8), g.input(3, type=GgmlType.I32))
g.reflect_pad(x, 8, 0)
g.rope(x, g.input(4, type=GgmlType.I32), 1e4)
g.attention(g.input(3, 1, 8), g.input(2, 4, 8), g.input(2, 4, 8), None, 1.0)
g.add(x, g.input(3, 8))
g.sub(x, g.input(5))
g.mul(g.input(8), x)
g.concat([x, g.input(4, 7)])
g.lookup(x, g.input(2))
g.lookup(x, g.input(2, 2, type=GgmlType.I32))
g.silu_gate(g.input(4, 7))
g.rms_norm(x, g.input(7), 1e-5)
g.layer_norm(x, g.input(8), g.input(7), 1e-5)
g.top_k(x, 9)
g.argmax(g.input(2, 4, 8))
"""


def test_shapes_that_do_not_fit_are_an_assertion_and_not_an_abort() -> None:
    code = f"""
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.types import GgmlType
backend = Backend(1)
for build in {MISFITS!r}.strip().splitlines():
    print(build, flush=True)
    g = Graph(backend, max_nodes=16)
    x = g.input(4, 8)
    try:
        eval(build)
    except AssertionError:
        continue
    raise SystemExit("no assertion")
"""
    environment = {
        **os.environ,
        "GGML_NO_BACKTRACE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout.splitlines()[-1]


def test_results_do_not_depend_on_the_number_of_threads(rng: np.random.Generator) -> None:
    weight, x = normal(rng, 64, 256), normal(rng, 33, 256)
    one, three = (run(Backend(n), lambda g, w, x: g.linear(w, x), weight, x) for n in (1, 3))
    assert np.array_equal(one, three)
