"""Languages, speakers and the tokens a prompt needs, from the file's tables and from its token names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.errors import ModelFileError, OptionError
from qwen3tts_gguf.model.gguf_file import GgufFile
from qwen3tts_gguf.model.schema import Key
from qwen3tts_gguf.model.vocabulary import LANGUAGE_CODES, Speaker, Vocabulary

SPOKEN = {name: i for name, i in tiny.LANGUAGES.items() if "dialect" not in name}


class Keys:
    """A file's keys, some of them others or gone."""

    def __init__(self, file: GgufFile, **changed: list[Any]) -> None:
        self._file, self._changed, self.path = file, changed, file.path

    def strings(self, key: str) -> list[str]:
        return self._changed.get(key, self._file.strings(key))

    def integers(self, key: str) -> list[int]:
        return self._changed.get(key, self._file.integers(key))


@pytest.fixture(scope="module")
def file(pair: Callable[..., ConvertedPair]) -> GgufFile:
    return GgufFile(pair(model_type="custom_voice").talker)


@pytest.fixture(scope="module")
def tokens(file: GgufFile) -> list[str]:
    return file.strings("tokenizer.ggml.tokens")


@pytest.fixture(scope="module")
def vocabulary(file: GgufFile, tokens: list[str]) -> Vocabulary:
    return Vocabulary(file, tokens)


def changed(file: GgufFile, tokens: list[str], **keys: list[Any]) -> Vocabulary:
    return Vocabulary(Keys(file, **keys), tokens)  # type: ignore[arg-type]


WITHOUT_TABLES: dict[str, list[Any]] = {
    key: [] for key in (Key.LANGUAGE_NAMES, Key.LANGUAGE_IDS, Key.SPEAKER_NAMES, Key.SPEAKER_IDS, Key.SPEAKER_DIALECTS)
}


@pytest.mark.parametrize("name", SPOKEN)
def test_a_language_is_known_by_name_and_code_in_any_case(vocabulary: Vocabulary, name: str) -> None:
    code = next(code for code, language in LANGUAGE_CODES.items() if language == name)
    for spelling in (name, name.title(), name.upper(), code, code.upper(), f"  {name} "):
        assert vocabulary.language_id(spelling) == SPOKEN[name]


@pytest.mark.parametrize("spelling", ["auto", "Auto", " AUTO "])
def test_auto_is_no_language(vocabulary: Vocabulary, spelling: str) -> None:
    assert vocabulary.language_id(spelling) is None


@pytest.mark.parametrize("spelling", ["klingon", "", "en glish", "xx-US", "-", "beijing_dialect", "Sichuan_Dialect"])
def test_an_unknown_language_lists_the_known_ones(vocabulary: Vocabulary, spelling: str) -> None:
    with pytest.raises(OptionError) as caught:
        vocabulary.language_id(spelling)
    message = str(caught.value)
    assert repr(spelling) in message
    assert all(name in message for name in ["auto", *SPOKEN])
    assert "dialect" not in message.split("knows")[1]


def test_dialects_are_kept_but_not_offered(vocabulary: Vocabulary) -> None:
    assert vocabulary.languages == tiny.LANGUAGES
    assert vocabulary.spoken_languages() == ["auto", *sorted(SPOKEN)]


def test_speakers_and_their_dialects_come_from_the_file(vocabulary: Vocabulary) -> None:
    expected = {name: Speaker(i, tiny.DIALECTS[name] or "") for name, i in tiny.SPEAKERS.items()}
    assert vocabulary.speakers == expected
    assert vocabulary.speakers["eric"].dialect == "sichuan_dialect"


def test_a_base_model_has_no_speakers(pair: Callable[..., ConvertedPair]) -> None:
    base = GgufFile(pair().talker)
    assert Vocabulary(base, base.strings("tokenizer.ggml.tokens")).speakers == {}


def test_without_tables_the_token_names_tell(file: GgufFile, tokens: list[str]) -> None:
    named = changed(file, tokens, **WITHOUT_TABLES)
    assert named.languages == tiny.LANGUAGES
    assert named.speakers == {name: Speaker(i) for name, i in tiny.SPEAKERS.items()}


