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
of the last 71 frames: `CodecState`. The graphs decode one frame a call whatever the caller's chunks are, so any
chunking gives the very same samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ..codes import check_codes
from ..ggml.graph import Backend, Graph, Tensor, Weights
from ..ggml.types import GgmlType
from ..model_files import MmprojFile
from ..schema import N_CODEBOOKS, CodecDecoderConfig
from .layers import WeightLoader, causal_windows, conv_matrix, transposed_conv_matrix

__all__ = ["CodecDecoder", "CodecState"]

_KERNEL = 7  # of every convolution with a past after the transformer, depthwise ones too
_CONVNEXT_EPS = 1e-6  # torch.nn.LayerNorm's argument in the official block
_MASKED = np.float16(-np.inf)


# -- weights -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """A causal convolution, or a transposed one, as a matrix on windows of k input rows."""

    weight: Tensor  # [out, k * in]; transposed: [stride * out, k * in]
    bias: Tensor  # [out]
    k: int


@dataclass(frozen=True)
class Snake:
    """x + beta * sin^2(alpha * x); the file holds e^alpha and 1 / (e^beta + 1e-9)."""

    alpha: Tensor  # [C]
    beta: Tensor  # [C]


@dataclass(frozen=True)
class TransformerLayer:
    ln1: Tensor  # [hidden]
    attn_q: Tensor  # [attention_dim, hidden]
    attn_k: Tensor  # [attention_dim, hidden]
    attn_v: Tensor  # [attention_dim, hidden]
    attn_out: Tensor  # [hidden, attention_dim]
    ls1: Tensor  # [hidden]
    ln2: Tensor  # [hidden]
    ffn_gate: Tensor  # [ffn, hidden]
    ffn_up: Tensor  # [ffn, hidden]
    ffn_down: Tensor  # [hidden, ffn]
    ls2: Tensor  # [hidden]


@dataclass(frozen=True)
class Upsample:
    """Transposed convolution x2 and a ConvNeXt block."""

    conv: Conv  # transposed, kernel = stride
    stride: int
    dwconv: list[Tensor]  # 7 of [latent], one a tap
    dwconv_bias: Tensor  # [latent]
    norm: tuple[Tensor, Tensor]  # [latent] x 2
    pw1: tuple[Tensor, Tensor]  # [4 * latent, latent], [4 * latent]
    pw2: tuple[Tensor, Tensor]  # [latent, 4 * latent], [latent]
    gamma: Tensor  # [latent]


@dataclass(frozen=True)
class ResidualUnit:
    act1: Snake
    conv1: Conv  # k 7, dilated
    dilation: int
    act2: Snake
    conv2: Conv  # k 1


@dataclass(frozen=True)
class Block:
    snake: Snake
    conv: Conv  # transposed, kernel = 2 * stride
    stride: int
    units: list[ResidualUnit]  # at `dilations`


# -- state -----------------------------------------------------------------------------------------------------------


@dataclass
class CodecState:
    """What one utterance's decoding remembers, a few megabytes. Made by `CodecDecoder.new_state` and `heard`."""

    contexts: list[NDArray[np.float32]]
    """Left contexts of the convolutions, keys and values of the window."""
    n_frames: int = 0
    """Frames decoded so far."""

    def copy(self) -> CodecState:
        """To go on from the same point twice."""
        return CodecState([context.copy() for context in self.contexts], self.n_frames)


# -- the net ---------------------------------------------------------------------------------------------------------


