"""Pairs of every size and type that geometry.py lets through, loaded and made to speak, each in a child process.

usage: python tests/fuzz_geometry.py TALKER MMPROJ SEED N_CASES [FIRST_CASE]

The tensors are as schema.py wants them for sizes drawn at random, small and odd ones above all; keys and vocabulary are
those of a sound pair. Prints a line of JSON, as fuzz_speaking.py does.
"""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import fuzz_speaking
import gguf
import mutation
import numpy as np
import test_model_files

from qwen3tts_gguf.ggml.rows import quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model import schema
from qwen3tts_gguf.model.schema import Key

WIDTHS = (1, 2, 3, 7, 16, 32, 40, 64, 96, 256)
TYPES = [type for type in GgmlType if type != GgmlType.I32]
DECODER_STRIDES = [((2, 2), (8, 5, 4, 3)), ((), (8, 5, 4, 3, 2, 2)), ((4,), (480,)), ((24,), (80,)), ((1, 1), (30, 64))]
ENCODER_STRIDES = [(4, 5, 6, 8), (960,), (1, 2, 480), (2, 2, 2, 2, 2, 30)]


def attention(rng: random.Random) -> dict[str, int]:
    n_kv_heads = rng.choice((1, 2, 3, 8))
    return {
        "n_layers": rng.randint(1, 3),
        "hidden": rng.choice(WIDTHS),
        "ffn": rng.choice(WIDTHS),
        "n_kv_heads": n_kv_heads,
        "n_heads": n_kv_heads * rng.choice((1, 2, 3, 16)),
        "head_dim": rng.choice((2, 6, 16, 30, 64, 128, 512)),
    }


def configurations(rng: random.Random) -> dict[str, Any]:
    talker = schema.TalkerConfig(
        **attention(rng), rope_theta=1e6, rms_eps=1e-6, context_length=rng.choice((300, 32_768)), vocabulary=4_096
    )
    codebook_size = rng.choice((1, 2, 64, 2_048))
    sizes = attention(rng)
    predictor = schema.CodePredictorConfig(
        **sizes, rms_eps=1e-6, talker_hidden=talker.hidden, codebook_size=codebook_size,
        projected=sizes["hidden"] != talker.hidden or rng.random() < 0.5,
    )  # fmt: skip
    (upsample_strides, dac_strides), n_heads = rng.choice(DECODER_STRIDES), rng.choice((1, 2, 3, 16))
    decoder = schema.CodecDecoderConfig(
        codebook_size=codebook_size, codebook_dim=rng.choice(WIDTHS), rvq_dim=rng.choice(WIDTHS),
        latent=rng.choice(WIDTHS), n_layers=rng.randint(1, 3), hidden=rng.choice(WIDTHS), ffn=rng.choice(WIDTHS),
        attention_dim=n_heads * rng.choice((2, 6, 64)), upsample_strides=upsample_strides,
        dac_dim=rng.choice((1, 2, 3)) << len(dac_strides), dac_strides=dac_strides, n_heads=n_heads,
        window=rng.choice((1, 2, 72, 1_024)),
    )  # fmt: skip
    n_heads = rng.choice((1, 2, 3))
    encoder = schema.CodecEncoderConfig(
        n_filters=rng.choice((2, 3, 8, 16)), strides=rng.choice(ENCODER_STRIDES),
        hidden=n_heads * rng.choice((2, 6, 32)), ffn=rng.choice(WIDTHS), n_layers=rng.randint(1, 2),
        codebook_size=codebook_size, codebook_dim=rng.choice(WIDTHS), n_heads=n_heads, rope_theta=1e4, norm_eps=1e-5,
    )  # fmt: skip
    stem = 8 * rng.choice((1, 2, 5))
    speaker = schema.SpeakerEncoderConfig(
        n_mels=128, channels=(stem, stem, stem, stem, 3 * stem),
        kernels=tuple(rng.choice((1, 3, 5)) for _ in range(5)),
        res2net_scale=8, se_channels=rng.choice(WIDTHS), attention_channels=rng.choice(WIDTHS), output=talker.hidden,
        dilations=tuple(rng.choice((1, 2, 4)) for _ in range(5)),
    )  # fmt: skip
    return {"talker": talker, "predictor": predictor, "decoder": decoder, "encoder": encoder, "speaker": speaker}


