"""The keys of the two files: llama.cpp's own (conversion/qwen3tts.py, conversion/base.py), then ours (schema.Key)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gguf

from qwen3tts_gguf.errors import CheckpointError, Note
from qwen3tts_gguf.model.schema import (
    CODEC_VOCABULARY,
    GENERATOR_PROJECTOR,
    MMPROJ_ARCHITECTURE,
    SPEAKER_ENCODER_PROJECTOR,
    TALKER_ARCHITECTURE,
    CodePredictorConfig,
    Key,
    SpeakerEncoderConfig,
    TalkerConfig,
)

from .checkpoint import Checkpoint, Configuration
from .tokenizer import TokenType

__all__ = ["Card", "mmproj_keys", "read_card", "talker_keys"]

logging.getLogger("metadata").addHandler(logging.NullHandler())  # gguf's: what it logs becomes a note

Card = dict[str, Any]
"""The head of a model card, as YAML gives it."""

QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION of ggml.h


def talker_keys(
    checkpoint: Checkpoint, card: Card, name: str, file_type: int, n_parameters: int, sha256: Mapping[str, str]
) -> gguf.GGUFWriter:
    """A writer that holds the talker file's keys. `sha256` is file -> digest of the checkpoint's files."""
    writer = gguf.GGUFWriter(None, TALKER_ARCHITECTURE)
    _general(writer, checkpoint, card, name, "model", n_parameters)
    _talker(writer, checkpoint.config.talker, checkpoint)
    writer.add_uint32("general.file_type", file_type)
    _sampled_tokens(writer, checkpoint)
    writer.add_uint32("general.quantization_version", QUANTIZATION_VERSION)
    _tokenizer(writer, checkpoint)
    _voices(writer, checkpoint)
    _provenance(writer, checkpoint, sha256)
    return writer


def mmproj_keys(
    checkpoint: Checkpoint, card: Card, name: str, file_type: int, n_parameters: int, sha256: Mapping[str, str]
) -> gguf.GGUFWriter:
    """A writer that holds the mmproj file's keys."""
    c = checkpoint.config
    writer = gguf.GGUFWriter(None, MMPROJ_ARCHITECTURE)
    _general(writer, checkpoint, card, name, "mmproj", n_parameters)
    writer.add_uint32("general.file_type", file_type)
    writer.add_bool("clip.has_audio_encoder", c.speaker is not None)
    if c.speaker is not None:
        _speaker_encoder(writer, c.speaker)
    _code_predictor(writer, c.predictor)
    writer.add_uint32("general.quantization_version", QUANTIZATION_VERSION)
    _geometry(writer, c)
    _provenance(writer, checkpoint, sha256)
    return writer


def read_card(checkpoint: Checkpoint) -> tuple[Card, tuple[Note, ...]]:
    """The metadata at the head of README.md; empty, with a note, where it cannot be read."""
    path = checkpoint.folder / "README.md"
    try:
        card = gguf.Metadata.load_model_card(checkpoint.folder)
        if not card and path.is_file() and path.read_text("utf-8").startswith("---"):
            raise ValueError("its head has no keys")
        _metadata(checkpoint, card, "model", 0)
    except Exception as error:  # a YAML parser's, which is gguf's dependency and not ours; or gguf trusts a wrong kind
        reason = str(error).split("\n")[0]
        return {}, (
            Note(f"{path}: the model card cannot be read ({reason})", "the converted files will not name a licence"),
        )
    return card, ()


def _metadata(checkpoint: Checkpoint, card: Card, name: str, n_parameters: int) -> gguf.Metadata:
    config = dict(checkpoint.model.values)
    return gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, config, Path(name), n_parameters)


