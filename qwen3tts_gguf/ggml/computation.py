"""A graph's memory and its running: inputs, outputs, parts, and the way values go in and out.

On the CPU a tensor's memory is a NumPy array. On another device the inputs have a mirror here: `set` writes into it,
and what was written goes to the device in one transfer before the next computation; `get` is a transfer back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from . import api
from .device import CPU_HINT, Arena, Backend, Shape, Tensor, numpy_type
from .types import GgmlType

__all__ = ["Computation"]


class Computation:
    """Base of `Graph` (graph.py), which adds the operations."""

    def __init__(self, backend: Backend, max_nodes: int = 4096, max_inputs: int = 256) -> None:
        self.backend = backend
        self._leaves = Arena(max_inputs)
        self._memory = Arena(max_inputs)
        self._nodes = Arena(max_nodes + max_inputs, api.graph_overhead_custom(max_nodes, False))
        self._graph = api.new_graph_custom(self._nodes.pointer, max_nodes, False)
        self._has_input = self._has_memory = False
        self._buffers: list[int] = []
        self._allocator: int | None = None
        self._callbacks: list[Any] = []
        self._arrays: dict[int, NDArray[Any]] = {}
        self._mirror: _Mirror | None = None
        self._cuts: list[int] = []
        self._parts = [self._graph]

    # -- building ------------------------------------------------------------------------------------------------------

    def input(self, *shape: int, type: GgmlType = GgmlType.F32) -> Tensor:
        """A leaf whose value is given by `set`, zero at first, and stays until set again."""
        self._has_input = True
        return self._leaves.new(shape, type)

    def memory(self, *shape: int, type: GgmlType = GgmlType.F32) -> Tensor:
        """A leaf that the graph itself writes, zero at first: it stays from one computation to the next."""
        self._has_memory = True
        return self._memory.new(shape, type)

    def output(self, x: Tensor) -> Tensor:
        """Mark `x` to be computed and kept."""
        api.set_output(x.pointer)
        return self.expand(x)

    def expand(self, x: Tensor) -> Tensor:
        """Place `x` and all it needs next in the order of computation."""
        api.build_forward_expand(self._graph, x.pointer)
        return x

    def cut(self) -> None:
        """End a part with what was placed in the order so far; before each part `compute` lets its caller change the
        number of the CPU's threads."""
        if self.backend.on_host:
            self._cuts.append(api.graph_n_nodes(self._graph))

    def allocate(self) -> None:
        """Give every tensor its memory. Raises BackendError when there is not enough; DeviceError also for an operation
        that the device lacks."""
        backend = self.backend
        for arena, is_used in ((self._leaves, self._has_input), (self._memory, self._has_memory)):
            if is_used:
                buffer = api.backend_alloc_ctx_tensors_from_buft(arena.pointer, backend.plain_buffers)
                if not buffer:
                    raise backend.no_memory("a computation graph")
                self._buffers.append(buffer)
                api.backend_buffer_clear(buffer, 0)
        if not backend.on_host:
            self._require_support()
            if self._has_input:
                self._mirror = _Mirror(self._buffers[0])
        self._allocator = api.gallocr_new(backend.plain_buffers)
        if not api.gallocr_alloc_graph(self._allocator, self._graph):
            raise backend.no_memory("a computation graph")
        if self._cuts:
            self._divide()

    def _require_support(self) -> None:
        device = self.backend.device
        for node in self.nodes():
            if not device.supports(node):
                operation = api.op_desc(node).decode()
                raise DeviceError(f"{device.name} cannot compute {operation}", operation=operation)

    def _divide(self) -> None:
        """Each part is a graph of some of the nodes, whose memory they have by now."""
        bounds = [0, *self._cuts, api.graph_n_nodes(self._graph)]
        spans = list(pairwise(bounds))
        self._parts_arena = Arena(0, sum(api.graph_overhead_custom(end - start, False) for start, end in spans))
        self._parts = [api.new_graph_custom(self._parts_arena.pointer, end - start, False) for start, end in spans]
        for part, (start, end) in zip(self._parts, spans, strict=True):
            for node in self.nodes()[start:end]:
                api.graph_add_node(part, node)

    def nodes(self) -> list[int]:
        """Pointers to the tensor structs of all nodes, in the order of computation."""
        return [api.graph_node(self._graph, i) for i in range(api.graph_n_nodes(self._graph))]

    # -- running -------------------------------------------------------------------------------------------------------

    def compute(self, before_part: Callable[[], None] = lambda: None) -> None:
        """Run the graph; other Python threads run meanwhile. before_part may change the number of threads."""
        if self._mirror:
            self._mirror.upload()
        for part in self._parts:
            before_part()
            if api.backend_graph_compute(self.backend.pointer, part) != api.STATUS_SUCCESS:
                if self.backend.on_host:
                    raise BackendError("ggml failed to compute a graph")
                raise DeviceError(f"{self.backend.device.name} failed to compute a graph", hint=CPU_HINT)

    def set(self, x: Tensor, values: Any) -> None:
        """Give an input its value, or a memory its next one: an array of its shape, or anything NumPy can broadcast to
        it."""
        if self.backend.on_host:
            self.host_array(x)[...] = values
        elif self._mirror and self._mirror.holds(x):
            self._mirror.array(x)[...] = values
        else:
            array = np.empty(x.shape, numpy_type(x.type))
            array[...] = values
            api.backend_tensor_set(x.pointer, array.ctypes.data, 0, array.nbytes)

    def get(self, x: Tensor) -> NDArray[Any]:
        """A copy of the value of an input, a memory or an output."""
        if self.backend.on_host:
            return np.array(self.host_array(x))
        if self._mirror:
            self._mirror.upload()
        array = np.empty(x.shape, numpy_type(x.type))
        api.backend_tensor_get(x.pointer, array.ctypes.data, 0, array.nbytes)
        return array

    def host_array(self, x: Tensor) -> NDArray[Any]:
        """The memory of a tensor itself, as an array of its shape: for functions of `custom`, on the CPU only."""
        assert self.backend.on_host, "a device's memory has no host pointers"
        if (known := self._arrays.get(x.pointer)) is not None:
            return known
        memory = (ctypes.c_uint8 * (prod(x.shape) * x.type.block_bytes)).from_address(x.struct.data)
        values: NDArray[Any] = np.ctypeslib.as_array(memory).view(numpy_type(x.type)).reshape(x.shape)
        self._arrays[x.pointer] = values
        return values

    def __del__(self) -> None:
        if getattr(self, "_allocator", None):
            api.gallocr_free(self._allocator)
        for buffer in getattr(self, "_buffers", ()):
            api.backend_buffer_free(buffer)

    def _node(self, pointer: int, shape: Shape, type: GgmlType = GgmlType.F32) -> Tensor:
        return Tensor(pointer, shape, type)