def test_the_templates_tokens_are_where_the_checkpoint_has_them(vocabulary: Vocabulary) -> None:
    tokenizer = tiny.make_tokenizer()
    config = tiny.model_config("custom_voice", tiny.SIZES["tiny"], tokenizer)
    talker = config["talker_config"]
    text, codec = vocabulary.text, vocabulary.codec
    assert (text.im_start, text.im_end) == (config["im_start_token_id"], config["im_end_token_id"])
    assert (text.tts_bos, text.tts_eos) == (config["tts_bos_token_id"], config["tts_eos_token_id"])
    assert text.tts_pad == config["tts_pad_token_id"]
    assert (codec.bos, codec.eos, codec.pad) == (
        talker["codec_bos_id"],
        talker["codec_eos_token_id"],
        talker["codec_pad_id"],
    )
    assert (codec.think, codec.nothink) == (talker["codec_think_id"], talker["codec_nothink_id"])
    assert (codec.think_bos, codec.think_eos) == (talker["codec_think_bos_id"], talker["codec_think_eos_id"])


def test_only_codes_and_the_end_may_be_chosen(file: GgufFile, tokens: list[str], vocabulary: Vocabulary) -> None:
    expected = [i for i in range(2048, 3072) if i != vocabulary.codec.eos]
    assert sorted(vocabulary.suppressed) == expected
    without_key = changed(file, tokens, **{"tokenizer.ggml.suppress_tokens": []})
    assert sorted(without_key.suppressed) == expected


@pytest.mark.parametrize(
    "token",
    ["<|im_start|>", "<tts_pad>", "<tts_text_eod>", "<|codec_bos|>", "<|codec_eos_token|>", "<|codec_nothink|>"],
)
def test_a_token_that_is_missing_is_named(file: GgufFile, tokens: list[str], token: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        Vocabulary(file, ["?" if name == token else name for name in tokens])
    assert str(caught.value) == f"{file.path}: its vocabulary lacks the token {token}"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({Key.LANGUAGE_IDS: [2050]}, f"{Key.LANGUAGE_NAMES} and {Key.LANGUAGE_IDS} contradict each other"),
        (
            {Key.LANGUAGE_IDS: [3072] * len(tiny.LANGUAGES)},
            f"{Key.LANGUAGE_NAMES} and {Key.LANGUAGE_IDS} contradict each other",
        ),
        (
            {Key.LANGUAGE_IDS: [-1] * len(tiny.LANGUAGES)},
            f"{Key.LANGUAGE_NAMES} and {Key.LANGUAGE_IDS} contradict each other",
        ),
        ({Key.SPEAKER_IDS: []}, f"{Key.SPEAKER_NAMES} and {Key.SPEAKER_IDS} contradict each other"),
        ({Key.SPEAKER_DIALECTS: ["x"]}, f"{Key.SPEAKER_DIALECTS} and {Key.SPEAKER_NAMES} contradict each other"),
        (
            {Key.SPEAKER_DIALECTS: ["klingon"] * len(tiny.SPEAKERS)},
            f"{Key.SPEAKER_DIALECTS} and {Key.SPEAKER_NAMES} contradict each other",
        ),
        ({"tokenizer.ggml.suppress_tokens": [5]}, "list of suppressed tokens"),
        ({"tokenizer.ggml.suppress_tokens": [1 << 20]}, "list of suppressed tokens"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    file: GgufFile, tokens: list[str], keys: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        changed(file, tokens, **keys)


def test_a_model_of_smaller_codebooks_suppresses_the_codes_it_has_not(file: GgufFile, tokens: list[str]) -> None:
    n_text, end = len(tokens) - 3072, tokens.index("<|codec_eos_token|>")
    named = [i for i in range(n_text + 64, len(tokens)) if i != end]
    vocabulary = changed(file, tokens, **{"tokenizer.ggml.suppress_tokens": named})
    assert vocabulary.n_codes == 64
    assert vocabulary.suppressed == [i - n_text for i in named]
