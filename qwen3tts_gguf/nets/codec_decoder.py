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
from .layers import WeightLoader, causal_windows, require_numbers

__all__ = ["CodecDecoder", "CodecState"]

_KERNEL = 7  # of every convolution with a past after the transformer, depthwise ones too
_CONVNEXT_EPS = 1e-6  # torch.nn.LayerNorm's argument in the official block
# sin^2(pi d) = c0 d^2 + c1 d^4 + ... for d in [-1/2, 1/2], fitted at Chebyshev nodes; off by 4.6e-7 at most.
_SINE_SQUARED = (9.86952175, -32.46503585, 42.64227604, -29.42110714, 10.57316894)
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

    alpha_turns: Tensor  # [C], alpha / pi
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


# -- the net ---------------------------------------------------------------------------------------------------------


class CodecDecoder:
    """Holds weights and the graph; the utterance's memory is the caller's `CodecState`."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        self.config = model.decoder
        self._file = model.file
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

        Raises CodesError for codes outside the codebooks, ModelFileError when weights turn out to be damaged.
        """
        rvq = self._quantized(check_codes(codes, self.config.codebook_size))
        self._bring_in(state)
        samples = np.empty((len(rvq), self.samples_per_frame), np.float32)
        for i in range(len(rvq)):
            samples[i] = self._tail.run(self._front.run(rvq[i : i + 1], state.n_frames)[0])
            state.n_frames += 1
        require_numbers(samples, self._file, "codec decoder")
        return np.clip(samples, -1, 1, out=samples).reshape(-1)

    def heard(self, codes: NDArray[np.integer]) -> CodecState:
        """The state after decoding codes [T, 16], but made much faster: what follows a reference clip starts from it.

        The transformer takes all frames at once. The convolutions after it reach back `_tail_reach` frames, so only
        those pass through them.
        """
        rvq = self._quantized(check_codes(codes, self.config.codebook_size))
        n, window = len(rvq), self.config.window
        state = self.new_state()
        if not n:
            return state
        front = _Front(self, n)
        latents = front.run(rvq, 0)
        self._bring_in(state)
        last = np.arange(max(0, n - window), n)
        [(pre_conv, *rings), (heard_pre_conv, *heard)] = self._front.memory(), front.memory()
        pre_conv[...] = heard_pre_conv
        for ring, rows in zip(rings, heard, strict=True):  # keys and values
            ring[last % window] = rows[last % len(rows)]
        for latent in latents[-_tail_reach(self.config) :]:
            self._tail.run(latent)
        state.n_frames = n
        self._put_away()
        return state

    def copied(self, state: CodecState) -> CodecState:
        """To go on from the same point twice."""
        if state is self._resident:
            self._put_away()
        return CodecState([context.copy() for context in state.contexts], state.n_frames)

    def _contexts(self) -> list[NDArray[np.float32]]:
        return [*self._front.memory(), *self._tail.memory()]

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
        return Conv(load.conv("weight", self._dtype), load.tensor("bias"), load.shape("weight")[2])

    def _transposed(self, load: WeightLoader, stride: int) -> Conv:
        weight = load.transposed_conv("weight", stride, self._dtype)
        return Conv(weight, load.tensor("bias"), load.shape("weight")[2] // stride)

    def _snake(self, load: WeightLoader) -> Snake:
        return Snake(load.array(load.values("alpha") / np.float32(np.pi)), load.tensor("beta"))

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
    """A graph whose layers keep the rows they need of the past in inputs of their own."""

    def __init__(self, net: CodecDecoder) -> None:
        self.g = Graph(net._backend)
        self._pasts: list[tuple[Tensor, int]] = []  # tensors whose first rows are the past, and how many they are
        self._padded_inputs: list[tuple[Tensor, int]] = []

    def memory(self) -> list[NDArray[np.float32]]:
        """All of the past, one array a layer, to read and to write."""
        return [self.g.array(tensor)[:n] for tensor, n in self._pasts]

    def _past(self, n: int, width: int) -> Tensor:
        past = self.g.input(n, width)
        self._pasts.append((past, n))
        return past

    def _padded(self, x: Tensor, n: int) -> Tensor:
        """x [T, C] -> [n + T, C]: the last n rows of the past first. `_finish` moves the past on."""
        if n == 0:
            return x
        g = self.g
        padded = g.input(n + x.shape[0], x.shape[1])  # copying into it takes a tenth of the time of ggml's concat
        self._pasts.append((padded, n))
        self._padded_inputs.append((padded, n))
        g.expand(g.copy(x, g.rows(padded, n, padded.shape[0])))
        return padded

    def _conv(self, conv: Conv, padded: Tensor) -> Tensor:
        """padded [k - 1 + T, in] -> [T, out]"""
        return self.g.linear(conv.weight, causal_windows(self.g, padded, conv.k), conv.bias)

    def _causal(self, conv: Conv, x: Tensor) -> Tensor:
        return self._conv(conv, self._padded(x, conv.k - 1))

    def _finish(self, output: Tensor) -> Tensor:
        g = self.g
        g.output(output)
        for padded, n in self._padded_inputs:
            last = g.rows(padded, padded.shape[0] - n, padded.shape[0])
            g.expand(g.copy(g.contiguous(last), g.rows(padded, 0, n)))  # by way of a copy: the two may overlap
        g.allocate()
        return output


class _Front(_Stateful):
    """rvq [T, 2 * codebook_dim] -> latents [T, latent]: up to the transformer's end, T frames at once.

    With T = 1 keys and values live in a ring of `window` rows: frame p in row p % window, over the one that fell out of
    sight. With T > 1 each frame has its own row, and only a start from nothing is possible.
    """

    def __init__(self, net: CodecDecoder, n_frames: int) -> None:
        super().__init__(net)
        self._config = c = net.config
        self._n = n = n_frames
        self._n_rows = n_rows = c.window if n == 1 else n
        g = self.g
        self._rvq = g.input(n, 2 * c.codebook_dim)
        self._positions = g.input(n, type=GgmlType.I32)
        self._rows = g.input(n, type=GgmlType.I32)
        self._mask = g.input(n, n_rows, type=GgmlType.F16)
        x = self._causal(net._pre_conv, g.linear(net._rvq_projection, self._rvq))
        x = g.linear(net._tfm_in[0], x, net._tfm_in[1])
        for layer in net._layers:
            x = self._layer(layer, x)
        x = g.linear(net._tfm_out[0], g.rms_norm(x, net._tfm_norm, c.rms_eps), net._tfm_out[1])
        self._latents = self._finish(x)

    def run(self, rvq: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """The frames `start` .. `start` + T - 1; the result is valid until the next run."""
        g, rows = self.g, np.arange(self._n_rows)
        assert len(rvq) == self._n and (self._n == 1 or start == 0), (len(rvq), start)
        positions = start + np.arange(self._n)
        g.array(self._rvq)[...] = rvq
        g.array(self._positions)[:] = positions
        g.array(self._rows)[:] = positions % self._n_rows
        hidden = rows > positions[:, None]  # not yet written, or ahead
        if self._n > 1:
            hidden |= positions[:, None] - rows >= self._config.window
        g.array(self._mask)[...] = np.where(hidden, _MASKED, np.float16(0))
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
        """x [T, attention_dim], keys or values of these frames -> those of all rows kept [heads, rows, head_dim]"""
        g, c = self.g, self._config
        kept = g.set_rows(self._past(self._n_rows, c.attention_dim), x, self._rows)
        return g.transpose(g.reshape(kept, self._n_rows, c.n_heads, c.head_dim), 1, 0, 2)


class _Tail(_Stateful):
    """latent [latent] of one frame -> samples [samples_per_frame], not yet clamped"""

    def __init__(self, net: CodecDecoder) -> None:
        super().__init__(net)
        g = self.g
        self._latent = g.input(1, net.config.latent)
        x = self._latent
        for upsample in net._upsamples:
            x = self._upsampled(upsample, x)
        x = self._causal(net._entry, x)
        for block in net._blocks:
            x = self._upscaled(block.conv, block.stride, self._snaked(block.snake, x, block.conv.k - 1))
            for unit in block.units:
                x = self._residual(unit, x)
        x = self._conv(net._post_conv, self._snaked(net._post_snake, x, net._post_conv.k - 1))
        self._samples = self._finish(g.reshape(x, net.samples_per_frame))

    def run(self, latent: NDArray[np.float32]) -> NDArray[np.float32]:
        """The result is valid until the next run."""
        g = self.g
        g.array(self._latent)[0] = latent
        g.compute()
        return g.array(self._samples)

    def _upscaled(self, conv: Conv, stride: int, padded: Tensor) -> Tensor:
        """padded [k - 1 + T, in] -> [stride * T, out]"""
        g = self.g
        y = g.linear(conv.weight, causal_windows(g, padded, conv.k))
        return g.add(g.reshape(y, stride * y.shape[0], y.shape[1] // stride), conv.bias)

    def _residual(self, unit: ResidualUnit, x: Tensor) -> Tensor:
        y = self._dilated(unit, x)
        return self.g.add(x, self._conv(unit.conv2, self._snaked(unit.act2, y)))

    def _dilated(self, unit: ResidualUnit, x: Tensor) -> Tensor:
        """SnakeBeta and the dilated convolution: a plain one on every dilation-th row. Split time, convolve, join."""
        g, conv, dilation = self.g, unit.conv1, unit.dilation
        n, width = x.shape
        surplus = -n % dilation  # rows of history that only fill the phases up
        padded = self._snaked(unit.act1, x, (conv.k - 1) * dilation + surplus)
        if dilation == 1:
            return self._conv(conv, padded)
        per_phase = padded.shape[0] // dilation
        phases = g.contiguous(g.transpose(g.reshape(padded, per_phase, dilation, width), 1, 0, 2))
        n_windows = per_phase - conv.k + 1
        windows = g.view(phases, (dilation, n_windows, conv.k * width), (per_phase * width, width, 1))
        y = g.linear(conv.weight, windows, conv.bias)  # [dilation, n_windows, out]
        joined = g.reshape(g.contiguous(g.transpose(y, 1, 0, 2)), surplus + n, y.shape[2])
        return g.rows(joined, surplus, surplus + n)

    def _upsampled(self, w: Upsample, x: Tensor) -> Tensor:
        g = self.g
        x = self._upscaled(w.conv, w.stride, x)
        n = x.shape[0]
        padded = self._padded(x, len(w.dwconv) - 1)
        y = g.mul(g.rows(padded, 0, n), w.dwconv[0])
        for i, tap in enumerate(w.dwconv[1:], start=1):
            y = g.add(y, g.mul(g.rows(padded, i, n + i), tap))
        y = g.layer_norm(g.add(y, w.dwconv_bias), *w.norm, _CONVNEXT_EPS)
        y = g.linear(w.pw2[0], g.gelu(g.linear(w.pw1[0], y, w.pw1[1])), w.pw2[1])
        return g.add(x, g.mul(y, w.gamma))

    def _snaked(self, w: Snake, x: Tensor, n_past: int = 0) -> Tensor:
        """x [T, C] -> [n_past + T, C]: SnakeBeta, behind as many rows of its past.

        sin^2 has the period 1 in turns = alpha x / pi, and is even: a polynomial in the square of the distance to the
        nearest whole turn. ggml's own sine is scalar; these operations are not, and take half its time.
        """
        g = self.g
        turns = g.mul(x, w.alpha_turns)
        square = g.square(g.sub(turns, g.floor(g.scale(turns, 1.0, 0.5))))
        sine_squared = g.scale(square, _SINE_SQUARED[-1], _SINE_SQUARED[-2])
        for coefficient in _SINE_SQUARED[-3::-1]:
            sine_squared = g.scale(g.mul(sine_squared, square), 1.0, coefficient)
        sine_squared = g.mul(sine_squared, square)
        return self._padded(g.add(x, g.mul(sine_squared, w.beta)), n_past)
