"""The contract of the two files: their keys, their tensors' names and shapes, and the configuration they spell.

A model is a pair of GGUF files in the layout of llama.cpp (conversion/qwen3tts.py, tools/mtmd/clip.cpp):

    <name>-<TYPE>.gguf          architecture `qwen3tts`   the talker and the token table
    mmproj-<name>-<TYPE>.gguf   architecture `clip`       code predictor, codec decoder, speaker encoder

What llama.cpp has no place for is added under names it does not look at: keys that start with `tts.` (languages,
speakers, generation defaults, geometry that llama.cpp hard-codes, provenance, checksums) and tensors that start with
`a.codec_enc.` (the codec encoder). A pair without them, as llama.cpp's own converter writes it, is a valid pair.

Shapes are in NumPy order (rows first); a GGUF file stores them reversed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

__all__ = [
    "CodePredictorConfig",
    "CodecDecoderConfig",
    "CodecEncoderConfig",
    "Shape",
    "SpeakerEncoderConfig",
    "TalkerConfig",
    "code_predictor_tensors",
    "codec_decoder_tensors",
    "codec_encoder_tensors",
    "speaker_encoder_tensors",
    "talker_tensors",
]

Shape = tuple[int, ...]

TALKER_ARCHITECTURE = "qwen3tts"
MMPROJ_ARCHITECTURE = "clip"
SPEAKER_ENCODER_PROJECTOR = "qwen3tts_spkenc"
GENERATOR_PROJECTOR = "qwen3tts_gen"

MODEL_TYPES = ("base", "custom_voice", "voice_design")
SAMPLE_RATE_HZ = 24_000
N_CODEBOOKS = 16
"""Codes in a frame: one by the talker, fifteen by the code predictor."""

SAMPLES_PER_FRAME = 1920
CODEBOOK_SIZE = 2048
"""Of the released models; the room for codes below the control tokens. Smaller ones can be."""

# llama.cpp hard-codes the width of the talker's output for this architecture (src/models/qwen3vl.cpp).
CODEC_VOCABULARY = 3072

# The released codec's constants, which llama.cpp hard-codes too (tools/mtmd/clip.cpp); `tts.` keys override them.
_RELEASED_CODEC_HEADS = 16
_RELEASED_CODEC_WINDOW = 72
_RELEASED_CODEC_ROPE_THETA = 10_000.0
_RELEASED_CODEC_EPS = 1e-5
_RELEASED_PREDICTOR_ROPE_THETA = 1_000_000.0
_RELEASED_SPEAKER_DILATIONS = (1, 2, 3, 4, 1)


class Key:
    """Keys that llama.cpp does not know; the rest of the keys are its own and stand where they are read."""

    MODEL_TYPE = "tts.model_type"
    MODEL_SIZE = "tts.model_size"
    LANGUAGE_NAMES = "tts.language.names"
    LANGUAGE_IDS = "tts.language.ids"
    SPEAKER_NAMES = "tts.speaker.names"
    SPEAKER_IDS = "tts.speaker.ids"
    SPEAKER_DIALECTS = "tts.speaker.dialects"
    GENERATION = "tts.generation."
    PREDICTOR_ROPE_THETA = "tts.code_predictor.rope.freq_base"
    DECODER_HEADS = "tts.codec.decoder.attention.head_count"
    DECODER_WINDOW = "tts.codec.decoder.attention.sliding_window"
    DECODER_ROPE_THETA = "tts.codec.decoder.rope.freq_base"
    DECODER_EPS = "tts.codec.decoder.attention.layer_norm_rms_epsilon"
    ENCODER_HEADS = "tts.codec.encoder.attention.head_count"
    ENCODER_ROPE_THETA = "tts.codec.encoder.rope.freq_base"
    ENCODER_EPS = "tts.codec.encoder.attention.layer_norm_epsilon"
    SPEAKER_DILATIONS = "tts.speaker_encoder.dilations"
    SOURCE = "tts.source.repository"
    REVISION = "tts.source.revision"
    SOURCE_FILES = "tts.source.files"
    SOURCE_SHA256 = "tts.source.sha256"
    CONVERTER = "tts.converter.version"
    GROUP_NAMES = "tts.tensors.groups"
    GROUP_SHA256 = "tts.tensors.sha256"


# -- the talker: blk.*, token_embd, output -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TalkerConfig:
    """The talker's transformer; llama.cpp runs it."""

    n_layers: int
    hidden: int
    ffn: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_eps: float
    context_length: int
    vocabulary: int
    """Rows of the token table: the text tokens, then the codec's `CODEC_VOCABULARY`."""

    KEYS: ClassVar = {
        "n_layers": "block_count",
        "hidden": "embedding_length",
        "ffn": "feed_forward_length",
        "n_heads": "attention.head_count",
        "n_kv_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "rope_theta": "rope.freq_base",
        "rms_eps": "attention.layer_norm_rms_epsilon",
        "context_length": "context_length",
    }

    @property
    def text_vocabulary(self) -> int:
        """Rows of text tokens in the token table; row `text_vocabulary + c` embeds codec token c."""
        return self.vocabulary - CODEC_VOCABULARY


