"""The code predictor's weights, and its layers as part of a graph.

    x [lanes * T, talker_hidden] -> proj_in (where the talker is wider) -> 5 layers -> norm -> [lanes * T, hidden]

A lane is one speech; its T positions follow those it has passed through already, whose keys and values stay in the
graph. Lanes share products only as far as each lane's rows stay bit-identical (nets/widths.py).
Mirrors Qwen3TTSTalkerCodePredictorModel (qwen-tts 0.1.1, core/models/modeling_qwen3_tts.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..ggml.device import Tensor
from ..ggml.graph import Graph
from ..ggml.types import GgmlType
from ..model.schema import N_CODEBOOKS, CodePredictorConfig
from .layers import WeightLoader, independent_rows, stacked_linear
from .widths import ANY

__all__ = ["CodePredictorWeights", "Layer", "PredictorLayers"]

_ROWS_ON_DEVICE = 8
"""From more rows on ggml's Vulkan backend rounds what is multiplied to F16 where the device has it, which the inputs of
`ffn_down` overflow."""


@dataclass(frozen=True)
class Layer:
    ln1: Tensor  # [hidden]
    attn_qkv: list[Tensor]  # attn_q [n_heads * head_dim, hidden]; attn_k, attn_v [n_kv_heads * head_dim, hidden]
    attn_qk_norm: Tensor  # [n_heads + n_kv_heads, head_dim]: attn_q_norm and attn_k_norm, for each head
    attn_out: Tensor  # [hidden, n_heads * head_dim]
    ln2: Tensor  # [hidden]
    ffn_gate_up: list[Tensor]  # ffn_gate and ffn_up, [ffn, hidden] each
    ffn_down: Tensor  # [hidden, ffn]; never F16, which its input (peaks of 1.5e5) overflows

    @property
    def matrices(self) -> list[Tensor]:
        return [*self.attn_qkv, self.attn_out, *self.ffn_gate_up, self.ffn_down]


@dataclass(frozen=True)
class CodePredictorWeights:
    out_embd: Tensor  # [3072, talker_hidden]: code 0, and the talker's other codec tokens
    embd: list[Tensor]  # 15 of [2048, talker_hidden]: codes 1..15
    proj_in: tuple[Tensor, Tensor] | None  # [hidden, talker_hidden], [hidden]
    layers: list[Layer]
    output_norm: Tensor  # [hidden]
    head: list[Tensor]  # 15 of [2048, hidden]

    @classmethod
    def load(cls, load: WeightLoader, config: CodePredictorConfig) -> CodePredictorWeights:
        projected = load.has("proj_in.weight")
        return cls(
            out_embd=load.tensor("out_embd.weight"),
            embd=load.tensors("embd.weight"),
            proj_in=(load.matrix("proj_in.weight"), load.tensor("proj_in.bias")) if projected else None,
            layers=[cls._layer(load.at(f"blk.{i}"), config) for i in range(config.n_layers)],
            output_norm=load.tensor("output_norm.weight"),
            head=load.matrices("head.weight"),
        )

    @staticmethod
    def _layer(load: WeightLoader, c: CodePredictorConfig) -> Layer:
        norms = (load.values("attn_q_norm.weight"), load.values("attn_k_norm.weight"))
        by_head = np.repeat(np.stack(norms), (c.n_heads, c.n_kv_heads), axis=0)
        return Layer(
            ln1=load.tensor("ln1.weight"),
            attn_qkv=load.stacked("attn_q.weight", "attn_k.weight", "attn_v.weight"),
            attn_qk_norm=load.array(by_head),
            attn_out=load.matrix("attn_out.weight"),
            ln2=load.tensor("ln2.weight"),
            ffn_gate_up=load.stacked("ffn_gate.weight", "ffn_up.weight"),
            ffn_down=load.matrix("ffn_down.weight"),
        )


class PredictorLayers:
    """The layers in one graph, for a number of lanes, with the keys and values of one frame.

    max_rows: how many rows one product may have at most, whatever nets/widths.py allows.
    """

    def __init__(
        self, g: Graph, weights: CodePredictorWeights, config: CodePredictorConfig, n_lanes: int, max_rows: int = ANY
    ) -> None:
        self._g, self._w, self._c, self._n_lanes = g, weights, config, n_lanes
        if not g.backend.on_host:
            max_rows = _ROWS_ON_DEVICE
        self._linear = partial(independent_rows, g, max_rows=max_rows)
        self._n_done = 0
        kv_shape = (n_lanes, N_CODEBOOKS, config.n_kv_heads, config.head_dim)
        self._kv = [(g.memory(*kv_shape), g.memory(*kv_shape)) for _ in weights.layers]
        self._positions: list[tuple[Tensor, int]] = []  # of each pass, and its first
        self._masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """The next positions of each lane: x [lanes, T, talker_hidden] -> [lanes, T, hidden]"""
        g, w = self._g, self._w
        n_lanes, n, width = x.shape
        start, stop = self._n_done, self._n_done + n
        self._n_done = stop
        # A tensor for each pass: rope of ggml's Vulkan backend takes the positions of a view from a rounded address.
        positions = g.input(n, type=GgmlType.I32)
        self._positions.append((positions, start))
        mask = None
        if n > 1:
            mask = g.input(n, stop, type=GgmlType.F16)
            self._masks.append(mask)
        x = g.reshape(x, n_lanes * n, width)
        if w.proj_in:
            x = g.add(self._linear(w.proj_in[0], x), w.proj_in[1])
        for layer, kv in zip(w.layers, self._kv, strict=True):
            x = self._layer(layer, kv, x, positions, mask, start)
        x = g.rms_norm(x, w.output_norm, self._c.rms_eps)
        return g.reshape(x, n_lanes, n, x.shape[-1])

    def logits(self, step: int, y: Tensor) -> Tensor:
        """Head `step` on each lane's last position: y [lanes, T, hidden] from `forward` -> [lanes, codebook_size]"""
        g = self._g
        n_lanes, n, width = y.shape
        last = g.view(y, (n_lanes, width), (n * width, 1), (n - 1) * width)
        if n > 1 and n_lanes > 1:
            last = g.contiguous(last)  # AMX products take rows to lie side by side
        return self._linear(self._w.head[step], last)

    def _layer(
        self, w: Layer, kv: tuple[Tensor, Tensor], x: Tensor, positions: Tensor, mask: Tensor | None, start: int
    ) -> Tensor:
        """x [lanes * T, hidden] -> the same shape"""
        g, c = self._g, self._c
        lanes, n = self._n_lanes, positions.shape[0]
        stop, n_qk = start + n, c.n_heads + c.n_kv_heads
        h = g.rms_norm(x, w.ln1, c.rms_eps)
        qkv = stacked_linear(g, w.attn_qkv, h, self._linear)
        qk = g.rms_norm(g.columns(qkv, 0, n_qk, c.head_dim), w.attn_qk_norm, c.rms_eps)
        qk = g.rope(g.reshape(qk, lanes, n, n_qk, c.head_dim), positions, c.rope_theta)
        qk, qkv = g.reshape(qk, lanes, n, -1), g.reshape(qkv, lanes, n, -1)
        q = g.columns(qk, 0, c.n_heads, c.head_dim)
        new_keys = g.columns(qk, c.n_heads * c.head_dim, c.n_kv_heads, c.head_dim)
        new_values = g.columns(qkv, n_qk * c.head_dim, c.n_kv_heads, c.head_dim)
        for cache, new in zip(kv, (new_keys, new_values), strict=True):
            g.expand(g.copy(new, _positions(g, cache, start, stop)))
        keys, values = (g.transpose(_positions(g, cache, 0, stop), 0, 2, 1, 3) for cache in kv)
        y = g.attention(g.transpose(q, 0, 2, 1, 3), keys, values, mask, c.head_dim**-0.5)
        x = g.add(x, self._linear(w.attn_out, g.reshape(y, lanes * n, c.n_heads * c.head_dim)))
        h = g.rms_norm(x, w.ln2, c.rms_eps)
        gated = g.silu_gate(stacked_linear(g, w.ffn_gate_up, h, self._linear))
        return g.add(x, self._linear(w.ffn_down, gated))

    def set_constants(self) -> None:
        """After the graph's memory is allocated."""
        for positions, start in self._positions:
            self._g.set(positions, start + np.arange(*positions.shape))
        for mask in self._masks:
            n, n_keys = mask.shape
            self._g.set(mask, np.triu(np.full((n, n_keys), -np.inf, np.float16), k=1 + n_keys - n))


def _positions(g: Graph, cache: Tensor, start: int, stop: int) -> Tensor:
    """cache [lanes, 16, n_kv_heads, head_dim] -> cache[:, start:stop]"""
    lanes, n, heads, width = cache.shape
    row = heads * width
    return g.view(cache, (lanes, stop - start, heads, width), (n * row, row, width, 1), start * row)