def tensors(shapes: dict[str, schema.Shape], rng: random.Random) -> test_model_files.Tensors:
    values = np.random.default_rng(rng.getrandbits(32))
    types = rng.sample(TYPES, 3)
    found: test_model_files.Tensors = {}
    for name, shape in shapes.items():
        fitting = [type for type in types if shape[-1] % type.block_size == 0] or [GgmlType.F32]
        type = GgmlType.F32 if len(shape) == 1 else rng.choice(fitting)
        rows = (0.5 * values.standard_normal((prod(shape[:-1]), shape[-1]))).astype(np.float32)
        if type == GgmlType.F32:
            data: Any = rows.reshape(shape)
        elif type == GgmlType.F16:
            data = rows.astype(np.float16).reshape(shape)
        else:
            data = quantize_rows(rows, type).reshape(*shape[:-1], -1)
        found[name] = (data, gguf.GGMLQuantizationType(type))
    return found


def write_pair(keys: list[test_model_files.Keys], folder: Path, rng: random.Random) -> tuple[Path, Path]:
    c = configurations(rng)
    talker, predictor, decoder, encoder, speaker = c.values()
    own, other = dict(keys[0]), dict(keys[1])

    def put(target: test_model_files.Keys, name: str, value: Any) -> None:
        target[name] = (value, target[name][1])

    for field, key in schema.TalkerConfig.KEYS.items():
        put(own, f"qwen3tts.{key}", asdict(talker)[field])
    put(own, "qwen3tts.attention.value_length", talker.head_dim)
    half = talker.head_dim // 2
    first = rng.randint(0, half)
    put(own, "qwen3tts.rope.dimension_sections", [first, half - first, 0, 0])
    n_text, end = talker.text_vocabulary, 1_024 + 2_150
    codes = [i for i in range(n_text + predictor.codebook_size, talker.vocabulary) if i != end]
    put(own, "tokenizer.ggml.suppress_tokens", codes)
    for field, key in schema.CodePredictorConfig.KEYS.items():
        put(other, f"clip.gen.audio.{key}", asdict(predictor)[field])
    put(other, Key.DECODER_HEADS, decoder.n_heads)
    put(other, Key.DECODER_WINDOW, decoder.window)
    put(other, Key.ENCODER_HEADS, encoder.n_heads)
    put(other, Key.SPEAKER_DILATIONS, list(speaker.dilations))
    for file in (own, other):
        del file[Key.GROUP_NAMES], file[Key.GROUP_SHA256]
    shapes = schema.code_predictor_tensors(predictor) | schema.codec_decoder_tensors(decoder)
    shapes |= schema.codec_encoder_tensors(encoder) | schema.speaker_encoder_tensors(speaker)
    return (
        test_model_files.write(folder / "t.gguf", own, tensors(schema.talker_tensors(talker), rng)),
        test_model_files.write(folder / "mmproj-t.gguf", other, tensors(shapes, rng)),
    )


def main() -> None:
    paths, seed, n_cases = [Path(sys.argv[1]), Path(sys.argv[2])], int(sys.argv[3]), int(sys.argv[4])
    first = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    keys = [test_model_files.read(path)[0] for path in paths]
    report = fuzz_speaking.Report(seed)
    with tempfile.TemporaryDirectory() as folder:
        for case, rng in mutation.seeds(seed, n_cases):
            if case < first:
                continue
            report.count(case, fuzz_speaking.child(*write_pair(keys, Path(folder), rng), rng))
    report.print()


if __name__ == "__main__":
    main()
