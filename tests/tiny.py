"""Tiny random checkpoints in the layout of the released Qwen3-TTS 12Hz ones, made with NumPy alone.

usage: python tests/tiny.py OUT [--type TYPE] [--size SIZE] [--seed N] [--shards N] [--ends WHEN]

Every file, tensor name, config key and structural feature of a release is there (grouped query attention,
heads * head_dim != hidden, a predictor narrower than the talker, dialect speakers, 16 of the encoder's quantizers in
use, 1920 samples per frame); only the numbers are small. The official package and llama.cpp's converter read the
result, and tests/golden/ has what the official package computed with it.

The weights are random, drawn so that nothing hides from a comparison: no norm is 1, no bias is 0, logits are spread
out, the waveform fills a good part of [-1, 1]. Each tensor has a generator of its own, seeded by the checkpoint's seed
and the tensor's name, and draws uniform numbers only. NumPy keeps RandomState's stream frozen and no libm takes part,
so a seed means the same bytes everywhere, and all checkpoints of one seed share their codec, as the released ones do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Json = dict[str, Any]
Shape = tuple[int, ...]
Shapes = dict[str, Shape]
FloatArray = npt.NDArray[np.float32]

MODEL_TYPES = ("base", "custom_voice", "voice_design")


@dataclass(frozen=True)
class Size:
    """What differs between two checkpoint sizes; a speaker vector is as wide as the talker."""

    hidden: int
    intermediate: int
    tts_model_size: str
    predictor_hidden: int = 64
    predictor_intermediate: int = 160


SIZES = {
    "tiny": Size(hidden=128, intermediate=256, tts_model_size="0b6"),
    # as wide a predictor as the talker: no projection between them, as in the released 0.6B
    "tiny-0.6b": Size(hidden=128, intermediate=256, tts_model_size="0b6", predictor_hidden=128),
    "tiny-1.7b": Size(hidden=192, intermediate=384, tts_model_size="1b7"),
    # wide enough for blocks of 256: at q4_k_m and the like, the predictor's matrices are K-quants
    "tiny-blocks": Size(
        hidden=512, intermediate=512, tts_model_size="1b7", predictor_hidden=256, predictor_intermediate=256
    ),
}

# ------------------------------------------------------------------------------------------------------------ tokenizer

# What the merges are learned from: enough words and characters for a few hundred of them.
TRAINING_TEXT = """
The keeper of the lighthouse counted the waves every morning, and every evening the waves counted him. On the ninth
day of the month a small boat came in with the tide; the man at the oars asked for water, for bread and for the time.
"It is seven thirty," said the keeper, "and the water is over there." They talked about the weather, about the price
of fish and about the sound that the stones make when the sea takes them back. Nobody had spoken in that room since
the summer. When the light came on again, the boat was gone, and there were two cups on the table. Hello, world! This
is a voice that was never recorded: it reads numbers, names and questions, and it stops where the sentence stops.
Please speak slowly, with a warm and calm voice. The speaker sounds young; the reading is clear, the ending is soft.
今天天气很好，我们一起去公园散步。你好，世界！请用温柔的声音慢慢地说话，让大家都能听清楚。明天早上八点，我们在车站见面。
声音从远处传来，说话的人我们没有见过。今天的天气和明天的天气都很好，大家一起去吧。
"""
# Roles of the chat template: the model takes the first three ids of a prompt for its role, so each must be one token.
ROLES = ("assistant", "user", "system")
N_MERGES = 448
# The released special tokens in their order; in a release the first of them is 151643.
SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>",
    "<tts_text_bos_single>", "<|audio_pad|>",
]  # fmt: skip
# Those that a release adds to the vocabulary without calling them special.
UNMARKED_TOKENS = SPECIAL_TOKENS[14:26]


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE vocabulary: all 256 bytes, the merges, then the special tokens."""

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    special_ids: dict[str, int]

    def token_id(self, token: str) -> int:
        """Id of a token of the vocabulary or of a special token."""
        return self.special_ids[token] if token in self.special_ids else self.vocabulary[token]


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in vocab.json, as GPT-2 introduced it: itself where that is
    printable, else the next free one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def merge_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of the pair, from left to right."""
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn_merges(text: str, n_merges: int) -> list[tuple[str, str]]:
    """Byte pair encoding: first what makes each role one token, then the most frequent pair again and again."""
    alphabet = byte_alphabet()
    n_words = Counter(re.findall(r" ?[^\W\d_]+|[^\w\s]+", text.replace("\n", " ")))
    spelled = {word: [alphabet[byte] for byte in word.encode()] for word in n_words}
    merges = [(role[:i], role[i]) for role in ROLES for i in range(1, len(role))]
    for step in range(n_merges):
        if step >= len(merges):
            n_pairs: Counter[tuple[str, str]] = Counter()
            for word, symbols in spelled.items():
                for pair in itertools.pairwise(symbols):
                    n_pairs[pair] += n_words[word]
            merges.append(max(n_pairs, key=lambda pair: (n_pairs[pair], pair)))
        spelled = {word: merge_pair(symbols, merges[step]) for word, symbols in spelled.items()}
    return merges


def make_tokenizer() -> Tokenizer:
    """The tokenizer of every tiny checkpoint; it does not depend on the seed."""
    merges = learn_merges(TRAINING_TEXT, N_MERGES)
    tokens = sorted(byte_alphabet().values()) + [left + right for left, right in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens), "two merges spell the same token"
    return Tokenizer(vocabulary, merges, {token: len(tokens) + i for i, token in enumerate(SPECIAL_TOKENS)})


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """vocab.json, merges.txt and tokenizer_config.json, from which the Qwen2 tokenizer class is built."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        str(tokenizer.special_ids[token]): {"content": token, **flags, "special": token not in UNMARKED_TOKENS}
        for token in SPECIAL_TOKENS
    }
    config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 131072, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "vocab.json", tokenizer.vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in tokenizer.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------------------------------- configuration

