"""The speaker encoder: `speaker_encoder.*` of a Base checkpoint (ECAPA-TDNN) to `a.*` and `mm.a.fc`."""

from __future__ import annotations

from qwen3tts_gguf.model.schema import SAMPLE_RATE_HZ, SpeakerEncoderConfig, speaker_encoder_tensors

from .section import Section
from .sources import Source, copied
from .weights import Weights

__all__ = ["config", "sources"]

# Each is a convolution: .weight and .bias.
CONVOLUTIONS = {
    "a.conv1d.0": "speaker_encoder.blocks.0.conv",
    "a.conv_out": "speaker_encoder.mfa.conv",
    "a.asp_tdnn": "speaker_encoder.asp.tdnn.conv",
    "a.asp_attn": "speaker_encoder.asp.conv",
    "mm.a.fc": "speaker_encoder.fc",
}
BLOCK_CONVOLUTIONS = {
    "conv_pw1": "tdnn1.conv",
    "conv_pw2": "tdnn2.conv",
    "se_conv1": "se_block.conv1",
    "se_conv2": "se_block.conv2",
}


def config(speaker: Section, talker_hidden: int) -> SpeakerEncoderConfig:
    """`speaker_encoder_config` of config.json, whose missing keys have the official package's defaults
    (configuration_qwen3_tts.py). Raises CheckpointError on what llama.cpp has built in differently."""
    speaker.expect("sample_rate", SAMPLE_RATE_HZ)
    speaker.expect("mel_dim", 128)
    speaker.expect("enc_res2net_scale", 8)
    speaker.expect("enc_dim", talker_hidden, why="a speaker vector is a row of the talker's input")
    channels = speaker.integers("enc_channels", (512, 512, 512, 512, 1536))
    kernels = speaker.integers("enc_kernel_sizes", (5, 3, 3, 3, 1))
    dilations = speaker.integers("enc_dilations", (1, 2, 3, 4, 1))
    if not len(channels) == len(kernels) == len(dilations) == 5:
        raise speaker.error("enc_channels", "and the kernels and dilations of the layers must be five each")
    return SpeakerEncoderConfig(
        n_mels=128,
        channels=channels,
        kernels=kernels,
        res2net_scale=8,
        se_channels=speaker.integer("enc_se_channels", 128),
        attention_channels=speaker.integer("enc_attention_channels", 128),
        output=talker_hidden,
        dilations=dilations,
    )


def sources(weights: Weights, c: SpeakerEncoderConfig) -> dict[str, Source]:
    """GGUF name -> source, for the speaker encoder's part of the mmproj file."""
    table = dict(CONVOLUTIONS)
    for i in range(1, len(c.channels) - 1):
        block = f"speaker_encoder.blocks.{i}"
        table |= {f"a.blk.{i}.{ours}": f"{block}.{theirs}" for ours, theirs in BLOCK_CONVOLUTIONS.items()}
        for j in range(c.res2net_scale - 1):
            table[f"a.blk.{i}.res2.{j}"] = f"{block}.res2net_block.blocks.{j}.conv"
    shapes = speaker_encoder_tensors(c)
    found = {
        f"{ours}.{kind}": copied(weights, f"{theirs}.{kind}", shapes[f"{ours}.{kind}"])
        for ours, theirs in table.items()
        for kind in ("weight", "bias")
    }
    assert found.keys() == shapes.keys()
    return {name: found[name] for name in shapes}
