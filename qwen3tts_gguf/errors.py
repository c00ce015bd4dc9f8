"""What can go wrong, as one tree.

    Error
    ├── ModelFileError       a GGUF file: missing, damaged, of another model, one of a pair absent
    ├── CheckpointError      a Hugging Face checkpoint that cannot be converted
    ├── AudioError           audio that cannot be read, written or used as a reference
    ├── TextError            text that cannot be spoken
    ├── OptionError          an option this model does not know or cannot follow
    ├── TableError           a table that cannot be read, or lacks what was asked for
    ├── CodesError           codec codes of the wrong shape, type or range
    ├── VoiceError           a saved voice: missing, damaged, or a name that cannot be used
    ├── UsageError           the library is used in a way that cannot work: a speech read twice, a closed model
    ├── NoEndOfSpeech        the model did not end the speech; carries what was generated
    └── BackendError         llama.cpp or ggml refused: out of memory, an unsupported build
        └── DeviceError      a GPU has too little memory, or lacks an operation

Every message is one line: what is wrong, and where. `hint` is what to do about it, in the library's terms: parameters
and methods stand in backticks, and the command line replaces them by its flags (cli/wording.py). What works but could
sound better is a `Note`: data on the voice or utterance it belongs to, never `warnings.warn`, which is shared by the
whole process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AudioError",
    "BackendError",
    "CheckpointError",
    "CodesError",
    "DeviceError",
    "Error",
    "ModelFileError",
    "NoEndOfSpeech",
    "Note",
    "OptionError",
    "TableError",
    "TextError",
    "UsageError",
    "VoiceError",
]


class Error(Exception):
    """Base of everything this library raises on purpose.

    hint: what to do about it, one sentence, or empty. `str(error)` is the message followed by the hint.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class Note:
    """Speech is possible, but something about it could be better. hint: what to change, one sentence, or empty."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class ModelFileError(Error):
    """A GGUF file is missing or damaged, belongs to another model, or its pair is incomplete."""


class CheckpointError(Error):
    """A Hugging Face checkpoint is incomplete or not a Qwen3-TTS 12Hz model."""


class AudioError(Error):
    """Audio cannot be read, written or used as a reference."""


class TextError(Error):
    """Text is empty or cannot be spoken."""


class OptionError(Error):
    """An option is out of range, unknown to this model, or cannot be followed by it."""


class TableError(Error):
    """A table cannot be read, lacks a column, repeats an id, or changed while it was worked on."""


class CodesError(Error):
    """Codec codes have the wrong shape, type or range."""


class VoiceError(Error):
    """A saved voice is missing, damaged, or cannot be saved under that name."""


class UsageError(Error):
    """The library is used in a way that cannot work: a speech read twice, a closed model, a fork after loading."""


class NoEndOfSpeech(Error):
    """The model did not end the speech within its budget, or went silent or into a loop.

    samples: what was generated, of the last attempt if there were several: float32 [n] in [-1, 1] at 24 kHz. codes: the
    same as int32 [frames, 16]. seed: generates the same again.
    """

    def __init__(
        self, message: str, samples: NDArray[np.float32], codes: NDArray[np.int32], seed: int, *, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.samples, self.codes, self.seed = samples, codes, seed


class BackendError(Error):
    """llama.cpp or ggml refused: out of memory, or a build without what is needed."""


class DeviceError(BackendError):
    """A device other than the CPU has too little memory for a net, lacks an operation that the net needs, or fails.

    operation: the one that is missing, in ggml's words; empty otherwise.
    """

    def __init__(self, message: str, *, hint: str = "", operation: str = "") -> None:
        super().__init__(message, hint=hint)
        self.operation = operation
