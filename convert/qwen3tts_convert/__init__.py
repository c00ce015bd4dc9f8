"""From a Qwen3-TTS 12Hz checkpoint to the two GGUF files that llama.cpp and qwen3tts_gguf run.

    conversion.py  convert(): all steps, top to bottom
    checkpoint.py  the folder: configuration, tokenizer, tensors (with section, tokenizer, weights, hub)
    talker.py  code_predictor.py  codec.py  speaker_encoder.py   tables: checkpoint tensor -> GGUF tensor (sources)
    quantize.py    the table: GGUF tensor -> type
    keys.py        the files' metadata
    writer.py      the files

Nothing here needs torch. Importing the package loads nothing; converting loads gguf, and ggml to quantize.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conversion import ConvertedPair, convert

__all__ = ["ConvertedPair", "convert"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(".conversion", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
