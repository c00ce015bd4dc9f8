"""What several nets are made of. Activations are time-major: [T, C], one row a time step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFileError
from ..ggml.device import Tensor, Weights, numpy_type
from ..ggml.graph import Graph
from ..ggml.rows import as_float16, dequantize_rows, quantize_rows
from ..ggml.types import GgmlType
from ..model.gguf_file import GgufFile, TensorInfo
from ..model.integrity import require_finite
from ..model.schema import Shape
from .widths import ANY, safe_rows, takes_planes

__all__ = [
    "WeightLoader",
    "causal_windows",
    "independent_rows",
    "require_numbers",
    "stacked_linear",
    "table_rows",
]

_TRANSPOSED_AT_ONCE = 32  # input channels: what a transposition reads stays in the cache


class WeightLoader:
    """Reads a file's tensors into `Weights`, under one prefix. Raises ModelFileError for one that contains NaN."""

    def __init__(self, file: GgufFile, weights: Weights, prefix: str = "") -> None:
        self._file, self._weights, self._prefix = file, weights, prefix

    def at(self, prefix: str) -> WeightLoader:
        """The same, one level further down."""
        return WeightLoader(self._file, self._weights, f"{self._prefix}{prefix}.")

    def has(self, name: str) -> bool:
        return self._prefix + name in self._file.tensors

    def shape(self, name: str) -> Shape:
        return self._file.info(self._prefix + name).shape

    def _info(self, name: str) -> TensorInfo:
        """Of a tensor that is about to be used; of a table that is only looked up in, little need stay in memory."""
        require_finite(self._file, self._prefix + name)
        self._file.release(self._prefix + name)
        return self._file.info(self._prefix + name)

    def values(self, name: str) -> NDArray[Any]:
        """The tensor as a NumPy array: float32 or float16 as the file has it, anything else as float32."""
        info = self._info(name)
        if info.type in (GgmlType.F32, GgmlType.F16):
            return self._file.array(info.name)
        blocks = self._file.blocks(info.name).reshape(-1, info.type.row_bytes(info.shape[-1]))
        return dequantize_rows(blocks, info.type).reshape(info.shape)

    def tensor(self, name: str) -> Tensor:
        """The tensor as the file has it, mapped: norms, biases, tables."""
        info = self._info(name)
        return self._kept(info.name, self._weights.mapped(self._file.blocks(info.name), info.shape, info.type))

    def matrix(self, name: str, type: GgmlType | None = None) -> Tensor:
        """A matrix [out, in] to multiply with, in the backend's placement for it. type: to quantize it to."""
        return self.stacked(name, type=type)[0]

    def stacked(self, *names: str, type: GgmlType | None = None) -> list[Tensor]:
        """Matrices [out, in] one below the other, for `stacked_linear`: neighbours of one type are one matrix, since a
        large product takes less time than several small ones. type: to quantize all to."""
        found = [(self._info(name), *self._blocks(name, type)) for name in names]
        stacked = []
        for found_type, group in groupby(found, key=lambda each: each[2]):
            infos, blocks, _ = zip(*group, strict=True)
            whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
            shape = (sum(info.shape[0] for info in infos), infos[0].shape[1])
            stacked.append(self._matrix(infos[0].name, whole, shape, found_type))
            if len(blocks) > 1:
                for info in infos:
                    self._file.release(info.name)
        return stacked

    def _blocks(self, name: str, type: GgmlType | None) -> tuple[NDArray[np.uint8], GgmlType]:
        info = self._file.info(self._prefix + name)
        if type is None or type == info.type:
            return self._file.blocks(info.name), info.type
        return quantize_rows(self.values(name).astype(np.float32), type).reshape(-1), type

    def matrices(self, name: str) -> list[Tensor]:
        """A stack [n, out, in] as n matrices."""
        info = self._info(name)
        parts = np.split(self._file.blocks(info.name), info.shape[0])
        return [self._matrix(info.name, blocks, info.shape[1:], info.type) for blocks in parts]

    def _matrix(self, name: str, blocks: NDArray[np.uint8], shape: Shape, type: GgmlType) -> Tensor:
        return self._kept(name, self._weights.matrix(blocks, shape, type))

    def _kept(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.placement:  # copied
            self._file.release(name)
        return tensor

    def float_type(self, name: str) -> GgmlType:
        """The type in which `values` gives this tensor: F16 where the file has F16, else F32."""
        return GgmlType.F16 if self._file.info(self._prefix + name).type == GgmlType.F16 else GgmlType.F32

    def conv(self, name: str, type: GgmlType | None = None) -> Tensor:
        """A convolution's kernel [out, in, k] as the matrix [out, k * in] that multiplies `causal_windows`."""
        kernel = self.values(name)
        out, width, k = kernel.shape

        def fill(matrix: NDArray[Any]) -> None:
            matrix.reshape(out, k, width)[...] = kernel.transpose(0, 2, 1)

        return self._filled(name, (out, k * width), type or self.float_type(name), fill)

    def _filled(self, name: str, shape: Shape, type: GgmlType, fill: Callable[[NDArray[Any]], None]) -> Tensor:
        """A matrix of this type made from the tensor, of whose values it consists: `fill` writes them."""
        if shape[1] % type.block_size:
            type = self.float_type(name)
        if type in (GgmlType.F32, GgmlType.F16):
            matrix = self._weights.filled(shape, numpy_type(type), fill)
        else:
            values = np.empty(shape, np.float32)
            fill(values)
            matrix = self._weights.matrix(quantize_rows(values, type).reshape(-1), shape, type)
        self._file.release(self._prefix + name)
        return matrix

    def mixed_conv(self, name: str, mix: NDArray[np.float64]) -> Tensor:
        """A convolution's kernel [out, in, k] with its taps mixed [POINTS, k] -> float32 [POINTS, out, in]"""
        kernel = self.values(name)
        out, width, k = kernel.shape

        def fill(matrices: NDArray[Any]) -> None:
            matrices.reshape(len(mix), -1)[...] = mix @ kernel.reshape(-1, k).T.astype(np.float64)

        matrices = self._weights.filled((len(mix), out, width), np.float32, fill)
        self._file.release(self._prefix + name)
        return matrices

    def transposed_conv(self, name: str, stride: int, type: GgmlType) -> Tensor:
        """A causal transposed convolution's kernel [in, out, k] as a matrix that multiplies the last k / stride rows.

        With k = n * stride, row t of the input reaches outputs t * stride .. t * stride + k - 1, of which the right end
        is trimmed. So output t * stride + j is the sum over i < n of kernel[:, :, i * stride + j] on input row t - i:
        one matrix [stride * out, n * in], whose product is the upsampled signal itself, row after row.
        """
        kernel = self.values(name)
        width, out, k = kernel.shape
        n = k // stride

        def fill(matrix: NDArray[Any]) -> None:
            target = matrix.reshape(stride, out, n, width)
            for start in range(0, width, _TRANSPOSED_AT_ONCE):
                part = kernel[start : start + _TRANSPOSED_AT_ONCE]
                if part.dtype == np.float32 and target.dtype == np.float16:
                    part = as_float16(part)
                # a window's oldest row first
                target[:, :, ::-1, start : start + len(part)] = part.reshape(-1, out, n, stride).transpose(3, 1, 2, 0)

        return self._filled(name, (stride * out, n * width), type, fill)

    def tensors(self, name: str) -> list[Tensor]:
        """A stack [n, ...] as n tensors, mapped."""
        info = self._info(name)
        parts = np.split(self._file.blocks(info.name), info.shape[0])
        return [self._kept(info.name, self._weights.mapped(blocks, info.shape[1:], info.type)) for blocks in parts]

    def array(self, values: NDArray[Any]) -> Tensor:
        """A tensor computed from others."""
        return self._weights.array(values)


def stacked_linear(g: Graph, stacked: list[Tensor], x: Tensor, linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """x [T, in] -> [T, all rows of `stacked`], each matrix by `linear(weight, x)`"""
    outputs = [linear(weight, x) for weight in stacked]
    return outputs[0] if len(outputs) == 1 else g.concat(outputs, axis=1)


def independent_rows(g: Graph, weight: Tensor, x: Tensor, max_rows: int = ANY) -> Tensor:
    """weight [out, in], contiguous x [T, in] -> [T, out], each row bit-identical to its product alone.

    As many rows as may share a product do (widths.py, at most `max_rows`). The rest is planes of one tensor, which ggml
    multiplies plane by plane with the kernel for that many rows; or products of their own where it cannot do that.
    """
    n, width = x.shape
    limit = min(n, max_rows, safe_rows(weight.type, weight.placement))
    together = next(rows for rows in range(limit, 0, -1) if n % rows == 0)
    if together == n:
        return g.linear(weight, x)
    if takes_planes(weight.placement):
        planes = g.reshape(x, n // together, together, width)
        return g.reshape(g.linear(weight, planes), n, weight.shape[0])
    return g.concat([g.linear(weight, g.rows(x, start, start + together)) for start in range(0, n, together)])


def table_rows(file: GgufFile, name: str, rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Rows [k] of a table [.., width], leading dimensions counted through -> [k, width]; the rest stays on the disk.

    Raises ModelFileError where a row is NaN or infinite.
    """
    info = file.info(name)
    blocks = file.blocks(name).reshape(-1, info.type.row_bytes(info.shape[-1]))
    values = dequantize_rows(blocks[rows], info.type)
    if not np.isfinite(values).all():
        raise ModelFileError(f"{file.path}: the file is damaged: {name} contains NaN or infinity")
    return values


def require_numbers(values: NDArray[np.float32], file: GgufFile, net: str) -> None:
    """Raises ModelFileError where a net's output is NaN or infinite, which only damaged weights make of sound input."""
    if not np.isfinite(values).all():
        raise ModelFileError(
            f"{file.path}: the {net} computes NaN or infinity",
            hint="the weights are damaged: verify the file, or convert the checkpoint again",
        )


def causal_windows(g: Graph, padded: Tensor, k: int, stride: int = 1) -> Tensor:
    """padded [k - stride + T, C] -> [T / stride, k * C], row t being rows t * stride .. t * stride + k - 1 end to end.

    On the CPU the rows overlap in memory and nothing is copied; other devices need not take that.
    """
    n, width = padded.shape
    windows = g.view(padded, ((n - k) // stride + 1, k * width), (stride * width, 1))
    return windows if g.backend.on_host else g.contiguous(windows)