LANGUAGES = {
    "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
    "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069, "beijing_dialect": 2074, "sichuan_dialect": 2062,
}  # fmt: skip
SPEAKERS = {
    "serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "aiden": 2861, "ono_anna": 2873, "sohee": 2864,
    "eric": 2875, "dylan": 2878,
}  # fmt: skip
DIALECTS: dict[str, str | bool] = dict.fromkeys(SPEAKERS, False) | {
    "eric": "sichuan_dialect",
    "dylan": "beijing_dialect",
}

N_CODEBOOKS = 16
CODEBOOK_SIZE = 2048
CODEC_VOCAB_SIZE = 3072  # llama.cpp counts on it, so the released ids above stay
TEXT_VOCAB_SIZE = 1024  # more rows than tokens, as in a release
GENERATION_CONFIG = {
    "do_sample": True, "repetition_penalty": 1.05, "temperature": 0.9, "top_p": 1.0, "top_k": 50,
    "subtalker_dosample": True, "subtalker_temperature": 0.9, "subtalker_top_p": 1.0, "subtalker_top_k": 50,
    "max_new_tokens": 8192,
}  # fmt: skip


def model_config(model_type: str, size: Size, tokenizer: Tokenizer) -> Json:
    """config.json: the talker with its code predictor, the speaker encoder, the ids of the template."""
    attention = {"attention_bias": False, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    code_predictor = {
        "model_type": "qwen3_tts_talker_code_predictor", "hidden_act": "silu", "hidden_size": size.predictor_hidden,
        "intermediate_size": size.predictor_intermediate, "layer_types": ["full_attention"] * 2,
        "max_position_embeddings": 65536, "num_code_groups": N_CODEBOOKS, "num_hidden_layers": 2,
        "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000, "vocab_size": CODEBOOK_SIZE, **attention,
    }  # fmt: skip
    has_presets = model_type == "custom_voice"
    talker = {
        "model_type": "qwen3_tts_talker", "attention_dropout": 0, "code_predictor_config": code_predictor,
        "codec_bos_id": 2149, "codec_eos_token_id": 2150, "codec_language_id": LANGUAGES, "codec_nothink_id": 2155,
        "codec_pad_id": 2148, "codec_think_bos_id": 2156, "codec_think_eos_id": 2157, "codec_think_id": 2154,
        "hidden_act": "silu", "hidden_size": size.hidden, "initializer_range": 0.02,
        "intermediate_size": size.intermediate, "max_position_embeddings": 32768, "num_code_groups": N_CODEBOOKS,
        "num_hidden_layers": 3, "pad_token_id": 2148, "position_id_per_seconds": 13, "rms_norm_eps": 1e-6,
        "rope_scaling": {"interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default", "type": "default"},
        "rope_theta": 1000000, "sliding_window": None, "spk_id": SPEAKERS if has_presets else {},
        "spk_is_dialect": DIALECTS if has_presets else {}, "text_hidden_size": 96, "text_vocab_size": TEXT_VOCAB_SIZE,
        "use_cache": True, "use_sliding_window": False, "vocab_size": CODEC_VOCAB_SIZE, **attention,
    }  # fmt: skip
    speaker_encoder = {
        "enc_dim": size.hidden,
        "enc_channels": [64, 64, 64, 64, 192],
        "enc_attention_channels": 32,
        "enc_se_channels": 16,
        "sample_rate": 24000,
    }
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"], "assistant_token_id": tokenizer.token_id("assistant"),
        "im_end_token_id": tokenizer.token_id("<|im_end|>"), "im_start_token_id": tokenizer.token_id("<|im_start|>"),
        "model_type": "qwen3_tts", "speaker_encoder_config": speaker_encoder, "talker_config": talker,
        "tokenizer_type": "qwen3_tts_tokenizer_12hz", "tts_bos_token_id": tokenizer.token_id("<tts_text_bos>"),
        "tts_eos_token_id": tokenizer.token_id("<tts_text_eod>"), "tts_model_size": size.tts_model_size,
        "tts_model_type": model_type, "tts_pad_token_id": tokenizer.token_id("<tts_pad>"),
    }  # fmt: skip