def talker_tensors(c: TalkerConfig) -> dict[str, Shape]:
    """Names and shapes of the talker file."""
    tensors: dict[str, Shape] = {
        "token_embd.weight": (c.vocabulary, c.hidden),
        "output_norm.weight": (c.hidden,),
        "output.weight": (CODEC_VOCABULARY, c.hidden),
    }
    for i in range(c.n_layers):
        tensors |= _attention_block(f"blk.{i}", c, norm_names=("attn_norm", "ffn_norm"), out="attn_output")
    return tensors


def _attention_block(
    at: str, c: TalkerConfig | CodePredictorConfig, norm_names: tuple[str, str], out: str
) -> dict[str, Shape]:
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    return {
        f"{at}.{norm_names[0]}.weight": (c.hidden,),
        f"{at}.attn_q.weight": (q, c.hidden),
        f"{at}.attn_k.weight": (kv, c.hidden),
        f"{at}.attn_v.weight": (kv, c.hidden),
        f"{at}.attn_q_norm.weight": (c.head_dim,),
        f"{at}.attn_k_norm.weight": (c.head_dim,),
        f"{at}.{out}.weight": (c.hidden, q),
        f"{at}.{norm_names[1]}.weight": (c.hidden,),
        f"{at}.ffn_gate.weight": (c.ffn, c.hidden),
        f"{at}.ffn_up.weight": (c.ffn, c.hidden),
        f"{at}.ffn_down.weight": (c.hidden, c.ffn),
    }


# -- the code predictor: a.gen.code.* ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodePredictorConfig:
    """The small transformer that generates codes 1..15 of a frame."""

    n_layers: int
    hidden: int
    ffn: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rms_eps: float
    talker_hidden: int
    codebook_size: int
    projected: bool
    """Whether inputs pass `proj_in` (talker hidden != predictor hidden)."""
    rope_theta: float = _RELEASED_PREDICTOR_ROPE_THETA

    KEYS: ClassVar = {
        "n_layers": "block_count",
        "hidden": "embedding_length",
        "ffn": "feed_forward_length",
        "n_heads": "attention.head_count",
        "n_kv_heads": "attention.head_count_kv",
        "rms_eps": "attention.layer_norm_epsilon",
        "talker_hidden": "projection_dim",
    }


def code_predictor_tensors(c: CodePredictorConfig) -> dict[str, Shape]:
    """Names and shapes of the code predictor's part of the mmproj file."""
    n_steps = N_CODEBOOKS - 1
    tensors: dict[str, Shape] = {
        "a.gen.code.out_embd.weight": (CODEC_VOCABULARY, c.talker_hidden),
        "a.gen.code.embd.weight": (n_steps, c.codebook_size, c.talker_hidden),
        "a.gen.code.head.weight": (n_steps, c.codebook_size, c.hidden),
        "a.gen.code.output_norm.weight": (c.hidden,),
    }
    if c.projected:
        tensors["a.gen.code.proj_in.weight"] = (c.hidden, c.talker_hidden)
        tensors["a.gen.code.proj_in.bias"] = (c.hidden,)
    for i in range(c.n_layers):
        tensors |= _attention_block(f"a.gen.code.blk.{i}", c, norm_names=("ln1", "ln2"), out="attn_out")
    return tensors


