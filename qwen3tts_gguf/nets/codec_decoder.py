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
of the last 71 frames: `CodecState`. The work is done by three graphs one after another:

    _Front   rvq .. transformer        one frame, or four at once: their time goes into reading weights, 150 MB in F16
    _Middle  upsample .. first block   the same
    _Tail    other blocks, post        one frame: its time goes into arithmetic, and more would fall out of the cache.
                                       A frame's rows are many enough to convolve at points (winograd.py)

What each frame hears does not depend on how many are decoded at once, so any chunking gives the very same samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend, Tensor, Weights
from ..ggml.types import GgmlType
from ..model.files import MmprojFile
from ..model.schema import N_CODEBOOKS, CodecDecoderConfig
from .causal import FRAMES_AT_ONCE, CausalGraph, CausalLoader, Conv, Memory, ResidualUnit, Snake
from .codes import check_codes
from .layers import WeightLoader, require_numbers, stacked_linear

__all__ = ["CodecDecoder", "CodecState"]

_KERNEL = 7  # of every convolution with a past after the transformer, depthwise ones too
_CONVNEXT_EPS = 1e-6  # torch.nn.LayerNorm's argument in the official block
_MASKED = np.float16(-np.inf)


# -- weights -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransformerLayer:
    ln1: Tensor  # [hidden]
    attn_qkv: list[Tensor]  # attn_q, attn_k, attn_v, [attention_dim, hidden] each
    attn_out: Tensor  # [hidden, attention_dim]
    ls1: Tensor  # [hidden]
    ln2: Tensor  # [hidden]
    ffn_gate_up: list[Tensor]  # ffn_gate and ffn_up, [ffn, hidden] each
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
class Block:
    """SnakeBeta, transposed convolution, residual units."""

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
    """Holds weights and graphs; the utterance's memory is the caller's `CodecState`."""

    frames_at_once = FRAMES_AT_ONCE
    """Multiples of so many frames take least time to decode."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        self.config = model.decoder
        self._file = model.file
        self._backend = backend
        self._weights = Weights(backend)
        self._load(WeightLoader(model.file, self._weights).at("a.gen.wav"))
        self._memories = [Memory(backend) for _ in range(3)]
        front, middle, tail = self._memories
        n_rows = self.config.window + FRAMES_AT_ONCE - 1
        self._fronts = {n: _Front(self, front, n, n_rows) for n in (FRAMES_AT_ONCE, 1)}
        self._middles = {n: _Middle(self, middle, n) for n in (FRAMES_AT_ONCE, 1)}
        self._tail = _Tail(self, tail)
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
        for some in _in_parts(len(rvq)):
            latents = self._fronts[len(some)].run(rvq[some], state.n_frames)
            samples[some] = self._sounded(latents)
            state.n_frames += len(some)
        require_numbers(samples, self._file, "codec decoder")
        return np.clip(samples, -1, 1, out=samples).reshape(-1)

    def heard(self, codes: NDArray[np.integer]) -> CodecState:
        """The state after decoding codes [T, 16], but made much faster: what follows a reference clip starts from it.

        The transformer takes all frames at once. The convolutions after it, and those of the tail, reach back `_reach`
        frames, so only those pass through them.
        """
        rvq = self._quantized(check_codes(codes, self.config.codebook_size))
        n, state = len(rvq), self.new_state()
        if not n:
            return state
        memory = Memory(self._backend)
        front = _Front(self, memory, n, n)  # holds the latents' memory
        latents = front.run(rvq, 0)
        self._bring_in(state)
        last = np.arange(max(0, n - self.config.window), n)
        [(pre_conv, *rings), (heard_pre_conv, *heard)] = self._memories[0].arrays(), memory.arrays()
        pre_conv[...] = heard_pre_conv
        for ring, rows in zip(rings, heard, strict=True):  # keys and values
            ring[last % len(ring)] = rows[last]
        n_middle, n_tail = _reach(self.config)
        reached = latents[-n_middle:]
        for some in _in_parts(len(reached)):
            rows = self._middles[len(some)].run(reached[some])
            for frame in rows[max(0, len(reached) - n_tail - some.start) :]:
                self._tail.run(frame)
        state.n_frames = n
        self._put_away()
        return state

    def copied(self, state: CodecState) -> CodecState:
        """To go on from the same point twice."""
        if state is self._resident:
            self._put_away()
        return CodecState([context.copy() for context in state.contexts], state.n_frames)

    def _sounded(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """latents [1 or 4, latent] -> samples [1 or 4, samples_per_frame], not yet clamped"""
        samples = np.empty((len(latents), self.samples_per_frame), np.float32)
        for i, rows in enumerate(self._middles[len(latents)].run(latents)):
            samples[i] = self._tail.run(rows)
        return samples

    def _contexts(self) -> list[NDArray[np.float32]]:
        return [array for memory in self._memories for array in memory.arrays()]

    def _bring_in(self, state: CodecState) -> None:
        """The graphs' own memory holds the state of the utterance at work; another's waits in its arrays."""
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
        dtype = load.values("dac.entry.weight").dtype
        self._first_codebook = load.values("quant.first.codebook.weight")  # [2048, 256]
        self._rest_codebooks = load.values("quant.rest.codebook.weight")  # [15, 2048, 256]
        projections = [load.values(f"quant.{part}.out_proj.weight") for part in ("first", "rest")]
        self._rvq_projection = load.array(np.concatenate(projections, axis=1, dtype=np.float32))  # [512, 2 * 256]
        self._pre_conv = CausalLoader(load.at("pre_conv"), 1, dtype).conv()
        self._tfm_in = (load.matrix("tfm.in_proj.weight"), load.tensor("tfm.in_proj.bias"))
        self._tfm_out = (load.matrix("tfm.out_proj.weight"), load.tensor("tfm.out_proj.bias"))
        self._tfm_norm = load.tensor("tfm.output_norm.weight")
        self._layers = [self._layer(load.at(f"tfm.blk.{i}")) for i in range(c.n_layers)]
        rows = 1
        self._upsamples = []
        for i, stride in enumerate(c.upsample_strides):
            rows *= stride
            self._upsamples.append(self._upsample(load.at(f"up.blk.{i}"), stride, rows, dtype))
        self._entry = CausalLoader(load.at("dac.entry"), rows, dtype).conv()
        self._blocks = []
        for i, stride in enumerate(c.dac_strides):
            block = load.at(f"dac.blk.{i}")
            snake = CausalLoader(block.at("snake"), rows, dtype).snake()
            rows *= stride
            above = CausalLoader(block, rows, dtype)
            units = [
                above.at(f"res.{j}").residual_unit(dilation, at_points=i > 0) for j, dilation in enumerate(c.dilations)
            ]
            self._blocks.append(Block(snake, above.at("conv").transposed_conv(stride), stride, units))
        post = CausalLoader(load, rows, dtype)
        self._post_snake, self._post_conv = (
            post.at("dac.post_snake").snake(),
            post.at("dac.post_conv").one_channel_conv(),
        )

    def _layer(self, load: WeightLoader) -> TransformerLayer:
        return TransformerLayer(
            **{name: load.tensor(f"{name}.weight") for name in ("ln1", "ls1", "ln2", "ls2")},
            attn_qkv=load.stacked("attn_q.weight", "attn_k.weight", "attn_v.weight"),
            attn_out=load.matrix("attn_out.weight"),
            ffn_gate_up=load.stacked("ffn_gate.weight", "ffn_up.weight"),
            ffn_down=load.matrix("ffn_down.weight"),
        )

    def _upsample(self, load: WeightLoader, stride: int, rows: int, dtype: Any) -> Upsample:
        taps = load.values("dwconv.weight").astype(np.float32)[:, 0].T  # [7, latent]
        return Upsample(
            conv=CausalLoader(load.at("conv"), rows, dtype).transposed_conv(stride),
            stride=stride,
            dwconv=[load.array(tap) for tap in taps],
            dwconv_bias=load.tensor("dwconv.bias"),
            norm=(load.tensor("norm.weight"), load.tensor("norm.bias")),
            pw1=(load.matrix("pw1.weight"), load.tensor("pw1.bias")),
            pw2=(load.matrix("pw2.weight"), load.tensor("pw2.bias")),
            gamma=load.tensor("gamma"),
        )


def _in_parts(n: int) -> list[range]:
    """0 .. n - 1 in fours, and what is left one by one."""
    fours = n - n % FRAMES_AT_ONCE
    return [range(i, i + FRAMES_AT_ONCE) for i in range(0, fours, FRAMES_AT_ONCE)] + [
        range(i, i + 1) for i in range(fours, n)
    ]


def _reach(c: CodecDecoderConfig) -> tuple[int, int]:
    """How many frames back a sample hears through the convolutions after the transformer, and through those of the
    tail alone: each adds its left context over the rows a frame has there."""
    before, rows = 0.0, 1
    for stride in c.upsample_strides:
        rows *= stride
        before += (_KERNEL - 1) / rows
    before += (_KERNEL - 1) / rows
    blocks = []
    for stride in c.dac_strides:
        upscaled = rows * stride
        blocks.append(1 / rows + sum((_KERNEL - 1) * dilation for dilation in c.dilations) / upscaled)
        rows = upscaled
    tail = sum(blocks[1:]) + (_KERNEL - 1) / rows
    return ceil(before + blocks[0] + tail), ceil(tail)


# -- the graphs ------------------------------------------------------------------------------------------------------


class _Front(CausalGraph):
    """rvq [T, 2 * codebook_dim] -> latents [T, latent]: up to the transformer's end.

    Keys and values live in a ring of `n_rows` rows: frame p in row p % n_rows, over one that fell out of sight.
    """

    def __init__(self, net: CodecDecoder, memory: Memory, n_frames: int, n_rows: int) -> None:
        super().__init__(net._backend, memory, n_frames)
        self._config = c = net.config
        self._n, self._n_rows = n_frames, n_rows
        g = self.g
        self._rvq = g.input(n_frames, 2 * c.codebook_dim)
        self._positions = g.input(n_frames, type=GgmlType.I32)
        self._rows = g.input(n_frames, type=GgmlType.I32)
        self._mask = g.input(n_frames, n_rows, type=GgmlType.F16)
        x = self.causal(net._pre_conv, self.linear(net._rvq_projection, self._rvq))
        x = self.linear(net._tfm_in[0], x, net._tfm_in[1])
        for layer in net._layers:
            x = self._layer(layer, x)
        x = self.linear(net._tfm_out[0], g.rms_norm(x, net._tfm_norm, c.rms_eps), net._tfm_out[1])
        self._latents = self.finish(x)

    def run(self, rvq: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """The frames `start` .. `start` + T - 1; the result is valid until the next run."""
        g, stop = self.g, start + self._n
        positions = np.arange(start, stop)
        # The frame whose keys and values a row holds once these are written: the last one that is its own.
        holds = stop - 1 - (stop - 1 - np.arange(self._n_rows)) % self._n_rows
        age = positions[:, None] - holds
        g.array(self._rvq)[...] = rvq
        g.array(self._positions)[:] = positions
        g.array(self._rows)[:] = positions % self._n_rows
        seen = (holds >= 0) & (age >= 0) & (age < self._config.window)
        g.array(self._mask)[...] = np.where(seen, np.float16(0), _MASKED)
        g.compute()
        return g.array(self._latents)

    def _layer(self, w: TransformerLayer, x: Tensor) -> Tensor:
        g, c, n = self.g, self._config, self._n
        h = g.rms_norm(x, w.ln1, c.rms_eps)
        qkv = stacked_linear(g, w.attn_qkv, h, self.linear)
        qk = g.rope(g.columns(qkv, 0, 2 * c.n_heads, c.head_dim), self._positions, c.rope_theta)
        qk = g.reshape(qk, n, 2 * c.attention_dim)
        q = g.columns(qk, 0, c.n_heads, c.head_dim)
        keys = self._kept(g.columns(qk, c.attention_dim, c.attention_dim))
        values = self._kept(g.columns(qkv, 2 * c.attention_dim, c.attention_dim))
        y = g.attention(g.transpose(q, 1, 0, 2), keys, values, self._mask, c.head_dim**-0.5)
        x = g.add(x, g.mul(self.linear(w.attn_out, g.reshape(y, n, c.attention_dim)), w.ls1))
        h = g.rms_norm(x, w.ln2, c.rms_eps)
        y = self.linear(w.ffn_down, g.silu_gate(stacked_linear(g, w.ffn_gate_up, h, self.linear)))
        return g.add(x, g.mul(y, w.ls2))

    def _kept(self, x: Tensor) -> Tensor:
        """x [T, attention_dim], keys or values of these frames -> those of all rows [heads, rows, head_dim]"""
        g, c = self.g, self._config
        kept = g.set_rows(self.past(self._n_rows, c.attention_dim), x, self._rows)
        return g.transpose(g.reshape(kept, self._n_rows, c.n_heads, c.head_dim), 1, 0, 2)


class _Middle(CausalGraph):
    """latents [T, latent] -> the rows of the first block, those of each frame by themselves [T, rows, C]"""

    def __init__(self, net: CodecDecoder, memory: Memory, n_frames: int) -> None:
        super().__init__(net._backend, memory, n_frames)
        g = self.g
        self._latents = x = g.input(n_frames, net.config.latent)
        for upsample in net._upsamples:
            x = self._upsampled(upsample, x)
        x = _through(self, net._blocks[0], self.causal(net._entry, x))
        self._output = self.finish(g.reshape(x, n_frames, x.shape[0] // n_frames, x.shape[1]))

    def run(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """The result is valid until the next run."""
        g = self.g
        g.array(self._latents)[...] = latents
        g.compute()
        return g.array(self._output)

    def _upsampled(self, w: Upsample, x: Tensor) -> Tensor:
        g = self.g
        x = self.upscaled(w.conv, w.stride, x)
        n = x.shape[0]
        padded = self.padded(x, len(w.dwconv) - 1)
        y = g.mul(g.rows(padded, 0, n), w.dwconv[0])
        for i, tap in enumerate(w.dwconv[1:], start=1):
            y = g.add(y, g.mul(g.rows(padded, i, n + i), tap))
        y = g.layer_norm(g.add(y, w.dwconv_bias), *w.norm, _CONVNEXT_EPS)
        y = g.linear(w.pw2[0], g.gelu(g.linear(w.pw1[0], y, w.pw1[1])), w.pw2[1])
        return g.add(x, g.mul(y, w.gamma))


class _Tail(CausalGraph):
    """The first block's rows of one frame [rows, C] -> samples [samples_per_frame], not yet clamped"""

    def __init__(self, net: CodecDecoder, memory: Memory) -> None:
        super().__init__(net._backend, memory, 1)
        c, g = net.config, self.g
        first = net._blocks[0]
        n_rows = prod(c.upsample_strides) * first.stride
        self._rows = x = g.input(n_rows, first.units[-1].conv2.weight.shape[0])
        for block in net._blocks[1:]:
            x = _through(self, block, x)
        x = self.one_channel(net._post_conv, self.snaked(net._post_snake, x))
        self._samples = self.finish(g.reshape(x, net.samples_per_frame))

    def run(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The result is valid until the next run."""
        g = self.g
        g.array(self._rows)[...] = rows
        g.compute()
        return g.array(self._samples)


def _through(graph: CausalGraph, block: Block, x: Tensor) -> Tensor:
    """x [T, in] -> [stride * T, out]"""
    padded = graph.padded(graph.snaked(block.snake, x), block.conv.k - 1)
    x = graph.upscaled(block.conv, block.stride, padded)
    for unit in block.units:
        x = graph.residual(unit, x)
    return x
