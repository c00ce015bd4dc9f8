"""What a talker file must not hold: llama.cpp's loader trusts some keys, and a wrong value aborts the process.

Read off llama.cpp's source (src/llama-model.cpp, models/qwen3vl.cpp, ggml/src/gguf.cpp), as bundled with
llama-cpp-python 0.3.36: a key of another architecture's feature (experts, rope scaling, splits over several files) is
an assertion, as is a buffer that starts off ggml's alignment. So of the keys it reads, only those that its own
converter writes are let through. The vocabulary it does not read here (nets/talker.py), but whoever gives it the file
without us has it read, and there a token that is there twice is an assertion too.
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ModelFileError
from .gguf_file import GgufFile
from .schema import TALKER_ARCHITECTURE, TalkerConfig

__all__ = ["check_for_llama_cpp"]

_READ_BY_LLAMA_CPP = (f"{TALKER_ARCHITECTURE}.", "tokenizer.", "split.")
_OF_A_TALKER = {
    *(f"{TALKER_ARCHITECTURE}.{key}" for key in TalkerConfig.KEYS.values()),
    f"{TALKER_ARCHITECTURE}.attention.value_length",
    f"{TALKER_ARCHITECTURE}.rope.dimension_sections",
    f"{TALKER_ARCHITECTURE}.vocab_size",
    "tokenizer.chat_template",
    *(f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges", "suppress_tokens")),
    *(f"tokenizer.ggml.{token}_token_id" for token in ("bos", "eos", "unknown", "seperator", "padding", "cls", "mask")),
    *(f"tokenizer.ggml.add_{token}_token" for token in ("bos", "eos", "sep")),
}
_MIN_ALIGNMENT = 32


def check_for_llama_cpp(file: GgufFile, tensors: Collection[str], config: TalkerConfig) -> list[str]:
    """The file's tokens, when llama.cpp can be given the file. tensors: all that a talker has.

    Raises ModelFileError.
    """
    for key in (*dict(file.scalars()), *file.array_lengths()):
        if key.startswith(_READ_BY_LLAMA_CPP) and key not in _OF_A_TALKER:
            raise ModelFileError(f"{file.path}: the key {key} does not belong in a talker file")
    for name in file.tensors:
        if name not in tensors:
            raise ModelFileError(f"{file.path}: the tensor {name} does not belong in a talker file")
    if file.integer("general.alignment", _MIN_ALIGNMENT) < _MIN_ALIGNMENT:
        raise ModelFileError(f"{file.path}: the alignment of its tensors is below {_MIN_ALIGNMENT} bytes")
    _check_rope(file, config)
    return _tokens(file)


def _check_rope(file: GgufFile, config: TalkerConfig) -> None:
    value_length = file.integer(f"{TALKER_ARCHITECTURE}.attention.value_length", config.head_dim)
    if value_length != config.head_dim:
        raise ModelFileError(
            f"{file.path}: keys of {config.head_dim} and values of {value_length} numbers are not supported"
        )
    sections = file.integers(f"{TALKER_ARCHITECTURE}.rope.dimension_sections")
    if not 3 <= len(sections) <= 4 or min(sections) < 0 or sum(sections) != config.head_dim // 2:
        raise ModelFileError(f"{file.path}: rope sections {sections} do not fit heads of {config.head_dim}")


def _tokens(file: GgufFile) -> list[str]:
    if file.text("tokenizer.ggml.model") != "gpt2" or file.text("tokenizer.ggml.pre", "qwen2") != "qwen2":
        raise ModelFileError(f"{file.path}: its tokenizer is not Qwen2's")
    tokens = file.strings("tokenizer.ggml.tokens")
    lengths = file.array_lengths()
    if lengths.get("tokenizer.ggml.token_type") != len(tokens) or not lengths.get("tokenizer.ggml.merges"):
        raise ModelFileError(f"{file.path}: its tokenizer is incomplete")
    if len({*tokens}) != len(tokens) or "" in tokens:
        raise ModelFileError(f"{file.path}: its vocabulary has an empty token, or one that occurs twice")
    if "\0" in "".join(tokens):  # where llama.cpp takes a token to end, and so may have it twice
        raise ModelFileError(f"{file.path}: its vocabulary has a token with a NUL in it")
    return tokens