def codec_config() -> Json:
    """speech_tokenizer/config.json: the codec, whose encoder is Mimi's."""
    decoder = {
        "attention_bias": False, "attention_dropout": 0.0, "codebook_dim": 64, "codebook_size": CODEBOOK_SIZE,
        "decoder_dim": 96, "head_dim": 16, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 96,
        "latent_dim": 128, "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 4, "num_quantizers": N_CODEBOOKS, "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 10000, "semantic_codebook_size": 4096, "sliding_window": 72,
        "upsample_rates": [8, 5, 4, 3], "upsampling_ratios": [2, 2], "vector_quantization_hidden_dimension": 512,
    }  # fmt: skip
    encoder = {
        "_frame_rate": 12.5, "audio_channels": 1, "codebook_dim": 32, "codebook_size": CODEBOOK_SIZE, "compress": 2,
        "dilation_growth_rate": 2, "head_dim": 16, "hidden_act": "gelu", "hidden_size": 64, "intermediate_size": 128,
        "kernel_size": 7, "last_kernel_size": 3, "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000,
        "norm_eps": 1e-5, "normalize": False, "num_attention_heads": 4, "num_filters": 8, "num_hidden_layers": 2,
        "num_key_value_heads": 4, "num_quantizers": 32, "num_residual_layers": 1, "num_semantic_quantizers": 1,
        "pad_mode": "constant", "residual_kernel_size": 3, "rope_theta": 10000, "sampling_rate": 24000,
        "sliding_window": 250, "trim_right_ratio": 1.0, "upsample_groups": 64, "upsampling_ratios": [8, 6, 5, 4],
        "use_cache": False, "use_causal_conv": True, "use_conv_shortcut": False, "use_streaming": False,
        "vector_quantization_hidden_dimension": 32,
    }  # fmt: skip
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"], "decode_upsample_rate": 1920, "decoder_config": decoder,
        "encode_downsample_rate": 1920, "encoder_config": encoder, "encoder_valid_num_quantizers": N_CODEBOOKS,
        "input_sample_rate": 24000, "model_type": "qwen3_tts_tokenizer_12hz", "output_sample_rate": 24000,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- tensor names and shapes


