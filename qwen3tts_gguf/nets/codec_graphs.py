"""The three graphs of the codec decoder, for streams side by side and frames one after another.

    Front   rvq .. transformer        its time goes into reading weights (150 MB in F16), so it takes several streams,
                                      or several frames of one, at once
    Middle  upsample .. first block   the same
    Tail    other blocks, post        one frame of one stream: its time goes into arithmetic, and more rows would fall
                                      out of the cache

Each works on the streams' own state blocks, which its slots are pointed at (ggml/slots.py). How many streams and frames
a graph takes does not change a bit of what any of them gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend, Tensor
from ..ggml.types import GgmlType
from .causal import CausalGraph
from .codec_state import CodecState, StateLayout
from .codec_weights import Block, CodecWeights, TransformerLayer, Upsample
from .layers import stacked_linear

__all__ = ["Front", "Middle", "Tail"]

_CONVNEXT_EPS = 1e-6  # torch.nn.LayerNorm's argument in the official block
_MASKED = np.float16(-np.inf)


class Front(CausalGraph):
    """rvq [slots * T, 2 * codebook_dim] -> latents [slots * T, latent]: up to the transformer's end."""

    def __init__(self, w: CodecWeights, backend: Backend, state: StateLayout, n_slots: int, n_frames: int) -> None:
        super().__init__(backend, state.front, state.n_values, n_slots, n_frames)
        self._config, self._n_ring = w.config, state.n_ring
        c, g, n = w.config, self.g, n_slots * n_frames
        self._rvq = g.input(n, 2 * c.codebook_dim)
        self._positions = g.input(n, type=GgmlType.I32)
        self._rows = [g.input(n_frames, type=GgmlType.I32) for _ in range(n_slots)]
        self._masks = [g.input(n_frames, self._n_ring, type=GgmlType.F16) for _ in range(n_slots)]
        x = self.causal(w.pre_conv, self.linear(w.rvq_projection, self._rvq))
        x = self.linear(w.tfm_in[0], x, w.tfm_in[1])
        for layer in w.layers:
            x = self._layer(layer, x)
        x = self.linear(w.tfm_out[0], g.rms_norm(x, w.tfm_norm, c.rms_eps), w.tfm_out[1])
        self._latents = self.finish(x)

    def run(self, rvq: NDArray[np.float32], states: Sequence[CodecState]) -> NDArray[np.float32]:
        """The next T frames of each stream."""
        g, n, n_ring = self.g, self.n_frames, self._n_ring
        positions = []
        for state, rows, mask in zip(states, self._rows, self._masks, strict=True):
            stop = state.n_frames + n
            frames = np.arange(stop - n, stop)
            # The frame whose keys and values a row holds once these are written: the last one that belongs there.
            holds = stop - 1 - (stop - 1 - np.arange(n_ring)) % n_ring
            age = frames[:, None] - holds
            seen = (holds >= 0) & (age >= 0) & (age < self._config.window)
            g.set(rows, frames % n_ring)
            g.set(mask, np.where(seen, np.float16(0), _MASKED))
            positions.append(frames)
        g.set(self._rvq, rvq)
        g.set(self._positions, np.concatenate(positions))
        self.compute([state.block for state in states])
        return g.get(self._latents)

    def _layer(self, w: TransformerLayer, x: Tensor) -> Tensor:
        g, c, n = self.g, self._config, x.shape[0]
        h = g.rms_norm(x, w.ln1, c.rms_eps)
        qkv = stacked_linear(g, w.attn_qkv, h, self.linear)
        qk = g.rope(g.columns(qkv, 0, 2 * c.n_heads, c.head_dim), self._positions, c.rope_theta)
        qk = g.reshape(qk, n, 2 * c.attention_dim)
        kept = [self.region(self._n_ring, c.attention_dim) for _ in range(2)]
        y = g.concat([self._attention(slot, qk, qkv, *(ring[slot] for ring in kept)) for slot in range(self.n_slots)])
        x = g.add(x, g.mul(self.linear(w.attn_out, g.reshape(y, n, c.attention_dim)), w.ls1))
        h = g.rms_norm(x, w.ln2, c.rms_eps)
        y = self.linear(w.ffn_down, g.silu_gate(stacked_linear(g, w.ffn_gate_up, h, self.linear)))
        return g.add(x, g.mul(y, w.ls2))

    def _attention(self, slot: int, qk: Tensor, qkv: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Of one stream's frames to its window; `keys` and `values` are its rings -> [T, heads, head_dim]"""
        g, c, n = self.g, self._config, self.n_frames

        def columns(x: Tensor, start: int) -> Tensor:
            """[T, attention_dim] of this stream's rows"""
            width = x.shape[1]
            return g.view(x, (n, c.attention_dim), (width, 1), slot * n * width + start)

        q = g.view(qk, (n, c.n_heads, c.head_dim), (qk.shape[1], c.head_dim, 1), slot * n * qk.shape[1])
        rings = []
        for ring, new in ((keys, columns(qk, c.attention_dim)), (values, columns(qkv, 2 * c.attention_dim))):
            kept = g.set_rows(ring, new, self._rows[slot])
            rings.append(g.transpose(g.reshape(kept, self._n_ring, c.n_heads, c.head_dim), 1, 0, 2))
        return g.attention(g.transpose(q, 1, 0, 2), rings[0], rings[1], self._masks[slot], c.head_dim**-0.5)


class Middle(CausalGraph):
    """latents [slots * T, latent] -> the rows of the first block, those of each frame by themselves [.., rows, C]"""

    def __init__(self, w: CodecWeights, backend: Backend, state: StateLayout, n_slots: int, n_frames: int) -> None:
        super().__init__(backend, state.middle, state.n_values, n_slots, n_frames)
        g, n = self.g, n_slots * n_frames
        self._latents = x = g.input(n, w.config.latent)
        for upsample in w.upsamples:
            x = self._upsampled(upsample, x)
        x = _through(self, w.blocks[0], self.causal(w.entry, x))
        self._output = self.finish(g.reshape(x, n, x.shape[0] // n, x.shape[1]))

    def run(self, latents: NDArray[np.float32], states: Sequence[CodecState]) -> NDArray[np.float32]:
        self.g.set(self._latents, latents)
        self.compute([state.block for state in states])
        return self.g.get(self._output)

    def _upsampled(self, w: Upsample, x: Tensor) -> Tensor:
        g = self.g
        x = self.upscaled(w.conv, w.stride, x)
        padded = self.padded(x, len(w.dwconv) - 1)
        y = g.mul(self.shifted(padded, 0, x), w.dwconv[0])
        for i, tap in enumerate(w.dwconv[1:], start=1):
            y = g.add(y, g.mul(self.shifted(padded, i, x), tap))
        y = g.layer_norm(g.reshape(g.add(y, w.dwconv_bias), *x.shape), *w.norm, _CONVNEXT_EPS)
        y = g.linear(w.pw2[0], g.gelu(g.linear(w.pw1[0], y, w.pw1[1])), w.pw2[1])
        return g.add(x, g.mul(y, w.gamma))


class Tail(CausalGraph):
    """The first block's rows of one frame [rows, C] -> samples [samples_per_frame], not yet clamped"""

    def __init__(self, w: CodecWeights, backend: Backend, state: StateLayout) -> None:
        super().__init__(backend, state.tail, state.n_values, 1, 1)
        c, g = w.config, self.g
        n_rows = prod(c.upsample_strides) * w.blocks[0].stride
        self._rows = x = g.input(n_rows, w.blocks[0].units[-1].conv2.weight.shape[0])
        for block in w.blocks[1:]:
            x = _through(self, block, x)
        x = self.one_channel(w.post_conv, self.snaked(w.post_snake, x))
        self._samples = self.finish(g.reshape(x, c.samples_per_frame))

    def run(self, rows: NDArray[np.float32], state: CodecState) -> NDArray[np.float32]:
        self.g.set(self._rows, rows)
        self.compute([state.block])
        return self.g.get(self._samples)


def _through(graph: CausalGraph, block: Block, x: Tensor) -> Tensor:
    """x [rows, in] -> [stride * rows, out]"""
    x = graph.upscaled(block.conv, block.stride, graph.snaked(block.snake, x))
    for unit in block.units:
        x = graph.residual(unit, x)
    return x
