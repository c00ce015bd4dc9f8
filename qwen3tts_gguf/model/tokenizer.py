"""Text to token ids, with the vocabulary the talker's file carries.

NFC, the Qwen2 split pattern, byte-level BPE: the `tokenizers` library does it. Its table of special tokens stays empty,
so nothing a user types is ever parsed as one; `prompt.py` places the template's own by id.
"""

from __future__ import annotations

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from ..errors import ModelFileError, TextError
from .gguf_file import GgufFile

__all__ = ["Tokenizer"]

# Qwen/Qwen2 tokenization_qwen2.py, PRETOKENIZE_REGEX
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NORMAL_TOKEN = 1  # llama_token_type
_BYTES = frozenset(pre_tokenizers.ByteLevel.alphabet())


class Tokenizer:
    """Raises ModelFileError when the file's vocabulary and merges do not fit."""

    def __init__(self, file: GgufFile, tokens: list[str]) -> None:
        types = file.integers("tokenizer.ggml.token_type")
        merges = file.strings("tokenizer.ggml.merges")
        if not merges or len(types) != len(tokens):
            raise ModelFileError(f"{file.path}: its tokenizer is incomplete")
        vocabulary = {token: i for i, token in enumerate(tokens) if types[i] == _NORMAL_TOKEN}
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        try:
            bpe = models.BPE(vocab=vocabulary, merges=pairs)
        except BaseException as error:  # the library raises bare Exception, and its panics not even that
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise ModelFileError(f"{file.path}: its tokenizer cannot be built ({error})") from None
        if missing := _BYTES.difference(vocabulary):
            raise ModelFileError(
                f"{file.path}: its vocabulary lacks {len(missing)} of the 256 bytes, so it cannot encode every text"
            )
        self._split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated", invert=False)
        self._tokenizer = tokenizers.Tokenizer(bpe)
        self._tokenizer.normalizer = normalizers.NFC()
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [self._split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone. Raises TextError for text that is not valid Unicode."""
        try:
            text.encode("utf-8")  # the library's own error is a TypeError that does not say why
        except UnicodeEncodeError:
            raise TextError("the text is not valid Unicode: it has unpaired surrogates") from None
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def pieces(self, text: str) -> list[str]:
        """The text in NFC, cut by the split pattern: no token reaches over a cut. The text must be valid Unicode."""
        normalized = normalizers.NFC().normalize_str(text)
        return [piece for piece, _ in self._split.pre_tokenize_str(normalized)]

    def token_starts(self, text: str) -> list[int]:
        """Where each token of `encode` begins, in letters of a text that is in NFC."""
        return [start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets]
