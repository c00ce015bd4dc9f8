"""State outside a graph: a graph has slots, and before each computation each slot is pointed at one block of memory.

    slots = Slots(backend, n_slots=2, n_values=100)
    past = g.view(slots[0], (5, 10), (10, 1))          # part of whatever block slot 0 points at: read it, copy into it
    g.allocate()
    slots.bind(g)
    slots.point(0, block)                              # float32 [100], made by `new_block`
    g.compute()                                        # reads and writes `block` itself

So one graph serves any number of states, nothing is copied in or out, and a state is saved or forked by copying its
block. A block must outlive the computations that it is pointed at for; which block a slot points at stays until the
next `point`.

What this relies on (ggml 0.25, CPU backend):
- Every view, reshape, copy target and `set_rows` result of a leaf names the leaf itself in `view_src` (ggml collapses
  chains of views) and its distance from it in `view_offs`. Its own `data` pointer is set once, by the allocator.
- Kernels read `data` when they compute, and the CPU backend caches nothing between computations.
- The allocator reuses no memory that it does not own, so no intermediate result lies in a leaf of ours.

On another device a block is memory of that device (`DeviceBlock`), and a slot is pointed at it in the same way: by
the address, which only the device understands, and by the buffer it lies in. ggml's other backends, too, read both
when they compute (ggml-vulkan.cpp, `ggml_vk_tensor_subbuffer`; ggml-cuda.cu compares them with those of its graph).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from . import api
from .device import Arena, Backend, Tensor, Weights
from .graph import Graph
from .types import GgmlType

__all__ = ["Block", "DeviceBlock", "Slots", "copied", "new_block", "opened"]

_ALIGNMENT = 64  # bytes, a cache line
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)


def new_block(n_values: int) -> NDArray[np.float32]:
    """float32 [n_values], zero, at the start of a cache line."""
    room = np.zeros(n_values + _ALIGNMENT // 4, np.float32)
    start = -room.ctypes.data % _ALIGNMENT // 4
    return room[start : start + n_values]


class DeviceBlock:
    """float32 [n_values] in the memory of a device other than the CPU, zero at first. Raises DeviceError."""

    def __init__(self, backend: Backend, n_values: int) -> None:
        self._backend, self.shape = backend, (n_values,)
        self._arena = Arena(1)
        self.tensor = self._arena.new(self.shape, GgmlType.F32)
        self._n_bytes = api.backend_buft_get_alloc_size(backend.plain_buffers, self.tensor.pointer)
        self.buffer = backend.reserve(self._n_bytes)
        self.address: int = api.backend_buffer_get_base(self.buffer)
        api.backend_buffer_clear(self.buffer, 0)
        if api.backend_tensor_alloc(self.buffer, self.tensor.pointer, self.address) != api.STATUS_SUCCESS:
            raise BackendError("ggml cannot place a state on the device")

    def get(self) -> NDArray[np.float32]:
        values = np.empty(self.shape, np.float32)
        api.backend_tensor_get(self.tensor.pointer, values.ctypes.data, 0, values.nbytes)
        return values

    def set(self, values: NDArray[np.float32]) -> None:
        values = np.ascontiguousarray(values, np.float32)
        api.backend_tensor_set(self.tensor.pointer, values.ctypes.data, 0, values.nbytes)

    def copy(self) -> DeviceBlock:
        block = DeviceBlock(self._backend, self.shape[0])
        api.backend_tensor_copy(self.tensor.pointer, block.tensor.pointer)
        return block

    def __del__(self) -> None:
        if getattr(self, "buffer", None):
            self._backend.give_back(self.buffer, self._n_bytes)


Block: TypeAlias = NDArray[np.float32] | DeviceBlock


def copied(block: Block) -> Block:
    """An independent block of the same values."""
    if isinstance(block, DeviceBlock):
        return block.copy()
    copy = new_block(len(block))
    copy[:] = block
    return copy


@contextmanager
def opened(block: Block) -> Iterator[NDArray[np.float32]]:
    """A block's values, to read and to change: its memory, or on a device a copy that is sent back at the end."""
    if isinstance(block, DeviceBlock):
        values = block.get()
        yield values
        block.set(values)
    else:
        yield block


class Slots:
    """The slots of one graph."""

    def __init__(self, backend: Backend, n_slots: int, n_values: int) -> None:
        self._weights = Weights(backend)
        self._on_host, self._n_values = backend.on_host, n_values
        if backend.on_host:
            # What slots point at until `point`. It is never written, so it takes no memory.
            blank = new_block(n_values).view(np.uint8)
            self._leaves = [self._weights.mapped(blank, (n_values,), GgmlType.F32) for _ in range(n_slots)]
        else:
            self._blank = _blank(backend, n_values)
            self._arena = Arena(n_slots)
            self._leaves = [self._arena.new((n_values,), GgmlType.F32) for _ in range(n_slots)]
            for leaf in self._leaves:
                api.backend_tensor_alloc(self._blank.buffer, leaf.pointer, self._blank.address)

    def __getitem__(self, slot: int) -> Tensor:
        """The leaf [n_values] to take views of while the graph is built."""
        return self._leaves[slot]

    def bind(self, graph: Graph) -> None:
        """Find what is to be rewritten when a slot is pointed elsewhere. Call after `Graph.allocate`."""
        nodes = graph.nodes()
        sources = [source for node in nodes for source in api.TensorStruct.from_address(node).src if source]
        structs = {pointer: api.TensorStruct.from_address(pointer) for pointer in {*nodes, *sources}}
        views = [
            {at: struct.view_offs for at, struct in structs.items() if struct.view_src == leaf.pointer}
            for leaf in self._leaves
        ]
        start, stop = min(nodes), max(nodes) + ctypes.sizeof(api.TensorStruct)  # views are nodes: one arena holds all
        words = (ctypes.c_uint64 * ((stop - start) // _POINTER_BYTES)).from_address(start)
        self._words = np.ctypeslib.as_array(words)
        at_data = api.TensorStruct.data.offset - start
        self._places = [np.array([(at + at_data) // _POINTER_BYTES for at in found], np.intp) for found in views]
        self._offsets = [np.array([*found.values()], np.uint64) for found in views]
        to_buffer = (api.TensorStruct.buffer.offset - api.TensorStruct.data.offset) // _POINTER_BYTES
        self._buffer_places = [places + to_buffer for places in self._places]
        self._graph = graph  # whose memory the words are

    def point(self, slot: int, block: Block) -> None:
        """Let the graph work on `block` [n_values] in this slot, from the next computation on."""
        assert block.shape == (self._n_values,)
        if isinstance(block, DeviceBlock):
            leaf = self._leaves[slot].struct  # its views are found through it
            leaf.data, leaf.buffer = block.address, block.buffer
            self._words[self._buffer_places[slot]] = np.uint64(block.buffer)
            address = block.address
        else:
            assert self._on_host and block.flags.c_contiguous
            address = block.ctypes.data
        self._words[self._places[slot]] = self._offsets[slot] + np.uint64(address)


_blanks: WeakValueDictionary[tuple[int, int], DeviceBlock] = WeakValueDictionary()


def _blank(backend: Backend, n_values: int) -> DeviceBlock:
    """What the slots of all graphs of a backend point at until `point`: one block, since it is never written."""
    key = backend.pointer, n_values
    block = _blanks.get(key)
    if block is None:
        block = _blanks[key] = DeviceBlock(backend, n_values)
    return block
