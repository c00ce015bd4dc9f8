"""A voice to speak in. What of a reference clip the talker needs, a shipped voice's name, a preset, or a description.

A clip gives up to two things. Its speaker vector identifies the speaker; it fits models of one size. Its codes, with
the words spoken in it, let the talker continue as that speaker (in-context cloning), which comes closer; they fit
every model with the same codec. `VoiceEncoder` makes both, and is the only one that needs the encoders.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio import read_clip, resample
from ..errors import AudioError, Note, OptionError, VoiceError
from ..speech.text import clean_text
from .clip import REFERENCE_PAD_SECONDS, rate_notes, windowed
from .file import read_voice_file, write_voice_file

__all__ = ["Voice"]

_FRAME_RATE_HZ = 12.5


class _Encodes(Protocol):
    def encode(self, samples: NDArray[np.float32], *, transcript: str | None, pad_seconds: float) -> Voice: ...


class _HasVoiceEncoder(Protocol):
    @property
    def voice_encoder(self) -> _Encodes: ...


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice to speak in. Made by `shipped`, `from_audio`, `preset` or `design`; `VoiceStore` saves it under a name.

    `Voice()` lets a Base model choose a voice itself, a different one for each speech.
    """

    speaker: NDArray[np.float32] | None = None
    """The speaker vector [hidden] of a clip, for models of one size."""
    codes: NDArray[np.int32] | None = None
    """The codec codes [frames, 16] of a clip."""
    transcript: str | None = None
    """The words spoken in the clip; there are codes exactly when there is a transcript."""
    preset_name: str | None = None
    """One of the model's own speakers."""
    instruct: str | None = None
    """How to speak; for a VoiceDesign model, a description of the voice."""
    language: str | None = None
    """Taken when an utterance names none."""
    codec: str = ""
    """Fingerprint of the codec the codes are of."""
    speaker_encoder: str = ""
    """Fingerprint of the encoder the speaker vector is of."""
    clip_sha256: str = ""
    """Of the clip's file, or of the samples given."""
    clip_rate_hz: int = 0
    """The clip's own sample rate."""
    shipped_name: str | None = None
    """One of the voices that come with the package; the model encodes its clip on first use."""
    vector_only: bool = False
    """Of a shipped voice: the speaker vector alone is used."""
    notes: tuple[Note, ...] = field(default=(), compare=False)
    """What about the clip or its transcript could be better; not saved."""

    @classmethod
    def from_audio(
        cls,
        audio: str | Path | NDArray[np.float32],
        tts: _HasVoiceEncoder,
        *,
        transcript: str | None = None,
        rate_hz: int | None = None,
        pad_seconds: float = REFERENCE_PAD_SECONDS,
    ) -> Voice:
        """The voice of a clip: a file libsndfile reads, or mono samples [n] with their `rate_hz`.

        transcript: the words spoken in the clip, for in-context cloning; without it the speaker vector alone is used.
        tts: the model that will speak. Raises AudioError, or OptionError for a model without the encoders.
        """
        if isinstance(audio, np.ndarray):
            if rate_hz is None:
                raise OptionError("samples need a sample rate", hint="pass `rate_hz`")
            samples, notes = resample(audio.astype(np.float32), rate_hz), rate_notes(rate_hz)
            sha256 = hashlib.sha256(audio.tobytes()).hexdigest()
        else:
            clip = read_clip(Path(audio))
            samples, rate_hz, sha256 = clip.samples, clip.rate_hz, clip.sha256
            notes = clip.notes + rate_notes(rate_hz)
        voice = tts.voice_encoder.encode(samples, transcript=transcript, pad_seconds=pad_seconds)
        return replace(voice, clip_rate_hz=rate_hz, clip_sha256=sha256, notes=notes + voice.notes)

    @classmethod
    def from_speech(cls, codes: NDArray[np.int32], text: str, codec: str) -> Voice:
        """The voice of a speech just made, as a designed one, for in-context cloning with a Base model.

        codes, text: `Utterance.codes`, and the text they speak. codec: `TTS.codec_fingerprint`. Raises AudioError.
        """
        if not len(codes):
            raise AudioError("the speech has no frames: it cannot be saved as a voice")
        codes, transcript, notes = windowed(codes, _FRAME_RATE_HZ, clean_text(text))
        return cls(codes=codes, transcript=transcript, codec=codec, notes=notes)

    @classmethod
    def preset(cls, name: str, *, instruct: str | None = None) -> Voice:
        """One of a CustomVoice model's speakers, by its name in any case."""
        return cls(preset_name=name.strip().lower(), instruct=instruct)

    @classmethod
    def shipped(cls, name: str) -> Voice:
        """One of the voices that come with the package, by its name; `TTS.shipped_voices` has those of a model."""
        return cls(shipped_name=name)

    @classmethod
    def design(cls, description: str) -> Voice:
        """A voice a VoiceDesign model makes up from words."""
        return cls(instruct=description)

    def save(self, path: str | Path) -> None:
        """Write the voice to a small file. Raises VoiceError."""
        if self.shipped_name is not None:
            raise VoiceError(f"{path}: a shipped voice cannot be saved", hint="use it by its name")
        write_voice_file(Path(path), vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Voice:
        """A voice that was saved. Raises VoiceError."""
        return cls(**read_voice_file(Path(path)))

    @property
    def is_clone(self) -> bool:
        return self.speaker is not None or self.codes is not None or self.shipped_name is not None

    def without_codes(self) -> Voice:
        """The speaker vector alone."""
        vector_only = self.shipped_name is not None
        return replace(self, codes=None, transcript=None, codec="", vector_only=vector_only)
