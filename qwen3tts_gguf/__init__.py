"""Qwen3-TTS on llama.cpp and ggml: text to speech on an ordinary CPU, offline.

    from qwen3tts_gguf import TTS, Voice

    tts = TTS("models/Qwen3-TTS-12Hz-0.6B-Base-Q8_0.gguf")
    voice = Voice.from_audio("ref.wav", tts)
    for samples in tts.stream("Hello.", voice):
        ...  # float32 at 24 kHz, 80 ms each

Names are loaded when first used: importing the package loads no native library.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        AudioError,
        BackendError,
        CheckpointError,
        CodesError,
        DeviceError,
        Error,
        ModelFileError,
        NoEndOfSpeech,
        Note,
        OptionError,
        TableError,
        TextError,
        UsageError,
        VoiceError,
    )
    from .reading import Reading, read
    from .speech.spoken import Passage, Sound
    from .tts import TTS, LiveText, SpeechOptions, Utterance
    from .voice.store import VoiceStore
    from .voice.voice import Voice

__all__ = [
    "TTS",
    "AudioError",
    "BackendError",
    "CheckpointError",
    "CodesError",
    "DeviceError",
    "Error",
    "LiveText",
    "ModelFileError",
    "NoEndOfSpeech",
    "Note",
    "OptionError",
    "Passage",
    "Reading",
    "Sound",
    "SpeechOptions",
    "TableError",
    "TextError",
    "UsageError",
    "Utterance",
    "Voice",
    "VoiceError",
    "VoiceStore",
    "read",
]

# llama.cpp's log goes nowhere unless the application adds a handler.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "Passage": "speech.spoken",
    "Reading": "reading",
    "Sound": "speech.spoken",
    "read": "reading",
    "TTS": "tts",
    "LiveText": "tts",
    "SpeechOptions": "tts",
    "Utterance": "tts",
    "Voice": "voice.voice",
    "VoiceStore": "voice.store",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
