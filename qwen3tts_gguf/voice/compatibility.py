"""Who may speak with which model: a voice, held against what the model is, becomes the rows of its prompt.

    Base          the voice of a clip (in-context, speaker vector, or both), or the model's own choice
    CustomVoice   one of its presets; instructions too, but the 0.6B was not trained to follow them
    VoiceDesign   a description

Whatever does not fit is an OptionError that says what this model can do instead; nothing asked for is ignored.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, QualityWarning
from ..model.files import ModelFiles
from ..model.schema import MODEL_TYPES
from ..model.vocabulary import AUTO, Vocabulary
from .encoder import codec_fingerprint, speaker_fingerprint
from .voice import Voice

__all__ = ["BASE", "CUSTOM_VOICE", "VOICE_DESIGN", "Casting", "Part"]

BASE, CUSTOM_VOICE, VOICE_DESIGN = MODEL_TYPES

_CAN = {
    BASE: "it clones: give it --voice with a clip, or let it choose",
    CUSTOM_VOICE: "it has presets: --speaker {speakers}",
    VOICE_DESIGN: "it speaks as --instruct describes",
}
_SMALL = "0b6"
_SMALL_HIDDEN = 1024
_CHINESE = "chinese"


@dataclass(frozen=True)
class Part:
    """What the prompt takes of a voice."""

    language: int | None
    """A codec token; None is auto."""
    speaker: NDArray[np.float32] | None = None
    """A row [hidden]."""
    preset: int | None = None
    """A codec token whose row is the speaker's."""
    instruct: str | None = None
    codes: NDArray[np.int32] | None = None
    transcript: str | None = None


class Casting:
    """What one model can be asked for."""

    def __init__(self, files: ModelFiles, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._hidden = files.talker.config.hidden
        self.codec = codec_fingerprint(files.mmproj)
        self._speaker_encoder = speaker_fingerprint(files.mmproj)
        self.kind = files.talker.model_type or _guessed_kind(files, vocabulary)
        size = files.talker.model_size or (_SMALL if self._hidden <= _SMALL_HIDDEN else "")
        self.follows_instructions = self.kind == VOICE_DESIGN or (self.kind == CUSTOM_VOICE and size != _SMALL)

    def part(self, voice: Voice | None, language: str | None) -> Part:
        """Raises OptionError; warns with QualityWarning when only some of the voice can be used."""
        voice = voice or Voice()
        name = language or voice.language or AUTO
        if voice.instruct is not None and not self.follows_instructions:
            raise self._refusal("cannot follow instructions")
        if voice.preset_name is not None and self.kind != CUSTOM_VOICE:
            raise self._refusal("has no preset speakers")
        if voice.is_clone and self.kind != BASE:
            raise self._refusal("cannot clone a voice")
        if self.kind == CUSTOM_VOICE:
            return self._preset_part(voice, name)
        token = self._vocabulary.language_id(name)
        if self.kind == VOICE_DESIGN:
            if not voice.instruct or not voice.instruct.strip():
                raise self._refusal("needs a description of the voice")
            return Part(token, instruct=voice.instruct)
        speaker, codes = self._fitting_speaker(voice), self._fitting_codes(voice)
        if voice.is_clone and speaker is None and codes is None:
            raise OptionError(f"this voice was made with another model ({self._misfit(voice)}): make it again")
        self._warn_of_what_is_left_out(voice, speaker, codes)
        return Part(token, speaker=speaker, codes=codes, transcript=voice.transcript if codes is not None else None)

    def _preset_part(self, voice: Voice, language: str) -> Part:
        if voice.preset_name is None:
            raise self._refusal("needs a speaker")
        speakers = {name.lower(): speaker for name, speaker in self._vocabulary.speakers.items()}
        preset = speakers.get(voice.preset_name.strip().lower())
        if preset is None:
            known = ", ".join(self._vocabulary.speakers)
            raise OptionError(f"unknown speaker {voice.preset_name!r}; this model knows {known}")
        token = self._vocabulary.language_id(language)
        # A dialect speaker speaks the dialect where Chinese or nothing is asked for (official `generate`).
        if preset.dialect and token in (None, self._vocabulary.languages.get(_CHINESE)):
            token = self._vocabulary.languages[preset.dialect]
        return Part(token, preset=preset.id, instruct=voice.instruct or None)  # empty is none (official wrapper)

    def _fitting_speaker(self, voice: Voice) -> NDArray[np.float32] | None:
        fits = voice.speaker is not None and voice.speaker.shape == (self._hidden,)
        same = not voice.speaker_encoder or not self._speaker_encoder or voice.speaker_encoder == self._speaker_encoder
        return voice.speaker if fits and same else None

    def _fitting_codes(self, voice: Voice) -> NDArray[np.int32] | None:
        return voice.codes if not voice.codec or not self.codec or voice.codec == self.codec else None

    def _warn_of_what_is_left_out(
        self, voice: Voice, speaker: NDArray[np.float32] | None, codes: NDArray[np.int32] | None
    ) -> None:
        if voice.speaker is not None and speaker is None:
            message = "this voice's speaker vector is of another model and is left out; its codes are used"
            warnings.warn(message, QualityWarning, stacklevel=4)
        if voice.codes is not None and codes is None:
            message = "this voice's codes are of another codec and are left out; its speaker vector is used"
            warnings.warn(message, QualityWarning, stacklevel=4)

    def _misfit(self, voice: Voice) -> str:
        if voice.speaker is None:
            return "its codes are of another codec"
        if voice.speaker.size != self._hidden:
            return f"its speaker vector has {voice.speaker.size} values, this model takes {self._hidden}"
        return "its speaker vector is of another speaker encoder"

    def _refusal(self, what: str) -> OptionError:
        can = _CAN[self.kind].format(speakers=" | ".join(self._vocabulary.speakers))
        return OptionError(f"this model ({self.kind}) {what}; {can}")


def _guessed_kind(files: ModelFiles, vocabulary: Vocabulary) -> str:
    """For files of llama.cpp's converter, which do not say."""
    if vocabulary.speakers:
        return CUSTOM_VOICE
    return BASE if files.mmproj.speaker_encoder else VOICE_DESIGN
