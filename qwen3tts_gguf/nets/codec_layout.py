"""How the codec decoder's products are computed: choices whose best differs by CPU, none of which changes the file.

ms a frame on one thread, 0.6B geometry, F16 codec; Intel Xeon with AMX, figures of one alternating run; SNR of the
waveform against the same file computed as `F16`, on the trained nano with every kernel forced / on random weights.

| layout         | one frame at once | four at once, or four streams | SNR, dB | memory |
|----------------|-------------------|-------------------------------|---------|--------|
| F16            | 59.7              | 49.2                          |         |        |
| F32            | 60.2              | 45.5                          | 67      | + 60 MB, points of the first block |
| Q8_0, in "AMX" | 43.5              | 32.5                          | 41 / 27 |        |

On the Zen 4 F16 was measured best: products there take F16 faster than F32. The official package in bf16, as it is
usually run, has 34 / 30 dB. What costs the quality in Q8_0, nano, each alone: the transformer 41 dB, the transposed
convolutions 44, 46, 47, 47, those of k 1 47 to 50, dilated ones 48 to 50, upsampling 50, entry 53. All of it in Q8_0
takes 31 and 24 ms, and has 35 dB. Q8_0 outside of "AMX" is no faster than F16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["F16", "F32", "Q8_0", "BlockLayout", "CodecLayout", "Kernel"]

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
