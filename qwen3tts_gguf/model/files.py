"""The two files of a model: found, opened, and compared with the schema.

What llama.cpp or ggml would abort on (a missing tensor, a wrong shape, files of different models) ends here as a
ModelFileError; only files that passed are handed to native code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..ggml.types import GgmlType
from . import nano, schema
from .geometry import Config, problem
from .gguf_file import GgufFile
from .llama_contract import check_for_llama_cpp
from .sampling_defaults import GenerationDefaults
from .schema import (
    CodecDecoderConfig,
    CodecEncoderConfig,
    CodePredictorConfig,
    Key,
    Shape,
    SpeakerEncoderConfig,
    TalkerConfig,
)

__all__ = ["MmprojFile", "ModelFiles", "TalkerFile", "find_mmproj", "find_talker"]

_MMPROJ_PREFIX = "mmproj-"
_NO_MODEL = "convert a checkpoint, or use nano, the small model that comes with the package"


class ModelFiles:
    """A pair that fits together.

    path: the talker's .gguf, a folder that contains one pair, or "nano". mmproj: the other file, if it is not next to
    the talker under its usual name. Raises ModelFileError.
    """

    def __init__(self, path: Path, mmproj: Path | None = None) -> None:
        self.talker = TalkerFile(find_talker(path))
        self.mmproj = MmprojFile(mmproj or find_mmproj(self.talker.file.path))
        self._check_they_match()

    def _check_they_match(self) -> None:
        talker, mmproj = self.talker, self.mmproj
        theirs = f"{mmproj.file.path.name} belongs to another model than {talker.file.path.name}"
        if mmproj.predictor.talker_hidden != talker.config.hidden:
            raise ModelFileError(
                f"{theirs}: it expects a talker of width {mmproj.predictor.talker_hidden}, not {talker.config.hidden}"
            )
        ours, other = (file.strings(Key.SOURCE_SHA256) for file in (talker.file, mmproj.file))
        if ours and other and ours != other:
            raise ModelFileError(f"{theirs}: they were converted from different checkpoints")


def find_talker(path: Path) -> Path:
    """The talker's file, given itself, the folder of one pair, or "nano". Raises ModelFileError."""
    path = nano.resolved(path)
    if not path.exists():
        raise ModelFileError(f"{path}: no such file or folder", hint=_NO_MODEL)
    if not path.is_dir():
        if path.name.startswith(_MMPROJ_PREFIX):
            raise ModelFileError(f"{path}: this is the mmproj file; give the talker file or the folder")
        return path
    talkers = [file for file in sorted(path.glob("*.gguf")) if not file.name.startswith(_MMPROJ_PREFIX)]
    if not talkers:
        raise ModelFileError(f"{path}: there is no talker file (.gguf) in this folder", hint=_NO_MODEL)
    if len(talkers) > 1:
        names = ", ".join(file.name for file in talkers)
        raise ModelFileError(f"{path}: there are several models in this folder, give one of these files: {names}")
    return talkers[0]


def find_mmproj(path: Path) -> Path:
    """The mmproj file, given itself, its talker, or the folder of one pair. Raises ModelFileError."""
    if path.is_file() and path.name.startswith(_MMPROJ_PREFIX):
        return path
    talker = find_talker(path)
    expected = talker.with_name(_MMPROJ_PREFIX + talker.name)
    if expected.is_file():
        return expected
    others = sorted(talker.parent.glob(f"{_MMPROJ_PREFIX}*.gguf"))
    if len(others) == 1:
        return others[0]
    raise ModelFileError(
        f"{talker}: its mmproj file, {expected.name}, is not in the same folder", hint="give its path with `mmproj`"
    )


class TalkerFile:
    """The talker's GGUF: transformer, token table, vocabulary, and the languages and speakers of the model."""

    def __init__(self, path: Path) -> None:
        self.file = file = GgufFile(path)
        architecture = file.text("general.architecture")
        if architecture != schema.TALKER_ARCHITECTURE:
            raise ModelFileError(f"{path}: the architecture is {architecture!r}, not {schema.TALKER_ARCHITECTURE!r}")
        self.config = TalkerConfig(
            **_read_keys(file, schema.TALKER_ARCHITECTURE, TalkerConfig.KEYS),
            vocabulary=file.array_lengths().get("tokenizer.ggml.tokens", 0),
        )
        _check_geometry(path, self.config)
        expected = schema.talker_tensors(self.config)
        _check_tensors(file, expected)
        self.tokens = check_for_llama_cpp(file, expected, self.config)
        """The vocabulary: text tokens, then the codec's."""
        self.model_type = file.text(Key.MODEL_TYPE, "")
        """"base", "custom_voice" or "voice_design"; empty in files of llama.cpp's converter, as the size."""
        self.model_size = file.text(Key.MODEL_SIZE, "")
        if self.model_type not in ("", *schema.MODEL_TYPES):
            raise ModelFileError(f"{path}: unknown kind of model {self.model_type!r}")
        try:
            self.generation = GenerationDefaults.from_mapping(_generation_values(file))
        except ValueError as error:
            raise ModelFileError(f"{path}: its generation defaults cannot be used: {error}") from None

    @property
    def name(self) -> str:
        return self.file.text("general.name", self.file.path.stem)


