"""How a text becomes passages: sentences in ten languages, packing, and text that still arrives."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_gguf.errors import OptionError, TextError
from qwen3tts_gguf.speech.passages import MOST_LETTERS, PassageText, Splitter, n_letters, split_text

SENTENCES = {
    "english": ["Dr. Smith paid $3.50 at 5 p.m. on Friday.", '"Really?" she asked.', "J. R. R. Tolkien wrote it."],
    "french": ["M. Dupont est arrivé.", "Mme. Durand, M. Martin et le Dr. Petit l'attendaient.", "Il pleut."],
    "german": ["Am 3. Mai kam Hr. Müller nach Berlin.", "„Wirklich? Ja.“ sagte er.", "Es ist 5 Uhr."],
    "spanish": ["El Sr. García llegó.", "¿Qué tal?", "¡Bien!"],
    "italian": ["Il sig. Rossi è qui.", "Ciao!"],
    "portuguese": ["O Sr. Silva chegou.", "A Dra. Lima também.", "Tudo bem?"],
    "russian": ["Это т. е. пример.", "Г. Москва.", "Привет!"],
    "chinese": ["你好。", "他说：“我来了。你呢？”", "今天天气很好！", "「是。好。」"],
    "japanese": ["彼は「はい。そうです。」と言った。", "今日は晴れ。", "「行くの？」", "『え。』"],
    "korean": ["안녕하세요.", "저는 김 씨입니다.", "좋아요!"],
}
STORY = (
    "The fox ran. It was late, and the night was cold and very dark. Nobody saw it.\n\nThen it rained.\r\n\r\n"
    + "A sentence of some words stands here. " * 20
    + "\n\n* * *\n\nOne line\nand another line. "
    + "word " * 200
)


def texts(passages: list[PassageText]) -> list[str]:
    return [passage.text for passage in passages]


def arrived(text: str, split: str, rng: random.Random) -> list[PassageText]:
    splitter, found, i = Splitter(split), [], 0
    while i < len(text):
        n = rng.choice([1, 2, 3, 7, 60])
        found += splitter.feed(text[i : i + n])
        i += n
    return [*found, *splitter.end()]


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_are_found_in_ten_languages(language: str) -> None:
    sentences = SENTENCES[language]
    text = ("" if language in ("chinese", "japanese") else " ").join(sentences)
    assert texts(split_text(text, "sentence", language=language)) == sentences


def test_a_text_that_fits_is_one_passage_as_it_is() -> None:
    text = "One. Two.\n\nThree... four?"
    assert split_text(f" {text}\n") == [PassageText(text, "paragraph")]
    assert split_text("...") == [PassageText("...", "paragraph")]  # what cannot be spoken is refused later


def test_passages_are_whole_sentences_of_one_paragraph_and_not_too_long() -> None:
    passages = split_text(STORY)
    assert passages[0].text == "The fox ran. It was late, and the night was cold and very dark."  # short, but not tiny
    assert passages[1] == PassageText("Nobody saw it.", "paragraph")
    assert passages[2] == PassageText("Then it rained.", "paragraph")
    assert all(n_letters(passage.text) <= MOST_LETTERS for passage in passages)
    assert [p.boundary for p in passages if p.text.startswith("A sentence")] == ["sentence", "sentence", "paragraph"]
    assert [p.boundary for p in passages][-4:] == ["clause", "clause", "clause", "paragraph"]


def test_nothing_is_lost_or_repeated() -> None:
    for split in ("auto", "sentence", "paragraph", "line"):
        found = "".join(texts(split_text(STORY, split)))
        assert [c for c in found if c.isalnum()] == [c for c in STORY if c.isalnum()], split


def test_lines_and_paragraphs_are_taken_whole() -> None:
    text = "Roses are red.\nViolets are\nblue.\n\n---\n\nThe end"
    lines = split_text(text, "line")
    assert texts(lines) == ["Roses are red.", "Violets are", "blue.", "The end"]
    assert [line.boundary for line in lines] == ["sentence", "sentence", "paragraph", "paragraph"]
    assert texts(split_text(text, "paragraph")) == ["Roses are red.\nViolets are\nblue.", "The end"]
    assert texts(split_text(STORY, "none")) == [STORY.strip()]


def test_a_sentence_that_is_too_long_is_cut_at_commas_before_spaces_before_letters() -> None:
    commas = split_text("and so it went on, again and again and, in the end, " * 20, "sentence")
    assert all(passage.text.endswith(",") for passage in commas)
    spaces = split_text("word " * 200)
    assert {word for passage in spaces for word in passage.text.split()} == {"word"}
    letters = split_text("a\u0301" * 400)
    assert len(letters) > 2 and not any(passage.text.startswith("\u0301") for passage in letters)
    assert len(split_text("字" * 400)) == 4  # a Chinese character takes as long as three letters


@pytest.mark.parametrize("split", ["auto", "sentence", "paragraph", "line", "none"])
def test_text_that_arrives_in_pieces_gives_the_same_passages(split: str) -> None:
    rng = random.Random(1)
    text = STORY + "\n\n" + "\n\n".join(" ".join(sentences) for sentences in SENTENCES.values())
    whole = split_text(text, split)
    for _ in range(20):
        assert arrived(text, split, rng) == whole


def test_a_sentence_is_handed_out_once_the_next_one_starts() -> None:
    splitter = Splitter("sentence")
    assert splitter.feed("The first one. The") == []
    assert texts(splitter.feed(" second ")) == ["The first one."]
    assert texts(splitter.feed("one.\n\n")) == ["The second one."]
    assert splitter.end() == []


@given(st.text(st.sampled_from('ab.!?"“”「」。 \n\r,()1-é\u0301'), max_size=400), st.randoms())
def test_any_text_is_split_without_loss(text: str, rng: random.Random) -> None:
    for found in (split_text(text, "sentence"), arrived(text, "sentence", rng)):
        spoken = "".join(texts(found))
        if any(c.isalnum() for c in text):
            assert [c for c in spoken if c.isalnum()] == [c for c in text if c.isalnum()]
            assert all(any(c.isalnum() for c in passage.text) for passage in found)


@pytest.mark.parametrize("flood", ["(", "a", "a. ", "\n", "\n \r", "「。", "“", "1. ", "...!", "a\n\n"])
def test_a_flood_is_split_in_time_that_grows_with_its_length(flood: str) -> None:
    text = flood * (60_000 // len(flood))
    assert split_text(text) and split_text(text, "sentence")


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(OptionError, match="`split` must be one of auto, none, sentence, paragraph, line, not 'word'"):
        split_text("Hi.", "word")
    with pytest.raises(TextError, match="surrogates"):
        split_text("a" * 400 + "\udce9")
    with pytest.raises(TextError, match="surrogates"):
        Splitter().feed("\udce9")
