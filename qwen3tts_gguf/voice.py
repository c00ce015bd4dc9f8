"""A voice: what of a reference clip the talker needs. Encoded once, used for any number of utterances."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .audio import read_audio, resample
from .errors import OptionError
from .ggml.graph import Backend
from .mel import log_mel
from .model_files import MmprojFile
from .nets.speaker_encoder import SpeakerEncoder

__all__ = ["Voice", "VoiceEncoder"]


class _HasVoiceEncoder(Protocol):
    @property
    def voice_encoder(self) -> VoiceEncoder: ...


@dataclass(frozen=True)
class Voice:
    """A speaker to speak as."""

    speaker: NDArray[np.float32]
    """The speaker vector [hidden] of the clip; its length tells which model size it is for."""

    @classmethod
    def from_audio(
        cls, audio: str | Path | NDArray[np.float32], tts: _HasVoiceEncoder, *, rate_hz: int | None = None
    ) -> Voice:
        """The voice of a clip: a file libsndfile reads, or mono samples [n] with their `rate_hz`.

        tts: the model that will speak with it. Raises AudioError, or OptionError for a model without a speaker encoder.
        """
        if isinstance(audio, np.ndarray):
            if rate_hz is None:
                raise OptionError("samples need their sample rate: pass rate_hz")
            samples = resample(audio.astype(np.float32), rate_hz)
        else:
            samples = read_audio(Path(audio))
        return tts.voice_encoder.encode(samples)


class VoiceEncoder:
    """The net that listens to references, loaded when first used: speaking with a kept voice never loads it."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        self._model, self._backend = model, backend
        self._speaker_encoder: SpeakerEncoder | None = None

    def encode(self, samples: NDArray[np.float32]) -> Voice:
        """samples [n] at 24 kHz -> Voice. Raises AudioError, OptionError."""
        if self._model.speaker_encoder is None:
            raise OptionError("this model cannot clone: it has no speaker encoder; use a Base model")
        if self._speaker_encoder is None:
            self._speaker_encoder = SpeakerEncoder(self._model, self._backend)
        return Voice(self._speaker_encoder.encode(log_mel(samples, self._model.speaker_encoder.n_mels)))