class MmprojFile:
    """The mmproj GGUF: code predictor, codec decoder, and the encoders it has."""

    def __init__(self, path: Path) -> None:
        self.file = file = GgufFile(path)
        generator = file.text("clip.gen.audio.projector_type", "")
        if file.text("general.architecture") != schema.MMPROJ_ARCHITECTURE or generator != schema.GENERATOR_PROJECTOR:
            raise ModelFileError(f"{path}: not the mmproj file of a Qwen3-TTS model")
        self.predictor = _predictor_config(file)
        self.decoder = _decoder_config(file)
        self.encoder = _encoder_config(file) if "a.codec_enc.conv_in.weight" in file.tensors else None
        self.speaker_encoder = _speaker_config(file) if "mm.a.fc.weight" in file.tensors else None
        for config in (self.predictor, self.decoder, self.encoder, self.speaker_encoder):
            if config:
                _check_geometry(path, config)
        sizes = {part.codebook_size for part in (self.predictor, self.decoder, self.encoder) if part}
        if len(sizes) > 1:
            raise ModelFileError(f"{path}: the codebook sizes of its parts differ: {sorted(sizes)}")
        _check_tensors(file, schema.code_predictor_tensors(self.predictor))
        _check_tensors(file, schema.codec_decoder_tensors(self.decoder))
        if self.encoder:
            _check_tensors(file, schema.codec_encoder_tensors(self.encoder))
        if self.speaker_encoder:
            _check_tensors(file, schema.speaker_encoder_tensors(self.speaker_encoder))
            if self.speaker_encoder.output != self.predictor.talker_hidden:
                raise ModelFileError(
                    f"{path}: its speaker encoder and its code predictor come from models of different sizes"
                )


# -- configurations ----------------------------------------------------------------------------------------------------


