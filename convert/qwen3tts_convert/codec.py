"""The codec, `speech_tokenizer/` of the checkpoint: decoder to `a.gen.wav.*`, encoder (Mimi) to `a.codec_enc.*`.

What the tables do not copy as it is:
- SnakeBeta keeps logarithms: alpha -> e^alpha, beta -> 1 / (e^beta + 1e-9), the factors the activation multiplies with
- a codebook is what training accumulated (sources.codebooks)
- the projections around the codebooks are convolutions of kernel 1, kept as matrices
- of the encoder's 32 codebooks the model uses 16; the rest, and the projection back to features, stay behind
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import prod

import numpy as np

from qwen3tts_gguf.model.schema import (
    N_CODEBOOKS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    CodecDecoderConfig,
    CodecEncoderConfig,
    Shape,
    codec_decoder_tensors,
    codec_encoder_tensors,
)

from .section import Section
from .sources import Source, codebooks, copied, pointwise
from .weights import FloatArray, Weights

__all__ = ["decoder_config", "decoder_sources", "encoder_config", "encoder_sources", "expect_12hz", "left_behind"]

DECODER_AFFINE = {
    "pre_conv": "decoder.pre_conv.conv",
    "tfm.in_proj": "decoder.pre_transformer.input_proj",
    "tfm.out_proj": "decoder.pre_transformer.output_proj",
    "dac.entry": "decoder.decoder.0.conv",
}
DECODER_LAYER = {
    "ln1.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_out.weight": "self_attn.o_proj.weight",
    "ls1.weight": "self_attn_layer_scale.scale",
    "ln2.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ls2.weight": "mlp_layer_scale.scale",
}
DECODER_UPSAMPLE_AFFINE = {
    "conv": "0.conv",
    "dwconv": "1.dwconv.conv",
    "norm": "1.norm",
    "pw1": "1.pwconv1",
    "pw2": "1.pwconv2",
}
ENCODER_LAYER = {
    "ln1.weight": "input_layernorm.weight",
    "ln1.bias": "input_layernorm.bias",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_out.weight": "self_attn.o_proj.weight",
    "ls1.weight": "self_attn_layer_scale.scale",
    "ln2.weight": "post_attention_layernorm.weight",
    "ln2.bias": "post_attention_layernorm.bias",
    "ffn_up.weight": "mlp.fc1.weight",
    "ffn_down.weight": "mlp.fc2.weight",
    "ls2.weight": "mlp_layer_scale.scale",
}
# part of the split quantizer: our name, the decoder's, the encoder's
QUANTIZERS = (
    ("first", "decoder.quantizer.rvq_first", "encoder.quantizer.semantic_residual_vector_quantizer"),
    ("rest", "decoder.quantizer.rvq_rest", "encoder.quantizer.acoustic_residual_vector_quantizer"),
)
LEFT_BEHIND = re.compile(
    r"encoder\.quantizer\.(semantic|acoustic)_residual_vector_quantizer\."
    r"(output_proj\.weight|layers\.\d+\.codebook\.(initialized|cluster_usage|embed_sum))"
)


def expect_12hz(codec: Section) -> None:
    """Raises CheckpointError unless speech_tokenizer/config.json describes the 12 Hz codec."""
    codec.expect("model_type", "qwen3_tts_tokenizer_12hz")
    codec.expect("encoder_valid_num_quantizers", N_CODEBOOKS)
    codec.expect("input_sample_rate", SAMPLE_RATE_HZ)
    codec.expect("output_sample_rate", SAMPLE_RATE_HZ)
    codec.expect("decode_upsample_rate", SAMPLES_PER_FRAME)
    codec.expect("encode_downsample_rate", SAMPLES_PER_FRAME)


def left_behind(names: Iterable[str]) -> set[str]:
    """The official tensors that are not converted: nothing in the model's use of the codec reads them."""
    return {name for name in names if LEFT_BEHIND.fullmatch(name)}


# -- decoder -----------------------------------------------------------------------------------------------------------