# -- the codec decoder: a.gen.wav.* ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodecDecoderConfig:
    """Codes to waveform. All sizes but the transformer's constants follow from tensor shapes."""

    codebook_size: int
    codebook_dim: int
    rvq_dim: int
    latent: int
    n_layers: int
    hidden: int
    ffn: int
    attention_dim: int
    upsample_strides: tuple[int, ...]
    dac_dim: int
    dac_strides: tuple[int, ...]
    n_heads: int = _RELEASED_CODEC_HEADS
    window: int = _RELEASED_CODEC_WINDOW
    """Frames a query sees, its own included."""
    rope_theta: float = _RELEASED_CODEC_ROPE_THETA
    rms_eps: float = _RELEASED_CODEC_EPS
    dilations: tuple[int, ...] = (1, 3, 9)
    """Of the residual units of a block; written in the official code, not in its configuration."""

    @property
    def samples_per_frame(self) -> int:
        """1920 at 24 kHz: 80 ms."""
        return prod(self.upsample_strides) * prod(self.dac_strides)

    @property
    def head_dim(self) -> int:
        return self.attention_dim // self.n_heads


def codec_decoder_tensors(c: CodecDecoderConfig) -> dict[str, Shape]:
    """Names and shapes of the codec decoder's part of the mmproj file. Convolutions are [out, in, k], transposed
    ones [in, out, k]; SnakeBeta's alpha is e^alpha and its beta 1 / (e^beta + 1e-9) of the checkpoint's."""
    at = "a.gen.wav"
    tensors: dict[str, Shape] = {}
    for part, n_books in ("first", 1), ("rest", N_CODEBOOKS - 1):
        books = (n_books,) if n_books > 1 else ()
        tensors[f"{at}.quant.{part}.in_proj.weight"] = (c.codebook_dim, c.rvq_dim)
        tensors[f"{at}.quant.{part}.out_proj.weight"] = (c.rvq_dim, c.codebook_dim)
        tensors[f"{at}.quant.{part}.codebook.weight"] = (*books, c.codebook_size, c.codebook_dim)
    tensors |= _biased(f"{at}.pre_conv", c.latent, c.rvq_dim, 3)
    tensors |= _biased(f"{at}.tfm.in_proj", c.hidden, c.latent)
    tensors |= _biased(f"{at}.tfm.out_proj", c.latent, c.hidden)
    tensors[f"{at}.tfm.output_norm.weight"] = (c.hidden,)
    for i in range(c.n_layers):
        block = f"{at}.tfm.blk.{i}"
        tensors |= {f"{block}.{name}.weight": (c.hidden,) for name in ("ln1", "ls1", "ln2", "ls2")}
        tensors |= {f"{block}.attn_{name}.weight": (c.attention_dim, c.hidden) for name in "qkv"}
        tensors[f"{block}.attn_out.weight"] = (c.hidden, c.attention_dim)
        tensors |= {f"{block}.ffn_{name}.weight": (c.ffn, c.hidden) for name in ("gate", "up")}
        tensors[f"{block}.ffn_down.weight"] = (c.hidden, c.ffn)
    for i, stride in enumerate(c.upsample_strides):
        block = f"{at}.up.blk.{i}"
        tensors |= _transposed(f"{block}.conv", c.latent, c.latent, stride)
        tensors |= _biased(f"{block}.dwconv", c.latent, 1, 7)
        tensors |= _biased(f"{block}.norm", c.latent)
        tensors |= _biased(f"{block}.pw1", 4 * c.latent, c.latent)
        tensors |= _biased(f"{block}.pw2", c.latent, 4 * c.latent)
        tensors[f"{block}.gamma"] = (c.latent,)
    tensors |= _biased(f"{at}.dac.entry", c.dac_dim, c.latent, 7)
    width = c.dac_dim
    for i, stride in enumerate(c.dac_strides):
        block = f"{at}.dac.blk.{i}"
        tensors |= _snake(f"{block}.snake", width)
        tensors |= _transposed(f"{block}.conv", width, width // 2, 2 * stride)
        width //= 2
        for j in range(len(c.dilations)):
            unit = f"{block}.res.{j}"
            tensors |= _snake(f"{unit}.act1", width) | _biased(f"{unit}.conv1", width, width, 7)
            tensors |= _snake(f"{unit}.act2", width) | _biased(f"{unit}.conv2", width, width, 1)
    tensors |= _snake(f"{at}.dac.post_snake", width) | _biased(f"{at}.dac.post_conv", 1, width, 7)
    return tensors


def _biased(at: str, out: int, *rest: int) -> dict[str, Shape]:
    return {f"{at}.weight": (out, *rest), f"{at}.bias": (out,)}


def _transposed(at: str, width_in: int, width_out: int, kernel: int) -> dict[str, Shape]:
    return {f"{at}.weight": (width_in, width_out, kernel), f"{at}.bias": (width_out,)}


def _snake(at: str, width: int) -> dict[str, Shape]:
    return {f"{at}.alpha": (width,), f"{at}.beta": (width,)}


# -- the codec encoder: a.codec_enc.*, ours ----------------------------------------------------------------------------


@dataclass(frozen=True)
class CodecEncoderConfig:
    """Waveform to codes: Mimi, of whose codebooks the first 16 are kept."""

    n_filters: int
    strides: tuple[int, ...]
    """Of the SEANet's downsampling convolutions (kernel 2 * stride), first to last."""
    hidden: int
    ffn: int
    n_layers: int
    codebook_size: int
    codebook_dim: int
    n_heads: int
    rope_theta: float
    norm_eps: float

    @property
    def samples_per_frame(self) -> int:
        return 2 * prod(self.strides)

    @property
    def head_dim(self) -> int:
        return self.hidden // self.n_heads


def codec_encoder_tensors(c: CodecEncoderConfig) -> dict[str, Shape]:
    """Names and shapes of the codec encoder's part of the mmproj file (transformers' MimiModel, encoder side)."""
    at = "a.codec_enc"
    tensors = _biased(f"{at}.conv_in", c.n_filters, 1, 7)
    width = c.n_filters
    for i, stride in enumerate(c.strides):
        block = f"{at}.blk.{i}"
        tensors |= _biased(f"{block}.res_conv1", width // 2, width, 3)
        tensors |= _biased(f"{block}.res_conv2", width, width // 2, 1)
        tensors |= _biased(f"{block}.down", 2 * width, width, 2 * stride)
        width *= 2
    tensors |= _biased(f"{at}.conv_out", c.hidden, width, 3)
    for i in range(c.n_layers):
        block = f"{at}.tfm.blk.{i}"
        tensors |= _biased(f"{block}.ln1", c.hidden) | _biased(f"{block}.ln2", c.hidden)
        tensors |= {f"{block}.attn_{name}.weight": (c.hidden, c.hidden) for name in ("q", "k", "v", "out")}
        tensors |= {f"{block}.{name}.weight": (c.hidden,) for name in ("ls1", "ls2")}
        tensors[f"{block}.ffn_up.weight"] = (c.ffn, c.hidden)
        tensors[f"{block}.ffn_down.weight"] = (c.hidden, c.ffn)
    tensors[f"{at}.downsample.weight"] = (c.hidden, c.hidden, 4)
    for part, books in ("first", ()), ("rest", (N_CODEBOOKS - 1,)):
        tensors[f"{at}.quant.{part}.in_proj.weight"] = (c.codebook_dim, c.hidden)
        tensors[f"{at}.quant.{part}.codebook.weight"] = (*books, c.codebook_size, c.codebook_dim)
    return tensors


# -- the speaker encoder: a.blk.*, a.conv*, a.asp_*, mm.a.fc -----------------------------------------------------------


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """ECAPA-TDNN: a mel spectrogram to one vector of the talker's width."""

    n_mels: int
    channels: tuple[int, ...]
    """Of the stem, the three SE-Res2Net blocks, and their concatenation."""
    kernels: tuple[int, ...]
    res2net_scale: int
    se_channels: int
    attention_channels: int
    output: int
    dilations: tuple[int, ...] = field(default=_RELEASED_SPEAKER_DILATIONS)


def speaker_encoder_tensors(c: SpeakerEncoderConfig) -> dict[str, Shape]:
    """Names and shapes of the speaker encoder's part of the mmproj file."""
    tensors = _biased("a.conv1d.0", c.channels[0], c.n_mels, c.kernels[0])
    for i in range(1, len(c.channels) - 1):
        block, width, part = f"a.blk.{i}", c.channels[i], c.channels[i] // c.res2net_scale
        tensors |= _biased(f"{block}.conv_pw1", width, c.channels[i - 1], 1)
        for j in range(c.res2net_scale - 1):
            tensors |= _biased(f"{block}.res2.{j}", part, part, c.kernels[i])
        tensors |= _biased(f"{block}.conv_pw2", width, width, 1)
        tensors |= _biased(f"{block}.se_conv1", c.se_channels, width, 1)
        tensors |= _biased(f"{block}.se_conv2", width, c.se_channels, 1)
    last = c.channels[-1]
    tensors |= _biased("a.conv_out", last, last, c.kernels[-1])
    tensors |= _biased("a.asp_tdnn", c.attention_channels, 3 * last, 1)
    tensors |= _biased("a.asp_attn", last, c.attention_channels, 1)
    tensors |= _biased("mm.a.fc", c.output, 2 * last, 1)
    return tensors
