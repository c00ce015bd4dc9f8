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

A device without host pointers copies instead: into the leaf before a computation and out of it after.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from . import api
from .device import Backend, Tensor, Weights
from .graph import Graph
from .types import GgmlType

__all__ = ["Slots", "new_block"]

_ALIGNMENT = 64  # bytes, a cache line
_POINTER_BYTES = ctypes.sizeof(ctypes.c_void_p)


def new_block(n_values: int) -> NDArray[np.float32]:
    """float32 [n_values], zero, at the start of a cache line."""
    room = np.zeros(n_values + _ALIGNMENT // 4, np.float32)
    start = -room.ctypes.data % _ALIGNMENT // 4
    return room[start : start + n_values]


class Slots:
    """The slots of one graph."""

    def __init__(self, backend: Backend, n_slots: int, n_values: int) -> None:
        self._weights = Weights(backend)
        # What slots point at until `point`. It is never written, so it takes no memory.
        blank = new_block(n_values).view(np.uint8)
        self._leaves = [self._weights.mapped(blank, (n_values,), GgmlType.F32) for _ in range(n_slots)]
        self._n_values = n_values

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
        self._graph = graph  # whose memory the words are

    def point(self, slot: int, block: NDArray[np.float32]) -> None:
        """Let the graph work on `block` [n_values] in this slot, from the next computation on."""
        assert block.shape == (self._n_values,) and block.flags.c_contiguous
        self._words[self._places[slot]] = self._offsets[slot] + np.uint64(block.ctypes.data)
