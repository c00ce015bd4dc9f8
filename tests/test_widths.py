"""The table of how many rows may share a product, checked on this machine's kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_gguf.ggml.device import Backend, Tensor, Weights, extra_buffer_types
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.rows import quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.nets.layers import independent_rows
from qwen3tts_gguf.nets.widths import ANY, KNOWN, safe_rows

TYPES = [type for type in GgmlType if type != GgmlType.I32]
PLACEMENTS = ["", "CPU_REPACK"]  # others may crash the process
SHAPES = [(1024, 2048), (1536, 1024), (64, 768)]  # [out, in]
MAX_ROWS = 16  # eight lanes, two positions each


class Product:
    """One matrix, and rows to multiply it with."""

    def __init__(self, type: GgmlType, placement: str, shape: tuple[int, int], n_threads: int) -> None:
        rng = np.random.default_rng(0)
        self._backend = Backend(n_threads, (placement,) if placement else ())
        self._memory = Weights(self._backend)
        values = rng.standard_normal(shape).astype(np.float32)
        self.weight: Tensor = self._memory.matrix(quantize_rows(values, type).reshape(-1), shape, type)
        self.rows = rng.standard_normal((MAX_ROWS, shape[1])).astype(np.float32)

    def of(self, n_rows: int, *, independent: bool = False, max_rows: int = ANY) -> NDArray[np.float32]:
        g = Graph(self._backend, max_nodes=128)
        x = g.input(n_rows, self.rows.shape[1])
        y = g.output(independent_rows(g, self.weight, x, max_rows) if independent else g.linear(self.weight, x))
        g.allocate()
        g.set(x, self.rows[:n_rows])
        g.compute()
        return g.get(y)

    def alone(self) -> NDArray[np.float32]:
        """Each row's product by itself."""
        whole, rows = self.rows, []
        for row in whole:
            self.rows = row[None]
            rows.append(self.of(1))
        self.rows = whole
        return np.concatenate(rows)


def products(type: GgmlType, placement: str, n_threads: int) -> list[Product]:
    made = [Product(type, placement, shape, n_threads) for shape in SHAPES]
    return [product for product in made if product.weight.placement == placement]


def check_the_table(type: GgmlType, placement: str, n_threads: int) -> None:
    """As many rows as the table says share a product, each equal to the row alone."""
    for product in products(type, placement, n_threads):
        alone = product.alone()
        for n_rows in range(2, min(safe_rows(type, placement), MAX_ROWS) + 1):
            assert np.array_equal(product.of(n_rows), alone[:n_rows]), (product.weight, n_rows)


def check_independent_rows(type: GgmlType, placement: str, n_threads: int, max_rows: int = ANY) -> None:
    for product in products(type, placement, n_threads):
        alone = product.alone()
        for n_rows in (1, 2, 3, 4, 7, 8, 16):
            found = product.of(n_rows, independent=True, max_rows=max_rows)
            assert np.array_equal(found, alone[:n_rows]), (product.weight, n_rows)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    ("placement", "type"), [key for key in KNOWN if key[0] in PLACEMENTS], ids=lambda part: getattr(part, "name", part)
)
def test_as_many_rows_as_the_table_says_are_each_equal_to_the_row_alone(
    placement: str, type: GgmlType, n_threads: int
) -> None:
    check_the_table(type, placement, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_independent_rows_are_each_equal_to_the_row_alone(type: GgmlType, placement: str, n_threads: int) -> None:
    check_independent_rows(type, placement, n_threads)
    check_independent_rows(type, placement, n_threads, max_rows=1)


OTHERS = sorted({placement for placement, _ in KNOWN} - set(PLACEMENTS))


@pytest.mark.parametrize("placement", OTHERS)
@pytest.mark.parametrize(
    "check",
    ["check_the_table(type, placement, 2)", "check_independent_rows(type, placement, 2, max_rows=1)"],
    ids=["table", "single rows"],
)
def test_a_placement_that_may_crash_does_as_the_table_says_in_a_process_of_its_own(placement: str, check: str) -> None:
    if placement not in extra_buffer_types():
        pytest.skip(f"no {placement} here")
    code = f"""
from test_widths import *
placement = {placement!r}
for where, type in KNOWN:
    if where == placement:
        assert products(type, placement, 1)
        {check}
"""
    environment = {
        **os.environ,
        "GGML_NO_BACKTRACE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if child.returncode < 0 and "table" in check:
        pytest.skip(f"{placement} products of several rows crash in this build of ggml")
    assert child.returncode == 0, child.stderr


def test_what_is_not_in_the_table_goes_row_by_row() -> None:
    assert safe_rows(GgmlType.F32, "") == safe_rows(GgmlType.Q4_0, "A_BUFFER_OF_NEXT_YEAR") == 1
