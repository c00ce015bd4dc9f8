"""Text to ids: the official ones, whatever a user types."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import tiny
from conftest import GOLDEN

from qwen3tts_gguf.errors import ModelFileError, TextError
from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.model.tokenizer import Tokenizer

TEXTS: dict[str, str] = json.loads((GOLDEN / "versions.json").read_text(encoding="utf-8"))["texts"]


@pytest.fixture(scope="module")
def tokens(files: ModelFiles) -> list[str]:
    return files.talker.file.strings("tokenizer.ggml.tokens")


@pytest.fixture(scope="module")
def tokenizer(files: ModelFiles, tokens: list[str]) -> Tokenizer:
    return Tokenizer(files.talker.file, tokens)


def spelled(ids: list[int], tokens: list[str]) -> str:
    """The text that ids stand for."""
    byte_of = {character: byte for byte, character in tiny.byte_alphabet().items()}
    return bytes(byte_of[character] for i in ids for character in tokens[i]).decode("utf-8", "surrogatepass")


@pytest.mark.parametrize("text", ["english", "chinese", "mixed"])
def test_ids_equal_the_official_ones(
    golden: Callable[[str], dict[str, Any]], tokenizer: Tokenizer, tokens: list[str], text: str
) -> None:
    expected = golden("prompt")[f"{text}.ids"].tolist()
    start, end = tokens.index("<|im_start|>"), tokens.index("<|im_end|>")
    newline = tokenizer.encode("\n")
    template = [start, *tokenizer.encode("assistant\n"), *tokenizer.encode(TEXTS[text]), end, *newline]
    assert expected == [*template, start, *tokenizer.encode("assistant\n")]


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        " two  spaces ",
        "tabs\tand\nlines\r\n\n",
        "it's we'll THEY'RE",
        "2024 12,345.67",
        "a\u0000b",
        "😀👍🏽",
        "ﬁ Ⅷ ½",
    ],
)
def test_ids_spell_the_text(tokenizer: Tokenizer, tokens: list[str], text: str) -> None:
    assert spelled(tokenizer.encode(text), tokens) == unicodedata.normalize("NFC", text)


def test_every_digit_is_a_token_of_its_own(tokenizer: Tokenizer, tokens: list[str]) -> None:
    assert [tokens[i] for i in tokenizer.encode("2024")] == list("2024")


@pytest.mark.parametrize("special", tiny.SPECIAL_TOKENS)
def test_a_special_token_typed_by_a_user_is_text(tokenizer: Tokenizer, tokens: list[str], special: str) -> None:
    ids = tokenizer.encode(f"say {special} now")
    assert tokens.index(special) not in ids
    assert spelled(ids, tokens) == f"say {special} now"


def test_a_codec_token_typed_by_a_user_is_text(tokenizer: Tokenizer, tokens: list[str]) -> None:
    n_text = len(tokens) - tiny.CODEC_VOCAB_SIZE
    for token in ("<|codec_bos|>", "<|codec_eos_token|>", tokens[n_text]):
        ids = tokenizer.encode(token)
        assert max(ids) < n_text and spelled(ids, tokens) == token


@pytest.mark.parametrize("text", ["café déjà", "한국어", "Å"])
def test_text_is_composed_first(tokenizer: Tokenizer, text: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert composed != decomposed
    assert tokenizer.encode(composed) == tokenizer.encode(decomposed)


def test_compatibility_forms_stay_apart(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("ﬁ") != tokenizer.encode("fi")


@pytest.mark.parametrize("text", ["\ud83d", "half \udc00 of a pair"])
def test_unpaired_surrogates_are_refused(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(TextError, match="surrogates"):
        tokenizer.encode(text)


def test_nothing_is_no_id(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []


class Keys:
    """Of a file, its tokenizer's keys only."""

    path = "broken.gguf"

    def __init__(self, types: list[int], merges: list[str]) -> None:
        self.types, self.merges = types, merges

    def integers(self, _key: str) -> list[int]:
        return self.types

    def strings(self, _key: str) -> list[str]:
        return self.merges


@pytest.mark.parametrize(
    ("types", "merges", "message"),
    [
        ([], ["a b"], "broken.gguf: its tokenizer is incomplete"),
        ([1, 1, 1], [], "broken.gguf: its tokenizer is incomplete"),
        ([1, 1, 1], ["a x"], "broken.gguf: its tokenizer cannot be built"),
        ([1, 1, 1], ["ab"], "broken.gguf: its tokenizer cannot be built"),
        ([1, 3, 1], ["a b"], "broken.gguf: its tokenizer cannot be built"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_a_model_file_error(
    types: list[int], merges: list[str], message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        Tokenizer(Keys(types, merges), ["a", "b", "ab"])  # type: ignore[arg-type]
