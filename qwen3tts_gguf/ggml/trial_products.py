"""What the child process of trial.py does: products in one extra buffer type, each compared with the right answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .device import Backend, Weights
from .graph import Graph
from .rows import dequantize_rows, quantize_rows
from .types import GgmlType

__all__ = ["SEVERAL_ROWS", "SINGLE_ROWS", "STARTED", "WRONG", "report"]

STARTED, SINGLE_ROWS, SEVERAL_ROWS = "trial: started", "trial: single rows are right", "trial: several rows are right"
WRONG = "trial: wrong"

_SHAPES = ((32, 1024), (160, 256), (352, 768))
"""[out, in]: of every width that AMX kernels have a case for, and none a multiple of the largest."""
_SINGLE = (1,)
_SEVERAL = (2, 5, 16, 37, 70)
"""Rows: around a tile of 16 and a block of 32. Not [n, 1, in]: AMX kernels read past the weights then, in any build."""
_DIFFERENT = 17
"""Rows of a matrix that differ, because ggml takes long to quantize some types; no layout repeats with a prime."""
_TOLERANCE = 0.05
"""Of the typical value of a product. Kernels round the activations to eight bits; those used here are whole numbers up
to 127, at which most do not round at all."""
_N_THREADS = 2


def report(name: str) -> Iterator[str]:
    """Lines that report how far the products came. A wrong answer ends them; a crash ends the process."""
    _die_quietly()
    yield STARTED
    for rows, right in ((_SINGLE, SINGLE_ROWS), (_SEVERAL, SEVERAL_ROWS)):
        for type in GgmlType:
            if type is not GgmlType.I32 and not _products_are_right(name, type, rows):
                yield f"{type.name} in {name}"
                yield WRONG
                return
        yield right


def _die_quietly() -> None:
    """No core dump, and no window that reports the crash."""
    if sys.platform == "win32":
        import ctypes

        no_fault_box = 0x2 | 0x1  # SEM_NOGPFAULTERRORBOX, SEM_FAILCRITICALERRORS
        ctypes.windll.kernel32.SetErrorMode(no_fault_box)
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _products_are_right(name: str, type: GgmlType, rows: tuple[int, ...]) -> bool:
    backend = Backend(_N_THREADS, (name,))
    rng = np.random.default_rng(0)
    for n_out, n_in in _SHAPES:
        if backend.placement((n_out, n_in), type) != name:
            continue
        few = quantize_rows(rng.standard_normal((_DIFFERENT, n_in), np.float32), type)
        blocks = few[np.arange(n_out) % _DIFFERENT]
        weights = Weights(backend, max_tensors=1)
        matrix = weights.matrix(blocks, (n_out, n_in), type)
        graph = Graph(backend, max_nodes=2 * len(rows), max_inputs=len(rows))
        inputs = [graph.input(n, n_in) for n in rows]
        outputs = [graph.output(graph.linear(matrix, x)) for x in inputs]
        graph.allocate()
        values = [_activations(rng, n, n_in) for n in rows]
        for x, value in zip(inputs, values, strict=True):
            graph.set(x, value)
        graph.compute()
        exact = dequantize_rows(blocks, type).astype(np.float64).T
        for y, value in zip(outputs, values, strict=True):
            expected = value.astype(np.float64) @ exact
            error = np.abs(graph.get(y) - expected).max()
            if not error <= _TOLERANCE * np.sqrt(np.mean(expected**2)):  # NaN is wrong as well
                return False
    return True


def _activations(rng: np.random.Generator, n_rows: int, n_in: int) -> NDArray[np.float32]:
    """Whole numbers from -127 to 127, of which each block of 32 has one of the largest: Q8_0 and Q8_K hold them."""
    values = rng.integers(-127, 128, (n_rows, n_in)).astype(np.float32)
    values[:, ::32] = 127
    return values
