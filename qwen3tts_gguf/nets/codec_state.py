"""What one stream's decoding remembers: one block of memory, laid out here.

    front   pre_conv past [2, 512]; keys and values of each transformer layer [75, 512]
    middle  pasts of both upsamplings [6, 1024], the entry [6, 1024], the first block
    tail    pasts of the other blocks, post [6, 96]
    block   past of its transposed convolution [1, in]; of its residual units [6 * dilation, out]

A past is the left context of a convolution: the last rows of its input. Keys and values lie in a ring: those of frame p
in row p % 75, which is the window of 72 frames and three more, so that four frames can be decoded at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ggml.device import Backend
from ..ggml.slots import Block, DeviceBlock, copied, new_block
from ..model.schema import CodecDecoderConfig
from .causal import FRAMES_AT_ONCE, Region

__all__ = ["KERNEL", "CodecState", "StateLayout"]

KERNEL = 7
"""Of every convolution with a past after the transformer, depthwise ones too."""
_PRE_CONV_KERNEL = 3
_LINE = 16  # values of a cache line, at which each region starts


class CodecState:
    """The state of one stream, about 5.5 MB. Made by `CodecDecoder.new_state` and `prime`; dropping it frees it."""

    __slots__ = ("block", "n_frames")

    def __init__(self, block: Block, n_frames: int = 0) -> None:
        self.block = block
        """float32 [StateLayout.n_values], in the memory of the device that decodes"""
        self.n_frames = n_frames
        """Frames decoded so far."""

    def copy(self) -> CodecState:
        """An independent state that continues from the same point."""
        return CodecState(copied(self.block), self.n_frames)


@dataclass(frozen=True)
class StateLayout:
    """Where in the block each layer's past lies, in the order in which the graphs' layers ask for them."""

    front: tuple[Region, ...]
    middle: tuple[Region, ...]
    tail: tuple[Region, ...]
    n_ring: int
    n_values: int

    @classmethod
    def of(cls, c: CodecDecoderConfig, n_ring: int | None = None) -> StateLayout:
        """n_ring: frames whose keys and values are remembered."""
        n_ring = n_ring or c.window + FRAMES_AT_ONCE - 1
        front = [(_PRE_CONV_KERNEL - 1, c.rvq_dim), *[(n_ring, c.attention_dim)] * (2 * c.n_layers)]
        middle = [(KERNEL - 1, c.latent)] * (len(c.upsample_strides) + 1)
        blocks = [list(_block(c, c.dac_dim >> i)) for i in range(len(c.dac_strides))]
        middle += blocks[0]
        tail = [shape for block in blocks[1:] for shape in block]
        tail.append((KERNEL - 1, c.dac_dim >> len(c.dac_strides)))
        sections: list[tuple[Region, ...]] = []
        offset = 0
        for shapes in (front, middle, tail):
            regions = []
            for n_rows, width in shapes:
                regions.append(Region(offset, n_rows, width))
                offset += -(-n_rows * width // _LINE) * _LINE
            sections.append(tuple(regions))
        return cls(sections[0], sections[1], sections[2], n_ring, offset)

    def new_state(self, backend: Backend) -> CodecState:
        return CodecState(new_block(self.n_values) if backend.on_host else DeviceBlock(backend, self.n_values))


def _block(c: CodecDecoderConfig, width: int) -> Iterator[tuple[int, int]]:
    yield 1, width
    for dilation in c.dilations:
        yield (KERNEL - 1) * dilation, width // 2
