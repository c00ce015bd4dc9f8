"""Layers that continue where they stopped: causal convolutions, and SnakeBeta between them, with a memory of the past.

    padded  [slots, n + T, C]  of each stream the last n rows of the past, and the new ones
    windows [slots * T, k * C] k rows end to end, one window for each new row
    y       [slots * T, out]   a convolution is the product of windows and weight

What a layer remembers lies in the streams' own state, not in the graph: at the start its past is copied in front of the
new rows, at the end their last rows become the past.

Rows are what the time goes into here, 1920 a frame in the end, so how ggml multiplies decides (benchmarks/LOG.md):

- Where rows are many, a residual unit's convolution is computed at points (winograd.py), in float32: with less than a
  third of the multiplications. Where they are few its weights take the time, and it is a product with windows.
- Windows of a dilated convolution are gathered by one copy; at points, rows that belong together lie in memory one
  after another, and nothing is gathered.
- An elementwise operation computes addresses again for each row. So narrow rows are taken many at a time, and vectors
  of a value per channel are stored as often as fits: "tiled".
- ggml rounds a product of one row in one way and of two or more in another. So that neither chunks nor other
  streams change a sample, layers with one row per frame multiply row by row (`linear`); all others have several rows
  in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend, Tensor
from ..ggml.graph import Graph
from ..ggml.slots import Block, Slots
from ..ggml.types import GgmlType
from .layers import WeightLoader, causal_windows
from .widths import safe_rows
from .winograd import TILE, mixes

__all__ = ["FRAMES_AT_ONCE", "CausalGraph", "CausalLoader", "Conv", "PointConv", "Region", "ResidualUnit", "Snake"]

FRAMES_AT_ONCE = 4
MAX_SLOTS = 4
"""Streams in one graph; with more, little is left to save."""
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
    """Reads the layers of one stage, where a frame has `rows` rows."""

    def __init__(self, load: WeightLoader, rows: int) -> None:
        self._load, self._rows = load, rows

    def at(self, prefix: str) -> CausalLoader:
        """The same, one level further down."""
        return CausalLoader(self._load.at(prefix), self._rows)

    def conv(self, type: GgmlType) -> Conv:
        """type: what it computes in."""
        _, _, k = self._load.shape("weight")
        return Conv(self._load.conv("weight", type), self._tiled(self._load.values("bias")), k)

    def transposed_conv(self, stride: int, type: GgmlType) -> Conv:
        """`rows` are those it puts out."""
        k = self._load.shape("weight")[2]
        weight = self._load.transposed_conv("weight", stride, type)
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

    def residual_unit(self, dilation: int, type1: GgmlType | None, type2: GgmlType) -> ResidualUnit:
        """type1: what the dilated convolution computes in; None for computing it at points."""
        act1, act2 = self.at("act1").snake(), self.at("act2").snake()
        conv1, conv2 = self.at("conv1"), self.at("conv2").conv(type2)
        return ResidualUnit(act1, conv1.conv(type1) if type1 is not None else conv1.point_conv(), dilation, act2, conv2)

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


@dataclass(frozen=True)
class Region:
    """A place in a state's block for some rows of the past."""

    offset: int
    n_rows: int
    width: int

    def of(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n_rows, width], to read and to write"""
        return block[self.offset : self.offset + self.n_rows * self.width].reshape(self.n_rows, self.width)


# -- the graphs --------------------------------------------------------------------------------------------------------


class CausalGraph:
    """Base of a graph of such layers, for T frames of each of some streams, whose states its slots are pointed at.

    Rows of all streams lie one after another, [slots * T, C]; only where a layer has a past are they apart,
    [slots, n + T, C]. regions: where each layer's past lies, in the order the layers are built in.
    """

    def __init__(self, backend: Backend, regions: Sequence[Region], n_values: int, n_slots: int, n_frames: int) -> None:
        self.g = Graph(backend)
        self.n_slots, self.n_frames = n_slots, n_frames
        self._slots = Slots(backend, n_slots, n_values)
        self._regions = list(reversed(regions))
        self._moves: list[tuple[Tensor, Tensor]] = []  # the last rows of a padded input, the past that they become

    def region(self, n: int, width: int) -> list[Tensor]:
        """[n, width] for each slot: the state of the next layer."""
        region = self._regions.pop()
        assert (region.n_rows, region.width) == (n, width), (region, n, width)
        return [self.g.view(self._slots[slot], (n, width), (width, 1), region.offset) for slot in range(self.n_slots)]

    def finish(self, output: Tensor) -> Tensor:
        """After the last layer: move all pasts on, and give the graph its memory."""
        assert not self._regions
        self.g.output(output)
        for rows, past in self._moves:
            self.g.expand(self.g.copy(rows, past))
        self.g.allocate()
        self._slots.bind(self.g)
        return output

    def compute(self, states: Sequence[Block]) -> None:
        """Once, with these blocks as the slots' states."""
        for slot, block in enumerate(states):
            self._slots.point(slot, block)
        self.g.compute()

    # -- products ------------------------------------------------------------------------------------------------------

    def linear(self, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """weight [out, in], x [rows, in] -> [rows, out], rounded alike for any number of rows up to a few.

        Rows in a dimension of their own are multiplied one by one, while weights are in the cache; as one matrix ggml
        would multiply them in blocks, which rounds in another way and reads weights from memory at half the speed.
        """
        g, (n, width) = self.g, x.shape
        if safe_rows(weight.type, weight.placement) < n <= max(FRAMES_AT_ONCE, MAX_SLOTS):
            y = g.reshape(g.linear(weight, g.reshape(x, n, 1, width)), n, weight.shape[0])
        else:
            y = g.linear(weight, x)
        return y if bias is None else g.add(y, bias)

    def _product(self, conv: Conv, windows: Tensor) -> Tensor:
        """windows [rows, k * in] -> [rows, out]"""
        if windows.shape[0] == self.n_slots * self.n_frames:  # a row a frame: the number of rows must not show
            return self.linear(conv.weight, windows)
        return self.g.linear(conv.weight, windows)

    # -- convolutions --------------------------------------------------------------------------------------------------

    def padded(self, x: Tensor, n: int, n_more: int = 0) -> Tensor:
        """x [slots * T, C] -> [slots, n + T + n_more, C]: behind the last n rows of the past, before rows of zeros."""
        g, n_slots = self.g, self.n_slots
        n_new, width = x.shape[0] // n_slots, x.shape[1]
        n_rows = n + n_new + n_more
        padded = g.memory(n_slots, n_rows, width)
        for slot, past in enumerate(self.region(n, width)):
            at = slot * n_rows
            g.expand(g.copy(past, g.view(padded, past.shape, (width, 1), at * width)))
            self._moves.append((g.view(padded, past.shape, (width, 1), (at + n_new) * width), past))
        g.expand(g.copy(g.reshape(x, n_slots, n_new, width), self.shifted(padded, n, x)))  # ggml's concat is slow
        return padded

    def shifted(self, padded: Tensor, by: int, x: Tensor) -> Tensor:
        """As many rows of each slot as there are in x [slots * T, C], from row `by` on -> [slots, T, C]"""
        n_slots, n_rows, width = padded.shape
        shape = n_slots, x.shape[0] // n_slots, width
        return self.g.view(padded, shape, (n_rows * width, width, 1), by * width)

    def windows(self, conv: Conv, x: Tensor, dilation: int = 1) -> Tensor:
        """x [slots * T, C] -> [slots * T, k * C]: each row behind the k - 1 before it, `dilation` apart."""
        g, (n, width), k = self.g, x.shape, conv.k
        if k == 1:
            return x
        padded = self.padded(x, (k - 1) * dilation)
        n_slots, n_rows, _ = padded.shape
        overlap = conv.weight.type != GgmlType.F32 and not conv.weight.placement  # ggml then copies them, by rows
        if n_slots == dilation == 1 and overlap and n > self.n_frames:
            return g.view(padded, (n, k * width), (width, 1))
        shape, strides = (n_slots, n // n_slots, k, width), (n_rows * width, width, dilation * width, 1)
        return g.reshape(g.contiguous(g.view(padded, shape, strides)), n, k * width)

    def causal(self, conv: Conv, x: Tensor, dilation: int = 1) -> Tensor:
        """x [rows, in] -> [rows, out]"""
        return self._biased(self._product(conv, self.windows(conv, x, dilation)), conv.bias)

    def one_channel(self, conv: Conv, x: Tensor) -> Tensor:
        """x [T, in] -> [T, 1]. ggml's fast product makes no single column: windows come first, then two equal rows."""
        g, n = self.g, x.shape[0]
        padded = self.padded(x, conv.k - 1)
        y = g.linear(causal_windows(g, g.reshape(padded, *padded.shape[1:]), conv.k), conv.weight)  # [2, T]
        return self._biased(g.reshape(g.rows(y, 0, 1), n, 1), conv.bias)

    def upscaled(self, conv: Conv, stride: int, x: Tensor) -> Tensor:
        """x [rows, in] -> [stride * rows, out]"""
        y = self._product(conv, self.windows(conv, x))
        return self._biased(self.g.reshape(y, stride * y.shape[0], y.shape[1] // stride), conv.bias)

    def residual(self, unit: ResidualUnit, x: Tensor) -> Tensor:
        """x [rows, C] -> [rows, C]"""
        g, conv1, conv2 = self.g, unit.conv1, unit.conv2
        y = self.snaked(unit.act1, x)
        if isinstance(conv1, PointConv):
            y = self._at_points(conv1, unit.dilation, y)
        else:
            y = self.causal(conv1, y, unit.dilation)
        y = self.causal(conv2, self.snaked(unit.act2, y))
        return g.reshape(g.add(self._flat(x, conv2.bias), self._flat(y, conv2.bias)), *x.shape)

    def _at_points(self, conv: PointConv, dilation: int, x: Tensor) -> Tensor:
        """x [rows, in] -> [rows, out]. `dilation` rows are mixed as one, which they are in memory."""
        g, (n_rows, width) = self.g, x.shape
        n_points, out, _ = conv.weight.shape
        n_frames = self.n_slots * self.n_frames
        n = n_rows // n_frames
        n_tiles = -(-n // (TILE * dilation))  # a frame
        frames = self._frame_by_frame(x, (n_points - TILE) * dilation, n_tiles * TILE * dilation - n)
        row, n_values = dilation * width, frames.shape[1] * width
        tiles = g.view(frames, (n_frames, n_tiles, n_points, row), (n_values, TILE * row, row, 1))
        inputs = g.mix(tiles, conv.mix_before, outermost=True)
        y = g.linear(conv.weight, g.reshape(inputs, n_points, n_frames * n_tiles * dilation, width))
        row = dilation * out
        by_tile = g.view(y, (n_frames * n_tiles, n_points, row), (row, n_frames * n_tiles * row, 1))
        y = g.reshape(g.mix(by_tile, conv.mix_after), n_frames, n_tiles * TILE * dilation, out)
        y = self.shifted(y, 0, x)  # without the rows that zeros gave
        if n_frames > 1:
            y = g.contiguous(y)
        return self._biased(g.reshape(y, n_rows, out), conv.bias)

    def _frame_by_frame(self, x: Tensor, n_past: int, n_more: int) -> Tensor:
        """x [slots * T, C] -> [frames, n_past + rows of a frame + n_more, C], each frame behind what came before it.

        Tiles begin with a frame and end in zeros: another frame's rows there would change how this one's are rounded.
        """
        g = self.g
        if self.n_slots == self.n_frames == 1:
            return self.padded(x, n_past, n_more)
        padded = self.padded(x, n_past)
        n_slots, n_rows, width = padded.shape
        n = (n_rows - n_past) // self.n_frames
        shape = n_slots * self.n_frames, n_past + n, width
        overlapping = g.view(padded, (n_slots, self.n_frames, *shape[1:]), (n_rows * width, n * width, width, 1))
        frames = g.memory(shape[0], shape[1] + n_more, width)
        g.expand(g.copy(overlapping, g.view(frames, shape, (frames.shape[1] * width, width, 1))))
        return frames

    # -- elementwise ---------------------------------------------------------------------------------------------------

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
