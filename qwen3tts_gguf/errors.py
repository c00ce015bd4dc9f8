"""What can go wrong, as one tree.

    Error
    ├── ModelFileError       a GGUF file: missing, damaged, of another model, the other half of a pair absent
    ├── CheckpointError      a Hugging Face checkpoint that cannot be converted
    ├── AudioError           audio that cannot be read, written or used as a reference
    ├── TextError            text that cannot be spoken
    ├── OptionError          an option this model does not know or cannot follow
    ├── CodesError           codec codes of the wrong shape, type or range
    ├── VoiceError           a saved voice: missing, damaged, or not to be kept under that name
    ├── NoEndOfSpeech        the model went on and on; has what it said with it
    └── BackendError         llama.cpp or ggml refused: out of memory, an unsupported build

Every message says what was wrong, where, and what to do about it, in one line a person can act on. What works but will
not sound as it could is a QualityWarning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AudioError",
    "BackendError",
    "CheckpointError",
    "CodesError",
    "Error",
    "ModelFileError",
    "NoEndOfSpeech",
    "OptionError",
    "QualityWarning",
    "TextError",
    "VoiceError",
]


class Error(Exception):
    """Base of everything this library raises on purpose."""


class ModelFileError(Error):
    """A GGUF file is missing, damaged, of another model, or lacks its other half."""


class CheckpointError(Error):
    """A Hugging Face checkpoint is incomplete or not a Qwen3-TTS 12Hz model."""


class AudioError(Error):
    """Audio cannot be read, written or used as a reference."""


class TextError(Error):
    """Text is empty or cannot be spoken."""


class OptionError(Error):
    """An option is out of range, unknown to this model, or cannot be followed by it."""


class CodesError(Error):
    """Codec codes have the wrong shape, type or range."""


class VoiceError(Error):
    """A saved voice is missing, damaged, or cannot be kept under that name."""


class NoEndOfSpeech(Error):
    """The model never said that the speech is over; what it did say is here, the last attempt's if there were several.

    samples: float32 [n] in [-1, 1] at 24 kHz. codes: int32 [frames, 16]. seed: says the same again.
    """

    def __init__(self, message: str, samples: NDArray[np.float32], codes: NDArray[np.int32], seed: int) -> None:
        super().__init__(message)
        self.samples, self.codes, self.seed = samples, codes, seed


class QualityWarning(UserWarning):
    """Speech will be made, but not as good as it could be; the message says what to change."""


class BackendError(Error):
    """llama.cpp or ggml refused: out of memory, or a build without what is needed."""
