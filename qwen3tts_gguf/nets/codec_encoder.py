"""The codec encoder: 24 kHz samples to frames of 16 codes, those of a reference voice.

    samples      [n]
    conv_in      [n, 64]          causal convolution, k 7
    blocks       [n / 960, 1024]  four: residual unit (k 3, k 1), strided convolution /4, /5, /6, /8 with k = 2 * stride
    seanet       [n / 960, 512]   causal convolution, k 3; ELU before each convolution but the first
    transformer  [n / 960, 512]   8 layers, causal, LayerNorm, GELU, LayerScale
    downsample   [n / 1920, 512]  convolution /2, k 4, over repeated edge rows
    projected    [n / 1920, 2 * 256]  the semantic and the acoustic quantizer's view of the same features
    codes        [n / 1920, 16]   nearest codebook row; each acoustic code on what its predecessors left over

Mirrors MimiModel.encode (transformers, models/mimi/modeling_mimi.py), whose first 16 codebooks the official package
keeps (qwen-tts 0.1.1, core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py). Lengths are rounded up at every step.

The convolutions see a few frames of sound at a time, and of what came before only the rows that each still needs. So
memory does not grow with the clip where rows are many; the transformer then sees all of the few rows that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..audio import MAX_SECONDS, sample_problem
from ..errors import AudioError
from ..ggml.device import Backend, Tensor, Weights
from ..ggml.graph import Graph
from ..ggml.types import GgmlType
from ..model.files import MmprojFile
from ..model.schema import N_CODEBOOKS, SAMPLE_RATE_HZ
from .layers import WeightLoader, causal_windows, require_numbers

__all__ = ["CodecEncoder"]

FloatArray = NDArray[np.float32]

_CHUNK_FRAMES = 8  # enough columns for the deep convolutions, few enough rows of the first ones for the cache
_ELU_TILE = 1 << 16  # values that stay in a core's cache from one NumPy pass to the next
_DOWNSAMPLE_STRIDE = 2


# -- weights ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """A causal convolution as a matrix on windows of k input rows."""

    weight: Tensor  # [out, k * in]
    bias: Tensor  # [out]
    k: int
    stride: int = 1


@dataclass(frozen=True)
class Block:
    res_conv1: Conv  # k 3, to half the width
    res_conv2: Conv  # k 1, back to the width
    down: Conv  # k = 2 * stride, to twice the width


@dataclass(frozen=True)
class TransformerLayer:
    ln1: tuple[Tensor, Tensor]  # [hidden] x 2
    attn_q: Tensor  # [hidden, hidden]
    attn_k: Tensor  # [hidden, hidden]
    attn_v: Tensor  # [hidden, hidden]
    attn_out: Tensor  # [hidden, hidden]
    ls1: Tensor  # [hidden]
    ln2: tuple[Tensor, Tensor]  # [hidden] x 2
    ffn_up: Tensor  # [ffn, hidden]
    ffn_down: Tensor  # [hidden, ffn]
    ls2: Tensor  # [hidden]


# -- the net ---------------------------------------------------------------------------------------------------------


class CodecEncoder:
    """Built from a model that has one (`MmprojFile.encoder`)."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        assert model.encoder is not None
        self.config = model.encoder
        self._file = model.file
        self._backend = backend
        self._weights = Weights(backend)
        self._load(WeightLoader(model.file, self._weights).at("a.codec_enc"))
        self._build_seanet()

    @property
    def samples_per_frame(self) -> int:
        return self.config.samples_per_frame

    def encode(self, samples: FloatArray) -> NDArray[np.int32]:
        """samples [n] at 24 kHz, n >= 1 -> codes [ceil(n / samples_per_frame), 16]. Raises AudioError when empty."""
        projected = self.stages(samples)["projected"]
        require_numbers(projected, self._file, "codec encoder")
        return self._nearest_codes(projected)

    def stages(self, samples: FloatArray) -> dict[str, FloatArray]:
        """The outputs seanet, transformer, downsample and projected of this file's docstring."""
        if samples.ndim != 1 or not len(samples):
            raise AudioError(f"the reference must be one channel of at least one sample, not {list(samples.shape)}")
        if len(samples) > MAX_SECONDS * SAMPLE_RATE_HZ:
            raise AudioError(f"at most {MAX_SECONDS / 60:.0f} minutes can be encoded at once: shorten the clip")
        if problem := sample_problem(samples):
            raise AudioError(f"the clip {problem}")
        seanet = self._seanet(samples)
        return {"seanet": seanet, **self._transformed(seanet)}

    # -- loading ------------------------------------------------------------------------------------------------------

    def _load(self, load: WeightLoader) -> None:
        c = self.config
        # With rows of one sample F16 is no faster, and would round the sound itself.
        self._conv_in = self._conv(load.at("conv_in"), type=GgmlType.F32)
        self._blocks = [
            Block(
                res_conv1=self._conv(load.at(f"blk.{i}.res_conv1")),
                res_conv2=self._conv(load.at(f"blk.{i}.res_conv2")),
                down=self._conv(load.at(f"blk.{i}.down"), stride),
            )
            for i, stride in enumerate(c.strides)
        ]
        self._conv_out = self._conv(load.at("conv_out"))
        self._layers = [self._layer(load.at(f"tfm.blk.{i}")) for i in range(c.n_layers)]
        self._downsample = load.conv("downsample.weight")  # [hidden, 4 * hidden]
        projections = [load.values(f"quant.{part}.in_proj.weight") for part in ("first", "rest")]
        self._projection = load.array(np.concatenate(projections, dtype=np.float32))  # [2 * codebook_dim, hidden]
        first, rest = (load.values(f"quant.{part}.codebook.weight") for part in ("first", "rest"))
        self._codebooks: list[FloatArray] = [first, *rest]  # 16 of [codebook_size, codebook_dim]
        self._squared_norms = [np.square(book).sum(axis=1, dtype=np.float32) for book in self._codebooks]

    def _conv(self, load: WeightLoader, stride: int = 1, type: GgmlType | None = None) -> Conv:
        return Conv(load.conv("weight", type), load.tensor("bias"), load.shape("weight")[2], stride)

    def _layer(self, load: WeightLoader) -> TransformerLayer:
        matrices = ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down")
        return TransformerLayer(
            ln1=(load.tensor("ln1.weight"), load.tensor("ln1.bias")),
            ls1=load.tensor("ls1.weight"),
            ln2=(load.tensor("ln2.weight"), load.tensor("ln2.bias")),
            ls2=load.tensor("ls2.weight"),
            **{name: load.matrix(f"{name}.weight") for name in matrices},
        )

    # -- the convolutions, a chunk at a time --------------------------------------------------------------------------

    def _build_seanet(self) -> None:
        """One graph for all chunks; the pasts of its convolutions are inputs that it moves on itself."""
        self._chunk = _CHUNK_FRAMES * self.samples_per_frame
        self._n_left = 0
        self._pasts: list[Tensor] = []
        self._valid: dict[int, Tensor] = {}
        self._seanet_graph = g = Graph(self._backend)
        self._samples = g.input(self._chunk + self._conv_in.k - 1, 1)
        x = _convolved(g, self._conv_in, self._samples)
        for block in self._blocks:
            y = _convolved(g, block.res_conv1, self._activated(g, x, block.res_conv1))
            x = g.add(_convolved(g, block.res_conv2, self._activated(g, y, block.res_conv2)), x)
            x = _convolved(g, block.down, self._activated(g, x, block.down))
        self._features = g.output(_convolved(g, self._conv_out, self._activated(g, x, self._conv_out)))
        g.allocate()

    def _seanet(self, samples: FloatArray) -> FloatArray:
        """samples [n] -> [ceil(n / 960), hidden]"""
        g, n = self._seanet_graph, len(samples)
        for past in self._pasts:
            g.set(past, 0)
        padded = np.pad(samples.astype(np.float32), (self._conv_in.k - 1, -n % self._chunk))
        chunks = []
        for start in range(0, n, self._chunk):
            self._n_left = n - start
            for n_rows, valid in self._valid.items():
                g.set(valid, np.arange(n_rows)[:, None] < self._n_valid(n_rows))
            g.set(self._samples, padded[start : start + self._samples.shape[0], None])
            g.compute()
            chunks.append(g.get(self._features))
        return np.concatenate(chunks)[: -(-n // prod(self.config.strides))]

    def _activated(self, g: Graph, x: Tensor, conv: Conv) -> Tensor:
        """x [T, C] -> [k - stride + T, C]: what `conv` needs of the past, then elu(x), with zeros past the clip's end.

        Those zeros are the official padding that makes the rows a multiple of the stride. All in one NumPy pass: ggml's
        ELU is scalar and takes twenty times as long.
        """
        n, width = x.shape
        n_past = conv.k - conv.stride
        assert n >= n_past, (x, conv.k, conv.stride)
        if not self._backend.on_host:
            return self._activated_by_nodes(g, x, n_past)
        tile = max(1, _ELU_TILE // width)
        past = g.memory(n_past, width) if n_past else None

        def activate(output: FloatArray, task: int, n_tasks: int) -> None:
            if past is not None and task == 0:
                output[:n_past] = g.host_array(past)
            source, target = g.host_array(x), output[n_past:]
            n_valid = self._n_valid(n)
            end = (task + 1) * n // n_tasks
            for start in range(task * n // n_tasks, end, tile):
                rows = slice(start, min(start + tile, end))
                np.minimum(source[rows], 0, out=target[rows])
                np.exp(target[rows], out=target[rows])
                np.subtract(target[rows], 1, out=target[rows])
                np.maximum(source[rows], target[rows], out=target[rows])  # for x < 0, x < e^x - 1
                target[rows][max(0, n_valid - start) :] = 0

        activated = g.custom(activate, x, (n_past + n, width))
        if past is not None:
            self._pasts.append(past)
            g.expand(g.copy(g.rows(activated, n, n_past + n), past))
        return activated

    def _activated_by_nodes(self, g: Graph, x: Tensor, n_past: int) -> Tensor:
        """The same in ggml's operations, for devices that cannot call Python."""
        n, width = x.shape
        if n not in self._valid:
            self._valid[n] = g.input(n, 1)
        activated = g.mul(g.elu(x), self._valid[n])
        if not n_past:
            return activated
        past = g.memory(n_past, width)
        self._pasts.append(past)
        padded = g.memory(n_past + n, width)
        g.expand(g.copy(past, g.rows(padded, 0, n_past)))
        g.expand(g.copy(activated, g.rows(padded, n_past, n_past + n)))
        g.expand(g.copy(g.rows(padded, n, n_past + n), past))
        return padded

    def _n_valid(self, n_rows: int) -> int:
        """How many of a layer's rows of this chunk lie before the clip's end."""
        return min(n_rows, -(-self._n_left // (self._chunk // n_rows)))

    # -- the transformer and what follows, all at once ----------------------------------------------------------------

    def _transformed(self, features: FloatArray) -> dict[str, FloatArray]:
        """features [T, hidden] -> transformer [T, hidden], downsample and projected [ceil(T / 2), ..]"""
        n = len(features)
        g = Graph(self._backend.for_one_graph())
        x = seanet = g.input(*features.shape)
        positions = g.input(n, type=GgmlType.I32)
        mask = g.input(n, n, type=GgmlType.F16)
        for layer in self._layers:
            x = self._transformer_layer(g, layer, x, positions, mask)
        stages = {"transformer": x}
        stages["downsample"] = x = self._downsampled(g, x)
        stages["projected"] = g.linear(self._projection, x)
        for stage in stages.values():
            g.output(stage)
        g.allocate()
        g.set(seanet, features)
        g.set(positions, np.arange(n))
        g.set(mask, np.triu(np.full((n, n), -np.inf, np.float16), k=1))
        g.compute()
        return {name: g.get(stage) for name, stage in stages.items()}

    def _transformer_layer(self, g: Graph, w: TransformerLayer, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        c = self.config
        heads = (x.shape[0], c.n_heads, c.head_dim)
        h = g.layer_norm(x, *w.ln1, c.norm_eps)
        q = g.rope(g.reshape(g.linear(w.attn_q, h), *heads), positions, c.rope_theta)
        k = g.rope(g.reshape(g.linear(w.attn_k, h), *heads), positions, c.rope_theta)
        v = g.reshape(g.linear(w.attn_v, h), *heads)
        q, k, v = (g.transpose(rows, 1, 0, 2) for rows in (q, k, v))
        y = g.reshape(g.attention(q, k, v, mask, c.head_dim**-0.5), *x.shape)
        x = g.add(x, g.mul(g.linear(w.attn_out, y), w.ls1))
        h = g.layer_norm(x, *w.ln2, c.norm_eps)
        y = g.linear(w.ffn_down, g.gelu(g.linear(w.ffn_up, h)))
        return g.add(x, g.mul(y, w.ls2))

    def _downsampled(self, g: Graph, x: Tensor) -> Tensor:
        """x [T, hidden] -> [ceil(T / 2), hidden]; here the edges are padded with themselves, not with zeros"""
        n = x.shape[0]
        k = self._downsample.shape[1] // x.shape[1]
        first, last = g.rows(x, 0, 1), g.rows(x, n - 1, n)
        left, right = k - _DOWNSAMPLE_STRIDE, -n % _DOWNSAMPLE_STRIDE
        padded = g.concat([first] * left + [x] + [last] * right)
        return g.linear(self._downsample, causal_windows(g, padded, k, _DOWNSAMPLE_STRIDE))

    def _nearest_codes(self, projected: FloatArray) -> NDArray[np.int32]:
        """projected [T, 2 * codebook_dim] -> [T, 16]"""
        codes = np.empty((len(projected), N_CODEBOOKS), np.int32)
        semantic, residual = np.split(projected, 2, axis=1)
        codes[:, 0] = self._nearest(0, semantic)
        for i in range(1, N_CODEBOOKS):
            codes[:, i] = self._nearest(i, residual)
            residual = residual - self._codebooks[i][codes[:, i]]
        return codes

    def _nearest(self, book: int, vectors: FloatArray) -> NDArray[np.intp]:
        """torch.cdist's arithmetic, in its order, so that near ties fall as they do there; vectors [T, dim] -> [T]"""
        squares = (-2 * vectors) @ self._codebooks[book].T
        squares += np.square(vectors).sum(axis=1, keepdims=True)
        squares += self._squared_norms[book]
        nearest: NDArray[np.intp] = np.sqrt(np.maximum(squares, 0)).argmin(axis=1)
        return nearest


def _convolved(g: Graph, conv: Conv, padded: Tensor) -> Tensor:
    """padded [k - stride + T, in] -> [T / stride, out]"""
    return g.add(g.linear(conv.weight, causal_windows(g, padded, conv.k, conv.stride)), conv.bias)