def _general(
    writer: gguf.GGUFWriter, checkpoint: Checkpoint, card: Card, name: str, kind: str, n_parameters: int
) -> None:
    """Name, size, licence and sampling, by the gguf package's own rules: from the model card and the name's parts."""
    writer.add_string("general.type", kind)
    try:
        metadata = _metadata(checkpoint, card, name, n_parameters)
    except Exception as error:  # gguf trusts config.json, where a value may be of a wrong kind
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{checkpoint.folder}: the metadata of config.json cannot be read: {reason}") from error
    metadata.name = metadata.name or name
    metadata.size_label = metadata.size_label or gguf.size_label(n_parameters, n_parameters, 0, 0)
    defaults, given = checkpoint.generation_defaults, checkpoint.generation.values
    metadata.sampling_top_k = defaults.top_k if "top_k" in given else None
    metadata.sampling_top_p = defaults.top_p if "top_p" in given else None
    metadata.sampling_temp = defaults.temperature if "temperature" in given else None
    metadata.sampling_penalty_repeat = defaults.repetition_penalty if "repetition_penalty" in given else None
    metadata.set_gguf_meta_model(writer)


def _talker(writer: gguf.GGUFWriter, c: TalkerConfig, checkpoint: Checkpoint) -> None:
    at = TALKER_ARCHITECTURE
    writer.add_uint32(f"{at}.block_count", c.n_layers)
    writer.add_uint32(f"{at}.context_length", c.context_length)
    writer.add_uint32(f"{at}.embedding_length", c.hidden)
    writer.add_uint32(f"{at}.feed_forward_length", c.ffn)
    writer.add_uint32(f"{at}.attention.head_count", c.n_heads)
    writer.add_uint32(f"{at}.attention.head_count_kv", c.n_kv_heads)
    sections = checkpoint.talker.rope().integers("mrope_section")
    writer.add_array(f"{at}.rope.dimension_sections", [*sections, 0, 0, 0, 0][:4])
    writer.add_float32(f"{at}.rope.freq_base", c.rope_theta)
    writer.add_float32(f"{at}.attention.layer_norm_rms_epsilon", c.rms_eps)
    writer.add_uint32(f"{at}.attention.key_length", c.head_dim)
    writer.add_uint32(f"{at}.attention.value_length", c.head_dim)