def affine(prefix: str, *shape: int) -> Shapes:
    """A weight whose first axis is the output, and its bias."""
    return {f"{prefix}.weight": shape, f"{prefix}.bias": shape[:1]}


def swiglu_layers(prefix: str, config: Json) -> Shapes:
    """Pre-norm transformer layers with a gated feed-forward network, and the norm behind the last of them."""
    hidden, ffn, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, key = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes: Shapes = {f"{prefix}.norm.weight": (hidden,)}
    for i in range(config["num_hidden_layers"]):
        layer = f"{prefix}.layers.{i}"
        shapes |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.self_attn.q_proj.weight": (query, hidden),
            f"{layer}.self_attn.k_proj.weight": (key, hidden),
            f"{layer}.self_attn.v_proj.weight": (key, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, query),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.mlp.gate_proj.weight": (ffn, hidden),
            f"{layer}.mlp.up_proj.weight": (ffn, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, ffn),
        }
    return shapes


def query_key_norms(prefix: str, config: Json) -> Shapes:
    """The per-head norms that talker and code predictor have and the codec's transformers lack."""
    layers = [f"{prefix}.layers.{i}.self_attn" for i in range(config["num_hidden_layers"])]
    return {f"{layer}.{norm}.weight": (config["head_dim"],) for layer in layers for norm in ("q_norm", "k_norm")}


def layer_scales(prefix: str, config: Json) -> Shapes:
    """The per-channel scales on both residual branches of the codec's transformer layers."""
    layers = [f"{prefix}.layers.{i}" for i in range(config["num_hidden_layers"])]
    names = ("self_attn_layer_scale", "mlp_layer_scale")
    return {f"{layer}.{name}.scale": (config["hidden_size"],) for layer in layers for name in names}


def talker_shapes(config: Json) -> Shapes:
    """`talker.*`: embeddings, text projection, transformer, head and the code predictor."""
    hidden, text_hidden = config["hidden_size"], config["text_hidden_size"]
    predictor = config["code_predictor_config"]
    inside = "talker.code_predictor"
    shapes: Shapes = {
        "talker.model.text_embedding.weight": (config["text_vocab_size"], text_hidden),
        "talker.model.codec_embedding.weight": (config["vocab_size"], hidden),
        "talker.codec_head.weight": (config["vocab_size"], hidden),
        **affine("talker.text_projection.linear_fc1", text_hidden, text_hidden),
        **affine("talker.text_projection.linear_fc2", hidden, text_hidden),
        **swiglu_layers("talker.model", config),
        **query_key_norms("talker.model", config),
        **swiglu_layers(f"{inside}.model", predictor),
        **query_key_norms(f"{inside}.model", predictor),
    }
    for i in range(config["num_code_groups"] - 1):
        shapes[f"{inside}.model.codec_embedding.{i}.weight"] = (predictor["vocab_size"], hidden)
        shapes[f"{inside}.lm_head.{i}.weight"] = (predictor["vocab_size"], predictor["hidden_size"])
    if predictor["hidden_size"] != hidden:
        shapes |= affine(f"{inside}.small_to_mtp_projection", predictor["hidden_size"], hidden)
    return shapes


