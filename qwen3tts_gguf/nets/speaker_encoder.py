"""The speaker encoder: a mel spectrogram to one vector, a row of the talker's input.

    mel          [T, 128]
    stem         [T, 512]         TDNN, k 5
    blocks       [T, 512] x 3     SE-Res2Net, k 3, dilations 2, 3, 4
    mfa          [T, 1536]        TDNN over the three blocks' outputs
    asp          [3072]           attentive mean and standard deviation over time
    fc           [1024 or 2048]

Mirrors Qwen3TTSSpeakerEncoder, an ECAPA-TDNN (qwen-tts 0.1.1, core/models/modeling_qwen3_tts.py).

Its convolutions are "same" with reflection at both ends. Padding, dilation and window are all a choice of rows, so each
is one row lookup and one matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from ..ggml.device import Backend, Tensor, Weights
from ..ggml.graph import Graph
from ..ggml.types import GgmlType
from ..model.files import MmprojFile
from ..model.schema import SAMPLE_RATE_HZ
from .layers import WeightLoader, require_numbers
from .mel import HOP

__all__ = ["SpeakerEncoder"]

_VARIANCE_FLOOR = 1e-12


# -- weights -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    weight: Tensor  # [out, k * in]
    bias: Tensor  # [out]
    k: int
    dilation: int


@dataclass(frozen=True)
class Block:
    """SE-Res2Net."""

    conv_pw1: Conv  # tdnn1
    res2: list[Conv]  # on eighths of the channels, but the first
    conv_pw2: Conv  # tdnn2
    se_conv1: Conv
    se_conv2: Conv


# -- the net -----------------------------------------------------------------------------------------------------------


class SpeakerEncoder:
    """Built from a model that has one (`MmprojFile.speaker_encoder`)."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        assert model.speaker_encoder is not None
        self.config = c = model.speaker_encoder
        self._file = model.file
        self._backend = backend
        self._weights = Weights(backend)
        load = WeightLoader(model.file, self._weights)
        self._stem = _conv(load.at("a.conv1d.0"), c.dilations[0])
        self._blocks = [self._block(load.at(f"a.blk.{i}"), c.dilations[i]) for i in range(1, len(c.channels) - 1)]
        self._mfa = _conv(load.at("a.conv_out"), c.dilations[-1])
        # The pooling's TDNN sees [x, mean, std] side by side; mean and std are the same in every row, so each third of
        # its matrix is applied on its own.
        pooling = load.values("a.asp_tdnn.weight")[:, :, 0]
        self._pooling_in = [load.array(part.astype(np.float32)) for part in np.split(pooling, 3, axis=1)]
        self._pooling_in_bias = load.tensor("a.asp_tdnn.bias")
        self._pooling_out = _conv(load.at("a.asp_attn"), 1)
        self._fc = _conv(load.at("mm.a.fc"), 1)

    @property
    def min_frames(self) -> int:
        """Reflection needs more frames than it mirrors."""
        c = self.config
        return 1 + max(dilation * (k - 1) // 2 for dilation, k in zip(c.dilations, c.kernels, strict=True))

    def encode(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """mel [T, 128] (see mel.py) -> speaker vector [output]. Raises AudioError when T < `min_frames`."""
        vector = self.stages(mel)["fc"]
        require_numbers(vector, self._file, "speaker encoder")
        return vector

    def stages(self, mel: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Every stage's output by its name in this file's docstring, the blocks' as block1 to block3."""
        if len(mel) < self.min_frames:
            shortest = self.min_frames * HOP / SAMPLE_RATE_HZ
            raise AudioError(f"the reference clip is too short: it needs at least {shortest:.2f} s")
        g = Graph(self._backend.for_one_graph(), max_nodes=1024)
        lookups = _WindowRows(g, len(mel))
        x = g.input(*mel.shape)
        stages = {"stem": lookups.tdnn(self._stem, x)}
        y = stages["stem"]
        for i, block in enumerate(self._blocks, start=1):
            y = stages[f"block{i}"] = self._se_res2net(g, lookups, block, y)
        blocks = [stages[f"block{i + 1}"] for i in range(len(self._blocks))]
        stages["mfa"] = lookups.tdnn(self._mfa, g.concat(blocks, axis=1))
        stages["asp"] = self._pooled(g, stages["mfa"])
        stages["fc"] = g.linear(self._fc.weight, stages["asp"], self._fc.bias)
        for stage in stages.values():
            g.output(stage)
        g.allocate()
        g.set(x, mel)
        lookups.set_rows()
        g.compute()
        return {name: g.get(stage).squeeze() for name, stage in stages.items()}

    def _block(self, load: WeightLoader, dilation: int) -> Block:
        return Block(
            conv_pw1=_conv(load.at("conv_pw1"), 1),
            res2=[_conv(load.at(f"res2.{i}"), dilation) for i in range(self.config.res2net_scale - 1)],
            conv_pw2=_conv(load.at("conv_pw2"), 1),
            se_conv1=_conv(load.at("se_conv1"), 1),
            se_conv2=_conv(load.at("se_conv2"), 1),
        )

    def _se_res2net(self, g: Graph, lookups: _WindowRows, w: Block, x: Tensor) -> Tensor:
        y = lookups.tdnn(w.conv_pw1, x)
        n, width = y.shape
        part = width // self.config.res2net_scale
        parts = [g.contiguous(g.view(y, (n, part), (width, 1), i * part)) for i in range(self.config.res2net_scale)]
        outputs = parts[:1]
        for i, conv in enumerate(w.res2, start=1):
            outputs.append(lookups.tdnn(conv, parts[i] if i == 1 else g.add(parts[i], outputs[-1])))
        y = lookups.tdnn(w.conv_pw2, g.concat(outputs, axis=1))
        mean = g.reshape(g.mean(g.contiguous(g.transpose(y, 1, 0))), 1, width)
        gate = g.relu(g.linear(w.se_conv1.weight, mean, w.se_conv1.bias))
        gate = g.sigmoid(g.linear(w.se_conv2.weight, gate, w.se_conv2.bias))
        return g.add(g.mul(y, gate), x)

    def _pooled(self, g: Graph, x: Tensor) -> Tensor:
        """x [T, C] -> weighted mean and standard deviation over time [1, 2 * C]"""
        width = x.shape[1]
        by_channel = g.contiguous(g.transpose(x, 1, 0))  # [C, T]
        mean = g.mean(by_channel)  # [C, 1]
        std = g.sqrt(g.clamp(g.mean(g.square(g.sub(by_channel, mean))), _VARIANCE_FLOOR, np.inf))
        y = g.linear(self._pooling_in[0], x)  # [T, attention]
        for matrix, statistic in zip(self._pooling_in[1:], (mean, std), strict=True):
            y = g.add(y, g.linear(matrix, g.reshape(statistic, 1, width)))
        y = g.tanh(g.relu(g.add(y, self._pooling_in_bias)))
        scores = g.linear(self._pooling_out.weight, y, self._pooling_out.bias)  # [T, C]
        attention = g.softmax(g.contiguous(g.transpose(scores, 1, 0)))  # [C, T]
        mean = g.sum(g.mul(attention, by_channel))
        variance = g.sum(g.mul(attention, g.square(g.sub(by_channel, mean))))
        std = g.sqrt(g.clamp(variance, _VARIANCE_FLOOR, np.inf))
        return g.reshape(g.concat([mean, std]), 1, 2 * width)


def _conv(load: WeightLoader, dilation: int) -> Conv:
    return Conv(load.conv("weight"), load.tensor("bias"), load.shape("weight")[2], dilation)


class _WindowRows:
    """Which rows of [T, C] each convolution's windows take: one input per kernel and dilation, shared by all."""

    def __init__(self, g: Graph, n: int) -> None:
        self._g, self._n = g, n
        self._inputs: dict[tuple[int, int], Tensor] = {}

    def tdnn(self, conv: Conv, x: Tensor) -> Tensor:
        """relu(conv(x)), length kept: x [T, in] -> [T, out]"""
        g = self._g
        if conv.k > 1:
            key = (conv.k, conv.dilation)
            if key not in self._inputs:
                self._inputs[key] = g.input(self._n * conv.k, type=GgmlType.I32)
            x = g.reshape(g.lookup(x, self._inputs[key]), self._n, conv.k * x.shape[1])
        return g.relu(g.linear(conv.weight, x, conv.bias))

    def set_rows(self) -> None:
        for (k, dilation), rows in self._inputs.items():
            reach = dilation * (k - 1) // 2
            mirrored = np.pad(np.arange(self._n), reach, mode="reflect")
            windows = np.arange(self._n)[:, None] + dilation * np.arange(k)
            self._g.set(rows, mirrored[windows].reshape(-1))
