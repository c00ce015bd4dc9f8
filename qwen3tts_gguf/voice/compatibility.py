"""Which voices a model can speak with: a voice is checked against the model and becomes the rows of its prompt.

    Base          the voice of a clip (in-context, speaker vector, or both), or the model's own choice
    CustomVoice   one of its presets; instructions too, but the 0.6B was not trained to follow them
    VoiceDesign   a description

Whatever does not fit is an OptionError that names what this model can do instead; no request is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import Note, OptionError
from ..model.files import ModelFiles
from ..model.schema import MODEL_TYPES
from ..model.vocabulary import AUTO, Speaker, Vocabulary
from ..speech.text import clean_text
from .encoder import codec_fingerprint, speaker_fingerprint
from .voice import Voice

__all__ = ["BASE", "CUSTOM_VOICE", "VOICE_DESIGN", "Compatibility", "ResolvedVoice", "guessed_kind"]

BASE, CUSTOM_VOICE, VOICE_DESIGN = MODEL_TYPES

_CAN = {
    BASE: "it clones the voice of a clip (`Voice.from_audio`), or speaks in a shipped one (`Voice.shipped`)",
    CUSTOM_VOICE: "it has presets (`Voice.preset`): {speakers}",
    VOICE_DESIGN: "it speaks as a description says (`Voice.design`)",
}
_SMALL = "0b6"
_SMALL_HIDDEN = 1024
_CHINESE = "chinese"


@dataclass(frozen=True)
class ResolvedVoice:
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
    notes: tuple[Note, ...] = ()
    """What of the voice is left out, and why."""


class Compatibility:
    """What one model can do."""

    def __init__(self, files: ModelFiles, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._hidden = files.talker.config.hidden
        self.codec = codec_fingerprint(files.mmproj)
        self._speaker_encoder = speaker_fingerprint(files.mmproj)
        self.kind = files.talker.model_type or guessed_kind(files, vocabulary)
        size = files.talker.model_size or (_SMALL if self._hidden <= _SMALL_HIDDEN else "")
        self.follows_instructions = self.kind == VOICE_DESIGN or (self.kind == CUSTOM_VOICE and size != _SMALL)

    def resolve(self, voice: Voice | None, language: str | None) -> ResolvedVoice:
        """Check a voice against the model. None is the model's own voice. Raises OptionError."""
        voice = voice or Voice()
        name = language or voice.language or AUTO
        if voice.instruct is not None and not self.follows_instructions:
            raise self._refusal("cannot follow instructions")
        if voice.preset_name is not None and self.kind != CUSTOM_VOICE:
            raise self._refusal("has no preset speakers")
        if voice.is_clone and self.kind != BASE:
            raise self._refusal("cannot clone a voice")
        instruct = None if voice.instruct is None else clean_text(voice.instruct)
        if self.kind == CUSTOM_VOICE:
            return self._resolve_preset(voice.preset_name, name, instruct)
        token = self._vocabulary.language_id(name)
        if self.kind == VOICE_DESIGN:
            if not instruct:
                raise self._refusal("needs a description of the voice")
            return ResolvedVoice(token, instruct=instruct)
        speaker, codes = self._fitting_speaker(voice), self._fitting_codes(voice)
        if voice.is_clone and speaker is None and codes is None:
            raise OptionError(
                f"this voice was made with another model: {self._misfit(voice)}",
                hint="make the voice again from its clip, with this model",
            )
        transcript = voice.transcript if codes is not None else None
        notes = self._left_out(voice, speaker, codes)
        return ResolvedVoice(token, speaker=speaker, codes=codes, transcript=transcript, notes=notes)

    def _resolve_preset(self, preset_name: str | None, language: str, instruct: str | None) -> ResolvedVoice:
        preset = self._preset(preset_name)
        token = self._vocabulary.language_id(language)
        # A dialect speaker speaks the dialect where Chinese or nothing is asked for (official `generate`).
        if preset.dialect and token in (None, self._vocabulary.languages.get(_CHINESE)):
            token = self._vocabulary.languages[preset.dialect]
        return ResolvedVoice(token, preset=preset.id, instruct=instruct or None)  # empty is none (official wrapper)

    def _preset(self, name: str | None) -> Speaker:
        speakers = {known.lower(): speaker for known, speaker in self._vocabulary.speakers.items()}
        if name is None:
            if len(speakers) != 1:  # a fine-tuned model usually has one, and there is nothing to choose
                raise self._refusal("needs a speaker")
            return next(iter(speakers.values()))
        preset = speakers.get(name.strip().lower())
        if preset is None:
            known = ", ".join(self._vocabulary.speakers)
            raise OptionError(f"unknown speaker {name!r}; this model knows {known}")
        return preset

    def _fitting_speaker(self, voice: Voice) -> NDArray[np.float32] | None:
        fits = voice.speaker is not None and voice.speaker.shape == (self._hidden,)
        same = not voice.speaker_encoder or not self._speaker_encoder or voice.speaker_encoder == self._speaker_encoder
        return voice.speaker if fits and same else None

    def _fitting_codes(self, voice: Voice) -> NDArray[np.int32] | None:
        return voice.codes if not voice.codec or not self.codec or voice.codec == self.codec else None

    def _left_out(
        self, voice: Voice, speaker: NDArray[np.float32] | None, codes: NDArray[np.int32] | None
    ) -> tuple[Note, ...]:
        hint = "make the voice again from its clip with this model"
        if voice.speaker is not None and speaker is None:
            return (
                Note(
                    "the voice's speaker vector was made with another model and is not used; its codes are used", hint
                ),
            )
        if voice.codes is not None and codes is None:
            return (
                Note(
                    "the voice's codes were made with another codec and are not used; its speaker vector is used", hint
                ),
            )
        return ()

    def _misfit(self, voice: Voice) -> str:
        if voice.speaker is None:
            return "its codes were made with another codec"
        if voice.speaker.size != self._hidden:
            return f"its speaker vector has {voice.speaker.size} values, this model takes {self._hidden}"
        return "its speaker vector was made with another speaker encoder"

    def _refusal(self, what: str) -> OptionError:
        can = _CAN[self.kind].format(speakers=", ".join(self._vocabulary.speakers))
        return OptionError(f"this model ({self.kind}) {what}", hint=can)


def guessed_kind(files: ModelFiles, vocabulary: Vocabulary) -> str:
    """For files of llama.cpp's converter, which do not record it."""
    if vocabulary.speakers:
        return CUSTOM_VOICE
    return BASE if files.mmproj.speaker_encoder else VOICE_DESIGN
