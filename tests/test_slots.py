"""Slots: one graph works on whichever blocks of memory its slots are pointed at, and on no others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.slots import Slots, new_block
from qwen3tts_gguf.ggml.types import GgmlType


class Sums:
    """Per slot: row 0 += x, ring row i = x; the output is row 0 doubled, then the whole ring [2, 4]."""

    def __init__(self, n_slots: int) -> None:
        g = self.g = Graph(backend := Backend(1))
        self.slots = Slots(backend, n_slots, 12)
        self.x, self.row = g.input(n_slots, 4), g.input(1, type=GgmlType.I32)
        self.outputs = []
        for slot in range(n_slots):
            total = g.view(self.slots[slot], (1, 4), (4, 1))
            ring = g.view(self.slots[slot], (2, 4), (4, 1), 4)
            x = g.rows(self.x, slot, slot + 1)
            g.expand(g.copy(g.add(total, x), total))
            kept = g.set_rows(ring, x, self.row)
            turned = g.transpose(g.reshape(kept, 2, 2, 2), 1, 0, 2)  # a view of a view of a view
            self.outputs.append((g.output(g.add(total, total)), g.output(g.contiguous(turned))))
        g.allocate()
        self.slots.bind(g)

    def run(self, blocks: list[NDArray[np.float32]], x: NDArray[np.float32], row: int) -> None:
        for slot, block in enumerate(blocks):
            self.slots.point(slot, block)
        self.g.set(self.x, x)
        self.g.set(self.row, row)
        self.g.compute()


def test_one_graph_serves_many_blocks() -> None:
    graph, blocks = Sums(2), [new_block(12) for _ in range(5)]
    expected = np.zeros((5, 3, 4), np.float32)
    rng = np.random.default_rng(0)
    for i in range(40):
        chosen = rng.permutation(5)[:2]
        x = rng.standard_normal((2, 4)).astype(np.float32)
        graph.run([blocks[j] for j in chosen], x, i % 2)
        expected[chosen, 0] += x
        expected[chosen, 1 + i % 2] = x
        for j, (total, ring) in zip(chosen, graph.outputs, strict=True):
            assert np.array_equal(graph.g.get(total)[0], 2 * expected[j, 0])
            assert np.array_equal(graph.g.get(ring), expected[j, 1:].reshape(2, 2, 2).transpose(1, 0, 2))
        for block, values in zip(blocks, expected, strict=True):  # no other block is touched
            assert np.array_equal(block, values.reshape(-1))


def test_a_copied_block_is_an_independent_state() -> None:
    graph, block = Sums(1), new_block(12)
    ones = np.ones((1, 4), np.float32)
    graph.run([block], ones, 0)
    fork = block.copy()
    graph.run([block], ones, 1)
    graph.run([fork], 5 * ones, 1)
    assert block[:4].tolist() == [2] * 4 and fork[:4].tolist() == [6] * 4


def test_blocks_begin_at_cache_lines() -> None:
    assert all(new_block(n).ctypes.data % 64 == 0 and not new_block(n).any() for n in (1, 7, 100_000))