def decoder_config(decoder: Section) -> CodecDecoderConfig:
    """`decoder_config` of speech_tokenizer/config.json. Raises CheckpointError on what cannot be run."""
    decoder.expect("hidden_act", "silu")
    decoder.expect("attention_bias", False)
    decoder.expect("num_quantizers", N_CODEBOOKS)
    decoder.expect("num_semantic_quantizers", 1)
    n_heads = decoder.integer("num_attention_heads")
    decoder.expect("num_key_value_heads", n_heads)
    rvq_dim = decoder.integer("codebook_dim")
    c = CodecDecoderConfig(
        codebook_size=decoder.integer("codebook_size"),
        codebook_dim=rvq_dim // 2,
        rvq_dim=rvq_dim,
        latent=decoder.integer("latent_dim"),
        n_layers=decoder.integer("num_hidden_layers"),
        hidden=decoder.integer("hidden_size"),
        ffn=decoder.integer("intermediate_size"),
        attention_dim=n_heads * decoder.integer("head_dim"),
        upsample_strides=decoder.integers("upsampling_ratios"),
        dac_dim=decoder.integer("decoder_dim"),
        dac_strides=decoder.integers("upsample_rates"),
        n_heads=n_heads,
        window=decoder.integer("sliding_window"),
        rope_theta=decoder.rope().number("rope_theta"),
        rms_eps=decoder.number("rms_norm_eps"),
    )
    if c.samples_per_frame != SAMPLES_PER_FRAME:
        raise decoder.error("upsample_rates", f"make {c.samples_per_frame} samples per frame, not {SAMPLES_PER_FRAME}")
    return c


def decoder_sources(weights: Weights, c: CodecDecoderConfig) -> dict[str, Source]:
    """GGUF name -> source, for the codec decoder's part of the mmproj file."""
    at = "a.gen.wav"
    shapes = codec_decoder_tensors(c)
    plain = {f"{at}.tfm.output_norm.weight": "decoder.pre_transformer.norm.weight"}
    affine = {f"{at}.{ours}": theirs for ours, theirs in DECODER_AFFINE.items()}
    snakes: dict[str, str] = {}
    for i in range(c.n_layers):
        layer = f"decoder.pre_transformer.layers.{i}"
        plain |= {f"{at}.tfm.blk.{i}.{ours}": f"{layer}.{theirs}" for ours, theirs in DECODER_LAYER.items()}
    for i in range(len(c.upsample_strides)):
        theirs = f"decoder.upsample.{i}"
        affine |= {f"{at}.up.blk.{i}.{ours}": f"{theirs}.{name}" for ours, name in DECODER_UPSAMPLE_AFFINE.items()}
        plain[f"{at}.up.blk.{i}.gamma"] = f"{theirs}.1.gamma"
    for i in range(len(c.dac_strides)):
        ours, theirs = f"{at}.dac.blk.{i}", f"decoder.decoder.{i + 1}.block"  # 0 is the entry convolution
        snakes[f"{ours}.snake"] = f"{theirs}.0"
        affine[f"{ours}.conv"] = f"{theirs}.1.conv"
        for j in range(len(c.dilations)):
            for k in (1, 2):
                snakes[f"{ours}.res.{j}.act{k}"] = f"{theirs}.{j + 2}.act{k}"
                affine[f"{ours}.res.{j}.conv{k}"] = f"{theirs}.{j + 2}.conv{k}.conv"
    snakes[f"{at}.dac.post_snake"] = f"decoder.decoder.{len(c.dac_strides) + 1}"
    affine[f"{at}.dac.post_conv"] = f"decoder.decoder.{len(c.dac_strides) + 2}.conv"

    found = _copies(weights, shapes, plain, affine)
    for ours, theirs in snakes.items():
        found[f"{ours}.alpha"] = copied(weights, f"{theirs}.alpha", shapes[f"{ours}.alpha"], np.exp)
        found[f"{ours}.beta"] = copied(weights, f"{theirs}.beta", shapes[f"{ours}.beta"], _inverse_exp)
    for part, theirs, _ in QUANTIZERS:
        ours, codebook = f"{at}.quant.{part}", shapes[f"{at}.quant.{part}.codebook.weight"]
        found[f"{ours}.codebook.weight"] = codebooks(
            weights,
            [
                (f"{theirs}.vq.layers.{i}._codebook.embedding_sum", f"{theirs}.vq.layers.{i}._codebook.cluster_usage")
                for i in range(prod(codebook[:-2]))
            ],
            codebook,
        )
        for side in ("in", "out"):
            name = f"{ours}.{side}_proj.weight"
            found[name] = pointwise(weights, f"{theirs}.{side}put_proj.weight", shapes[name])
    assert found.keys() == shapes.keys()
    return {name: found[name] for name in shapes}


def _inverse_exp(beta: FloatArray) -> FloatArray:
    factor: FloatArray = np.reciprocal(np.exp(beta) + np.float32(1e-9))
    return factor