def _sampled_tokens(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    """Which tokens of [text | codec] may come out: the codes and the end."""
    c = checkpoint.config.talker
    end = c.text_vocabulary + checkpoint.talker.integer("codec_eos_token_id")
    n_codes = checkpoint.config.predictor.codebook_size
    suppressed = [i for i in range(c.text_vocabulary + n_codes, c.vocabulary) if i != end]
    writer.add_array("tokenizer.ggml.suppress_tokens", suppressed)
    writer.add_uint32("tokenizer.ggml.eos_token_id", end)
    writer.add_bool("tokenizer.ggml.add_eos_token", False)


def _tokenizer(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    tokenizer = checkpoint.tokenizer
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "qwen2")
    writer.add_array("tokenizer.ggml.tokens", tokenizer.tokens + checkpoint.codec_tokens)
    types = tokenizer.types + [TokenType.CONTROL] * CODEC_VOCABULARY
    writer.add_array("tokenizer.ggml.token_type", [int(each) for each in types])
    writer.add_array("tokenizer.ggml.merges", tokenizer.merges)
    if tokenizer.add_bos_token is not None:
        writer.add_bool("tokenizer.ggml.add_bos_token", tokenizer.add_bos_token)


def _speaker_encoder(writer: gguf.GGUFWriter, c: SpeakerEncoderConfig) -> None:
    at = "clip.audio"
    writer.add_string(f"{at}.projector_type", SPEAKER_ENCODER_PROJECTOR)
    writer.add_uint32(f"{at}.projection_dim", c.output)
    writer.add_uint32(f"{at}.num_mel_bins", c.n_mels)
    writer.add_uint32(f"{at}.block_count", len(c.channels) - 2)
    # llama.cpp's loader wants these of every encoder; this one has no attention and ignores them
    writer.add_uint32(f"{at}.embedding_length", 1536)
    writer.add_uint32(f"{at}.attention.head_count", 1)
    writer.add_uint32(f"{at}.feed_forward_length", 1536)
    writer.add_float32(f"{at}.attention.layer_norm_epsilon", 1e-5)


def _code_predictor(writer: gguf.GGUFWriter, c: CodePredictorConfig) -> None:
    at = "clip.gen.audio"
    writer.add_bool("clip.has_gen_audio_encoder", True)
    writer.add_string(f"{at}.projector_type", GENERATOR_PROJECTOR)
    writer.add_uint32(f"{at}.projection_dim", c.talker_hidden)
    writer.add_uint32(f"{at}.embedding_length", c.hidden)
    writer.add_uint32(f"{at}.feed_forward_length", c.ffn)
    writer.add_uint32(f"{at}.block_count", c.n_layers)
    writer.add_uint32(f"{at}.attention.head_count", c.n_heads)
    writer.add_uint32(f"{at}.attention.head_count_kv", c.n_kv_heads)
    writer.add_float32(f"{at}.attention.layer_norm_epsilon", c.rms_eps)


def _geometry(writer: gguf.GGUFWriter, c: Configuration) -> None:
    """What no tensor's shape shows and llama.cpp has built in."""
    writer.add_float32(Key.PREDICTOR_ROPE_THETA, c.predictor.rope_theta)
    writer.add_uint32(Key.DECODER_HEADS, c.decoder.n_heads)
    writer.add_uint32(Key.DECODER_WINDOW, c.decoder.window)
    writer.add_float32(Key.DECODER_ROPE_THETA, c.decoder.rope_theta)
    writer.add_float32(Key.DECODER_EPS, c.decoder.rms_eps)
    writer.add_uint32(Key.ENCODER_HEADS, c.encoder.n_heads)
    writer.add_float32(Key.ENCODER_ROPE_THETA, c.encoder.rope_theta)
    writer.add_float32(Key.ENCODER_EPS, c.encoder.norm_eps)
    if c.speaker is not None:
        writer.add_array(Key.SPEAKER_DILATIONS, list(c.speaker.dilations))


def _voices(writer: gguf.GGUFWriter, checkpoint: Checkpoint) -> None:
    """Languages, preset speakers (no keys if there are none) and how to sample."""
    languages, speakers = checkpoint.languages, checkpoint.speakers
    writer.add_array(Key.LANGUAGE_NAMES, list(languages))
    writer.add_array(Key.LANGUAGE_IDS, list(languages.values()))
    writer.add_array(Key.SPEAKER_NAMES, list(speakers))
    writer.add_array(Key.SPEAKER_IDS, list(speakers.values()))
    writer.add_array(Key.SPEAKER_DIALECTS, [checkpoint.dialect(speaker) for speaker in speakers])
    for field, value in asdict(checkpoint.generation_defaults).items():
        if isinstance(value, bool):
            writer.add_bool(Key.GENERATION + field, value)
        elif isinstance(value, int):
            writer.add_uint32(Key.GENERATION + field, value)
        else:
            writer.add_float64(Key.GENERATION + field, value)  # 0.9 comes back as 0.9


def _provenance(writer: gguf.GGUFWriter, checkpoint: Checkpoint, sha256: Mapping[str, str]) -> None:
    """What the pair was made from and by; in both files, so that files of different pairs can be distinguished."""
    writer.add_string(Key.MODEL_TYPE, checkpoint.model_type)
    writer.add_string(Key.MODEL_SIZE, checkpoint.model_size)
    writer.add_string(Key.SOURCE, checkpoint.source)
    writer.add_string(Key.REVISION, checkpoint.revision)
    writer.add_array(Key.SOURCE_FILES, list(sha256))
    writer.add_array(Key.SOURCE_SHA256, list(sha256.values()))
    try:
        writer.add_string(Key.CONVERTER, version("qwen3tts-gguf"))
    except PackageNotFoundError:  # run from a source tree that is not installed
        writer.add_string(Key.CONVERTER, "unknown")
