"""The codec decoder: frames of 16 codes to 24 kHz samples, statefully, equal to one pass over the whole.

    codes        [T, 16]
    rvq          [T, 512]         codebook rows, summed per group, each group's projection
    pre_conv     [T, 1024]        causal convolution, k 3
    transformer  [T, 1024]        8 layers of width 512, window 72, LayerScale
    upsample     [4T, 1024]       twice: transposed convolution x2, ConvNeXt block
    entry        [4T, 1536]       causal convolution, k 7
    blocks       [1920T, 96]      four: SnakeBeta, transposed convolution x8/5/4/3, three residual units
    post         [1920T]          SnakeBeta, causal convolution, k 7, clamp to [-1, 1]

Mirrors Qwen3TTSTokenizerV2Decoder (qwen-tts 0.1.1, core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py).

Every layer is causal, so a frame needs of the past only the left context of each convolution and the keys and values
of the last 71 frames: the stream's `CodecState`. Several streams are decoded together up to the first block, where the
time goes into reading weights. Neither other streams nor chunking change any sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend, Weights
from ..ggml.slots import opened
from ..model.files import MmprojFile
from ..model.schema import CodecDecoderConfig
from .causal import FRAMES_AT_ONCE, MAX_SLOTS
from .codec_graphs import Front, Middle, Tail
from .codec_layout import F16, CodecLayout
from .codec_state import KERNEL, CodecState, StateLayout
from .codec_weights import CodecWeights
from .codes import check_codes
from .layers import require_numbers

__all__ = ["CodecDecoder", "CodecLayout", "CodecState"]


class CodecDecoder:
    """Weights and graphs. What a stream remembers is the caller's `CodecState`. Not for two threads at once.

    layout: how products are computed; an F32 file is computed in F32 but for what the layout has in Q8_0.
    """

    frames_at_once = FRAMES_AT_ONCE
    """A single stream is decoded fastest in multiples of so many frames."""

    def __init__(self, model: MmprojFile, backend: Backend, layout: CodecLayout = F16) -> None:
        self.config = model.decoder
        self._file = model.file
        self._backend = backend
        self._placed = Weights(backend)
        self._weights = CodecWeights(model, self._placed, layout)
        self._state = StateLayout.of(self.config)
        self._heads: dict[tuple[int, int], tuple[Front, Middle]] = {}
        self._tail = Tail(self._weights, backend, self._state)
        for n_frames in (FRAMES_AT_ONCE, 1):
            self._head(1, n_frames)

    @property
    def samples_per_frame(self) -> int:
        return self.config.samples_per_frame

    def new_state(self) -> CodecState:
        """The state of a stream at its start."""
        return self._state.new_state(self._backend)

    def decode(self, jobs: Sequence[tuple[CodecState, NDArray[np.integer]]]) -> list[NDArray[np.float32]]:
        """Decode the next frames of several streams.

        Args:
            jobs: for each stream its state, which moves on, and codes [T, 16]; T may differ. No state twice.
        Returns:
            For each stream samples float32 [T * samples_per_frame] in [-1, 1], bit-identical to those it gets alone.
        Raises:
            CodesError: codes outside the codebooks; no state has moved then.
            ModelFileError: weights turn out to be damaged.
        """
        states = [state for state, _ in jobs]
        assert len({id(state) for state in states}) == len(states), "a stream cannot be decoded twice at once"
        rvq = [self._weights.quantized(check_codes(codes, self.config.codebook_size)) for _, codes in jobs]
        samples = [np.empty((len(rows), self.samples_per_frame), np.float32) for rows in rvq]
        for n, streams in _parts([len(rows) for rows in rvq]):
            together = [states[i] for i, _ in streams]
            front, middle = self._head(len(streams), n)
            latents = front.run(np.concatenate([rvq[i][start : start + n] for i, start in streams]), together)
            rows = iter(middle.run(latents, together))
            for i, start in streams:
                for frame in range(start, start + n):
                    samples[i][frame] = self._tail.run(next(rows), states[i])
                states[i].n_frames += n
        for each in samples:
            require_numbers(each, self._file, "codec decoder")
        return [np.clip(each, -1, 1, out=each).reshape(-1) for each in samples]

    def prime(self, codes: NDArray[np.integer]) -> CodecState:
        """The state after codes [T, 16], made much faster than by decoding: speech continues a reference clip from it.

        The transformer takes all frames at once. The convolutions after it reach back only some frames, and those of
        the tail fewer, so only these pass through them. Raises CodesError.
        """
        rvq = self._weights.quantized(check_codes(codes, self.config.codebook_size))
        n, state = len(rvq), self.new_state()
        if not n:
            return state
        layout, backend = StateLayout.of(self.config, n_ring=n), self._backend.for_one_graph()
        whole = layout.new_state(backend)
        latents = Front(self._weights, backend, layout, 1, n).run(rvq, [whole])
        last = np.arange(max(0, n - self.config.window), n)
        (pre_conv, *rings), (primed_pre_conv, *primed) = self._state.front, layout.front
        with opened(state.block) as values, opened(whole.block) as all_values:
            pre_conv.of(values)[...] = primed_pre_conv.of(all_values)
            for ring, rows in zip(rings, primed, strict=True):  # keys and values
                ring.of(values)[last % self._state.n_ring] = rows.of(all_values)[last]
        n_middle, n_tail = _reach(self.config)
        reached = latents[-n_middle:]
        for n_at_once, [(_, start)] in _parts([len(reached)]):
            _, middle = self._head(1, n_at_once)
            for frame, rows in enumerate(middle.run(reached[start : start + n_at_once], [state]), start):
                if frame >= len(reached) - n_tail:
                    self._tail.run(rows, state)
        state.n_frames = n
        return state

    def _head(self, n_slots: int, n_frames: int) -> tuple[Front, Middle]:
        """The graphs up to the first block for so many streams and frames: 1 to 4 streams, or 4 frames of one."""
        shape = n_slots, n_frames
        if shape not in self._heads:
            args = self._weights, self._backend, self._state, n_slots, n_frames
            self._heads[shape] = Front(*args), Middle(*args)
        return self._heads[shape]


def _parts(n_frames: Sequence[int]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """How streams of so many frames are decoded: (frames at once, [(stream, its first frame), ..]) one after another.

    Four frames of one stream, or one frame of up to four streams, share each pass over the weights.
    """
    for stream, n in enumerate(n_frames):
        for start in range(0, n - FRAMES_AT_ONCE + 1, FRAMES_AT_ONCE):
            yield FRAMES_AT_ONCE, [(stream, start)]
    for i in range(FRAMES_AT_ONCE - 1):
        left = [(stream, n - n % FRAMES_AT_ONCE + i) for stream, n in enumerate(n_frames) if i < n % FRAMES_AT_ONCE]
        for at in range(0, len(left), MAX_SLOTS):
            yield 1, left[at : at + MAX_SLOTS]


def _reach(c: CodecDecoderConfig) -> tuple[int, int]:
    """How many frames back a sample depends on through the convolutions after the transformer, and through those of the
    tail alone: each adds its left context over the rows a frame has there."""
    before, rows = 0.0, 1
    for stride in c.upsample_strides:
        rows *= stride
        before += (KERNEL - 1) / rows
    before += (KERNEL - 1) / rows
    blocks = []
    for stride in c.dac_strides:
        upscaled = rows * stride
        blocks.append(1 / rows + sum((KERNEL - 1) * dilation for dilation in c.dilations) / upscaled)
        rows = upscaled
    tail = sum(blocks[1:]) + (KERNEL - 1) / rows
    return ceil(before + blocks[0] + tail), ceil(tail)
