"""Networks as ggml graphs, written in NumPy's terms.

    backend = Backend(n_threads=2)                     # device.py
    weights = Weights(backend)
    w = weights.array(np.ones((3, 4), np.float32))     # [out, in]
    g = Graph(backend)
    x = g.input(2, 4)                                  # [rows, in]
    y = g.output(g.linear(w, x))                       # [rows, out]
    g.allocate()
    g.set(x, 1)
    g.compute()
    g.get(y)                                           # a copy of the result

Shapes run from the slowest dimension to the fastest, as in NumPy; only this file knows ggml's `ne` and `nb`, which run
the other way. A graph is built once and computed many times. Its inputs keep their value between computations, so a
constant one is set once.

ggml aborts the process when shapes do not fit, so each operation asserts what it needs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from . import api
from .computation import Computation
from .device import Shape, Tensor
from .types import GgmlType

__all__ = ["Graph"]

CustomFunction = Callable[[NDArray[np.float32], int, int], None]

_EVERY_THREAD = -1  # GGML_N_TASKS_MAX


class Graph(Computation):
    """A computation built once: inputs, operations, outputs, `allocate`, then `compute` as often as wanted.

    Where a device lacks an operation, some are put together from others; `allocate` raises DeviceError for the rest.
    """

    # -- layout --------------------------------------------------------------------------------------------------------

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """One size may be -1: what is left."""
        shape = tuple(n if n >= 0 else prod(x.shape) // -prod(shape) for n in shape)
        assert prod(shape) == prod(x.shape), (x, shape)
        return self._node(api.reshape_4d(self._nodes.pointer, x.pointer, *_ne(shape)), shape, x.type)

    def view(self, x: Tensor, shape: Shape, strides: Shape, offset: int = 0) -> Tensor:
        """A window on a contiguous `x`, with strides and offset counted in values; rows may overlap (ggml's own
        constructors refuse that, its kernels do not)."""
        size, block = x.type.block_bytes, x.type.block_size
        assert strides[-1] == 1 and offset % block == 0
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        assert last < prod(x.shape), (x, shape, strides, offset)
        node = self._node(api.view_1d(self._nodes.pointer, x.pointer, block, offset // block * size), shape, x.type)
        struct = node.struct
        struct.ne[:] = _ne(shape)
        byte_strides = [size, *(stride // block * size for stride in reversed(strides[:-1]))]
        while len(byte_strides) < api.MAX_DIMS:
            byte_strides.append(byte_strides[-1] * struct.ne[len(byte_strides) - 1])
        struct.nb[:] = byte_strides
        return node

    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """x[start:stop] of a contiguous `x`."""
        row = prod(x.shape[1:])
        shape = (stop - start, *x.shape[1:])
        return self.view(x, shape, _contiguous_strides(shape), start * row)

    def columns(self, x: Tensor, start: int, *shape: int) -> Tensor:
        """Some columns of a contiguous x [.., C], from `start` on, each row's as `shape` -> [.., *shape]"""
        assert start + prod(shape) <= x.shape[-1], (x, start, shape)
        strides = (*_contiguous_strides(x.shape)[:-1], *_contiguous_strides(shape))
        return self.view(x, (*x.shape[:-1], *shape), strides, start)

    def row(self, x: Tensor, index: int) -> Tensor:
        """x[index] of a contiguous `x` of two dimensions or more."""
        return self.view(x, x.shape[1:], _contiguous_strides(x.shape[1:]), index * prod(x.shape[1:]))

    def transpose(self, x: Tensor, *axes: int) -> Tensor:
        """np.transpose without moving data."""
        n = len(x.shape)
        assert sorted(axes) == list(range(n))
        to = list(range(api.MAX_DIMS))  # ggml names, per source dimension, where it goes, counted from the fastest
        for target, source in enumerate(axes):
            to[n - 1 - source] = n - 1 - target
        node = api.permute(self._nodes.pointer, x.pointer, *to)
        return self._node(node, tuple(x.shape[axis] for axis in axes), x.type)

    def contiguous(self, x: Tensor) -> Tensor:
        return self._node(api.cont(self._nodes.pointer, x.pointer), x.shape, x.type)

    def concat(self, parts: Sequence[Tensor], axis: int = 0) -> Tensor:
        whole = parts[0]
        for part in parts[1:]:
            shape = list(whole.shape)
            others = [size for i, size in enumerate(shape) if i != axis % len(shape)]
            assert others == [n for i, n in enumerate(part.shape) if i != axis % len(shape)], (whole, part, axis)
            shape[axis] += part.shape[axis]
            dimension = len(shape) - 1 - axis % len(shape)
            node = api.concat(self._nodes.pointer, whole.pointer, part.pointer, dimension)
            whole = self._node(node, tuple(shape), whole.type)
        return whole

    def copy(self, source: Tensor, target: Tensor) -> Tensor:
        """Write `source` into the memory of `target`; runs where the result is expanded."""
        assert prod(source.shape) == prod(target.shape), (source, target)
        return self._node(api.cpy(self._nodes.pointer, source.pointer, target.pointer), target.shape, target.type)

    def set_rows(self, target: Tensor, source: Tensor, indices: Tensor) -> Tensor:
        """target[.., indices[.., i], :] = source[.., i, :], for int32 indices [.., n]; the result is `target` then."""
        assert source.shape == (*indices.shape, target.shape[-1]), (target, source, indices)
        assert target.shape[:-2] == indices.shape[:-1], (target, indices)
        node = api.set_rows(self._nodes.pointer, target.pointer, source.pointer, indices.pointer)
        return self._node(node, target.shape, target.type)

    def reflect_pad(self, x: Tensor, left: int, right: int) -> Tensor:
        """Mirror the last axis outward, edges not repeated."""
        assert x.shape[-1] > max(left, right), (x, left, right)
        node = api.pad_reflect_1d(self._nodes.pointer, x.pointer, left, right)
        return self._node(node, (*x.shape[:-1], x.shape[-1] + left + right))

    # -- arithmetic ----------------------------------------------------------------------------------------------------

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y, where y's shape repeats to fill x's."""
        assert _repeats(y.shape, x.shape), (x, y)
        return self._node(api.add(self._nodes.pointer, x.pointer, y.pointer), x.shape)

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        """x - y, where y's shape repeats to fill x's."""
        assert _repeats(y.shape, x.shape), (x, y)
        return self._node(api.sub(self._nodes.pointer, x.pointer, y.pointer), x.shape)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """x * y, where y's shape repeats to fill x's."""
        assert _repeats(y.shape, x.shape), (x, y)
        return self._node(api.mul(self._nodes.pointer, x.pointer, y.pointer), x.shape)

    def scale(self, x: Tensor, factor: float, bias: float = 0.0) -> Tensor:
        return self._node(api.scale_bias(self._nodes.pointer, x.pointer, factor, bias), x.shape)

    def sum(self, x: Tensor) -> Tensor:
        """Over the last axis, which stays with length 1."""
        return self._node(api.sum_rows(self._nodes.pointer, x.pointer), (*x.shape[:-1], 1))

    def mean(self, x: Tensor) -> Tensor:
        """Over the last axis, which stays with length 1."""
        return self._node(api.mean(self._nodes.pointer, x.pointer), (*x.shape[:-1], 1))

    def cumsum(self, x: Tensor) -> Tensor:
        """Along the last axis."""
        return self._node(api.cumsum(self._nodes.pointer, x.pointer), x.shape)

    def _unary(self, function: Callable[..., int], x: Tensor) -> Tensor:
        return self._node(function(self._nodes.pointer, x.pointer), x.shape)

    def square(self, x: Tensor) -> Tensor:
        return self._unary(api.sqr, x)

    def sqrt(self, x: Tensor) -> Tensor:
        return self._unary(api.sqrt, x)

    def sin(self, x: Tensor) -> Tensor:
        return self._unary(api.sin, x)

    def floor(self, x: Tensor) -> Tensor:
        return self._unary(api.floor, x)

    def log(self, x: Tensor) -> Tensor:
        return self._unary(api.log, x)

    def step(self, x: Tensor) -> Tensor:
        """1 where x > 0, else 0."""
        return self._unary(api.step, x)

    def sign(self, x: Tensor) -> Tensor:
        """1 where x > 0, -1 where x < 0, else 0."""
        return self._unary(api.sgn, x)

    # -- networks ------------------------------------------------------------------------------------------------------

    def relu(self, x: Tensor) -> Tensor:
        return self._unary(api.relu, x)

    def elu(self, x: Tensor) -> Tensor:
        return self._unary(api.elu, x)

    def sigmoid(self, x: Tensor) -> Tensor:
        return self._unary(api.sigmoid, x)

    def tanh(self, x: Tensor) -> Tensor:
        return self._unary(api.tanh, x)

    def gelu(self, x: Tensor) -> Tensor:
        """The exact one, by erf."""
        return self._unary(api.gelu_erf, x)

    def clamp(self, x: Tensor, low: float, high: float) -> Tensor:
        """In place: `x` itself must not be used after."""
        return self._node(api.clamp(self._nodes.pointer, x.pointer, low, high), x.shape)

    def silu_gate(self, gate_up: Tensor) -> Tensor:
        """gate_up [.., 2 * n], contiguous -> silu(first half) * second half [.., n]"""
        assert gate_up.shape[-1] % 2 == 0, gate_up
        shape = (*gate_up.shape[:-1], gate_up.shape[-1] // 2)
        node = self._node(api.swiglu(self._nodes.pointer, gate_up.pointer), shape)
        if self._is_supported(node):
            return node
        gate, up = (self.contiguous(self.columns(gate_up, start, shape[-1])) for start in (0, shape[-1]))
        return self.mul(self.mul(gate, self.sigmoid(gate)), up)

    def softmax(self, x: Tensor) -> Tensor:
        """Along the last axis."""
        return self._unary(api.soft_max, x)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed = self._node(api.rms_norm(self._nodes.pointer, x.pointer, eps), x.shape)
        return self.mul(normed, weight)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normed = self._node(api.norm(self._nodes.pointer, x.pointer, eps), x.shape)
        return self.add(self.mul(normed, weight), bias)

    def linear(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """weight [out, in], x [.., in] -> [.., out]"""
        assert weight.shape[-1] == x.shape[-1] and _repeats(weight.shape[:-2], x.shape[:-2]), (weight, x)
        node = api.mul_mat(self._nodes.pointer, weight.pointer, x.pointer)
        if not self.backend.on_host:
            api.prec_set_acc(node, api.PREC_F32)  # sums in float32; the CPU always has those
        y = self._node(node, (*x.shape[:-1], weight.shape[-2]))
        return y if bias is None else self.add(y, bias)

    def mix(self, x: Tensor, coefficients: Tensor, *, outermost: bool = False) -> Tensor:
        """Sums of whole rows: x [.., T, K, E] with rows anywhere, coefficients [K, N] -> y [.., T, N, E], or when
        `outermost` [N, .., T, E], with y[t, n] = sum over k of coefficients[k, n] x[t, k]. For few K and N, long E."""
        (*steps, n_in, width), n_out = x.shape, coefficients.shape[1]
        assert coefficients.shape[0] == n_in and x.type == coefficients.type == GgmlType.F32, (x, coefficients)
        same_for_all = self.view(coefficients, (*steps, n_in, n_out), (*(0 for _ in steps), n_out, 1))
        node = self._node(api.out_prod(self._nodes.pointer, x.pointer, same_for_all.pointer), (*steps, n_out, width))
        if outermost:  # the kernel writes row after row wherever the strides say
            node.shape = (n_out, *steps, width)
            row_bytes = width * x.type.block_bytes
            node.struct.nb[1:] = [prod(steps) * row_bytes, row_bytes, steps[-1] * row_bytes]
            return self.view(node, node.shape, _contiguous_strides(node.shape))
        return node

    def lookup(self, table: Tensor, ids: Tensor) -> Tensor:
        """table [.., n, width] of any type, ids int32 [.., k] -> float32 [.., k, width]; int32 from an int32 table"""
        assert table.shape[:-2] == ids.shape[:-1] and ids.type == GgmlType.I32, (table, ids)
        node = api.get_rows(self._nodes.pointer, table.pointer, ids.pointer)
        type = GgmlType.I32 if table.type == GgmlType.I32 else GgmlType.F32
        return self._node(node, (*ids.shape, table.shape[-1]), type)

    def rope(self, x: Tensor, positions: Tensor, theta: float) -> Tensor:
        """Rotate-half position embedding. x [.., T, heads, head_dim], positions int32 [T]"""
        assert len(x.shape) >= 3 and positions.shape == x.shape[-3:-2], (x, positions)
        head_dim = x.shape[-1]
        node = api.rope_ext(
            self._nodes.pointer, x.pointer, positions.pointer, None, head_dim, api.ROPE_TYPE_NEOX, 0,
            theta, 1.0, 0.0, 1.0, 0.0, 0.0,
        )  # fmt: skip
        return self._node(node, x.shape)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """q [.., H, T, D], k and v [.., H_kv, S, D], mask float16 [T, S] added to the scores -> [.., T, H, D]"""
        *lanes, heads, n_queries, head_dim = q.shape
        assert k.shape == v.shape and [*k.shape[:-3], k.shape[-1]] == [*lanes, head_dim], (q, k, v)
        assert heads % k.shape[-3] == 0, (q, k)
        assert mask is None or (mask.type == GgmlType.F16 and mask.shape == (n_queries, k.shape[-2])), (q, k, mask)
        node = api.flash_attn_ext(
            self._nodes.pointer, q.pointer, k.pointer, v.pointer, mask.pointer if mask else None, scale, 0.0, 0.0
        )
        if not self.backend.on_host:
            api.prec_set_acc(node, api.PREC_F32)
        y = self._node(node, (*lanes, n_queries, heads, head_dim))
        return y if self._is_supported(y) else self._plain_attention(q, k, v, mask, scale)

    def _plain_attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """`attention` by two products and a softmax."""
        lanes = range(n := len(q.shape) - 3)
        scores = self._linear_by_head(self.contiguous(k), self.contiguous(q))  # [.., H, T, S]
        node = api.soft_max_ext(self._nodes.pointer, scores.pointer, mask.pointer if mask else None, scale, 0.0)
        weights = self._node(node, scores.shape)
        by_dimension = self.contiguous(self.transpose(v, *lanes, n, n + 2, n + 1))  # [.., H_kv, D, S]
        y = self._linear_by_head(by_dimension, weights)  # [.., H, T, D]
        return self.contiguous(self.transpose(y, *lanes, n + 1, n, n + 2))

    def _linear_by_head(self, weight: Tensor, x: Tensor) -> Tensor:
        """weight [.., H_kv, out, in], x [.., H, T, in] -> [.., H, T, out]; H / H_kv heads in a row share a weight"""
        node = api.mul_mat(self._nodes.pointer, weight.pointer, x.pointer)
        api.prec_set_acc(node, api.PREC_F32)
        return self._node(node, (*x.shape[:-1], weight.shape[-2]))

    def _is_supported(self, x: Tensor) -> bool:
        """Whether the device computes this node. The CPU computes all."""
        return self.backend.on_host or self.backend.device.supports(x.pointer)

    def argmax(self, x: Tensor) -> Tensor:
        """x [n, width] -> int32 [n]"""
        assert len(x.shape) == 2, x
        return self._node(api.argmax(self._nodes.pointer, x.pointer), x.shape[:-1], GgmlType.I32)

    def top_k(self, x: Tensor, k: int) -> Tensor:
        """Indices of the k largest of the last axis, in no order. x [.., width] -> int32 [.., k]"""
        assert 0 < k <= x.shape[-1], (x, k)
        node = self._node(api.top_k(self._nodes.pointer, x.pointer, k), (*x.shape[:-1], k), GgmlType.I32)
        if self._is_supported(node):
            return node
        return self.contiguous(self.columns(self.argsort_descending(x), 0, k))

    def argsort_descending(self, x: Tensor) -> Tensor:
        """x [.., width] -> int32 [.., width]"""
        return self._node(api.argsort(self._nodes.pointer, x.pointer, api.SORT_ORDER_DESC), x.shape, GgmlType.I32)

    def custom(self, function: CustomFunction, x: Tensor, shape: Shape, n_tasks: int = _EVERY_THREAD) -> Tensor:
        """A node computed by Python: `function(output, task, n_tasks)` is called from each of ggml's threads. `x` is
        what must be ready before; the function reads it through `array`."""

        def call(target: int, task: int, tasks: int, _user_data: int) -> None:
            function(self.host_array(Tensor(target, shape)), task, tasks)

        callback = api.CustomOp(call)
        self._callbacks.append(callback)
        arguments, address = (ctypes.c_void_p * 1)(x.pointer), ctypes.cast(callback, ctypes.c_void_p)
        node = api.custom_4d(self._nodes.pointer, GgmlType.F32, *_ne(shape), arguments, 1, address, n_tasks, None)
        return self._node(node, shape)


def _repeats(shape: Shape, whole: Shape) -> bool:
    """Whether an array of this shape, repeated, fills the whole."""
    return all(n % m == 0 for n, m in zip(_ne(whole), _ne(shape), strict=True))


def _ne(shape: Shape) -> tuple[int, int, int, int]:
    """The four sizes ggml wants, fastest first."""
    padded = (*reversed(shape), 1, 1, 1, 1)[: api.MAX_DIMS]
    return padded[0], padded[1], padded[2], padded[3]


def _contiguous_strides(shape: Shape) -> Shape:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
