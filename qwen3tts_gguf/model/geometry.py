"""What sizes a model may have: past these, ggml or llama.cpp would abort or a graph outgrow its budget.

The released models lie well inside. Both the runtime and the converter ask, so that nothing is written that cannot be
read. schema.py states which tensor shapes must agree with a size; here is what the tensors leave open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from .schema import (
    CODEBOOK_SIZE,
    SAMPLES_PER_FRAME,
    CodecDecoderConfig,
    CodecEncoderConfig,
    CodePredictorConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
)

__all__ = ["MAX_NET_LAYERS", "MAX_TALKER_LAYERS", "Config", "problem"]

Config = TalkerConfig | CodePredictorConfig | CodecDecoderConfig | CodecEncoderConfig | SpeakerEncoderConfig

MAX_TALKER_LAYERS = 256
"""28 in the released models; llama.cpp aborts past 512."""
MAX_NET_LAYERS = 12
"""Of the transformers that are graphs of ours, which have budgets of nodes; 5 and 8 in the released models."""
_MAX_HEADS, _MAX_HEAD_DIM = 256, 512
_MAX_STRIDES = 8
_MAX_WINDOW = 1024
_MAX_NUMBER = 1 << 24
_N_MELS = 128
_RES2NET_SCALE = 8
_SPEAKER_LAYERS = 5
_MAX_KERNEL, _MAX_DILATION = 15, 64


def problem(config: Config) -> str | None:
    """The first thing that is wrong with a part's sizes, as the end of a sentence; None when it can be run."""
    for name, value in asdict(config).items():
        if isinstance(value, float) and not 0 < value < _MAX_NUMBER:
            return f"impossible value of {name}: {value}"
    problems = {
        TalkerConfig: _talker,
        CodePredictorConfig: _code_predictor,
        CodecDecoderConfig: _codec_decoder,
        CodecEncoderConfig: _codec_encoder,
        SpeakerEncoderConfig: _speaker_encoder,
    }
    return next(problems[type(config)](config), None)  # type: ignore[operator]


def _talker(c: TalkerConfig) -> Iterator[str]:
    if c.text_vocabulary < 1:
        yield f"its vocabulary of {c.vocabulary} tokens leaves no room for text"
    yield from _attention(c, MAX_TALKER_LAYERS)


def _code_predictor(c: CodePredictorConfig) -> Iterator[str]:
    yield from _attention(c, MAX_NET_LAYERS)
    if not 1 <= c.codebook_size <= CODEBOOK_SIZE:
        yield f"the code predictor has codebooks of {c.codebook_size}, not of up to {CODEBOOK_SIZE}"
    if not c.projected and c.hidden != c.talker_hidden:
        widths = f"the code predictor is {c.hidden} wide and the talker {c.talker_hidden}"
        yield f"{widths}, but there is no projection between them"


def _attention(c: TalkerConfig | CodePredictorConfig, max_layers: int) -> Iterator[str]:
    if (
        not 1 <= c.n_layers <= max_layers
        or not 1 <= c.n_kv_heads <= c.n_heads <= _MAX_HEADS
        or not 2 <= c.head_dim <= _MAX_HEAD_DIM
        or c.n_heads % c.n_kv_heads
        or c.head_dim % 2
    ):
        yield (
            f"impossible attention: {c.n_layers} layers, {c.n_heads} heads, {c.n_kv_heads} key heads of {c.head_dim}"
        )


def _codec_decoder(c: CodecDecoderConfig) -> Iterator[str]:
    if not _heads_fit(c.n_heads, c.attention_dim) or not 1 <= c.window <= _MAX_WINDOW:
        yield f"the codec decoder cannot have {c.n_heads} heads over a window of {c.window}"
    strides = (*c.upsample_strides, *c.dac_strides)
    yield from _codec("decoder", c.n_layers, c.codebook_size, strides, c.samples_per_frame)


def _codec_encoder(c: CodecEncoderConfig) -> Iterator[str]:
    if not _heads_fit(c.n_heads, c.hidden):
        yield f"the codec encoder cannot have {c.n_heads} heads"
    yield from _codec("encoder", c.n_layers, c.codebook_size, c.strides, c.samples_per_frame)


def _heads_fit(n_heads: int, width: int) -> bool:
    return 1 <= n_heads <= _MAX_HEADS and not width % n_heads and not width // n_heads % 2


def _codec(half: str, n_layers: int, codebook_size: int, strides: tuple[int, ...], n_samples: int) -> Iterator[str]:
    if not 1 <= n_layers <= MAX_NET_LAYERS:
        yield f"the codec {half} cannot have {n_layers} layers"
    if not 1 <= codebook_size <= CODEBOOK_SIZE:
        yield f"the codec {half} has codebooks of {codebook_size}, not of up to {CODEBOOK_SIZE}"
    if len(strides) > _MAX_STRIDES or n_samples != SAMPLES_PER_FRAME:
        yield f"the codec {half} has frames of {n_samples} samples, not {SAMPLES_PER_FRAME}"


def _speaker_encoder(c: SpeakerEncoderConfig) -> Iterator[str]:
    stem, *blocks, last = c.channels
    if (
        not len(c.channels) == len(c.kernels) == len(c.dilations) == _SPEAKER_LAYERS
        or any(width != stem for width in blocks)
        or sum(blocks) != last
        or c.n_mels != _N_MELS
        or c.res2net_scale != _RES2NET_SCALE
        or stem % c.res2net_scale
        or not all(k % 2 and k <= _MAX_KERNEL for k in c.kernels)
        or not all(1 <= dilation <= _MAX_DILATION for dilation in c.dilations)
    ):
        yield "the speaker encoder's layers contradict each other"