def speaker_encoder_shapes(config: Json) -> Shapes:
    """`speaker_encoder.*`: ECAPA-TDNN. Kernel sizes, mel bins and the Res2Net scale are the class's defaults."""
    n_mels, kernels, scale = 128, (5, 3, 3, 3, 1), 8
    *widths, pooled = config["enc_channels"]
    attention, squeezed = config["enc_attention_channels"], config["enc_se_channels"]
    shapes = affine("speaker_encoder.blocks.0.conv", widths[0], n_mels, kernels[0])
    for i in range(1, len(widths)):
        block, width = f"speaker_encoder.blocks.{i}", widths[i]
        shapes |= affine(f"{block}.tdnn1.conv", width, widths[i - 1], 1)
        for j in range(scale - 1):
            part = width // scale
            shapes |= affine(f"{block}.res2net_block.blocks.{j}.conv", part, part, kernels[i])
        shapes |= affine(f"{block}.tdnn2.conv", width, width, 1)
        shapes |= affine(f"{block}.se_block.conv1", squeezed, width, 1)
        shapes |= affine(f"{block}.se_block.conv2", width, squeezed, 1)
    shapes |= affine("speaker_encoder.mfa.conv", pooled, pooled, kernels[-1])
    shapes |= affine("speaker_encoder.asp.tdnn.conv", attention, 3 * pooled, 1)
    shapes |= affine("speaker_encoder.asp.conv", pooled, attention, 1)
    shapes |= affine("speaker_encoder.fc", config["enc_dim"], 2 * pooled, 1)
    return shapes


