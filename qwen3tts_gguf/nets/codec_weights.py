"""The codec decoder's weights, in the layouts its graphs multiply with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Tensor, Weights
from ..model.files import MmprojFile
from ..model.schema import N_CODEBOOKS, CodecDecoderConfig
from .causal import CausalLoader, Conv, ResidualUnit, Snake
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


class CodecWeights:
    """All of `a.gen.wav`. Raises ModelFileError for a tensor that holds NaN."""

    def __init__(self, model: MmprojFile, weights: Weights) -> None:
        c = self.config = model.decoder
        load = WeightLoader(model.file, weights).at("a.gen.wav")
        # Convolutions compute in the type the file stores them in; llama.cpp stores transposed ones as F32 regardless.
        dtype = load.values("dac.entry.weight").dtype
        self._first_codebook = load.values("quant.first.codebook.weight")  # [2048, 256]
        self._rest_codebooks = load.values("quant.rest.codebook.weight")  # [15, 2048, 256]
        projections = [load.values(f"quant.{part}.out_proj.weight") for part in ("first", "rest")]
        self.rvq_projection = load.array(np.concatenate(projections, axis=1, dtype=np.float32))  # [512, 2 * 256]
        self.pre_conv = CausalLoader(load.at("pre_conv"), 1, dtype).conv()
        self.tfm_in = (load.matrix("tfm.in_proj.weight"), load.tensor("tfm.in_proj.bias"))
        self.tfm_out = (load.matrix("tfm.out_proj.weight"), load.tensor("tfm.out_proj.bias"))
        self.tfm_norm = load.tensor("tfm.output_norm.weight")
        self.layers = [_layer(load.at(f"tfm.blk.{i}")) for i in range(c.n_layers)]
        rows = 1
        self.upsamples: list[Upsample] = []
        for i, stride in enumerate(c.upsample_strides):
            rows *= stride
            self.upsamples.append(_upsample(load.at(f"up.blk.{i}"), stride, rows, dtype))
        self.entry = CausalLoader(load.at("dac.entry"), rows, dtype).conv()
        self.blocks: list[Block] = []
        for i, stride in enumerate(c.dac_strides):
            self.blocks.append(_block(load.at(f"dac.blk.{i}"), c, stride, rows, dtype, at_points=i > 0))
            rows *= stride
        post = CausalLoader(load, rows, dtype)
        self.post_snake, self.post_conv = post.at("dac.post_snake").snake(), post.at("dac.post_conv").one_channel_conv()

    def quantized(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """codes [T, 16] -> [T, 2 * codebook_dim]: the semantic row, and the sum of the fifteen acoustic ones"""
        semantic = self._first_codebook[codes[:, 0]]
        acoustic = self._rest_codebooks[np.arange(N_CODEBOOKS - 1), codes[:, 1:]].sum(axis=1, dtype=np.float32)
        return np.concatenate([semantic, acoustic], axis=1)


def _layer(load: WeightLoader) -> TransformerLayer:
    return TransformerLayer(
        **{name: load.tensor(f"{name}.weight") for name in ("ln1", "ls1", "ln2", "ls2")},
        attn_qkv=load.stacked("attn_q.weight", "attn_k.weight", "attn_v.weight"),
        attn_out=load.matrix("attn_out.weight"),
        ffn_gate_up=load.stacked("ffn_gate.weight", "ffn_up.weight"),
        ffn_down=load.matrix("ffn_down.weight"),
    )


def _upsample(load: WeightLoader, stride: int, rows: int, dtype: Any) -> Upsample:
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


def _block(load: WeightLoader, c: CodecDecoderConfig, stride: int, rows: int, dtype: Any, *, at_points: bool) -> Block:
    """rows: those of a frame that it takes in."""
    above = CausalLoader(load, rows * stride, dtype)
    return Block(
        snake=CausalLoader(load.at("snake"), rows, dtype).snake(),
        conv=above.at("conv").transposed_conv(stride),
        stride=stride,
        units=[
            above.at(f"res.{j}").residual_unit(dilation, at_points=at_points) for j, dilation in enumerate(c.dilations)
        ],
    )