# -- encoder -----------------------------------------------------------------------------------------------------------


def encoder_config(encoder: Section) -> CodecEncoderConfig:
    """`encoder_config` of speech_tokenizer/config.json (transformers' MimiConfig). Raises CheckpointError on what
    cannot be run."""
    wanted = {
        "audio_channels": 1,
        "sampling_rate": SAMPLE_RATE_HZ,
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "num_residual_layers": 1,
        "compress": 2,
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "pad_mode": "constant",
        "hidden_act": "gelu",
        "attention_bias": False,
        "num_semantic_quantizers": 1,
    }
    for key, value in wanted.items():
        encoder.expect(key, value)
    n_heads, codebook_dim = encoder.integer("num_attention_heads"), encoder.integer("codebook_dim")
    encoder.expect("num_key_value_heads", n_heads)
    encoder.expect("head_dim", encoder.integer("hidden_size") // n_heads)
    encoder.expect("vector_quantization_hidden_dimension", codebook_dim)
    c = CodecEncoderConfig(
        n_filters=encoder.integer("num_filters"),
        strides=encoder.integers("upsampling_ratios")[::-1],  # the configuration lists the decoder's order
        hidden=encoder.integer("hidden_size"),
        ffn=encoder.integer("intermediate_size"),
        n_layers=encoder.integer("num_hidden_layers"),
        codebook_size=encoder.integer("codebook_size"),
        codebook_dim=codebook_dim,
        n_heads=n_heads,
        rope_theta=encoder.rope().number("rope_theta", 10_000.0),
        norm_eps=encoder.number("norm_eps", 1e-5),
    )
    if c.samples_per_frame != SAMPLES_PER_FRAME:
        raise encoder.error(
            "upsampling_ratios", f"make {c.samples_per_frame} samples per frame, not {SAMPLES_PER_FRAME}"
        )
    return c


def encoder_sources(weights: Weights, c: CodecEncoderConfig) -> dict[str, Source]:
    """GGUF name -> source, for the codec encoder's part of the mmproj file."""
    at, convolutions = "a.codec_enc", "encoder.encoder.layers"
    shapes = codec_encoder_tensors(c)
    plain = {f"{at}.downsample.weight": "encoder.downsample.conv.weight"}
    affine = {f"{at}.conv_in": f"{convolutions}.0.conv"}
    # Mimi's list interleaves modules without weights: residual unit, ELU, downsampling convolution for each stride
    for i in range(len(c.strides)):
        affine[f"{at}.blk.{i}.res_conv1"] = f"{convolutions}.{3 * i + 1}.block.1.conv"
        affine[f"{at}.blk.{i}.res_conv2"] = f"{convolutions}.{3 * i + 1}.block.3.conv"
        affine[f"{at}.blk.{i}.down"] = f"{convolutions}.{3 * i + 3}.conv"
    affine[f"{at}.conv_out"] = f"{convolutions}.{3 * len(c.strides) + 2}.conv"
    for i in range(c.n_layers):
        layer = f"encoder.encoder_transformer.layers.{i}"
        plain |= {f"{at}.tfm.blk.{i}.{ours}": f"{layer}.{theirs}" for ours, theirs in ENCODER_LAYER.items()}

    found = _copies(weights, shapes, plain, affine)
    for part, _, theirs in QUANTIZERS:
        ours, codebook = f"{at}.quant.{part}", shapes[f"{at}.quant.{part}.codebook.weight"]
        found[f"{ours}.codebook.weight"] = codebooks(
            weights,
            [
                (f"{theirs}.layers.{i}.codebook.embed_sum", f"{theirs}.layers.{i}.codebook.cluster_usage")
                for i in range(prod(codebook[:-2]))
            ],
            codebook,
        )
        name = f"{ours}.in_proj.weight"
        found[name] = pointwise(weights, f"{theirs}.input_proj.weight", shapes[name])
    assert found.keys() == shapes.keys()
    return {name: found[name] for name in shapes}


def _copies(
    weights: Weights, shapes: dict[str, Shape], plain: dict[str, str], affine: dict[str, str]
) -> dict[str, Source]:
    """Sources of tensors that are copied: each of `plain`, and weight and bias of each of `affine`."""
    names = dict(plain)
    for ours, theirs in affine.items():
        names |= {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    return {ours: copied(weights, theirs, shapes[ours]) for ours, theirs in names.items()}
