"""What the talker's token table calls its rows: the template's tokens, languages, speakers, codec controls.

llama.cpp's converter names each codec row (`<|codec_bos|>`, `<|codec_language_english|>`, `<|spk_vivian|>`), so a file
without our own tables of languages and speakers still has both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ModelFileError, OptionError
from .gguf_file import GgufFile
from .schema import CODEC_VOCABULARY, Key

__all__ = ["LANGUAGE_CODES", "CodecIds", "Speaker", "TextIds", "Vocabulary"]

AUTO = "auto"

_CODES = {
    "chinese": "zh zho chi cmn cn mandarin",
    "english": "en eng",
    "german": "de deu ger",
    "italian": "it ita",
    "portuguese": "pt por",
    "spanish": "es spa",
    "japanese": "ja jpn jp",
    "korean": "ko kor kr",
    "french": "fr fra fre",
    "russian": "ru rus",
}
LANGUAGE_CODES = {code: name for name, codes in _CODES.items() for code in codes.split()}
"""What may stand for a language's name: ISO 639 codes, and the codes of countries that are often taken for them."""

_NOT_CODES = range(CODEC_VOCABULARY - 1024, CODEC_VOCABULARY)
_DIALECT = "dialect"  # languages the official package keeps for dialect speakers


@dataclass(frozen=True)
class TextIds:
    """Rows of the text part."""

    im_start: int
    im_end: int
    tts_pad: int
    tts_bos: int
    tts_eos: int


@dataclass(frozen=True)
class CodecIds:
    """Codec tokens, counted from the start of the codec part."""

    bos: int
    eos: int
    pad: int
    think: int
    nothink: int
    think_bos: int
    think_eos: int


@dataclass(frozen=True)
class Speaker:
    """A preset voice: a row of the codec part, and the dialect it speaks, if any."""

    id: int
    dialect: str = ""


_TEXT_TOKENS = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "tts_pad": "<tts_pad>",
    "tts_bos": "<tts_text_bos>",
    "tts_eos": "<tts_text_eod>",
}


class Vocabulary:
    """Raises ModelFileError when a token the prompt needs is not there."""

    def __init__(self, file: GgufFile, tokens: list[str]) -> None:
        n_text = len(tokens) - CODEC_VOCABULARY
        codec = {name: i for i, name in enumerate(tokens[n_text:])}
        wanted = {*_TEXT_TOKENS.values()}
        text = {name: i for i, name in enumerate(tokens[:n_text]) if name in wanted}
        self.text = TextIds(**{field: _find(file, text, name) for field, name in _TEXT_TOKENS.items()})
        self.codec = CodecIds(
            bos=_find(file, codec, "<|codec_bos|>"),
            eos=_find(file, codec, "<|codec_eos_token|>"),
            pad=_find(file, codec, "<|codec_pad|>"),
            think=_find(file, codec, "<|codec_think|>"),
            nothink=_find(file, codec, "<|codec_nothink|>"),
            think_bos=_find(file, codec, "<|codec_think_bos|>"),
            think_eos=_find(file, codec, "<|codec_think_eos|>"),
        )
        self.languages = _table(file, Key.LANGUAGE_NAMES, Key.LANGUAGE_IDS) or _named(codec, "<|codec_language_")
        """Language name -> codec token, dialects included."""
        self.speakers = _speakers(file, codec, self.languages)
        """Speaker name -> preset."""
        control = {i for i in _NOT_CODES if i != self.codec.eos}
        named = {token - n_text for token in file.integers("tokenizer.ggml.suppress_tokens")}
        self.suppressed = sorted(named or control)
        """Codec tokens the talker must never generate: all that are neither codes nor end of speech."""
        self.n_codes = CODEC_VOCABULARY - len(self.suppressed) - 1
        """Codes the talker may generate are 0 to here."""
        no_codes = {*range(self.n_codes, CODEC_VOCABULARY), *control} - {self.codec.eos}
        if self.n_codes < 1 or {*self.suppressed} != no_codes:
            raise ModelFileError(f"{file.path}: its list of suppressed tokens is not the one this runtime supports")

    def spoken_languages(self) -> list[str]:
        """What `language_id` accepts by name, "auto" first."""
        return [AUTO, *sorted(name for name in self.languages if _DIALECT not in name)]

    def language_id(self, language: str) -> int | None:
        """The codec token of a language by name, ISO code or locale (en-US, zh_CN.UTF-8); None for "auto". Raises
        OptionError."""
        name = language.strip().lower()
        if name not in self.languages:
            name = re.split(r"[-_.@]", name)[0]
        name = LANGUAGE_CODES.get(name, name)
        if name == AUTO:
            return None
        if name not in self.languages or _DIALECT in name:
            raise OptionError(f"unknown language {language!r}; this model knows {', '.join(self.spoken_languages())}")
        return self.languages[name]


def _find(file: GgufFile, ids: dict[str, int], token: str) -> int:
    if token not in ids:
        raise ModelFileError(f"{file.path}: its vocabulary lacks the token {token}")
    return ids[token]


def _table(file: GgufFile, names_key: str, ids_key: str) -> dict[str, int]:
    names, ids = file.strings(names_key), file.integers(ids_key)
    if len(names) != len(ids) or not all(0 <= i < CODEC_VOCABULARY for i in ids):
        raise ModelFileError(f"{file.path}: the keys {names_key} and {ids_key} contradict each other")
    return dict(zip(names, ids, strict=True))


def _named(codec: dict[str, int], prefix: str) -> dict[str, int]:
    return {name[len(prefix) : -2]: i for name, i in codec.items() if name.startswith(prefix) and name.endswith("|>")}


def _speakers(file: GgufFile, codec: dict[str, int], languages: dict[str, int]) -> dict[str, Speaker]:
    ids = _table(file, Key.SPEAKER_NAMES, Key.SPEAKER_IDS) or _named(codec, "<|spk_")
    dialects = file.strings(Key.SPEAKER_DIALECTS) or [""] * len(ids)
    if len(dialects) != len(ids) or not {*dialects} <= {"", *languages}:
        raise ModelFileError(
            f"{file.path}: the keys {Key.SPEAKER_DIALECTS} and {Key.SPEAKER_NAMES} contradict each other"
        )
    return {name: Speaker(i, dialect) for (name, i), dialect in zip(ids.items(), dialects, strict=True)}
