"""How the codec decoder's products are computed: choices whose best differs by CPU. None of them changes the file.

ms per frame of the 0.6B geometry, F16 codec, 1 / 2 threads, medians of one alternating run on an Intel Xeon with AMX, 2
cores; SNR against the layout `F16`, on the trained codec of nano (every kernel forced) / on random weights:

| layout         | one frame at once | four at once, or of four streams | SNR, dB | memory                            |
|----------------|-------------------|----------------------------------|---------|-----------------------------------|
| F16            | 55 / 35           | 46 / 28                          |         |                                   |
| F32            | 56 / 37           | 41 / 26                          | 67 / 60 | + 60 MB: the first block's points |
| Q8_0, in "AMX" | 39 / 26           | 30 / 19                          | 41 / 27 |                                   |

F16 is the best of a Zen 4, whose F16 products are faster than its F32 ones. The official package in bf16, as it is
usually run, has 34 / 30 dB. What Q8_0 costs on nano, each stage alone: the transformer 41 dB, the transposed
convolutions of the blocks 46, 44, 47, 47, upsampling 50, entry 53, dilated convolutions 49, 48, 48, 50, those of k 1
50, 49, 50, 47. All of it in Q8_0 takes 31 and 24 ms on one thread and has 35 dB. In ordinary memory Q8_0 is no faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["F16", "F32", "Q8_0", "STORED", "BlockLayout", "CodecLayout", "Kernel"]

Kernel = Literal["stored", "f32", "points", "q8_0"]
"""How a convolution is computed: as a product with windows of its input, in the type that the file stores its weights
in, in F32 or in Q8_0; or at points, in F32 (winograd.py), which only dilated ones can be. Weights whose rows are no
multiple of Q8_0's blocks stay in the stored type."""


@dataclass(frozen=True)
class BlockLayout:
    """The kernels of one block."""

    expand: Kernel  # the transposed convolution
    dilated: Kernel  # k 7
    mix: Kernel  # k 1


@dataclass(frozen=True)
class CodecLayout:
    """The kernels of the codec decoder."""

    transformer: Literal["stored", "q8_0"]
    upsample: Literal["stored", "q8_0"]
    entry: Kernel
    blocks: tuple[BlockLayout, BlockLayout, BlockLayout, BlockLayout]


F16 = CodecLayout(
    transformer="stored",
    upsample="stored",
    entry="stored",
    blocks=(
        BlockLayout("stored", "stored", "stored"),
        BlockLayout("stored", "points", "stored"),
        BlockLayout("stored", "points", "stored"),
        BlockLayout("stored", "points", "stored"),
    ),
)
"""Windows in the type of the file, points where rows are many: for CPUs whose F16 products are the faster ones."""

STORED = CodecLayout(
    transformer="stored",
    upsample="stored",
    entry="stored",
    blocks=(BlockLayout("stored", "stored", "stored"),) * 4,
)
"""Windows in the type of the file everywhere: for devices other than the CPU, not all of which have the operation that
mixes rows for points."""

F32 = CodecLayout(
    transformer="stored",
    upsample="stored",
    entry="stored",
    blocks=(
        BlockLayout("stored", "points", "f32"),
        BlockLayout("stored", "points", "f32"),
        BlockLayout("f32", "points", "f32"),
        BlockLayout("f32", "points", "f32"),
    ),
)
"""F32 where arithmetic takes the time, the type of the file where reading weights does: for Intel's AVX-512."""

Q8_0 = CodecLayout(
    transformer="stored",
    upsample="q8_0",
    entry="q8_0",
    blocks=(
        BlockLayout("stored", "q8_0", "q8_0"),
        BlockLayout("stored", "q8_0", "q8_0"),
        BlockLayout("f32", "points", "q8_0"),
        BlockLayout("f32", "q8_0", "f32"),
    ),
)
"""Q8_0 where it saves most for what it costs in quality: for a backend that places matrices in "AMX"."""