class _Mirror:
    """The host's copy of a graph's inputs, which lie in one buffer of a device."""

    def __init__(self, buffer: int) -> None:
        self._base, n_bytes = api.backend_buffer_get_base(buffer), api.backend_buffer_get_size(buffer)
        self._bytes = np.zeros(n_bytes // 4 * 4, np.uint8)
        self._arena = Arena(1)
        self._whole = self._arena.new((n_bytes // 4,), GgmlType.F32)  # all of the buffer, for `upload`
        if api.backend_tensor_alloc(buffer, self._whole.pointer, self._base) != api.STATUS_SUCCESS:
            raise BackendError("ggml cannot place a graph's inputs on the device")
        self._changed = (len(self._bytes), 0)  # from and to, in bytes

    def holds(self, x: Tensor) -> bool:
        return bool(x.struct.buffer == self._whole.struct.buffer)

    def array(self, x: Tensor) -> NDArray[Any]:
        """The values of an input [x.shape], about to be changed."""
        start, n_bytes = x.struct.data - self._base, prod(x.shape) * x.type.block_bytes
        first, last = self._changed
        self._changed = min(first, start), max(last, start + n_bytes)
        values: NDArray[Any] = self._bytes[start : start + n_bytes].view(numpy_type(x.type)).reshape(x.shape)
        return values

    def upload(self) -> None:
        """What has changed since the last time, and what lies between."""
        first, last = self._changed
        if first < last:
            first, last = first // 4 * 4, -(-last // 4) * 4
            api.backend_tensor_set(self._whole.pointer, self._bytes.ctypes.data + first, first, last - first)
            self._changed = (len(self._bytes), 0)
