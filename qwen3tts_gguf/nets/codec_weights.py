"""The codec decoder's weights, in the layouts its graphs multiply with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Tensor, Weights
from ..ggml.types import GgmlType
from ..model.files import MmprojFile
from ..model.schema import N_CODEBOOKS, CodecDecoderConfig
from .causal import CausalLoader, Conv, ResidualUnit, Snake
from .codec_layout import BlockLayout, CodecLayout, Kernel
from .layers import WeightLoader

__all__ = ["Block", "CodecWeights", "TransformerLayer", "Upsample"]


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
    dwconv: list[Tensor]  # 7 of [latent], one per tap
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


class CodecWeights:
    """All of `a.gen.wav`. Raises ModelFileError for a tensor that contains NaN."""

    def __init__(self, model: MmprojFile, weights: Weights, layout: CodecLayout) -> None:
        c = self.config = model.decoder
        load = WeightLoader(model.file, weights).at("a.gen.wav")
        # llama.cpp stores transposed convolutions as F32 whatever the others are.
        kinds = _Kinds(load.float_type("dac.entry.weight"))
        self._first_codebook = load.values("quant.first.codebook.weight")  # [2048, 256]
        self._rest_codebooks = load.values("quant.rest.codebook.weight")  # [15, 2048, 256]
        projections = [load.values(f"quant.{part}.out_proj.weight") for part in ("first", "rest")]
        self.rvq_projection = load.array(np.concatenate(projections, axis=1, dtype=np.float32))  # [512, 2 * 256]
        self.pre_conv = CausalLoader(load.at("pre_conv"), 1).conv(kinds.type("stored"))
        type = kinds.matrix_type(layout.transformer)
        self.tfm_in = (load.matrix("tfm.in_proj.weight", type), load.tensor("tfm.in_proj.bias"))
        self.tfm_out = (load.matrix("tfm.out_proj.weight", type), load.tensor("tfm.out_proj.bias"))
        self.tfm_norm = load.tensor("tfm.output_norm.weight")
        self.layers = [_layer(load.at(f"tfm.blk.{i}"), type) for i in range(c.n_layers)]
        rows = 1
        self.upsamples: list[Upsample] = []
        for i, stride in enumerate(c.upsample_strides):
            rows *= stride
            self.upsamples.append(_upsample(load.at(f"up.blk.{i}"), stride, rows, kinds, layout.upsample))
        self.entry = CausalLoader(load.at("dac.entry"), rows).conv(kinds.type(layout.entry))
        self.blocks: list[Block] = []
        for i, (stride, kernels) in enumerate(zip(c.dac_strides, layout.blocks, strict=True)):
            self.blocks.append(_block(load.at(f"dac.blk.{i}"), c, stride, rows, kinds, kernels))
            rows *= stride
        post = CausalLoader(load, rows)
        self.post_snake, self.post_conv = post.at("dac.post_snake").snake(), post.at("dac.post_conv").one_channel_conv()

    def quantized(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """codes [T, 16] -> [T, 2 * codebook_dim]: the semantic row, and the sum of the fifteen acoustic ones"""
        semantic = self._first_codebook[codes[:, 0]]
        acoustic = self._rest_codebooks[np.arange(N_CODEBOOKS - 1), codes[:, 1:]].sum(axis=1, dtype=np.float32)
        return np.concatenate([semantic, acoustic], axis=1)


@dataclass(frozen=True)
class _Kinds:
    """What kernels mean for a file whose convolutions are of type `stored`."""

    stored: GgmlType

    def type(self, kernel: Kernel) -> GgmlType:
        """Of a product with windows."""
        return {"stored": self.stored, "f32": GgmlType.F32, "q8_0": GgmlType.Q8_0}[kernel]

    def matrix_type(self, kernel: Kernel) -> GgmlType | None:
        """Of a matrix that the file has; None: as it is there."""
        return None if kernel == "stored" else self.type(kernel)


def _layer(load: WeightLoader, type: GgmlType | None) -> TransformerLayer:
    return TransformerLayer(
        **{name: load.tensor(f"{name}.weight") for name in ("ln1", "ls1", "ln2", "ls2")},
        attn_qkv=load.stacked("attn_q.weight", "attn_k.weight", "attn_v.weight", type=type),
        attn_out=load.matrix("attn_out.weight", type),
        ffn_gate_up=load.stacked("ffn_gate.weight", "ffn_up.weight", type=type),
        ffn_down=load.matrix("ffn_down.weight", type),
    )


def _upsample(load: WeightLoader, stride: int, rows: int, kinds: _Kinds, kernel: Kernel) -> Upsample:
    taps = load.values("dwconv.weight").astype(np.float32)[:, 0].T  # [7, latent]
    type = kinds.matrix_type(kernel)
    return Upsample(
        conv=CausalLoader(load.at("conv"), rows).transposed_conv(stride, kinds.type(kernel)),
        stride=stride,
        dwconv=[load.array(tap) for tap in taps],
        dwconv_bias=load.tensor("dwconv.bias"),
        norm=(load.tensor("norm.weight"), load.tensor("norm.bias")),
        pw1=(load.matrix("pw1.weight", type), load.tensor("pw1.bias")),
        pw2=(load.matrix("pw2.weight", type), load.tensor("pw2.bias")),
        gamma=load.tensor("gamma"),
    )


def _block(
    load: WeightLoader, c: CodecDecoderConfig, stride: int, rows: int, kinds: _Kinds, kernels: BlockLayout
) -> Block:
    """rows: those of a frame that it takes in."""
    above = CausalLoader(load, rows * stride)
    dilated = None if kernels.dilated == "points" else kinds.type(kernels.dilated)
    mix = kinds.type(kernels.mix)
    return Block(
        snake=CausalLoader(load.at("snake"), rows).snake(),
        conv=above.at("conv").transposed_conv(stride, kinds.type(kernels.expand)),
        stride=stride,
        units=[above.at(f"res.{j}").residual_unit(dilation, dilated, mix) for j, dilation in enumerate(c.dilations)],
    )
