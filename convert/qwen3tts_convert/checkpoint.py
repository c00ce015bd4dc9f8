"""A checkpoint in the released layout: its files, its configuration as the schema's dataclasses, its tensors.

    config.json  generation_config.json  model*.safetensors  vocab.json  merges.txt  tokenizer_config.json
    speech_tokenizer/config.json  speech_tokenizer/model*.safetensors

The folder is one of these, or a hub id is given and the hub's snapshot of it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qwen3tts_gguf.errors import CheckpointError, Note
from qwen3tts_gguf.model.geometry import problem
from qwen3tts_gguf.model.sampling_defaults import GenerationDefaults
from qwen3tts_gguf.model.schema import (
    CodecDecoderConfig,
    CodecEncoderConfig,
    CodePredictorConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
)

from . import code_predictor, codec, speaker_encoder, talker
from .hub import download, in_cache
from .section import Section
from .sources import Source
from .tokenizer import codec_tokens, read_tokenizer, require_template_tokens
from .weights import Weights

__all__ = ["Checkpoint", "Configuration"]

MODEL_TYPES = ("base", "custom_voice", "voice_design")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SIZES = {1024: "0b6", 2048: "1b7"}


@dataclass(frozen=True)
class Configuration:
    """The parts of the model; a Base checkpoint alone has a speaker encoder."""

    talker: TalkerConfig
    predictor: CodePredictorConfig
    decoder: CodecDecoderConfig
    encoder: CodecEncoderConfig
    speaker: SpeakerEncoderConfig | None


class Checkpoint:
    """A folder, checked and understood when made; tensors are read when asked for."""

    def __init__(self, folder: Path, source: str, revision: str = "") -> None:
        """`source` and `revision` record where the folder comes from. Raises CheckpointError."""
        self.folder = folder
        self.source = source
        self.revision = revision
        _require_whole(folder)
        self.model = Section.read(folder / "config.json")
        self.codec = Section.read(folder / "speech_tokenizer" / "config.json")
        self.model.expect("tokenizer_type", "qwen3_tts_tokenizer_12hz", why="the 25 Hz models are another network")
        codec.expect_12hz(self.codec)
        self.model_type = self.model.text("tts_model_type")
        if self.model_type not in MODEL_TYPES:
            raise self.model.error("tts_model_type", f"is {self.model_type!r}, not one of {', '.join(MODEL_TYPES)}")
        self.talker = self.model.section("talker_config")
        self.model_size = self._model_size()
        self.config = self._configuration()
        if self.model_type == "custom_voice" and not self.speakers:
            raise CheckpointError(
                f"{self.talker.where}: spk_id names no speaker, but a CustomVoice model needs one",
                hint='add {"spk_id": {"NAME": ROW}} with the row of codec_embedding that the training filled',
            )
        self.codec_tokens = codec_tokens(self.talker)
        self.tokenizer = read_tokenizer(folder, self.config.talker.text_vocabulary)
        require_template_tokens(self.model, self.tokenizer)
        if len({*self.tokenizer.tokens, *self.codec_tokens}) < len(self.tokenizer.tokens) + len(self.codec_tokens):
            raise CheckpointError(f"{folder}: two tokens have the same name, which llama.cpp does not accept")
        self.generation = self._generation()
        self.model_weights = Weights(folder)
        self.codec_weights = Weights(folder / "speech_tokenizer")

    @classmethod
    def find(cls, name: str | Path, revision: str | None = None) -> Checkpoint:
        """The checkpoint in a folder or, if there is no such folder and the name looks like owner/name, on the hub.

        A folder may be one of the hub's cache: a snapshot, or that of a repository above its snapshots.
        """
        path = Path(name)
        if path.is_dir():
            if (cached := in_cache(path.resolve(), revision)) is not None:
                return cls(*cached)
            return cls(path, path.resolve().name, revision or "")
        if path.is_file():
            raise CheckpointError(f"{name}: this is a file, not the folder of a checkpoint", hint=_of_a_file(path))
        if not HUB_ID.fullmatch(str(name)):
            raise CheckpointError(f"{name}: neither a folder nor a hub id (owner/name)")
        snapshot = download(str(name), revision)
        return cls(snapshot, str(name), snapshot.name)

    @property
    def name(self) -> str:
        """The last part of the hub id, or the folder's name."""
        return self.source.rpartition("/")[2]

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was chosen where there was a choice."""
        return self.model_weights.notes + self.codec_weights.notes

    @cached_property
    def files(self) -> list[Path]:
        """Every file the conversion reads."""
        own = [self.folder / "config.json", *self.tokenizer.files, *self.model_weights.files]
        if self._generation_file.is_file():
            own.append(self._generation_file)
        return [*own, self.folder / "speech_tokenizer" / "config.json", *self.codec_weights.files]

    @property
    def languages(self) -> dict[str, int]:
        """Language -> codec token."""
        return self.talker.ids("codec_language_id")

    @property
    def speakers(self) -> dict[str, int]:
        """Preset speaker -> codec token; empty but for CustomVoice."""
        return self.talker.ids("spk_id")

    def dialect(self, speaker: str) -> str:
        """The language a preset speaker speaks instead of chinese, or "".

        The checkpoint has False for none; a fine-tune may have True, which names no language and so is none either.
        """
        dialects = self.talker.values.get("spk_is_dialect") or {}
        dialect = dialects.get(speaker) if isinstance(dialects, dict) else None
        if dialect in (None, False, True):
            return ""
        if not (isinstance(dialect, str) and dialect in self.languages):
            raise self.talker.error("spk_is_dialect", f"gives {speaker} the unknown language {dialect!r}")
        return dialect

    def talker_sources(self) -> dict[str, Source]:
        """GGUF name -> source, for the talker file."""
        return talker.sources(self.model_weights, self.config.talker, self.talker.integer("text_hidden_size"))

    def mmproj_sources(self) -> dict[str, Source]:
        """GGUF name -> source, for the mmproj file."""
        found = {} if self.config.speaker is None else speaker_encoder.sources(self.model_weights, self.config.speaker)
        found |= code_predictor.sources(self.model_weights, self.config.predictor)
        found |= codec.decoder_sources(self.codec_weights, self.config.decoder)
        return found | codec.encoder_sources(self.codec_weights, self.config.encoder)

    def require_no_unknown_tensors(self, *sources: dict[str, Source]) -> None:
        """Raises CheckpointError if the checkpoint has a tensor that is in no source and not left behind on purpose."""
        used = {origin for part in sources for source in part.values() for origin in source.origins}
        unused_speaker = {name for name in self.model_weights if name.startswith("speaker_encoder.")}
        self.model_weights.require_no_others(used | (unused_speaker if self.config.speaker is None else set()))
        self.codec_weights.require_no_others(used | codec.left_behind(self.codec_weights))

    def _configuration(self) -> Configuration:
        c = talker.config(self.talker)
        speaker = None
        if self.model_type == "base":
            speaker = speaker_encoder.config(self.model.section("speaker_encoder_config"), c.hidden)
        found = Configuration(
            talker=c,
            predictor=code_predictor.config(self.talker.section("code_predictor_config"), c.hidden),
            decoder=codec.decoder_config(self.codec.section("decoder_config")),
            encoder=codec.encoder_config(self.codec.section("encoder_config")),
            speaker=speaker,
        )
        for part in vars(found).values():
            if part is not None and (wrong := problem(part)):
                raise CheckpointError(f"{self.folder}: {wrong}")
        return found

    def _model_size(self) -> str:
        """As config.json has it; where it does not, by the talker's width, or unknown ("")."""
        if self.model.values.get("tts_model_size") is None:
            return _SIZES.get(self.talker.integer("hidden_size"), "")
        return self.model.text("tts_model_size")

    @property
    def _generation_file(self) -> Path:
        return self.folder / "generation_config.json"

    def _generation(self) -> Section:
        """generation_config.json; empty if there is none, then the official package's defaults hold."""
        path = self._generation_file
        return Section.read(path) if path.is_file() else Section({}, str(path))

    @cached_property
    def generation_defaults(self) -> GenerationDefaults:
        """How the model wants to be sampled."""
        given = {key: value for key, value in self.generation.values.items() if value is not None}
        try:
            return GenerationDefaults.from_mapping(given)
        except ValueError as error:
            raise CheckpointError(f"{self.generation.where}: {error}") from error


def _require_whole(folder: Path) -> None:
    """Raises CheckpointError for a folder that is something else, or lacks what a fine-tune often leaves out."""
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: this is a LoRA adapter, not a whole model",
            hint="merge it into the model it was trained from (merge_and_unload, then save_pretrained)",
        )
    if (folder / "config.json").is_file() and not (folder / "speech_tokenizer").is_dir():
        raise CheckpointError(
            f"{folder}: the folder speech_tokenizer, which contains the codec, is missing",
            hint="copy it from the checkpoint this one was trained from: all Qwen3-TTS 12Hz models have the same",
        )


def _of_a_file(path: Path) -> str:
    if path.suffix == ".gguf":
        return "it is already converted, and can be loaded as it is"
    return f"give the folder, {path.parent}"
