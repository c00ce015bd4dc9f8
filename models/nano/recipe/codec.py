"""The codec as the official package builds it, small; and the pieces its two trainings share."""

from __future__ import annotations

import importlib.machinery
import json
import sys
import types

import numpy as np
import torch
from settings import (
    CODE_DIM,
    CODEBOOK_SIZE,
    CODEC_FEED_FORWARD,
    CODEC_HEADS,
    CODEC_HIDDEN,
    CODEC_LAYERS,
    ENCODER_FILTERS,
    FRAME,
    N_CODEBOOKS,
    RATE,
    WORK,
)
from torch import Tensor, nn


def _without_torchaudio() -> None:
    """The package imports torchaudio for a codec we don't use."""
    names = ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi")
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules.setdefault(name, module)
    sys.modules[names[0]].compliance = sys.modules[names[1]]  # type: ignore[attr-defined]
    sys.modules[names[1]].kaldi = sys.modules[names[2]]  # type: ignore[attr-defined]


_without_torchaudio()
from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model  # noqa: E402

_SHARED = dict(
    hidden_size=CODEC_HIDDEN,
    intermediate_size=CODEC_FEED_FORWARD,
    num_hidden_layers=CODEC_LAYERS,
    num_attention_heads=CODEC_HEADS,
    num_key_value_heads=CODEC_HEADS,
    head_dim=CODEC_HIDDEN // CODEC_HEADS,
    layer_scale_initial_scale=0.2,
    rope_theta=10000,
    max_position_embeddings=8000,
    codebook_size=CODEBOOK_SIZE,
    num_quantizers=N_CODEBOOKS,
    num_semantic_quantizers=1,
    vector_quantization_hidden_dimension=CODE_DIM,
)
_DECODER = dict(
    **_SHARED,
    latent_dim=CODEC_HIDDEN,
    decoder_dim=CODEC_HIDDEN,
    hidden_act="silu",
    attention_bias=False,
    attention_dropout=0.0,
    rms_norm_eps=1e-5,
    sliding_window=72,
    upsample_rates=[8, 5, 4, 3],
    upsampling_ratios=[2, 2],
    codebook_dim=2 * CODE_DIM,
    semantic_codebook_size=CODEBOOK_SIZE,
)
_ENCODER = dict(
    **_SHARED,
    audio_channels=1,
    sampling_rate=RATE,
    _frame_rate=RATE / FRAME,
    num_filters=ENCODER_FILTERS,
    kernel_size=7,
    residual_kernel_size=3,
    last_kernel_size=3,
    num_residual_layers=1,
    compress=2,
    dilation_growth_rate=2,
    upsampling_ratios=[8, 6, 5, 4],
    hidden_act="gelu",
    norm_eps=1e-5,
    sliding_window=250,
    codebook_dim=CODE_DIM,
    upsample_groups=CODEC_HIDDEN,
    pad_mode="constant",
    use_causal_conv=True,
    use_conv_shortcut=False,
    normalize=False,
    trim_right_ratio=1.0,
    use_cache=False,
    use_streaming=False,
)
CONFIG = dict(
    architectures=["Qwen3TTSTokenizerV2Model"],
    model_type="qwen3_tts_tokenizer_12hz",
    encoder_valid_num_quantizers=N_CODEBOOKS,
    input_sample_rate=RATE,
    output_sample_rate=RATE,
    decode_upsample_rate=FRAME,
    encode_downsample_rate=FRAME,
    decoder_config=_DECODER,
    encoder_config=_ENCODER,
)


def new_codec() -> nn.Module:
    """The codec with the corpus' codebooks; all else is at its start."""
    codec = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**CONFIG))
    for module in codec.decoder.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
            module.reset_parameters()
        if isinstance(getattr(module, "gamma", None), nn.Parameter):
            module.gamma.data.fill_(0.2)
    space = torch.load(WORK / "space.pt")
    put_books(codec, space["books"])
    return codec


@torch.no_grad()
def put_books(codec: nn.Module, books: Tensor) -> None:
    """Writes the codebooks [16, size, dim] into encoder and decoder, so that both mean the same by a code."""
    ours, theirs = codec.encoder.quantizer, codec.decoder.quantizer
    encoder_layers = [
        *ours.semantic_residual_vector_quantizer.layers,
        *ours.acoustic_residual_vector_quantizer.layers,
    ]
    decoder_layers = [*theirs.rvq_first.vq.layers, *theirs.rvq_rest.vq.layers]
    for book, a, b in zip(books, encoder_layers, decoder_layers, strict=True):
        a.codebook.embed_sum.copy_(book)
        a.codebook.cluster_usage.fill_(1)
        a.codebook._embed = None
        b._codebook.embedding_sum.data.copy_(book)
        b._codebook.cluster_usage.data.fill_(1)


class Corpus:
    """Waves, codes and latents, frame by frame."""

    def __init__(self) -> None:
        self.items = json.loads((WORK / "items.json").read_text())
        self.wave = np.load(WORK / "wav.npy", mmap_mode="r")
        self.codes = torch.from_numpy(np.load(WORK / "codes.npy").astype(np.int64))
        self.latents = torch.from_numpy(np.load(WORK / "latents.npy")).float()
        self.train = [i for i in self.items if not i["held"]]
        self.held = [i for i in self.items if i["held"]]

    @staticmethod
    def frames(item: dict) -> slice:
        return slice(item["first"] // FRAME, (item["first"] + item["samples"]) // FRAME)

    def speech(self, item: dict) -> Tensor:
        """[samples] of a whole utterance."""
        frames = self.frames(item)
        return self.sound(frames.start, frames.stop - frames.start)

    def sound(self, first: int, n: int) -> Tensor:
        """[samples] of n frames."""
        cut = self.wave[first * FRAME : (first + n) * FRAME]
        return torch.from_numpy(cut.astype(np.float32) / 32768)
