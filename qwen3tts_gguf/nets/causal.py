"""Layers that go on where they stopped: causal convolutions, and SnakeBeta between them, with a memory of the past.

    padded  [n + T, C]    the last n rows of the past, and the new ones
    windows [T, k * C]    k rows end to end, one window for each new row; they overlap in memory, nothing is copied
    y       [T, out]      a convolution is the product of windows and weight

What a layer remembers lies in a `Memory`, not in the graph: graphs for one and for four frames at once share it.

Rows are what the time goes into here, 1920 a frame in the end, so how ggml multiplies decides (benchmarks/LOG.md):

- Where rows are many, a residual unit's convolution is computed at points (winograd.py), in float32: with less than a
  third of the multiplications. Where they are few its weights take the time, and it is a product with windows.
- A dilated convolution is a plain one on every dilation-th row: split time into phases, convolve, join. At points, the
  rows of all phases that belong together lie in memory one after another, and nothing is split.
- An elementwise operation computes addresses anew for each row. So narrow rows are taken many at a time, and vectors
  of a value a channel are stored as often as fits: "tiled".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend, Tensor, Weights
from ..ggml.graph import Graph
from ..ggml.types import GgmlType
from .layers import WeightLoader, causal_windows, row_by_row
from .winograd import TILE, mixes

__all__ = ["FRAMES_AT_ONCE", "CausalGraph", "CausalLoader", "Conv", "Memory", "PointConv", "ResidualUnit", "Snake"]

FRAMES_AT_ONCE = 4
_MOST_VALUES = 2048  # of a tiled row
# sin^2(pi d) = c0 d^2 + c1 d^4 + ... for d in [-1/2, 1/2], fitted at Chebyshev nodes; off by 4.6e-7 at most.
_SINE_SQUARED = (9.86952175, -32.46503585, 42.64227604, -29.42110714, 10.57316894)
_TO_WHOLE = 1.5 * 2**23  # float32 this large have no fraction: adding it rounds to the nearest whole number


# -- weights -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """A causal convolution, or a transposed one, as a matrix on windows of k input rows."""

    weight: Tensor  # [out, k * in]; transposed: [stride * out, k * in]
    bias: Tensor  # [out], tiled
    k: int


@dataclass(frozen=True)
class PointConv:
    """A causal convolution computed at points, see winograd.py."""

    mix_before: Tensor  # [TILE + k - 1, POINTS]
    weight: Tensor  # [POINTS, out, in]
    mix_after: Tensor  # [POINTS, TILE]
    bias: Tensor  # [out], tiled


@dataclass(frozen=True)
class Snake:
    """x + beta * sin^2(alpha * x); the file holds e^alpha and 1 / (e^beta + 1e-9)."""

    alpha_turns: Tensor  # [C], alpha / pi, tiled
    beta: Tensor  # [C], tiled


@dataclass(frozen=True)
class ResidualUnit:
    """x + conv2(snake(conv1(snake(x))))"""

    act1: Snake
    conv1: Conv | PointConv  # k 7, dilated
    dilation: int
    act2: Snake
    conv2: Conv  # k 1


class CausalLoader:
    """Reads the layers of one stage, where a frame has `rows` rows. dtype: what products with windows compute in."""

    def __init__(self, load: WeightLoader, rows: int, dtype: Any) -> None:
        self._load, self._rows, self._dtype = load, rows, dtype

    def at(self, prefix: str) -> CausalLoader:
        """The same, one level further down."""
        return CausalLoader(self._load.at(prefix), self._rows, self._dtype)

    def conv(self) -> Conv:
        _, _, k = self._load.shape("weight")
        return Conv(self._load.conv("weight", self._dtype), self._tiled(self._load.values("bias")), k)

    def transposed_conv(self, stride: int) -> Conv:
        """`rows` are those it puts out."""
        k = self._load.shape("weight")[2]
        weight = self._load.transposed_conv("weight", stride, self._dtype)
        return Conv(weight, self._tiled(self._load.values("bias")), k // stride)

    def one_channel_conv(self) -> Conv:
        """A convolution with one output channel, for `CausalGraph.one_channel`."""
        kernel = self._load.values("weight").astype(np.float32)  # [1, in, k]
        row = kernel.transpose(0, 2, 1).reshape(1, -1)
        weight = self._load.array(np.repeat(row, 2, axis=0))
        return Conv(weight, self._tiled(self._load.values("bias")), kernel.shape[2])

    def snake(self) -> Snake:
        alpha, beta = self._load.values("alpha"), self._load.values("beta")
        return Snake(self._tiled(alpha / np.float32(np.pi)), self._tiled(beta))

    def residual_unit(self, dilation: int, *, at_points: bool) -> ResidualUnit:
        act1, act2 = self.at("act1").snake(), self.at("act2").snake()
        conv1 = self.at("conv1")
        return ResidualUnit(
            act1, conv1.point_conv() if at_points else conv1.conv(), dilation, act2, self.at("conv2").conv()
        )

    def point_conv(self) -> PointConv:
        mix = mixes(self._load.shape("weight")[2])
        mix_before, mix_after = (
            self._load.array(np.ascontiguousarray(m.T, np.float32)) for m in (mix.before, mix.after)
        )
        weight = self._load.mixed_conv("weight", mix.kernel)
        return PointConv(mix_before, weight, mix_after, self._tiled(self._load.values("bias")))

    def _tiled(self, values: NDArray[np.float32]) -> Tensor:
        fits = max(1, _MOST_VALUES // len(values))
        times = max(n for n in range(1, fits + 1) if self._rows % n == 0)
        return self._load.array(np.tile(values, times))


# -- the past ----------------------------------------------------------------------------------------------------------


class Memory:
    """What layers remember, in the order they are built in. The graph built first has the most rows at once."""

    def __init__(self, backend: Backend) -> None:
        self._weights = Weights(backend)
        self._layers: list[tuple[Tensor, NDArray[np.float32], int]] = []  # tensor, its values, rows of the past

    def layer(self, i: int, n_past: int, n_rows: int, width: int) -> Tensor:
        """[at least n_rows, width], zero at first; the past are the first n_past rows."""
        if i == len(self._layers):
            tensor, values = self._weights.empty((n_rows, width), np.float32)
            values[...] = 0
            self._layers.append((tensor, values, n_past))
        tensor, _, known_past = self._layers[i]
        assert known_past == n_past and tensor.shape[0] >= n_rows and tensor.shape[1] == width, (
            i,
            tensor,
            n_past,
            n_rows,
        )
        return tensor

    def arrays(self) -> list[NDArray[np.float32]]:
        """All of the past, one array a layer, to read and to write."""
        return [values[:n_past] for _, values, n_past in self._layers]


# -- the graphs --------------------------------------------------------------------------------------------------------


class CausalGraph:
    """Base of a graph of such layers. Its layers ask for their memory in the order they are built."""

    def __init__(self, backend: Backend, memory: Memory, n_frames: int) -> None:
        self.g = Graph(backend)
        self._memory = memory
        self._n_frames = n_frames
        self._n_layers = 0
        self._padded_inputs: list[tuple[Tensor, int, int]] = []  # [n + T ..]: n rows of the past, T new ones

    def past(self, n: int, width: int) -> Tensor:
        """[n, width] for a layer that moves its past on by itself."""
        return self._remembered(n, n, width)

    def _remembered(self, n_past: int, n_rows: int, width: int) -> Tensor:
        tensor = self._memory.layer(self._n_layers, n_past, n_rows, width)
        self._n_layers += 1
        return self.g.rows(tensor, 0, n_rows)

    def finish(self, output: Tensor) -> Tensor:
        """After the last layer: move all pasts on, and give the graph its memory."""
        g = self.g
        g.output(output)
        for padded, n, n_new in self._padded_inputs:
            last = g.rows(padded, n_new, n_new + n)
            g.expand(g.copy(g.contiguous(last), g.rows(padded, 0, n)))  # by way of a copy: the two may overlap
        g.allocate()
        return output

    def linear(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """weight [out, in], x [T, in] -> [T, out], rounded alike for any T up to FRAMES_AT_ONCE."""
        g = self.g
        y = row_by_row(g, weight, x) if x.shape[0] <= FRAMES_AT_ONCE else g.linear(weight, x)
        return y if bias is None else g.add(y, bias)

    def padded(self, x: Tensor, n: int, n_more: int = 0) -> Tensor:
        """x [T, C] -> [n + T + n_more, C]: behind the last n rows of the past, before rows that mean nothing."""
        if n == n_more == 0:
            return x
        g, n_new = self.g, x.shape[0]
        padded = self._remembered(n, n + n_new + n_more, x.shape[1])
        self._padded_inputs.append((padded, n, n_new))
        g.expand(g.copy(x, g.rows(padded, n, n + n_new)))  # a tenth of the time of ggml's concat
        return padded

    def causal(self, conv: Conv, x: Tensor) -> Tensor:
        """x [T, in] -> [T, out]"""
        return self.conv(conv, self.padded(x, conv.k - 1))

    def conv(self, conv: Conv, padded: Tensor) -> Tensor:
        """padded [k - 1 + T, in] -> [T, out]"""
        return self._biased(self._product(conv, padded), conv.bias)

    def one_channel(self, conv: Conv, x: Tensor) -> Tensor:
        """x [T, in] -> [T, 1]. ggml's fast product makes no single column: windows come first, then two equal rows."""
        g, padded = self.g, self.padded(x, conv.k - 1)
        y = g.linear(causal_windows(g, padded, conv.k), conv.weight)  # [2, T]
        return self._biased(g.reshape(g.rows(y, 0, 1), x.shape[0], 1), conv.bias)

    def upscaled(self, conv: Conv, stride: int, padded: Tensor) -> Tensor:
        """padded [k - 1 + T, in] -> [stride * T, out]"""
        y = self._product(conv, padded)
        return self._biased(self.g.reshape(y, stride * y.shape[0], y.shape[1] // stride), conv.bias)

    def _product(self, conv: Conv, padded: Tensor) -> Tensor:
        windows = causal_windows(self.g, padded, conv.k)
        if windows.shape[0] == self._n_frames:  # one row where there is one frame
            return self.linear(conv.weight, windows)
        return self.g.linear(conv.weight, windows if conv.k == 1 else self._second(conv, windows))

    def _second(self, conv: Conv, windows: Tensor) -> Tensor:
        """As the second factor: for an F32 weight copied in full, since ggml will not copy them itself."""
        return self.g.contiguous(windows) if conv.weight.type == GgmlType.F32 else windows

    def residual(self, unit: ResidualUnit, x: Tensor) -> Tensor:
        g, conv1, conv2 = self.g, unit.conv1, unit.conv2
        y = self.snaked(unit.act1, x)
        if isinstance(conv1, PointConv):
            y = self._at_points(conv1, unit.dilation, y)
        else:
            y = self._in_phases(conv1, unit.dilation, y)
        y = self.conv(conv2, self.snaked(unit.act2, y))
        return g.reshape(g.add(self._flat(x, conv2.bias), self._flat(y, conv2.bias)), *x.shape)

    def _at_points(self, conv: PointConv, dilation: int, x: Tensor) -> Tensor:
        """x [T, in] -> [T, out]. `dilation` rows are mixed as one, which they are in memory."""
        g, (n, width) = self.g, x.shape
        n_points, out, _ = conv.weight.shape
        n_tiles = -(-n // (TILE * dilation))
        padded = self.padded(x, (n_points - TILE) * dilation, n_tiles * TILE * dilation - n)
        row = dilation * width
        inputs = g.mix(g.view(padded, (n_tiles, n_points, row), (TILE * row, row, 1)), conv.mix_before, outermost=True)
        y = g.linear(conv.weight, g.reshape(inputs, n_points, n_tiles * dilation, width))
        row = dilation * out
        by_tile = g.view(y, (n_tiles, n_points, row), (row, n_tiles * row, 1))
        y = g.reshape(g.mix(by_tile, conv.mix_after), n_tiles * TILE * dilation, out)
        return self._biased(g.rows(y, 0, n), conv.bias)

    def _in_phases(self, conv: Conv, dilation: int, x: Tensor) -> Tensor:
        """x [T, in] -> [T, out]"""
        g, (n, width) = self.g, x.shape
        n_windows = -(-n // dilation)  # a phase
        padded = self.padded(x, (conv.k - 1) * dilation, n_windows * dilation - n)
        if dilation == 1:
            return self.conv(conv, padded)
        per_phase = n_windows + conv.k - 1
        phases = g.contiguous(g.transpose(g.reshape(padded, per_phase, dilation, width), 1, 0, 2))
        windows = g.view(phases, (dilation, n_windows, conv.k * width), (per_phase * width, width, 1))
        y = g.transpose(g.linear(conv.weight, self._second(conv, windows)), 1, 0, 2)
        out = y.shape[2]
        joined = g.reshape(g.contiguous(y), n_windows * dilation, out)
        return self._biased(g.rows(joined, 0, n), conv.bias)

    def snaked(self, w: Snake, x: Tensor) -> Tensor:
        """x [T, C] -> [T, C]

        sin^2 has the period 1 in turns = alpha x / pi, and is even: a polynomial in the square of the distance to the
        nearest whole turn. ggml's own sine and floor are scalar; these operations are not, and take half the time.
        """
        g = self.g
        flat = self._flat(x, w.beta)
        turns = g.mul(flat, w.alpha_turns)
        whole = g.scale(g.scale(turns, 1.0, _TO_WHOLE), 1.0, -_TO_WHOLE)
        square = g.square(g.sub(turns, whole))
        sine_squared = g.scale(square, _SINE_SQUARED[-1], _SINE_SQUARED[-2])
        for coefficient in _SINE_SQUARED[-3::-1]:
            sine_squared = g.scale(g.mul(sine_squared, square), 1.0, coefficient)
        sine_squared = g.mul(sine_squared, square)
        return g.reshape(g.add(flat, g.mul(sine_squared, w.beta)), *x.shape)

    def _biased(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.g.reshape(self.g.add(self._flat(x, bias), bias), *x.shape)

    def _flat(self, x: Tensor, tiled: Tensor) -> Tensor:
        """In rows of a tiled vector's length."""
        return self.g.reshape(x, -1, tiled.shape[0])