def _read_keys(file: GgufFile, prefix: str, keys: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field, key in keys.items():
        whole = field not in ("rope_theta", "rms_eps")
        value = file.integer(f"{prefix}.{key}") if whole else file.number(f"{prefix}.{key}")
        if not 0 < value < 1 << 24:
            raise ModelFileError(f"{file.path}: the key {prefix}.{key} has an impossible value: {value}")
        values[field] = value
    return values


def _predictor_config(file: GgufFile) -> CodePredictorConfig:
    keys = _read_keys(file, "clip.gen.audio", CodePredictorConfig.KEYS)
    return CodePredictorConfig(
        **keys,
        head_dim=_shape(file, "a.gen.code.blk.0.attn_q_norm.weight", 1)[0],
        codebook_size=_shape(file, "a.gen.code.head.weight", 3)[1],
        projected="a.gen.code.proj_in.weight" in file.tensors,
        rope_theta=file.number(Key.PREDICTOR_ROPE_THETA, CodePredictorConfig.rope_theta),
    )


def _decoder_config(file: GgufFile) -> CodecDecoderConfig:
    at = "a.gen.wav"
    codebook_size, codebook_dim = _shape(file, f"{at}.quant.first.codebook.weight", 2)
    dac_dim, latent, _ = _shape(file, f"{at}.dac.entry.weight", 3)
    attention_dim, hidden = _shape(file, f"{at}.tfm.blk.0.attn_q.weight", 2)
    return CodecDecoderConfig(
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        rvq_dim=_shape(file, f"{at}.quant.first.out_proj.weight", 2)[0],
        latent=latent,
        n_layers=_count(file, f"{at}.tfm.blk.{{}}.ln1.weight"),
        hidden=hidden,
        ffn=_shape(file, f"{at}.tfm.blk.0.ffn_up.weight", 2)[0],
        attention_dim=attention_dim,
        upsample_strides=_kernels(file, f"{at}.up.blk.{{}}.conv.weight"),
        dac_dim=dac_dim,
        dac_strides=tuple(kernel // 2 for kernel in _kernels(file, f"{at}.dac.blk.{{}}.conv.weight")),
        n_heads=file.integer(Key.DECODER_HEADS, CodecDecoderConfig.n_heads),
        window=file.integer(Key.DECODER_WINDOW, CodecDecoderConfig.window),
        rope_theta=file.number(Key.DECODER_ROPE_THETA, CodecDecoderConfig.rope_theta),
        rms_eps=file.number(Key.DECODER_EPS, CodecDecoderConfig.rms_eps),
    )


def _encoder_config(file: GgufFile) -> CodecEncoderConfig:
    at = "a.codec_enc"
    codebook_size, codebook_dim = _shape(file, f"{at}.quant.first.codebook.weight", 2)
    return CodecEncoderConfig(
        n_filters=_shape(file, f"{at}.conv_in.weight", 3)[0],
        strides=tuple(kernel // 2 for kernel in _kernels(file, f"{at}.blk.{{}}.down.weight")),
        hidden=_shape(file, f"{at}.conv_out.weight", 3)[0],
        ffn=_shape(file, f"{at}.tfm.blk.0.ffn_up.weight", 2)[0],
        n_layers=_count(file, f"{at}.tfm.blk.{{}}.ln1.weight"),
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        n_heads=file.integer(Key.ENCODER_HEADS),
        rope_theta=file.number(Key.ENCODER_ROPE_THETA),
        norm_eps=file.number(Key.ENCODER_EPS),
    )


def _speaker_config(file: GgufFile) -> SpeakerEncoderConfig:
    stem, n_mels, stem_kernel = _shape(file, "a.conv1d.0.weight", 3)
    n_blocks = _count(file, "a.blk.{}.conv_pw1.weight", first=1)
    blocks = [_shape(file, f"a.blk.{i + 1}.conv_pw1.weight", 3)[0] for i in range(n_blocks)]
    kernels = [_shape(file, f"a.blk.{i + 1}.res2.0.weight", 3)[2] for i in range(n_blocks)]
    last, _, last_kernel = _shape(file, "a.conv_out.weight", 3)
    return SpeakerEncoderConfig(
        n_mels=n_mels,
        channels=(stem, *blocks, last),
        kernels=(stem_kernel, *kernels, last_kernel),
        res2net_scale=1 + _count(file, "a.blk.1.res2.{}.weight"),
        se_channels=_shape(file, "a.blk.1.se_conv1.weight", 3)[0],
        attention_channels=_shape(file, "a.asp_tdnn.weight", 3)[0],
        output=_shape(file, "mm.a.fc.weight", 3)[0],
        dilations=tuple(file.integers(Key.SPEAKER_DILATIONS)) or SpeakerEncoderConfig.dilations,
    )


def _generation_values(file: GgufFile) -> dict[str, Any]:
    """Our keys where they are, llama.cpp's `general.sampling.*` below them."""
    values: dict[str, Any] = {}
    # float32 in the file: 0.9 comes back as 0.899999976
    theirs = {"temperature": "temp", "top_p": "top_p", "repetition_penalty": "penalty_repeat"}
    for field, key in theirs.items():
        if (full := f"general.sampling.{key}") in file:
            values[field] = round(file.number(full), 6)
    if "general.sampling.top_k" in file:
        values["top_k"] = file.integer("general.sampling.top_k")
    for key, value in file.scalars():
        if key.startswith(Key.GENERATION):
            values[key.removeprefix(Key.GENERATION)] = round(value, 6) if isinstance(value, float) else value
    return values


# -- checks ------------------------------------------------------------------------------------------------------------


def _check_tensors(file: GgufFile, expected: Mapping[str, Shape]) -> None:
    for name, shape in expected.items():
        info = file.info(name)
        if info.shape != shape:
            raise ModelFileError(f"{file.path}: {name} has the shape {list(info.shape)}, expected {list(shape)}")
        if len(shape) == 1 and info.type != GgmlType.F32:
            raise ModelFileError(f"{file.path}: {name} is stored as {info.type.name}; vectors must be F32")
        if info.type == GgmlType.I32:
            raise ModelFileError(f"{file.path}: {name} is stored as {info.type.name}, which is not a type for weights")


def _check_geometry(path: Path, config: Config) -> None:
    if wrong := problem(config):
        raise ModelFileError(f"{path}: {wrong}")


def _shape(file: GgufFile, name: str, n_dims: int) -> Shape:
    shape = file.info(name).shape
    if len(shape) != n_dims:
        raise ModelFileError(f"{file.path}: {name} has the shape {list(shape)}, expected {n_dims} dimensions")
    return shape


def _count(file: GgufFile, template: str, first: int = 0) -> int:
    n = 0
    while template.format(first + n) in file.tensors:
        n += 1
    return n


def _kernels(file: GgufFile, template: str) -> tuple[int, ...]:
    """The last dimension of each numbered convolution."""
    return tuple(_shape(file, template.format(i), 3)[2] for i in range(_count(file, template)))