def codec_decoder_shapes(config: Json) -> Shapes:
    """`decoder.*` of the codec: quantizers, transformer, two upsamplings, four convolution blocks."""
    width, latent = config["codebook_dim"], config["latent_dim"]
    shapes = affine("decoder.pre_conv.conv", latent, width, 3)
    n_semantic = config["num_semantic_quantizers"]
    for name, n_books in (("rvq_first", n_semantic), ("rvq_rest", config["num_quantizers"] - n_semantic)):
        quantizer = f"decoder.quantizer.{name}"
        shapes[f"{quantizer}.input_proj.weight"] = (width // 2, width, 1)
        shapes[f"{quantizer}.output_proj.weight"] = (width, width // 2, 1)
        for i in range(n_books):
            shapes[f"{quantizer}.vq.layers.{i}._codebook.cluster_usage"] = (config["codebook_size"],)
            shapes[f"{quantizer}.vq.layers.{i}._codebook.embedding_sum"] = (config["codebook_size"], width // 2)
    transformer = "decoder.pre_transformer"
    shapes |= affine(f"{transformer}.input_proj", config["hidden_size"], latent)
    shapes |= affine(f"{transformer}.output_proj", latent, config["hidden_size"])
    shapes |= swiglu_layers(transformer, config) | layer_scales(transformer, config)
    for i, ratio in enumerate(config["upsampling_ratios"]):
        convnext = f"decoder.upsample.{i}.1"
        shapes |= affine(f"decoder.upsample.{i}.0.conv", latent, latent, ratio)
        shapes |= affine(f"{convnext}.dwconv.conv", latent, 1, 7)
        shapes |= affine(f"{convnext}.norm", latent)
        shapes |= affine(f"{convnext}.pwconv1", 4 * latent, latent)
        shapes |= affine(f"{convnext}.pwconv2", latent, 4 * latent)
        shapes[f"{convnext}.gamma"] = (latent,)
    channels, rates = config["decoder_dim"], config["upsample_rates"]
    shapes |= affine("decoder.decoder.0.conv", channels, latent, 7)
    for i, rate in enumerate(rates, start=1):
        block = f"decoder.decoder.{i}.block"
        shapes |= snake(f"{block}.0", channels)
        # a transposed convolution's weight is [in, out, kernel]
        shapes[f"{block}.1.conv.weight"] = (channels, channels // 2, 2 * rate)
        shapes[f"{block}.1.conv.bias"] = (channels // 2,)
        channels //= 2
        for unit in range(2, 5):
            shapes |= snake(f"{block}.{unit}.act1", channels) | snake(f"{block}.{unit}.act2", channels)
            shapes |= affine(f"{block}.{unit}.conv1.conv", channels, channels, 7)
            shapes |= affine(f"{block}.{unit}.conv2.conv", channels, channels, 1)
    shapes |= snake(f"decoder.decoder.{len(rates) + 1}", channels)
    shapes |= affine(f"decoder.decoder.{len(rates) + 2}.conv", 1, channels, 7)
    return shapes


def snake(prefix: str, channels: int) -> Shapes:
    """Frequency and magnitude of a SnakeBeta activation, as logarithms."""
    return {f"{prefix}.alpha": (channels,), f"{prefix}.beta": (channels,)}


def codec_encoder_shapes(config: Json) -> Shapes:
    """`encoder.*` of the codec: Mimi's convolutions, transformer, downsampling and quantizers.

    The convolutions sit in one list with their activations, so their indices have gaps: 0, then for each ratio a
    residual block and a strided convolution (1 and 3, 4 and 6, ...), then the last one.
    """
    channels, hidden, kernel = config["num_filters"], config["hidden_size"], config["residual_kernel_size"]
    layers = "encoder.encoder.layers"
    shapes = affine(f"{layers}.0.conv", channels, config["audio_channels"], config["kernel_size"])
    index = 1
    for ratio in reversed(config["upsampling_ratios"]):
        squeezed = channels // config["compress"]
        shapes |= affine(f"{layers}.{index}.block.1.conv", squeezed, channels, kernel)
        shapes |= affine(f"{layers}.{index}.block.3.conv", channels, squeezed, 1)
        shapes |= affine(f"{layers}.{index + 2}.conv", 2 * channels, channels, 2 * ratio)
        channels, index = 2 * channels, index + 3
    shapes |= affine(f"{layers}.{index + 1}.conv", hidden, channels, config["last_kernel_size"])
    width = config["num_attention_heads"] * config["head_dim"]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.encoder_transformer.layers.{i}"
        shapes |= affine(f"{layer}.input_layernorm", hidden)
        shapes |= affine(f"{layer}.post_attention_layernorm", hidden)
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (width, hidden) for name in "qkv"}
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, width)
        shapes[f"{layer}.mlp.fc1.weight"] = (config["intermediate_size"], hidden)
        shapes[f"{layer}.mlp.fc2.weight"] = (hidden, config["intermediate_size"])
    shapes |= layer_scales("encoder.encoder_transformer", config)
    shapes["encoder.downsample.conv.weight"] = (hidden, hidden, 4)
    dim, n_semantic = config["codebook_dim"], config["num_semantic_quantizers"]
    for name, n_books in (("semantic", n_semantic), ("acoustic", config["num_quantizers"] - n_semantic)):
        quantizer = f"encoder.quantizer.{name}_residual_vector_quantizer"
        shapes[f"{quantizer}.input_proj.weight"] = (dim, hidden, 1)
        shapes[f"{quantizer}.output_proj.weight"] = (hidden, dim, 1)
        for i in range(n_books):
            shapes[f"{quantizer}.layers.{i}.codebook.initialized"] = (1,)
            shapes[f"{quantizer}.layers.{i}.codebook.cluster_usage"] = (config["codebook_size"],)
            shapes[f"{quantizer}.layers.{i}.codebook.embed_sum"] = (config["codebook_size"], dim)
    return shapes


# -------------------------------------------------------------------------------------------------------- tensor values

# What is drawn from a fixed range: the first pattern found in the name decides.
RANGES = (
    (r"norm\.weight$", (0.75, 1.25)),
    (r"\.bias$", (-0.1, 0.1)),
    (r"\.(alpha|beta)$", (-0.35, 0.35)),
    (r"\.gamma$", (0.1, 0.5)),
    (r"layer_scale\.scale$", (0.05, 0.3)),
    (r"\.initialized$", (1.0, 1.0)),
    (r"\.cluster_usage$", (0.25, 2.25)),
    (r"\.embed_sum$", (-1.0, 1.0)),
    (r"\.embedding_sum$", (-0.4, 0.4)),
    (r"text_embedding\.weight$", (-1.5, 1.5)),
    (r"codec_embedding(\.\d+)?\.weight$", (-0.5, 0.5)),
)
# Every other weight keeps the size of its input times a gain: the first pattern found decides, else 1.
GAINS = (
    (r"codec_head|lm_head", 3.0),  # decided logits: argmax must not hang on rounding
    (r"speaker_encoder\.blocks\.0\.", 0.15),  # log-mel values reach -11.5
    (r"speaker_encoder\.(blocks|mfa|asp)\.", 1.4),
    (r"speaker_encoder\.fc\.", 0.3),  # as large as the embeddings it stands among
    (r"encoder\.encoder\.layers\.14\.", 0.5),
    (r"encoder\.encoder\.layers\.", 1.5),
    (r"decoder\.decoder\.\d\.block\.\d\.conv2\.", 0.3),
    (r"decoder\.decoder\.6\.", 0.13),  # the waveform is clamped to [-1, 1]
)
TRANSPOSED_CONVOLUTION = re.compile(r"^decoder\.(upsample\.\d\.0|decoder\.\d\.block\.1)\.conv\.weight$")


def n_inputs(name: str, shape: Shape) -> int:
    """How many products are summed into one output of this weight."""
    if TRANSPOSED_CONVOLUTION.match(name):
        return shape[0] * (1 if ".upsample." in name else 2)  # the kernel spans one or two strides
    return math.prod(shape[1:])


def value_range(name: str, shape: Shape) -> tuple[float, float]:
    """The lowest and the highest value of a tensor."""
    for pattern, limits in RANGES:
        if re.search(pattern, name):
            return limits
    gain = next((gain for pattern, gain in GAINS if re.search(pattern, name)), 1.0)
    limit = gain * math.sqrt(3 / n_inputs(name, shape))  # uniform in +-sqrt(3) has variance 1
    return -limit, limit


def draw(name: str, shape: Shape, seed: int) -> FloatArray:
    """The values of one tensor: uniform, from a generator that belongs to its name."""
    low, high = value_range(name, shape)
    random = np.random.RandomState([seed, zlib.crc32(name.encode())])
    return (low + (high - low) * random.random_sample(shape)).astype(np.float32)


# When speech ends, where the drawn weights shall not decide it. Every input of the talker has a text side, whose first
# number gets a large bias; in the output that number still stands out, and it is all that the head of end of speech
# reads, with this weight.
ENDS = {"never": -10.0, "soon": 1.3, "at-once": 10.0}
END_OF_SPEECH = 2150
END_MARK = 20.0


def decide_end(name: str, tensor: FloatArray, ends: str) -> None:
    """Let the two tensors that matter say when speech ends: never, some ten frames in, or as soon as it may."""
    if name == "talker.text_projection.linear_fc2.bias":
        tensor[0] = END_MARK
    elif name == "talker.codec_head.weight":
        tensor[END_OF_SPEECH] = 0
        tensor[END_OF_SPEECH, 0] = ENDS[ends]


# ---------------------------------------------------------------------------------------------------------------- files


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_safetensors(path: Path, tensors: dict[str, FloatArray], dtype: str) -> None:
    """Write a safetensors file: length of the header, header (JSON), data. BF16 keeps a float32's upper half."""
    header: Json = {"__metadata__": {"format": "pt"}}
    chunks: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        little = np.ascontiguousarray(tensor, dtype="<f4")
        chunk = little.tobytes() if dtype == "F32" else (little.view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(chunk)]}
        chunks.append(chunk)
        offset += len(chunk)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.writelines(chunks)


def split_evenly(shapes: Shapes, n_parts: int) -> Iterator[list[str]]:
    """The names in n_parts runs of about the same number of values."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    part_of = np.minimum((ends - 1) * n_parts // ends[-1], n_parts - 1)
    for part in range(n_parts):
        yield [name for name, own in zip(shapes, part_of, strict=True) if own == part]


def write_weights(folder: Path, shapes: Shapes, seed: int, n_shards: int, ends: str | None) -> None:
    """The talker's bfloat16 weights: model.safetensors, or shards with their index."""

    def values(name: str) -> FloatArray:
        tensor = draw(name, shapes[name], seed)
        if ends is not None:
            decide_end(name, tensor, ends)
        return tensor

    if n_shards == 1:
        tensors = {name: values(name) for name in shapes}
        write_safetensors(folder / "model.safetensors", tensors, "BF16")
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(split_evenly(shapes, n_shards), start=1):
        file_name = f"model-{i:05d}-of-{n_shards:05d}.safetensors"
        write_safetensors(folder / file_name, {name: values(name) for name in names}, "BF16")
        weight_map |= dict.fromkeys(names, file_name)
    total_size = 2 * sum(math.prod(shape) for shape in shapes.values())
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    )


def write_codec(folder: Path, seed: int) -> None:
    """The folder speech_tokenizer/, with float32 weights."""
    folder.mkdir(exist_ok=True)
    config = codec_config()
    shapes = codec_decoder_shapes(config["decoder_config"]) | codec_encoder_shapes(config["encoder_config"])
    tensors = {name: draw(name, shapes[name], seed) for name in sorted(shapes)}
    write_safetensors(folder / "model.safetensors", tensors, "F32")
    write_json(folder / "config.json", config)
    write_json(folder / "configuration.json", {})
    preprocessor = {
        "chunk_length_s": None, "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "overlap": None,
        "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 24000,
    }  # fmt: skip
    write_json(folder / "preprocessor_config.json", preprocessor)


def write_checkpoint(
    folder: Path,
    *,
    model_type: str = "base",
    size: str = "tiny",
    seed: int = 0,
    shards: int = 1,
    ends: str | None = None,
) -> Path:
    """Write a checkpoint into the folder, which is made if missing, and return the folder.

    model_type is one of MODEL_TYPES (only "base" has a speaker encoder, only "custom_voice" has preset speakers), size
    one of SIZES; with shards > 1 the talker's weights come in that many files and an index; ends, one of ENDS, is when
    its speech ends, which otherwise is a matter of the seed.
    """
    if model_type not in MODEL_TYPES:
        raise ValueError(f"model_type is {model_type!r}, not one of {', '.join(MODEL_TYPES)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    config = model_config(model_type, SIZES[size], tokenizer)
    shapes = talker_shapes(config["talker_config"])
    if model_type == "base":
        shapes |= speaker_encoder_shapes(config["speaker_encoder_config"])
    write_weights(folder, {name: shapes[name] for name in sorted(shapes)}, seed, shards, ends)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", GENERATION_CONFIG)
    preprocessor = {
        "padding_side": "left",
        "padding_value": 0.0,
        "processor_class": "Qwen3TTSProcessor",
        "return_attention_mask": True,
    }
    write_json(folder / "preprocessor_config.json", preprocessor)
    write_tokenizer(folder, tokenizer)
    write_codec(folder / "speech_tokenizer", seed)
    return folder


def reference_clip(n_samples: int = 47_000) -> FloatArray:
    """A synthetic voice at 24 kHz, [n_samples]: the reference clip of the golden files.

    A gliding harmonic tone in syllables with a little noise, and a tenth of a second of silence after every 0.8 s. The
    default length is no multiple of a frame (1920) or of a mel hop (256).
    """
    seconds = np.arange(n_samples) / 24_000
    pitch_hz = 140 + 40 * np.sin(2 * np.pi * 0.7 * seconds)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / 24_000
    formant = 4 + 3 * np.sin(2 * np.pi * 1.1 * seconds)  # the strongest harmonic
    voice = sum(np.sin(k * phase + k * k) / (1 + abs(k - formant)) for k in range(1, 20))
    syllables = 0.15 + np.clip(np.sin(2 * np.pi * 2.3 * seconds), 0, None) ** 0.5
    noise = np.random.RandomState(24_000).random_sample(n_samples) - 0.5
    speaking = seconds % 0.9 < 0.8
    return np.asarray(speaking * (0.12 * syllables * voice + 0.02 * noise), dtype=np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny random Qwen3-TTS checkpoint.")
    parser.add_argument("out", type=Path, help="folder to write, made if missing")
    parser.add_argument("--type", choices=MODEL_TYPES, default="base")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--ends", choices=ENDS, help="when its speech ends; else as the weights happen to say")
    options = parser.parse_args()
    write_checkpoint(
        options.out,
        model_type=options.type,
        size=options.size,
        seed=options.seed,
        shards=options.shards,
        ends=options.ends,
    )


if __name__ == "__main__":
    main()