class CodecDecoder:
    """Holds weights and the graph; the utterance's memory is the caller's `CodecState`."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        self.config = model.decoder
        self._backend = backend
        self._weights = Weights(backend)
        self._load(WeightLoader(model.file, self._weights).at("a.gen.wav"))
        self._front, self._tail = _Front(self, 1), _Tail(self)
        self._resident: CodecState | None = None

    @property
    def samples_per_frame(self) -> int:
        return self.config.samples_per_frame

    def new_state(self) -> CodecState:
        """The memory of an utterance at its start."""
        return CodecState([np.zeros(context.shape, np.float32) for context in self._contexts()])

    def decode(self, codes: NDArray[np.integer], state: CodecState) -> NDArray[np.float32]:
        """codes [T, 16] -> samples float32 [T * samples_per_frame] in [-1, 1], going on from `state`, which moves on.

        Raises CodesError for codes outside the codebooks.
        """
        rvq = self._quantized(check_codes(codes, self.config.codebook_size))
        self._bring_in(state)
        samples = np.empty((len(rvq), self.samples_per_frame), np.float32)
        for i in range(len(rvq)):
            samples[i] = self._tail.run(self._front.run(rvq[i : i + 1], state.n_frames)[0])
            state.n_frames += 1
        return samples.reshape(-1)

    def heard(self, codes: NDArray[np.integer]) -> CodecState:
        """The state after decoding codes [T, 16], but made much faster: what follows a reference clip starts from it.

        The transformer sees the last `window` frames at once. The convolutions after it reach back `_tail_reach`
        frames, so only those pass through them.
        """
        rvq = self._quantized(check_codes(codes, self.config.codebook_size))[-self.config.window :]
        state = self.new_state()
        if not len(rvq):
            return state
        front = _Front(self, len(rvq))
        latents = front.run(rvq, 0)
        self._bring_in(state)
        for context, heard in zip(self._front.contexts, front.contexts, strict=True):
            self._front.g.array(context)[...] = front.g.array(heard)
        for latent in latents[-_tail_reach(self.config) :]:
            self._tail.run(latent)
        state.n_frames = len(rvq)
        self._put_away()
        return state

    def _contexts(self) -> list[NDArray[np.float32]]:
        return [part.g.array(context) for part in (self._front, self._tail) for context in part.contexts]

    def _bring_in(self, state: CodecState) -> None:
        """The graphs' own tensors hold the state of the utterance at work; another's waits in its arrays."""
        if state is self._resident:
            return
        self._put_away()
        for context, kept in zip(self._contexts(), state.contexts, strict=True):
            context[...] = kept
        self._resident = state

    def _put_away(self) -> None:
        if self._resident is not None:
            for context, kept in zip(self._contexts(), self._resident.contexts, strict=True):
                kept[...] = context
        self._resident = None

    def _quantized(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """codes [T, 16] -> [T, 2 * codebook_dim]: the semantic row, and the sum of the fifteen acoustic ones"""
        semantic = self._first_codebook[codes[:, 0]]
        acoustic = self._rest_codebooks[np.arange(N_CODEBOOKS - 1), codes[:, 1:]].sum(axis=1, dtype=np.float32)
        return np.concatenate([semantic, acoustic], axis=1)

    # -- loading -------------------------------------------------------------------------------------------------------

    def _load(self, load: WeightLoader) -> None:
        c = self.config
        # Convolutions compute in the type the file stores them in; llama.cpp stores transposed ones as F32 regardless.
        self._dtype = load.values("dac.entry.weight").dtype
        self._first_codebook = load.values("quant.first.codebook.weight")  # [2048, 256]
        self._rest_codebooks = load.values("quant.rest.codebook.weight")  # [15, 2048, 256]
        projections = [load.values(f"quant.{part}.out_proj.weight") for part in ("first", "rest")]
        self._rvq_projection = load.array(np.concatenate(projections, axis=1, dtype=np.float32))  # [512, 2 * 256]
        self._pre_conv = self._conv(load.at("pre_conv"))
        self._tfm_in = (load.matrix("tfm.in_proj.weight"), load.tensor("tfm.in_proj.bias"))
        self._tfm_out = (load.matrix("tfm.out_proj.weight"), load.tensor("tfm.out_proj.bias"))
        self._tfm_norm = load.tensor("tfm.output_norm.weight")
        self._layers = [self._layer(load.at(f"tfm.blk.{i}")) for i in range(c.n_layers)]
        self._upsamples = [self._upsample(load.at(f"up.blk.{i}"), s) for i, s in enumerate(c.upsample_strides)]
        self._entry = self._conv(load.at("dac.entry"))
        self._blocks = [self._block(load.at(f"dac.blk.{i}"), s) for i, s in enumerate(c.dac_strides)]
        self._post_snake = self._snake(load.at("dac.post_snake"))
        self._post_conv = self._conv(load.at("dac.post_conv"))

    def _conv(self, load: WeightLoader) -> Conv:
        kernel = load.values("weight")
        return Conv(load.array(conv_matrix(kernel, self._dtype)), load.tensor("bias"), kernel.shape[2])

    def _transposed(self, load: WeightLoader, stride: int) -> Conv:
        kernel = load.values("weight")
        weight = load.array(transposed_conv_matrix(kernel, stride, self._dtype))
        return Conv(weight, load.tensor("bias"), kernel.shape[2] // stride)

    def _snake(self, load: WeightLoader) -> Snake:
        return Snake(load.tensor("alpha"), load.tensor("beta"))

    def _layer(self, load: WeightLoader) -> TransformerLayer:
        norms = {name: load.tensor(f"{name}.weight") for name in ("ln1", "ls1", "ln2", "ls2")}
        matrices = ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_gate", "ffn_up", "ffn_down")
        return TransformerLayer(**norms, **{name: load.matrix(f"{name}.weight") for name in matrices})

    def _upsample(self, load: WeightLoader, stride: int) -> Upsample:
        taps = load.values("dwconv.weight").astype(np.float32)[:, 0].T  # [7, latent]
        return Upsample(
            conv=self._transposed(load.at("conv"), stride),
            stride=stride,
            dwconv=[load.array(tap) for tap in taps],
            dwconv_bias=load.tensor("dwconv.bias"),
            norm=(load.tensor("norm.weight"), load.tensor("norm.bias")),
            pw1=(load.matrix("pw1.weight"), load.tensor("pw1.bias")),
            pw2=(load.matrix("pw2.weight"), load.tensor("pw2.bias")),
            gamma=load.tensor("gamma"),
        )

    def _block(self, load: WeightLoader, stride: int) -> Block:
        units = []
        for j, dilation in enumerate(self.config.dilations):
            unit = load.at(f"res.{j}")
            act1, act2 = self._snake(unit.at("act1")), self._snake(unit.at("act2"))
            units.append(ResidualUnit(act1, self._conv(unit.at("conv1")), dilation, act2, self._conv(unit.at("conv2"))))
        return Block(self._snake(load.at("snake")), self._transposed(load.at("conv"), stride), stride, units)


def _tail_reach(c: CodecDecoderConfig) -> int:
    """How many frames back a sample hears through the convolutions after the transformer: each adds its left context
    over the rows a frame has there."""
    reach, rows = 0.0, 1
    for stride in c.upsample_strides:
        rows *= stride
        reach += (_KERNEL - 1) / rows
    reach += (_KERNEL - 1) / rows
    for stride in c.dac_strides:
        reach += 1 / rows
        rows *= stride
        reach += sum((_KERNEL - 1) * dilation for dilation in c.dilations) / rows
    return ceil(reach + (_KERNEL - 1) / rows)


# -- the graphs ------------------------------------------------------------------------------------------------------


class _Stateful:
    """A graph whose convolutions keep the rows they need of the past in inputs of their own: `contexts`."""

    def __init__(self, net: CodecDecoder) -> None:
        self.g = Graph(net._backend)
        self.contexts: list[Tensor] = []

    def _with_context(self, x: Tensor, n: int) -> Tensor:
        """x [T, C] -> [n + T, C]: the last n rows of the past first; the past moves on by T rows."""
        g = self.g
        context = g.input(n, x.shape[1])
        self.contexts.append(context)
        padded = g.concat([context, x])
        g.expand(g.copy(g.rows(padded, x.shape[0], n + x.shape[0]), context))
        return padded

    def _causal(self, conv: Conv, x: Tensor) -> Tensor:
        padded = self._with_context(x, conv.k - 1) if conv.k > 1 else x
        return self.g.linear(conv.weight, causal_windows(self.g, padded, conv.k), conv.bias)


class _Front(_Stateful):
    """rvq [T, 2 * codebook_dim] -> latents [T, latent]: up to the transformer's end, T frames at once.

    Keys and values live in a ring of `window` rows: frame p in row p % window, over the one that fell out of sight.
    With T > 1 only a start from nothing is possible, with T <= window.
    """

    def __init__(self, net: CodecDecoder, n_frames: int) -> None:
        super().__init__(net)
        self._config, self._n = c, n = net.config, n_frames
        g = self.g
        self._rvq = g.input(n, 2 * c.codebook_dim)
        self._positions = g.input(n, type=GgmlType.I32)
        self._ring_rows = g.input(n, type=GgmlType.I32)
        self._mask = g.input(n, c.window, type=GgmlType.F16)
        x = self._causal(net._pre_conv, g.linear(net._rvq_projection, self._rvq))
        x = g.linear(net._tfm_in[0], x, net._tfm_in[1])
        for layer in net._layers:
            x = self._layer(layer, x)
        x = g.linear(net._tfm_out[0], g.rms_norm(x, net._tfm_norm, c.rms_eps), net._tfm_out[1])
        self._latents = g.output(x)
        g.allocate()

    def run(self, rvq: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """The frames `start` .. `start` + T - 1; the result is valid until the next run."""
        g, window = self.g, self._config.window
        assert len(rvq) == self._n and (self._n == 1 or start == 0), (len(rvq), start)
        positions = start + np.arange(self._n)
        g.array(self._rvq)[...] = rvq
        g.array(self._positions)[:] = positions
        g.array(self._ring_rows)[:] = positions % window
        unwritten_or_ahead = np.arange(window) > positions[:, None]
        g.array(self._mask)[...] = np.where(unwritten_or_ahead, _MASKED, np.float16(0))
        g.compute()
        return g.array(self._latents)

    def _layer(self, w: TransformerLayer, x: Tensor) -> Tensor:
        g, c, n = self.g, self._config, self._n
        heads = (n, c.n_heads, c.head_dim)
        h = g.rms_norm(x, w.ln1, c.rms_eps)
        q = g.rope(g.reshape(g.linear(w.attn_q, h), *heads), self._positions, c.rope_theta)
        k = g.rope(g.reshape(g.linear(w.attn_k, h), *heads), self._positions, c.rope_theta)
        keys = self._remembered(g.reshape(k, n, c.attention_dim))
        values = self._remembered(g.linear(w.attn_v, h))
        y = g.attention(g.transpose(q, 1, 0, 2), keys, values, self._mask, c.head_dim**-0.5)
        x = g.add(x, g.mul(g.linear(w.attn_out, g.reshape(y, n, c.attention_dim)), w.ls1))
        h = g.rms_norm(x, w.ln2, c.rms_eps)
        y = g.linear(w.ffn_down, g.silu_gate(g.linear(w.ffn_gate, h), g.linear(w.ffn_up, h)))
        return g.add(x, g.mul(y, w.ls2))

    def _remembered(self, x: Tensor) -> Tensor:
        """x [T, attention_dim], keys or values of these frames -> those of the window [heads, window, head_dim]"""
        g, c = self.g, self._config
        ring = g.input(c.window, c.attention_dim)
        self.contexts.append(ring)
        rows = g.reshape(g.set_rows(ring, x, self._ring_rows), c.window, c.n_heads, c.head_dim)
        return g.transpose(rows, 1, 0, 2)


class _Tail(_Stateful):
    """latent [latent] of one frame -> samples [samples_per_frame]"""

    def __init__(self, net: CodecDecoder) -> None:
        super().__init__(net)
        g = self.g
        self._latent = g.input(1, net.config.latent)
        x = self._latent
        for upsample in net._upsamples:
            x = self._upsampled(upsample, x)
        x = self._causal(net._entry, x)
        for block in net._blocks:
            x = self._transposed_conv(block.conv, block.stride, self._snaked(block.snake, x))
            for unit in block.units:
                x = self._residual(unit, x)
        x = self._causal(net._post_conv, self._snaked(net._post_snake, x))
        self._samples = g.output(g.clamp(g.reshape(x, net.samples_per_frame), -1.0, 1.0))
        g.allocate()

    def run(self, latent: NDArray[np.float32]) -> NDArray[np.float32]:
        """The result is valid until the next run."""
        g = self.g
        g.array(self._latent)[0] = latent
        g.compute()
        return g.array(self._samples)

    def _transposed_conv(self, conv: Conv, stride: int, x: Tensor) -> Tensor:
        """x [T, in] -> [stride * T, out]"""
        g = self.g
        padded = self._with_context(x, conv.k - 1) if conv.k > 1 else x
        y = g.linear(conv.weight, causal_windows(g, padded, conv.k))
        return g.add(g.reshape(y, stride * x.shape[0], y.shape[1] // stride), conv.bias)

    def _residual(self, unit: ResidualUnit, x: Tensor) -> Tensor:
        g = self.g
        y = self._snaked(unit.act1, x)
        y = self._causal(unit.conv1, y) if unit.dilation == 1 else self._dilated(unit.conv1, unit.dilation, y)
        return g.add(x, self._causal(unit.conv2, self._snaked(unit.act2, y)))

    def _dilated(self, conv: Conv, dilation: int, x: Tensor) -> Tensor:
        """A dilated convolution is a plain one on every dilation-th row: split time into phases, convolve, join."""
        g = self.g
        n, width = x.shape
        surplus = -n % dilation  # rows of history that only fill the phases up
        padded = self._with_context(x, (conv.k - 1) * dilation + surplus)
        per_phase = padded.shape[0] // dilation
        phases = g.contiguous(g.transpose(g.reshape(padded, per_phase, dilation, width), 1, 0, 2))
        n_windows = per_phase - conv.k + 1
        windows = g.view(phases, (dilation, n_windows, conv.k * width), (per_phase * width, width, 1))
        y = g.linear(conv.weight, windows, conv.bias)  # [dilation, n_windows, out]
        joined = g.reshape(g.contiguous(g.transpose(y, 1, 0, 2)), surplus + n, y.shape[2])
        return g.rows(joined, surplus, surplus + n)

    def _upsampled(self, w: Upsample, x: Tensor) -> Tensor:
        g = self.g
        x = self._transposed_conv(w.conv, w.stride, x)
        n = x.shape[0]
        padded = self._with_context(x, len(w.dwconv) - 1)
        y = g.mul(g.rows(padded, 0, n), w.dwconv[0])
        for i, tap in enumerate(w.dwconv[1:], start=1):
            y = g.add(y, g.mul(g.rows(padded, i, n + i), tap))
        y = g.layer_norm(g.add(y, w.dwconv_bias), *w.norm, _CONVNEXT_EPS)
        y = g.linear(w.pw2[0], g.gelu(g.linear(w.pw1[0], y, w.pw1[1])), w.pw2[1])
        return g.add(x, g.mul(y, w.gamma))

    def _snaked(self, w: Snake, x: Tensor) -> Tensor:
        g = self.g
        return g.add(x, g.mul(g.square(g.sin(g.mul(x, w.alpha))), w.beta))
